/*
 * Follows a migration to its end: asks for its figures a few times a second, takes its events,
 * shows its progress, and passes Ctrl-C on as a cancel. One thread; the client is the caller's.
 */
#ifndef GODWIT_CLI_FOLLOW_H
#define GODWIT_CLI_FOLLOW_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/cli/move/figures.h"
#include "vmm/cli/move/history.h"
#include "vmm/cli/move/progress.h"

struct client;
struct err;

enum follow_show {
	FOLLOW_QUIET,
	FOLLOW_LINE,  /* one line on a terminal, drawn again and again, on stderr */
	FOLLOW_ROUNDS /* a line a round on stdout */
};

struct follow {
	/* Set by the caller. */
	struct client *client; /* its interrupt_fd asks for a cancel */
	enum follow_show show;
	struct history *history; /* NULL: none is kept */

	/* Results. */
	struct figures figures; /* the last ones */
	json_t *answer;		/* the last one to query-migrate, or NULL; the caller's */

	struct progress progress;
	uint64_t looked_ms;	    /* when it was asked last */
	uint64_t began_us;	    /* by the clock of the events; 0: not known yet */
	char status[32], ended[64]; /* as events told: the status; why the VM ended */
	size_t drawn;		    /* characters of the line on the terminal */
};

/*
 * *end is how it ended. -1 with a sentence if that is not known: the VM has ended or does not
 * answer. Then figures.status is the last one that it told.
 */
int follow_run(struct follow *f, enum figures_end *end, struct err *e);

#endif
