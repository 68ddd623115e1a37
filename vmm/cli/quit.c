/*
 * godwit quit VM: ends a VM as if its power were cut; returns when its process is gone. Main
 * thread of a short-lived process.
 */
#include "vmm/base/err.h"
#include "vmm/cli/client.h"
#include "vmm/cli/verb.h"

#define QUIT_TIMEOUT_MS 30000

static int quit_vm(struct client *c, const struct verb_args *args, struct err *e)
{
	(void)args;
	/* A VM that ends before it has sent its answer has done what was asked. */
	if (client_execute(c, "quit", NULL, NULL, e) && !c->closed)
		return -1;
	return client_wait_end(c, QUIT_TIMEOUT_MS, e);
}

int verb_quit(int argc, char **argv)
{
	struct verb_args args = { 0 };

	return verb_ask("quit", 0, argc, argv, &args, quit_vm);
}
