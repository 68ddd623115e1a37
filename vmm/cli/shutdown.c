/*
 * godwit shutdown VM [--timeout SEC]: presses the ACPI power button and waits for the guest to
 * power off. Main thread of a short-lived process.
 */
#include <inttypes.h>

#include "vmm/base/err.h"
#include "vmm/cli/client.h"
#include "vmm/cli/verb.h"

#define SHUTDOWN_TIMEOUT_S 60

static int shutdown_vm(struct client *c, const struct verb_args *args, struct err *e)
{
	char status[32];
	bool running;

	if (client_status(c, status, &running, e))
		return -1;
	if (!running)
		return err_set(
			e,
			"the guest of '%s' cannot notice the power button: its status is %s; "
			"resume it first, or use quit",
			c->name, status);
	if (client_execute(c, "system_powerdown", NULL, NULL, e))
		return -1;
	if (args->timeout_s == 0)
		return 0;
	if (client_wait_end(c, (int)args->timeout_s * 1000, e))
		return err_set(e,
			       "the guest of '%s' has not powered off within %" PRIu64 " s (the "
			       "button was pressed; does anything in the guest listen to it?)",
			       c->name, args->timeout_s);
	return 0;
}

int verb_shutdown(int argc, char **argv)
{
	struct verb_args args = { .timeout_s = SHUTDOWN_TIMEOUT_S };

	return verb_ask("shutdown", VERB_TIMEOUT, argc, argv, &args, shutdown_vm);
}
