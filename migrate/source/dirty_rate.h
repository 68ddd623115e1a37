/*
 * How fast the guest dirties its memory: the one writer of the dirty rate in the stats, in pages a
 * second. The migration's thread.
 */
#ifndef GODWIT_MIGRATE_DIRTY_RATE_H
#define GODWIT_MIGRATE_DIRTY_RATE_H

#include <stdint.h>

struct stats;

struct dirty_rate {
	struct stats *stats;
	/* When the rate was last taken within a round (0: never), and `again` then. */
	uint64_t at_us, again;
};

void dirty_rate_init(struct dirty_rate *d, struct stats *stats);

/* What was seen so far does not count: the guest is about to run at another speed. */
void dirty_rate_restart(struct dirty_rate *d);

/* Within a round: since the first one `again` pages have become dirty after they were sent. */
void dirty_rate_look(struct dirty_rate *d, uint64_t again, uint64_t now_us);

/* A round has ended after `round_us`, and has left that many dirty pages. */
void dirty_rate_round(struct dirty_rate *d, uint64_t pages, uint64_t round_us);

#endif
