/*
 * Which item of a policy fires when a round has stalled. Stalled rounds are counted, not time:
 * while a migration makes progress no item fires. Pure.
 */
#ifndef GODWIT_MIGRATE_POLICY_SCHEDULE_H
#define GODWIT_MIGRATE_POLICY_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/policy/policy.h"
#include "migrate/policy/stall.h"

struct schedule {
	const struct policy *policy;
	struct stall stall;
	unsigned int next_convergence, next_last;
};

/* The item that has fired, and why: a sentence with the numbers. */
struct schedule_step {
	enum policy_action action;
	uint64_t downtime_us; /* the limit from now on: unchanged, or higher */
	char reason[256];
};

/* Before the first round. Sets *limit_us to the policy's first downtime limit, if it has one. */
void schedule_init(struct schedule *s, const struct policy *p, uint64_t *limit_us);

/*
 * Counts round `round`, which has ended under a downtime limit of `limit_us`. True if an item
 * fires, which is then in *out. At most one item fires in a round.
 */
bool schedule_round(struct schedule *s, uint64_t round, uint64_t round_us, uint64_t remaining_bytes,
		    uint64_t limit_us, struct schedule_step *out);

#endif
