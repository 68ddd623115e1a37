/* Steering: see steer.h. What is decided is policy/course.c's; this has the figures and the words.
 */
#include "migrate/source/steer.h"

#include <inttypes.h>
#include <stdio.h>

#include "migrate/agent/teller.h"
#include "migrate/policy/forecast.h"
#include "migrate/source/source_internal.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

static uint64_t limit_us(const struct source *s)
{
	return __atomic_load_n(&s->job.limits->downtime_us, __ATOMIC_RELAXED);
}

static void set_limit(struct source *s, uint64_t us)
{
	__atomic_store_n(&s->job.limits->downtime_us, us, __ATOMIC_RELAXED);
}

bool steer_forced(const struct source *s)
{
	return __atomic_load_n(&s->job.limits->force, __ATOMIC_RELAXED);
}

uint64_t steer_fixed_us(const struct source *s)
{
	return expect_fixed_us(&s->expect, link_rate(&s->link, clock_us()));
}

void steer_say_unkeepable(struct source *s)
{
	const char *then = "the guest is moved all the same once hardly anything is left (a policy "
			   "or a timeout would decide otherwise)";
	char reason[512];

	if (s->steer.course.policy)
		then = "the policy decides what is done about it";
	else if (timeout_is_set(&s->job.parameters.timeout))
		then = "the timeout decides what is done about it";
	if (expect_unkeepable(&s->expect, link_rate(&s->link, clock_us()), limit_us(s),
			      s->job.guest->n_vcpus, then, reason, sizeof(reason)))
		decision_tell(&s->job.decisions, DECISION_DOWNTIME_LIMIT, "%s", reason);
}

void steer_begin(struct source *s, const struct policy *p)
{
	uint64_t limit = limit_us(s);

	s->steer = (struct steer){ 0 };
	course_begin(&s->steer.course, p, &limit);
	if (!p || !p->n_initial)
		return;
	set_limit(s, limit);
	decision_tell(&s->job.decisions, DECISION_DOWNTIME,
		      "the policy '%s' begins with %" PRIu64 " ms", p->name, limit / 1000);
}

struct course_figures steer_figures(const struct source *s, uint64_t remaining_pages)
{
	uint64_t rate = link_rate(&s->link, clock_us());

	return (struct course_figures){
		.round = stats_get(&s->job.stats->round),
		.remaining_bytes = remaining_pages * PAGE_SIZE,
		.rate_bytes = rate,
		.fixed_us = expect_fixed_us(&s->expect, rate),
		.limit_us = limit_us(s),
		.timed = timeout_is_set(&s->job.parameters.timeout),
		.forced = steer_forced(s),
		.agent_busy = s->job.guest_events && teller_busy(s->job.teller),
	};
}

struct course_figures steer_figures_within(const struct source *s)
{
	const struct throttle *t = &s->throttle;
	struct course_figures f = steer_figures(s, stats_get(&s->job.stats->remaining_pages) +
							   t->seen.left_pages);

	f.round_limit_us = t->round_limit_us;
	f.rest_us = t->seen.rest_us;
	return f;
}

/*
 * Pages that a stalled round leaves are those that the guest writes to again and again, unless they
 * become more with each round. The log counts a page once, however often it is written to, so the
 * dirty rate is then a lower bound.
 */
static void say_forecast(struct source *s, const struct course_figures *f, uint64_t limit)
{
	bool saturated = f->remaining_bytes <= s->steer.left_before / 100 * 105;
	struct forecast_input in = {
		.send_bytes = stats_get(&s->job.stats->send_rate) ? f->rate_bytes : 0,
		.dirty_bytes = stats_get(&s->job.stats->dirty_rate) * PAGE_SIZE,
		.remaining_bytes = f->remaining_bytes,
		.working_set_bytes = saturated ? f->remaining_bytes : 0,
		.limit_us = limit,
		.fixed_us = f->fixed_us,
		.saturated = saturated,
		.throttle = parameters_may_slow(&s->job.parameters),
		.compression = parameters_may_use_xbzrle(&s->job.parameters),
	};
	struct forecast out;

	if (saturated && in.dirty_bytes < in.send_bytes)
		in.dirty_bytes = in.send_bytes;
	forecast_make(&in, &out);
	if (out.converges == FORECAST_NO && !s->steer.told) {
		decision_tell(&s->job.decisions, DECISION_FORECAST, "%s", out.sentence);
		s->steer.told = true;
	}
}

/* An item of the policy has fired. */
static int follow_policy(struct source *s, const struct course_figures *f,
			 const struct course_verdict *v, struct err *e)
{
	static const enum decision decisions[] = { [POLICY_SET_DOWNTIME] = DECISION_DOWNTIME,
						   [POLICY_ABORT] = DECISION_ABORT,
						   [POLICY_POSTCOPY] = DECISION_POSTCOPY };
	const struct schedule_step *step = &v->policy_step;
	const char *name = s->steer.course.policy->name;

	decision_tell(&s->job.decisions, decisions[step->action], "%s", step->reason);
	if (v->action == COURSE_GIVE_UP)
		return err_set(e, "policy '%s': %s", name, step->reason);
	if (v->action == COURSE_POSTCOPY)
		return err_set(e, "policy '%s': %s, which is not implemented", name, step->reason);
	if (v->limit_us != f->limit_us)
		set_limit(s, v->limit_us);
	return 0;
}

int steer_round_end(struct source *s, const struct course_figures *f, struct course_verdict *v,
		    struct err *e)
{
	*v = course_round_end(&s->steer.course, f);
	if (v->policy_fired && follow_policy(s, f, v, e))
		return -1;
	if (v->stalled && v->action == COURSE_GO_ON)
		say_forecast(s, f, v->limit_us);
	else if (v->progressed)
		s->steer.told = false;
	s->steer.left_before = f->remaining_bytes;
	return 0;
}
