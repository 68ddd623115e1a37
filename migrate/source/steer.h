/*
 * What is decided at the end of a round beside the guest's park: the course of the policy, whether
 * it will come to an end at all, and the end by force. The migration's thread.
 */
#ifndef GODWIT_MIGRATE_STEER_H
#define GODWIT_MIGRATE_STEER_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/policy/schedule.h"

struct err;
struct source;
struct switchover_input;
struct switchover_verdict;

struct steer {
	const struct policy *policy; /* NULL: none */

	struct schedule schedule; /* with a policy */
	struct stall stall;	  /* for the forecast */
	uint64_t left_before;	  /* at the end of the round before */
	bool told;		  /* that it will not converge; until a round makes progress */
};

/* Before the first round: takes the policy (NULL: none), and its first downtime limit. */
void steer_begin(struct source *s, const struct policy *p);

/*
 * A round has taken `round_us` and left what `in` says, and *v is to go on. May raise the downtime
 * limit (and decides anew: *in, *v); -1: the policy gives up, or asks for what is not there.
 */
int steer_round(struct source *s, uint64_t round_us, struct switchover_input *in,
		struct switchover_verdict *v, struct err *e);

/* What the pause takes beside the pages that are left, as it is expected by now. */
uint64_t steer_fixed_us(const struct source *s);

/* Whether a policy or a timeout decides if the downtime limit cannot be kept. */
bool steer_decides(const struct source *s);

/* If it cannot be kept however little is left, that is a decision of its own, "downtime-limit":
 * once for each limit, before the guest is parked. */
void steer_say_unkeepable(struct source *s);

#define STEER_BY_FORCE "by force: the time is over"

/* Whether the guest is to be parked at once, however long the pause will be. */
bool steer_forced(const struct source *s);

#endif
