/*
 * The course of a policy: which of its items fires when a round has stalled. The count of stalled
 * rounds is no timer: a migration that makes progress never gets on. Pure.
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

/* What has fired, and why: a sentence with the numbers. */
struct schedule_step {
	enum policy_action action;
	uint64_t downtime_us; /* the limit from now on: as it was, or higher */
	char reason[256];
};

/* At the start. *limit_us becomes the policy's downtime limit to begin with, if it has one. */
void schedule_init(struct schedule *s, const struct policy *p, uint64_t *limit_us);

/*
 * Round `round` has ended after `round_us`, with so much left, under a downtime limit of
 * `limit_us`. Whether an item fires; one at most does.
 */
bool schedule_round(struct schedule *s, uint64_t round, uint64_t round_us, uint64_t remaining_bytes,
		    uint64_t limit_us, struct schedule_step *out);

#endif
