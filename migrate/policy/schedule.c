/*
 * The items of a policy, one by one. Invariant: the downtime limit never falls. A user may have
 * raised it above the policy's next item, which then changes nothing.
 */
#include "migrate/policy/schedule.h"

#include <inttypes.h>
#include <stdio.h>

void schedule_init(struct schedule *s, const struct policy *p, uint64_t *limit_us)
{
	*s = (struct schedule){ .policy = p };
	if (p->n_initial)
		*limit_us = p->initial[p->n_initial - 1].downtime_ms * 1000ull;
}

/* The item that fires after one more stalled round, or NULL. */
static const struct policy_item *next_item(struct schedule *s)
{
	const struct policy *p = s->policy;

	if (s->next_convergence < p->n_convergence) {
		if (s->stall.stalled < p->convergence[s->next_convergence].stalling_limit)
			return NULL;
		return &p->convergence[s->next_convergence++].item;
	}
	return s->next_last < p->n_last ? &p->last[s->next_last++] : NULL;
}

bool schedule_round(struct schedule *s, uint64_t round, uint64_t round_us, uint64_t remaining_bytes,
		    uint64_t limit_us, struct schedule_step *out)
{
	uint64_t lowest = s->stall.lowest_bytes, wanted_us;
	const struct policy_item *item;
	int n;

	if (!stall_add(&s->stall, round_us, remaining_bytes) || !(item = next_item(s)))
		return false;
	*out = (struct schedule_step){ .action = item->action, .downtime_us = limit_us };
	n = snprintf(out->reason, sizeof(out->reason),
		     "round %" PRIu64 " stalled (%u in all): %" PRIu64
		     " bytes remain, lowest %" PRIu64 ": ",
		     round, s->stall.stalled, remaining_bytes, lowest);
	wanted_us = item->downtime_ms * 1000ull;
	if (item->action != POLICY_SET_DOWNTIME) {
		snprintf(out->reason + n, sizeof(out->reason) - (size_t)n, "%s",
			 item->action == POLICY_ABORT ? "given up" : "post-copy begins");
	} else if (wanted_us <= limit_us) {
		snprintf(out->reason + n, sizeof(out->reason) - (size_t)n,
			 "downtime limit stays at %" PRIu64 " ms, which is not less than %u ms",
			 limit_us / 1000, item->downtime_ms);
	} else {
		out->downtime_us = wanted_us;
		snprintf(out->reason + n, sizeof(out->reason) - (size_t)n,
			 "downtime limit %" PRIu64 " -> %u ms", limit_us / 1000, item->downtime_ms);
	}
	return true;
}
