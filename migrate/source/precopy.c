/*
 * Rounds while the guest runs, until it can be parked. Runs on the migration's thread.
 */
#include "migrate/source/source_internal.h"

#include <inttypes.h>
#include <stdio.h>

#include "migrate/agent/teller.h"
#include "migrate/source/ram.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/wake.h"

/* Poll interval while waiting for the guest's agent: is the guest to be parked by force? */
#define AGENT_LOOK_MS 100

/* Time between two rounds if no round can make the pause fit the limit, and a policy or a timeout
 * decides what is done about that. */
#define LIMIT_LOOK_MS 50

/* A migration that is forced waits for no agent. */
static bool waits_for_agent(const struct source *s)
{
	return s->guest_events && teller_busy(s->teller) && !steer_forced(s);
}

/* Waits until the agent was told of the migration; teller.h bounds that. */
static int await_agent(struct source *s, struct err *e)
{
	watch_rest(s);
	while (waits_for_agent(s))
		if (answers_poll(&s->answers, s->teller->idle_fd, AGENT_LOOK_MS, e))
			return -1;
	return 0;
}

/* Says that the guest is parked now, why, and with what pause. */
static void say_switchover(struct source *s, const struct course_verdict *v,
			   const struct course_figures *f)
{
	/* Nobody has seen how fast the link is without the bandwidth limit. */
	bool faster = f->forced && __atomic_load_n(&s->limits->bandwidth, __ATOMIC_RELAXED);

	stats_set(&s->stats->expected_us, v->expected_us);
	decision_tell(&s->decisions, DECISION_SWITCHOVER,
		      "%s: %" PRIu64 " KiB remain and %" PRIu64
		      " MiB/s are sent, a pause of %s %" PRIu64 " ms; %" PRIu64 " ms are allowed",
		      v->reason, f->remaining_bytes >> 10, f->rate_bytes >> 20,
		      faster ? "at most (the bandwidth is no limit any more)" : "about",
		      (v->expected_us + 999) / 1000, v->limit_us / 1000);
}

/* Rounds until the guest can be parked. */
int precopy_run(struct source *s, struct err *e)
{
	uint64_t round, dirty, start;
	struct course_verdict v;
	struct course_figures f;

	steer_say_unkeepable(s);
	for (round = 1;; round++) {
		s->guest->ops->settle(s->guest);
		start = clock_us();
		if (wake_nap(s->stop_fd, 0, e) || rounds_send(s, round, e))
			return -1;
		if (s->parked)
			return 0;
		if (rounds_fetch(s, &dirty, e))
			return -1;
		watch_end_round(s, dirty);
		stats_set(&s->stats->dirty_pages, dirty);
		stats_set(&s->stats->remaining_pages, dirty);
		dirty_rate_round(&s->dirty_rate, dirty, clock_us() - start);
		steer_say_unkeepable(s);
		f = steer_figures(s, dirty);
		if (course_must_wait(&s->steer.course, &f)) {
			if (answers_poll(&s->answers, -1, LIMIT_LOOK_MS, e))
				return -1;
			f = steer_figures(s, dirty);
		}
		f.round_us = clock_us() - start;
		if (steer_round_end(s, &f, &v, e))
			return -1;
		stats_set(&s->stats->expected_us, v.expected_us);
		if (v.action == COURSE_PARK) {
			say_switchover(s, &v, &f);
			return 0;
		}
		if (v.action == COURSE_AWAIT_AGENT && await_agent(s, e))
			return -1;
	}
}

int precopy_park_within_round(struct source *s, struct err *e)
{
	struct course_figures f;
	struct course_verdict v;

	if (s->parked && !s->cold) {
		if (steer_forced(s))
			handover_limit_pause(s);
		return handover_check_pause(s, e);
	}
	if (s->parked)
		return 0;
	f = steer_figures_within(s);
	v = course_within_round(&s->steer.course, &f);
	if (v.action != COURSE_PARK)
		return 0;
	say_switchover(s, &v, &f);
	source_enter(s, PHASE_SWITCHOVER);
	s->parked_within = true;
	if (handover_park(s, e))
		return -1;
	handover_limit_pause(s);
	return 0;
}
