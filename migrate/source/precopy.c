/*
 * From the first round until the guest is parked: see source_internal.h. Runs on the migration's
 * thread.
 */
#include "migrate/source/source_internal.h"

#include <inttypes.h>
#include <stdio.h>

#include "migrate/agent/teller.h"
#include "migrate/policy/switchover.h"
#include "migrate/source/rounds.h"
#include "migrate/source/source.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

/* While the agent is waited for: the interval of looks whether the end by force was asked for. */
#define AGENT_LOOK_MS 100

/* If the pause would be too long whatever is sent, the next round is put off for so long: meanwhile
 * somebody else decides what is done about it. */
#define LIMIT_LOOK_MS 50

/* By force nothing is waited for. */
static bool waits_for_agent(const struct source *s)
{
	return s->guest_events && teller_busy(s->teller) && !steer_forced(s);
}

/* The guest could be parked, but its agent is still being told, which is bounded (teller.h). */
static int await_agent(struct source *s, struct err *e)
{
	watch_rest(s);
	while (waits_for_agent(s))
		if (answers_poll(&s->answers, s->teller->idle_fd, AGENT_LOOK_MS, e))
			return -1;
	return 0;
}

static struct switchover_input switchover_now(const struct source *s, uint64_t remaining_pages)
{
	return (struct switchover_input){
		.remaining_bytes = remaining_pages * PAGE_SIZE,
		.previous_remaining_bytes = UINT64_MAX,
		.rate_bytes = link_rate(&s->link, clock_us()),
		.fixed_us = steer_fixed_us(s),
		.limit_us = __atomic_load_n(&s->limits->downtime_us, __ATOMIC_RELAXED),
		.patient = steer_decides(s),
	};
}

static void say_switchover(struct source *s, const char *why, const struct switchover_input *in)
{
	uint64_t us = switchover_decide(in).expected_us;
	/* How fast the link is without the limit nobody has seen. */
	bool faster = steer_forced(s) && __atomic_load_n(&s->limits->bandwidth, __ATOMIC_RELAXED);
	char reason[256];

	stats_set(&s->stats->expected_us, us);
	snprintf(reason, sizeof(reason),
		 "%s: %" PRIu64 " KiB remain and %" PRIu64 " MiB/s are sent, a pause of %s %" PRIu64
		 " ms; %" PRIu64 " ms are allowed",
		 why, in->remaining_bytes >> 10, in->rate_bytes >> 20,
		 faster ? "at most (the bandwidth is no limit any more)" : "about",
		 (us + 999) / 1000, in->limit_us / 1000);
	source_decide(s, "switchover", reason);
}

/* Rounds until the guest can be parked. */
int precopy_run(struct source *s, struct err *e)
{
	uint64_t round, dirty, start, previous = UINT64_MAX;
	struct switchover_verdict v;
	struct switchover_input in;

	steer_say_unkeepable(s);
	for (round = 1;; round++) {
		if (s->guest->ops->settle)
			s->guest->ops->settle(s->guest);
		start = clock_us();
		if (lanes_check(&s->lanes, e) || rounds_send(s, round, e))
			return -1;
		if (s->parked)
			return 0;
		if (rounds_fetch(s, &dirty, e))
			return -1;
		watch_end_round(s, dirty);
		stats_set(&s->stats->dirty_pages, dirty);
		stats_set(&s->stats->remaining_pages, dirty);
		dirty_rate_round(&s->dirty_rate, dirty, clock_us() - start);
		in = switchover_now(s, dirty);
		in.previous_remaining_bytes = previous;
		v = switchover_decide(&in);
		steer_say_unkeepable(s);
		if (v.unkeepable && !v.stop && answers_poll(&s->answers, -1, LIMIT_LOOK_MS, e))
			return -1;
		if (!v.stop && steer_round(s, clock_us() - start, &in, &v, e))
			return -1;
		stats_set(&s->stats->expected_us, v.expected_us);
		if (v.stop && waits_for_agent(s)) {
			/* Meanwhile it writes on: what is left then is for one more round. */
			if (await_agent(s, e))
				return -1;
		} else if (v.stop) {
			say_switchover(s, v.reason, &in);
			return 0;
		}
		previous = in.remaining_bytes;
	}
}

/* Why the guest is to be parked before the round is over; NULL: it is not. */
static const char *why_within_round(const struct source *s)
{
	if (steer_forced(s))
		return STEER_BY_FORCE;
	return watch_fits_raised_limit(s) && !waits_for_agent(s)
		       ? "the limit was raised, and all fits"
		       : NULL;
}

int precopy_park_within_round(struct source *s, struct err *e)
{
	const char *why = s->parked ? NULL : why_within_round(s);
	struct switchover_input in;

	if (s->parked && !s->cold) {
		if (steer_forced(s))
			handover_limit_pause(s);
		return handover_check_pause(s, e);
	}
	if (!why)
		return 0;
	in = switchover_now(s, stats_get(&s->stats->remaining_pages) + s->watch.left_pages);
	say_switchover(s, why, &in);
	source_enter(s, SOURCE_SWITCHOVER);
	s->parked_within = true;
	if (handover_park(s, e))
		return -1;
	handover_limit_pause(s);
	return 0;
}
