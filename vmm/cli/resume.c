/*
 * godwit resume VM [--force]: returns when the guest runs. Main thread of a short-lived process.
 */
#include "vmm/base/err.h"
#include "vmm/cli/client.h"
#include "vmm/cli/verb.h"

static int resume_vm(struct client *c, const struct verb_args *args, struct err *e)
{
	char status[32];
	bool running;

	if (client_open(c, args->vm, CLIENT_TIMEOUT_MS, e))
		return -1;
	/* Forced: a guest of which nobody knows whether it runs at a destination. */
	if (client_execute(c, args->force ? "x-godwit-force-resume" : "cont", NULL, NULL, e) ||
	    client_status(c, status, &running, e))
		return -1;
	if (!running)
		return err_set(e, "'%s' does not run: its status is %s", c->name, status);
	return 0;
}

int verb_resume(int argc, char **argv)
{
	struct verb_args args = { 0 };
	int rc = verb_parse("resume", VERB_FORCE, 1, argc, argv, &args);
	struct client c;
	struct err e;

	if (rc >= 0)
		return rc;
	rc = resume_vm(&c, &args, &e);
	client_close(&c);
	return rc ? verb_fail(&e, VERB_FAILED) : VERB_DONE;
}
