/*
 * godwit reset VM: returns when the machine is reset and its guest starts again. Main
 * thread of a short-lived process.
 */
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/cli/client.h"
#include "vmm/cli/verb.h"

#define RESET_TIMEOUT_MS 30000

static int reset_vm(struct client *c, const struct verb_args *args, struct err *e)
{
	bool done = false;
	json_t *event;

	(void)args;
	if (client_execute(c, "system_reset", NULL, NULL, e))
		return -1;
	while (!done) {
		switch (client_event(c, RESET_TIMEOUT_MS, &event, e)) {
		case CLIENT_EVENT:
			done = !strcmp(client_event_name(event), "RESET");
			json_decref(event);
			break;
		case CLIENT_CLOSED:
			return err_set(e, "'%s' has ended instead of starting again", c->name);
		case CLIENT_FAILED:
			return -1;
		default:
			return err_set(e, "'%s' has not been reset within %d s", c->name,
				       RESET_TIMEOUT_MS / 1000);
		}
	}
	return 0;
}

int verb_reset(int argc, char **argv)
{
	struct verb_args args = { 0 };

	return verb_ask("reset", 0, argc, argv, &args, reset_vm);
}
