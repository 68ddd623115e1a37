/*
 * godwit resume VM [--force]: returns when the guest runs. Main thread of a short-lived process.
 */
#include <stdio.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/print.h"
#include "vmm/cli/client.h"
#include "vmm/cli/move/figures.h"
#include "vmm/cli/verb.h"

struct resumed {
	char status[32];
	bool running;
};

/* 1: the guest is being restored or received. */
static int is_coming(struct client *c, struct err *e)
{
	struct figures f;
	json_t *answer;

	if (client_execute(c, "query-migrate", NULL, &answer, e))
		return -1;
	figures_read(&f, answer);
	json_decref(answer);
	return strcmp(f.status, "none") && f.end == FIGURES_GOES_ON;
}

/* A guest that is being restored or received will run: waits for that. */
static int await_guest(struct client *c, struct resumed *r, struct err *e)
{
	json_t *event;

	for (;;) {
		int coming = is_coming(c, e);

		if (coming < 0 || client_status(c, r->status, &r->running, e))
			return -1;
		if (!coming || strcmp(r->status, "inmigrate"))
			return 0;
		switch (client_event(c, -1, &event, e)) {
		case CLIENT_EVENT:
			json_decref(event);
			break;
		case CLIENT_FAILED:
			return -1;
		default:
			return err_set(e, "'%s' has ended before its guest was here", c->name);
		}
	}
}

static int resume_vm(struct client *c, const struct verb_args *args, struct err *e)
{
	struct resumed r;

	/* Forced: it is undecided whether the guest runs at the destination. */
	if (client_execute(c, args->force ? "x-godwit-force-resume" : "cont", NULL, NULL, e) ||
	    client_status(c, r.status, &r.running, e))
		return -1;
	if (!strcmp(r.status, "inmigrate") && await_guest(c, &r, e))
		return -1;
	if (r.running)
		return 0;
	if (!strcmp(r.status, "inmigrate")) {
		print_line(stdout, "'%s' will run as soon as its guest is here", c->name);
		return 0;
	}
	/* The source has its guest again, paused as before the migration. */
	if (args->force && !strcmp(r.status, "paused")) {
		print_line(stdout,
			   "'%s' is here again, and paused as it was before (godwit resume lets it "
			   "run)",
			   c->name);
		return 0;
	}
	return err_set(e, "'%s' does not run: its status is %s", c->name, r.status);
}

int verb_resume(int argc, char **argv)
{
	struct verb_args args = { 0 };

	return verb_ask("resume", VERB_FORCE, argc, argv, &args, resume_vm);
}
