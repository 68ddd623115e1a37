/*
 * Steering from round to round: see steer.h. Decides by the pure functions of policy/, on figures
 * that the source has measured.
 */
#include "migrate/source/steer.h"

#include <inttypes.h>
#include <stdio.h>

#include "migrate/policy/forecast.h"
#include "migrate/policy/switchover.h"
#include "migrate/source/source.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

static void decide(struct source *s, const char *action, const char *reason)
{
	if (s->events.decision)
		s->events.decision(s->events.arg, action, reason);
}

static void set_limit(struct source *s, uint64_t us)
{
	__atomic_store_n(&s->limits->downtime_us, us, __ATOMIC_RELAXED);
}

bool steer_forced(const struct source *s)
{
	return __atomic_load_n(&s->limits->force, __ATOMIC_RELAXED);
}

uint64_t steer_fixed_us(const struct source *s)
{
	return expect_fixed_us(&s->expect, link_rate(&s->link, clock_us()));
}

bool steer_decides(const struct source *s)
{
	return s->steer.policy || s->patient;
}

void steer_say_unkeepable(struct source *s)
{
	uint64_t limit_us = __atomic_load_n(&s->limits->downtime_us, __ATOMIC_RELAXED);
	const char *then = "it is moved all the same once hardly anything is left (a policy or a "
			   "timeout would decide otherwise)";
	char reason[512];

	if (steer_decides(s))
		then = s->steer.policy ? "the policy decides what becomes of it"
				       : "the timeout decides what becomes of it";
	if (expect_unkeepable(&s->expect, link_rate(&s->link, clock_us()), limit_us,
			      s->guest->n_vcpus, then, reason, sizeof(reason)))
		decide(s, "downtime-limit", reason);
}

void steer_begin(struct source *s, const struct policy *p)
{
	uint64_t limit = __atomic_load_n(&s->limits->downtime_us, __ATOMIC_RELAXED);
	char reason[POLICY_NAME_BYTES + 64];

	s->steer = (struct steer){ .policy = p };
	if (!p)
		return;
	schedule_init(&s->steer.schedule, p, &limit);
	if (!p->n_initial)
		return;
	set_limit(s, limit);
	snprintf(reason, sizeof(reason), "the policy '%s' begins with %" PRIu64 " ms", p->name,
		 limit / 1000);
	decide(s, "downtime", reason);
}

/* One step of the policy's course, if this round brings one about. */
static int follow_policy(struct source *s, uint64_t round_us, struct switchover_input *in,
			 struct err *e)
{
	struct steer *st = &s->steer;
	struct schedule_step step;

	if (!st->policy || !schedule_round(&st->schedule, stats_get(&s->stats->round), round_us,
					   in->remaining_bytes, in->limit_us, &step))
		return 0;
	decide(s, step.action == POLICY_SET_DOWNTIME ? "downtime" : policy_action_name(step.action),
	       step.reason);
	if (step.action == POLICY_ABORT)
		return err_set(e, "policy '%s': %s", st->policy->name, step.reason);
	if (step.action == POLICY_POSTCOPY)
		return err_set(e, "policy '%s': %s, which is not implemented", st->policy->name,
			       step.reason);
	if (step.downtime_us != in->limit_us)
		set_limit(s, step.downtime_us);
	in->limit_us = step.downtime_us;
	return 0;
}

/*
 * A stalled round leaves what the guest writes to again and again, unless that still grows; and as
 * the log knows each page once, how fast it writes is not known beyond that.
 */
static void tell_forecast(struct source *s, const struct switchover_input *in)
{
	bool saturated = in->remaining_bytes <= s->steer.left_before / 100 * 105;
	struct forecast_input f = { .send_bytes = stats_get(&s->stats->send_rate) ? in->rate_bytes
										  : 0,
				    .dirty_bytes = stats_get(&s->stats->dirty_rate) * PAGE_SIZE,
				    .remaining_bytes = in->remaining_bytes,
				    .working_set_bytes = saturated ? in->remaining_bytes : 0,
				    .limit_us = in->limit_us,
				    .fixed_us = in->fixed_us,
				    .saturated = saturated,
				    .throttle = s->auto_converge || s->dirty_limit,
				    .compression = s->xbzrle };
	struct forecast out;

	if (saturated && f.dirty_bytes < f.send_bytes)
		f.dirty_bytes = f.send_bytes;
	forecast_make(&f, &out);
	if (out.converges == FORECAST_NO && !s->steer.told) {
		decide(s, "forecast", out.sentence);
		s->steer.told = true;
	}
}

int steer_round(struct source *s, uint64_t round_us, struct switchover_input *in,
		struct switchover_verdict *v, struct err *e)
{
	struct steer *st = &s->steer;
	unsigned int stalled = st->stall.stalled;

	if (steer_forced(s)) {
		v->stop = true;
		v->reason = STEER_BY_FORCE;
		return 0;
	}
	if (follow_policy(s, round_us, in, e))
		return -1;
	*v = switchover_decide(in);
	if (stall_add(&st->stall, round_us, in->remaining_bytes) && !v->stop)
		tell_forecast(s, in);
	else if (!st->stall.short_us && st->stall.stalled == stalled)
		st->told = false;
	st->left_before = in->remaining_bytes;
	return 0;
}
