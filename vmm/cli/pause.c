/*
 * godwit pause VM: returns when the guest stands. Main thread of a short-lived process.
 */
#include "vmm/base/err.h"
#include "vmm/cli/client.h"
#include "vmm/cli/verb.h"

static int pause_vm(struct client *c, const char *vm, struct err *e)
{
	char status[32];
	bool running;

	if (client_open(c, vm, CLIENT_TIMEOUT_MS, e) || client_execute(c, "stop", NULL, NULL, e) ||
	    client_status(c, status, &running, e))
		return -1;
	if (running)
		return err_set(e, "'%s' still runs: somebody has resumed it", c->name);
	return 0;
}

int verb_pause(int argc, char **argv)
{
	struct verb_args args = { 0 };
	int rc = verb_parse("pause", 0, 1, argc, argv, &args);
	struct client c;
	struct err e;

	if (rc >= 0)
		return rc;
	rc = pause_vm(&c, args.vm, &e);
	client_close(&c);
	return rc ? verb_fail(&e, VERB_FAILED) : VERB_DONE;
}
