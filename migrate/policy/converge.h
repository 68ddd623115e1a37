/*
 * Auto-converge: how much a guest must be slowed for its pre-copy to end. The input is how much it
 * dirties again of what was sent, measured a few times a second within a round. The guest keeps its
 * full speed until it is certain that a round gains nothing. Then the throttle goes at once to what
 * the measurements ask for, and it is eased if less is enough. Pure.
 */
#ifndef GODWIT_MIGRATE_POLICY_CONVERGE_H
#define GODWIT_MIGRATE_POLICY_CONVERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The least length of a measurement: before the guest is slowed, and while it is. */
#define CONVERGE_CERTAIN_US 250000u
#define CONVERGE_WINDOW_US  90000u

/* Samples are taken at this interval: at each look at the dirty log within a round. */
#define CONVERGE_LOOK_US 100000u

/* Bounds that users set. */
struct converge_bounds {
	/* In permille of the vCPUs' time: the first throttle, the largest step up, and the highest
	 * throttle. 0: as needed. */
	unsigned int initial, increment, max;
	/* A dirty limit is never below this: bytes a second of all vCPUs together. */
	uint64_t least_bytes;
};

#define CONVERGE_MAX_PERMILLE 999u

/* What is known at one moment of a round after the first, or at its end. */
struct converge_sample {
	uint64_t now_us;
	/* Since the end of the first round: what was sent, and what became dirty again after it was
	 * sent (counted once in each round). */
	uint64_t sent_bytes, again_bytes;
	/* Of this round: dirty now, but left for the next; still to be sent. */
	uint64_t left_bytes, pending_bytes;
	uint64_t rate_bytes; /* sent in a second */
	uint64_t fit_bytes;  /* can be sent within the pause */
};

struct converge_mark {
	uint64_t us, sent, again;
};

/* Slows the guest by a throttle, or by a dirty limit if `by_limit`. */
struct converge {
	struct converge_bounds bounds;
	bool by_limit;

	unsigned int permille; /* the throttle: the share of the vCPUs' time that is taken */
	uint64_t limit_bytes;  /* the dirty limit, in bytes a second; 0: none */
	/* The last measurement. */
	uint64_t dirty_bytes; /* a second */
	bool saturated;	      /* that is a lower bound: the log counts a page once */

	/* The beginnings of the measurement under way, of the one of whole rounds, and of the
	 * present throttle. */
	struct converge_mark window, round, change;
	/* What the guest kept when it last dirtied too much: millionths of its time, or bytes a
	 * second. */
	uint64_t too_much;
	/* The last change eased the throttle; how often that was wrong. */
	bool eased;
	unsigned int eased_wrongly;
};

/* Takes a sample. True if c->permille or c->limit_bytes has changed; `reason` then says why, in a
 * sentence with the numbers. */
bool converge_add(struct converge *c, const struct converge_sample *s, char *reason, size_t size);

#endif
