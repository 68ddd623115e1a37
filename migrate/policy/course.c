/* The course of a pre-copy: see course.h. */
#include "migrate/policy/course.h"

#include "migrate/policy/switchover.h"

void course_begin(struct course *c, const struct policy *p, uint64_t *limit_us)
{
	*c = (struct course){ .policy = p };
	if (p)
		schedule_init(&c->schedule, p, limit_us);
}

static struct switchover_input switchover_figures(const struct course *c,
						  const struct course_figures *f)
{
	return (struct switchover_input){
		.remaining_bytes = f->remaining_bytes,
		.previous_remaining_bytes = c->any ? c->previous_bytes : UINT64_MAX,
		.rate_bytes = f->rate_bytes,
		.fixed_us = f->fixed_us,
		.limit_us = f->limit_us,
		.patient = c->policy || f->timed,
	};
}

bool course_must_wait(const struct course *c, const struct course_figures *f)
{
	struct switchover_input in = switchover_figures(c, f);
	struct switchover_verdict s = switchover_decide(&in);

	return s.unkeepable && !s.stop;
}

/* Asks the policy about the round that has ended. */
static void ask_policy(struct course *c, const struct course_figures *f, struct course_verdict *v)
{
	if (!c->policy || !schedule_round(&c->schedule, f->round, f->round_us, f->remaining_bytes,
					  f->limit_us, &v->policy_step))
		return;
	v->policy_fired = true;
	if (v->policy_step.action == POLICY_ABORT)
		v->action = COURSE_GIVE_UP;
	else if (v->policy_step.action == POLICY_POSTCOPY)
		v->action = COURSE_POSTCOPY;
	else
		v->limit_us = v->policy_step.downtime_us;
}

static void count_round(struct course *c, const struct course_figures *f, struct course_verdict *v)
{
	v->stalled = stall_add(&c->stall, f->round_us, f->remaining_bytes);
	v->progressed = !v->stalled && !c->stall.short_us;
}

/* The pause would be too long, or another round makes it shorter: what is done about it. */
static void steer_on(struct course *c, const struct course_figures *f, struct switchover_verdict *s,
		     struct course_verdict *v)
{
	struct switchover_input in = switchover_figures(c, f);

	if (f->forced) {
		s->stop = true;
		s->reason = COURSE_BY_FORCE;
		return;
	}
	ask_policy(c, f, v);
	if (v->action != COURSE_GO_ON)
		return;
	in.limit_us = v->limit_us;
	*s = switchover_decide(&in);
	count_round(c, f, v);
}

struct course_verdict course_round_end(struct course *c, const struct course_figures *f)
{
	struct course_verdict v = { .limit_us = f->limit_us };
	struct switchover_input in = switchover_figures(c, f);
	struct switchover_verdict s = switchover_decide(&in);

	if (!s.stop)
		steer_on(c, f, &s, &v);
	if (s.stop)
		v.action = f->agent_busy && !f->forced ? COURSE_AWAIT_AGENT : COURSE_PARK;
	v.expected_us = s.expected_us;
	v.reason = s.reason;
	c->previous_bytes = f->remaining_bytes;
	c->any = true;
	return v;
}

bool course_fits_raised_limit(const struct course_figures *f)
{
	return f->limit_us > f->round_limit_us && f->limit_us > f->fixed_us &&
	       f->rest_us <= f->limit_us - f->fixed_us;
}

struct course_verdict course_within_round(const struct course *c, const struct course_figures *f)
{
	struct switchover_input in = switchover_figures(c, f);
	struct course_verdict v = { .limit_us = f->limit_us };

	v.expected_us = switchover_decide(&in).expected_us;
	if (f->forced) {
		v.action = COURSE_PARK;
		v.reason = COURSE_BY_FORCE;
	} else if (course_fits_raised_limit(f) && !f->agent_busy) {
		v.action = COURSE_PARK;
		v.reason = "the limit was raised, and all fits";
	} else {
		v.reason = "the round goes on";
	}
	return v;
}
