/*
 * godwit cancel VM: cancels the migration that is under way, and returns when it has ended. Main
 * thread of a short-lived process.
 */
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/cli/client.h"
#include "vmm/cli/move/figures.h"
#include "vmm/cli/move/follow.h"
#include "vmm/cli/verb.h"

static int cancel(struct follow *f, const char *vm, struct err *e)
{
	struct client *c = f->client;
	enum figures_end end;
	json_t *answer;

	if (client_open(c, vm, CLIENT_TIMEOUT_MS, e) ||
	    client_execute(c, "query-migrate", NULL, &answer, e))
		return VERB_FAILED;
	figures_read(&f->figures, answer);
	json_decref(answer);
	if (f->figures.end == FIGURES_UNDECIDED) {
		err_set(e,
			"it is too late to cancel: the destination of '%s' was told to go on (see "
			"godwit resume --help)",
			c->name);
		return VERB_UNDECIDED;
	}
	if (f->figures.end != FIGURES_GOES_ON || !strcmp(f->figures.status, "none")) {
		err_set(e, "no migration of '%s' is under way", c->name);
		return VERB_FAILED;
	}
	if (client_execute(c, "migrate_cancel", NULL, NULL, e) || follow_run(f, &end, e))
		return VERB_FAILED;
	if (end == FIGURES_MOVED)
		err_set(e, "it was too late to cancel: the guest of '%s' has moved to %.300s",
			c->name, f->figures.uri);
	if (end == FIGURES_UNDECIDED)
		err_set(e, "it was too late to cancel: %.300s (see godwit resume --help)",
			f->figures.error);
	/* A migration that failed by itself meanwhile has ended as well. */
	return end == FIGURES_MOVED ? VERB_FAILED : end == FIGURES_UNDECIDED ? VERB_UNDECIDED : 0;
}

int verb_cancel(int argc, char **argv)
{
	struct verb_args args = { 0 };
	int rc = verb_parse("cancel", 0, 1, argc, argv, &args);
	struct client c;
	struct follow f = { .client = &c, .show = FOLLOW_QUIET };
	struct err e;

	if (rc >= 0)
		return rc;
	rc = cancel(&f, args.vm, &e);
	json_decref(f.answer);
	client_close(&c);
	return rc ? verb_fail(&e, rc) : VERB_DONE;
}
