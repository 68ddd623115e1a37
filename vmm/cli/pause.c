/*
 * godwit pause VM: returns when the guest is paused. Main thread of a short-lived process.
 */
#include "vmm/base/err.h"
#include "vmm/cli/client.h"
#include "vmm/cli/verb.h"

static int pause_vm(struct client *c, const struct verb_args *args, struct err *e)
{
	char status[32];
	bool running;

	(void)args;
	if (client_execute(c, "stop", NULL, NULL, e) || client_status(c, status, &running, e))
		return -1;
	if (running)
		return err_set(e, "'%s' still runs: somebody has resumed it", c->name);
	return 0;
}

int verb_pause(int argc, char **argv)
{
	struct verb_args args = { 0 };

	return verb_ask("pause", 0, argc, argv, &args, pause_vm);
}
