/*
 * How much a guest must be slowed for its pre-copy to come to an end: from what it dirties again of
 * what was sent, measured a few times a second within a round. Nothing is taken from it before it
 * is certain that the round gains nothing; then as much as is needed is taken at once, found by
 * measuring and not by climbing, and given back where less is enough. Pure.
 */
#ifndef GODWIT_MIGRATE_POLICY_CONVERGE_H
#define GODWIT_MIGRATE_POLICY_CONVERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a window of measuring takes, at least: before the guest is slowed, and while it is. */
#define CONVERGE_CERTAIN_US 250000u
#define CONVERGE_WINDOW_US  90000u

/* For users who set bounds, in permille of the vCPUs' time: what to begin with, how much more at
 * once, how much at most. 0: what is needed. And how much the guest may dirty in any case, all its
 * vCPUs together. */
struct converge_bounds {
	unsigned int initial, increment, max;
	uint64_t least_bytes; /* a second */
};

#define CONVERGE_MAX_PERMILLE 999u

/* At one moment of a round after the first, or at its end. */
struct converge_sample {
	uint64_t now_us;
	/* Since the first round was over: pages sent; and pages that were dirty again by then, or
	 * by the end of the round that sent them. */
	uint64_t sent_bytes, again_bytes;
	/* Of this round: dirty by now and not to be sent in it; still to be sent in it. */
	uint64_t left_bytes, pending_bytes;
	uint64_t rate_bytes; /* a second, as achieved */
	uint64_t fit_bytes;  /* what the pause has room for */
};

struct converge_mark {
	uint64_t us, sent, again;
};

/* Either time is taken from the guest, or it is bounded what it may dirty. */
struct converge {
	struct converge_bounds bounds;
	bool by_limit;

	unsigned int permille; /* taken from the guest */
	uint64_t limit_bytes;  /* that it may dirty in a second; 0: without a limit */
	/* For users: what was measured last. */
	uint64_t dirty_bytes; /* a second */
	bool saturated;	      /* it would dirty more, had more been sent */

	/* Where they began: the window, whole rounds, the present share. */
	struct converge_mark window, round, change;
	/* What it was left when it dirtied too much: millionths of its time, or bytes a second. */
	uint64_t too_much;
	/* The last change gave something back; how often that was wrong. */
	bool eased;
	unsigned int eased_wrongly;
};

/*
 * Takes a sample. Whether c->permille, or c->limit_bytes, has changed, and why: a sentence with the
 * numbers.
 */
bool converge_add(struct converge *c, const struct converge_sample *s, char *reason, size_t size);

#endif
