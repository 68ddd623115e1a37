/*
 * Rounds while the guest runs, until it can be parked. Runs on the migration's thread.
 */
#include "migrate/source/source_internal.h"

#include <inttypes.h>
#include <limits.h>

#include "migrate/agent/teller.h"
#include "migrate/channel/channel.h"
#include "migrate/stream/body.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/wake.h"
#include "vmm/memory.h"

/* Poll interval while waiting for the guest's agent: is the guest to be parked by force? */
#define AGENT_LOOK_MS 100

/* Time between two rounds if no round can make the pause fit the limit, and a policy or a timeout
 * decides what is done about that. */
#define LIMIT_LOOK_MS 50

/* A migration that is forced waits for no agent. */
static bool waits_for_agent(const struct source *s)
{
	return s->job.guest_events && teller_busy(s->job.teller) && !steer_forced(s);
}

/* Waits until the agent was told of the migration; teller.h bounds that. */
static int await_agent(struct source *s, struct err *e)
{
	throttle_rest(&s->throttle);
	while (waits_for_agent(s))
		if (answers_poll(&s->answers, s->job.teller->idle_fd, AGENT_LOOK_MS, e))
			return -1;
	return 0;
}

/* Says that the guest is parked now, why, and with what pause. */
static void say_switchover(struct source *s, const struct course_verdict *v,
			   const struct course_figures *f)
{
	/* Nobody has seen how fast the link is without the bandwidth limit. */
	bool faster = f->forced && __atomic_load_n(&s->job.limits->bandwidth, __ATOMIC_RELAXED);

	stats_set(&s->job.stats->expected_us, v->expected_us);
	decision_tell(&s->job.decisions, DECISION_SWITCHOVER,
		      "%s: %" PRIu64 " KiB remain and %" PRIu64
		      " MiB/s are sent, a pause of %s %" PRIu64 " ms; %" PRIu64 " ms are allowed",
		      v->reason, f->remaining_bytes >> 10, f->rate_bytes >> 20,
		      faster ? "at most (the bandwidth is no limit any more)" : "about",
		      (v->expected_us + 999) / 1000, v->limit_us / 1000);
}

/*
 * Parks the guest in the middle of a round, which then goes on: by force, or because all that is
 * left fits a limit that was raised.
 */
static int park_within_round(struct source *s, struct err *e)
{
	struct course_figures f;
	struct course_verdict v;

	if (s->parked && !s->job.cold) {
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

/* -- one round -- */

int precopy_before_step(void *source, struct err *e)
{
	struct source *s = source;

	if (wake_nap(s->job.stop_fd, 0, e) || answers_poll(&s->answers, -1, 0, e))
		return -1;
	return park_within_round(s, e);
}

int precopy_after_step(void *source, struct err *e)
{
	struct source *s = source;
	struct course_figures within;
	int looked;

	if (s->parked)
		return 0;
	looked = throttle_look(&s->throttle, &s->dirty, e);
	if (looked <= 0)
		return looked;
	within = steer_figures_within(s);
	/* A guest that is about to be parked is not slowed. */
	if (!course_fits_raised_limit(&within))
		throttle_adjust(&s->throttle, within.fixed_us);
	return 0;
}

int precopy_round(struct source *s, uint64_t round, struct err *e)
{
	bool last = s->parked;
	unsigned int i;

	link_round_begin(&s->link, round, clock_us());
	throttle_round_begin(&s->throttle);
	if (s->job.events.round)
		s->job.events.round(s->job.events.arg, round);
	for (i = 0; i < s->n_parts; i++)
		if (s->parts[i]->ops->round(s->parts[i], round, e))
			return -1;
	if ((!s->job.cold && lanes_end_round(&s->lanes, (uint32_t)round, e)) ||
	    (!s->job.cold && !last && precopy_await(s, round, e)))
		return -1;
	link_round_end(&s->link, clock_us());
	return 0;
}

int precopy_await(struct source *s, uint64_t round, struct err *e)
{
	uint64_t start = clock_us();
	struct record rec;
	uint32_t taken;

	if (source_expect(s, RECORD_ROUND, s->parked ? INT_MAX : s->job.round_ms, &rec, e))
		return -1;
	if (round_decode(&rec, &taken, NULL) || taken != (uint32_t)round)
		return err_set(e, "%s: the destination has taken in another round than %llu",
			       s->channel->name, (unsigned long long)round);
	expect_answered(&s->expect, clock_us() - start);
	return 0;
}

int precopy_fetch(struct source *s, uint64_t *pages, struct err *e)
{
	uint64_t start = clock_us(), all = 0, bytes;
	unsigned int i;

	for (i = 0; i < s->n_parts; i++) {
		if (s->parts[i]->ops->fetch(s->parts[i], &bytes, e))
			return -1;
		all += bytes;
	}
	*pages = all / PAGE_SIZE;
	s->expect.fetch_us = clock_us() - start;
	return 0;
}

/* -- all rounds -- */

int precopy_run(struct source *s, struct err *e)
{
	uint64_t round, dirty, start;
	struct course_verdict v;
	struct course_figures f;

	steer_say_unkeepable(s);
	for (round = 1;; round++) {
		s->job.guest->ops->settle(s->job.guest);
		start = clock_us();
		if (wake_nap(s->job.stop_fd, 0, e) || precopy_round(s, round, e))
			return -1;
		if (s->parked)
			return 0;
		if (precopy_fetch(s, &dirty, e))
			return -1;
		throttle_round_end(&s->throttle, dirty, steer_fixed_us(s));
		stats_set(&s->job.stats->dirty_pages, dirty);
		stats_set(&s->job.stats->remaining_pages, dirty);
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
		stats_set(&s->job.stats->expected_us, v.expected_us);
		if (v.action == COURSE_PARK) {
			say_switchover(s, &v, &f);
			return 0;
		}
		if (v.action == COURSE_AWAIT_AGENT && await_agent(s, e))
			return -1;
	}
}
