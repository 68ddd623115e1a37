/*
 * Slows a guest that dirties memory faster than it is sent. The dirty pages are looked at several
 * times a second within a round; policy/converge.h says how much is needed; and the throttle, or
 * the dirty limit, is shared out among the vCPUs. If dirty rings tell which vCPU dirties how much,
 * those that dirty next to nothing are spared. The migration's thread.
 */
#ifndef GODWIT_MIGRATE_SOURCE_THROTTLE_H
#define GODWIT_MIGRATE_SOURCE_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/policy/converge.h"
#include "migrate/stats.h"

struct decisions;
struct dirty;
struct dirty_rate;
struct err;
struct guest;
struct link;
struct migration_parameters;

/* What it needs to know, and whom it tells. */
struct throttle_uses {
	struct guest *guest;
	struct stats *stats;
	const struct migration_parameters *parameters;
	const uint64_t *downtime_us; /* atomic: what is allowed */
	const struct link *link;
	struct dirty_rate *dirty_rate;
	const struct decisions *decisions;
};

/* The last look at the dirty pages within a round. */
struct throttle_seen {
	uint64_t us;	     /* when; at first: when the round began */
	uint64_t left_pages; /* dirty, and not to be sent in this round */
	uint64_t pending_pages;
	uint64_t rest_us; /* how long all that is left takes to send; UINT64_MAX: not known */
};

struct throttle {
	struct throttle_uses uses;

	uint64_t every_us; /* how often to look */
	struct throttle_seen seen;
	uint64_t round_limit_us; /* the downtime that was allowed when the round began */
	/* Pages sent in the first round; dirty pages at the ends of the others. */
	uint64_t first_pages, again_before;
	struct converge converge;

	/* What holds now: the share of their time that is taken from the vCPUs, in permille; or
	 * what they may dirty together, in bytes a second. At most one is not 0. */
	unsigned int permille;
	uint64_t limit_bytes;

	/* Of each vCPU: the pages it had dirtied at `vcpus_us` (0: never); whether it is spared. */
	uint64_t vcpu_pages[STATS_VCPUS_MAX], vcpus_us;
	bool spared[STATS_VCPUS_MAX];
	unsigned int writers; /* vCPUs that are not spared */
};

void throttle_init(struct throttle *t, const struct throttle_uses *uses);

void throttle_round_begin(struct throttle *t);

/* Between two steps of a round: looks, if it is time to. 1: it has; 0: it is too early. */
int throttle_look(struct throttle *t, struct dirty *d, struct err *e);

/* After a look: slows the guest as needed. `fixed_us`: the pause without the pages. */
void throttle_adjust(struct throttle *t, uint64_t fixed_us);

/* The round is over, and has left that many dirty pages for the next. Slows the guest as needed. */
void throttle_round_end(struct throttle *t, uint64_t dirty_pages, uint64_t fixed_us);

/* Nothing will be sent for a while: the guest runs at full speed, and is measured anew later. */
void throttle_rest(struct throttle *t);

/* The guest runs at full speed again. Does nothing before throttle_init. */
void throttle_release(struct throttle *t);

#endif
