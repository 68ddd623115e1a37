/*
 * What goes on within a round: measured several times a second, and how much the guest is slowed
 * for it. The migration's thread.
 */
#ifndef GODWIT_MIGRATE_WATCH_H
#define GODWIT_MIGRATE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/policy/converge.h"

struct err;
struct source;

struct watch {
	uint64_t at_us, every_us; /* the last look, and how often */
	uint64_t left_pages;	  /* seen then: dirty, and not for this round */
	uint64_t round_limit_us;  /* the downtime that was allowed as the round began */
	uint64_t rest_us; /* by the last look: how long all that is left takes; the most: unknown */
	/* Pages sent in the first round; dirty at the ends of the others. */
	uint64_t first_pages, again_before;
	struct converge converge;
};

void watch_init(struct source *s);

/* A round begins. */
void watch_round(struct source *s);

/* Between two steps of a round: looks if it is wanted and time to, and slows the guest as needed.
 */
int watch_look(struct source *s, struct err *e);

/* Nothing will be sent for a while: the guest is at its full speed, and measured anew after it. */
void watch_rest(struct source *s);

/* The round is over, and so many pages are for the next. */
void watch_end_round(struct source *s, uint64_t dirty);

#endif
