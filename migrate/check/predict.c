/*
 * The prediction. The model of the guest: it writes several regions from end to end, again and
 * again. Their sizes, and how long one pass takes, are chosen so that they make up the curve that
 * was seen. The model of the engine: source/ in small; policy/ decides, as it does
 * there.
 */
#include "migrate/check/predict.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "migrate/policy/course.h"
#include "migrate/policy/forecast.h"
#include "migrate/policy/rate.h"

/* One for each look, and one for the memory that was not seen to be written. */
#define REGIONS_MAX (PREDICT_LOOKS_MAX + 1)
/* A region is written and sent in parts. */
#define PARTS 128

/* Rounds that cannot make the pause fit are simulated as one of this length. */
#define UNKEEPABLE_US 1000000.0

/* A curve is flat if it grows by at most this, in percent, between its last two looks. */
#define FLAT_PCT 2

/* The simulation gives up after STALLED_ROUNDS rounds without progress if there is no policy or
 * timeout, and always after ROUNDS_MAX rounds or US_MAX. */
#define STALLED_ROUNDS 5
#define ROUNDS_MAX     1000u
#define US_MAX	       1e15

struct region {
	double part_bytes;
	double parts_per_us;
	double at; /* the part in which the guest writes */
	/* Of each part the share that is dirty, and that is to be sent in this round. */
	double dirty[PARTS], pending[PARTS];
};

struct sim {
	const struct predict_input *in;
	struct region region[REGIONS_MAX];
	unsigned int n_regions;
	double cold_bytes;

	double now, looked, round_from; /* us */
	double round_sent, sent, first_sent, again_before, lost_us;
	double round_bytes, pending_bytes; /* all that this round sends, and what is not sent yet */
	double lowest_bytes;		   /* the least that a round has left */
	unsigned int round, stalled, highest;
	uint64_t limit_us, round_limit_us;
	bool forced;
	struct converge converge;
	struct timeout timeout;
	struct course course;

	enum predict_answer answer; /* PREDICT_UNKNOWN: not over yet */
	double pause_us;
	char reason[256];
};

const char *predict_answer_name(enum predict_answer a)
{
	static const char *const names[] = { [PREDICT_UNKNOWN] = "unknown",
					     [PREDICT_CONVERGES] = "converges",
					     [PREDICT_FORCED] = "forced",
					     [PREDICT_GIVEN_UP] = "given-up",
					     [PREDICT_NEVER] = "never" };

	return names[a];
}

/* -- the guest -- */

static bool is_flat(const struct predict_input *in)
{
	const struct predict_look *last = in->look + in->n_looks - 1;

	return in->n_looks < 2 || last->bytes - last[-1].bytes <= last->bytes / 100 * FLAT_PCT;
}

/* The next corner of the curve, such that no look lies above the line to it. */
static unsigned int next_corner(const struct predict_input *in, double us, double bytes,
				unsigned int from, double *slope)
{
	unsigned int best = from;

	*slope = -1;
	for (unsigned int i = from; i < in->n_looks; i++) {
		double s = ((double)in->look[i].bytes - bytes) / ((double)in->look[i].us - us);

		if (s >= *slope) {
			*slope = s;
			best = i;
		}
	}
	return best;
}

static void add_region(struct sim *c, double bytes, double turn_us)
{
	struct region *r = &c->region[c->n_regions];

	if (bytes < 1 || turn_us <= 0)
		return;
	r->part_bytes = bytes / PARTS;
	r->parts_per_us = PARTS / turn_us;
	c->cold_bytes -= bytes;
	c->n_regions++;
}

/*
 * A region of S bytes that is written in T adds S t / T to the curve until T, and S after it. So
 * each corner of the curve is the T of one region, and its slope S / T is how much the curve's
 * slope falls there. If `beyond`, what still grew at the end goes on growing, up to all memory.
 */
static void make_guest(struct sim *c, bool beyond)
{
	const struct predict_input *in = c->in;
	double us = 0, bytes = 0, slope, next, rest;
	unsigned int i = 0, j;

	c->cold_bytes = (double)in->send_bytes;
	if (!in->n_looks)
		return;
	i = next_corner(in, us, bytes, 0, &slope);
	for (;; i = j, slope = next) {
		us = (double)in->look[i].us;
		bytes = (double)in->look[i].bytes;
		if (i + 1 >= in->n_looks)
			break;
		j = next_corner(in, us, bytes, i + 1, &next);
		add_region(c, us * (slope - next), us);
	}
	rest = us * slope;
	if (beyond && !is_flat(in) && c->cold_bytes > rest) {
		us *= c->cold_bytes / rest;
		rest = c->cold_bytes;
	}
	add_region(c, rest, us);
	c->cold_bytes = c->cold_bytes > 0 ? c->cold_bytes : 0;
}

static void write_region(struct region *r, double parts)
{
	unsigned int i;

	if (parts >= PARTS) {
		for (i = 0; i < PARTS; i++)
			r->dirty[i] = 1;
		return;
	}
	while (parts > 0) {
		double here;

		i = (unsigned int)r->at;
		here = i + 1 - r->at < parts ? i + 1 - r->at : parts;
		r->dirty[i] = r->dirty[i] + here < 1 ? r->dirty[i] + here : 1;
		parts -= here;
		r->at = here < i + 1 - r->at ? r->at + here : i + 1;
		r->at = r->at < PARTS ? r->at : 0;
	}
}

/* The part of its speed that the guest keeps. */
static double kept(const struct sim *c)
{
	double limit = (double)c->converge.limit_bytes, speed = 0;

	if (!c->converge.by_limit)
		return 1 - c->converge.permille / 1000.0;
	for (unsigned int i = 0; i < c->n_regions; i++)
		speed += c->region[i].parts_per_us * c->region[i].part_bytes * 1e6;
	return limit > 0 && limit < speed ? limit / speed : 1;
}

static void pass(struct sim *c, double us)
{
	double keep = kept(c);

	for (unsigned int i = 0; i < c->n_regions; i++)
		write_region(&c->region[i], c->region[i].parts_per_us * us * keep);
	c->now += us;
	c->lost_us += us * (1 - keep);
}

/* Bytes that are dirty, and not to be sent in this round. */
static double count_again(const struct sim *c)
{
	double n = 0;

	for (unsigned int i = 0; i < c->n_regions; i++) {
		const struct region *r = &c->region[i];

		for (unsigned int k = 0; k < PARTS; k++)
			if (r->dirty[k] > r->pending[k])
				n += (r->dirty[k] - r->pending[k]) * r->part_bytes;
	}
	return n;
}

/* -- the engine -- */

static double send_us(const struct sim *c, double bytes)
{
	return bytes * 1e6 / (double)c->in->rate_bytes;
}

static void end(struct sim *c, enum predict_answer a, double pause_us)
{
	c->answer = a;
	c->pause_us = pause_us;
}

/* No guest events: how long a hook in the guest takes, no check can know. */
static struct course_figures figures(const struct sim *c, double again)
{
	const struct predict_input *in = c->in;
	double remaining = c->pending_bytes + again;

	return (struct course_figures){
		.round = c->round,
		.remaining_bytes = (uint64_t)remaining,
		.rate_bytes = in->rate_bytes,
		.fixed_us = in->fixed_us + 2 * in->round_trip_us,
		.limit_us = c->limit_us,
		.timed = timeout_is_set(&in->timeout),
		.forced = c->forced,
		.round_us = (uint64_t)(c->now - c->round_from),
		.round_limit_us = c->round_limit_us,
		.rest_us = c->round > 1 ? (uint64_t)send_us(c, remaining) : UINT64_MAX,
	};
}

static void check_time(struct sim *c)
{
	const struct predict_input *in = c->in;
	struct timeout_sample s = { .now_us = (uint64_t)c->now + 1,
				    .start_us = 1,
				    .ram_bytes = in->ram_bytes,
				    .round = c->round,
				    .round_bytes = (uint64_t)c->round_bytes,
				    .remaining_bytes = (uint64_t)c->pending_bytes };

	if (c->forced ||
	    !timeout_check(&c->timeout, &in->timeout, &s, c->reason, sizeof(c->reason)))
		return;
	if (in->timeout_action == TIMEOUT_FORCE)
		c->forced = true;
	else
		end(c, PREDICT_GIVEN_UP, 0);
}

/* The course has decided to park the guest. */
static void park(struct sim *c, const struct course_verdict *v)
{
	end(c, c->forced ? PREDICT_FORCED : PREDICT_CONVERGES, (double)v->expected_us);
}

static void park_within_round(struct sim *c, double again)
{
	struct course_figures f = figures(c, again);
	struct course_verdict v = course_within_round(&c->course, &f);

	if (!c->answer && v.action == COURSE_PARK)
		park(c, &v);
}

static void slow_down(struct sim *c, double again)
{
	const struct predict_input *in = c->in;
	double rate = c->round_sent * 1e6 / (c->now - c->round_from + 1);
	struct converge_sample s = {
		.now_us = (uint64_t)c->now + 1,
		.sent_bytes = (uint64_t)(c->sent - c->first_sent),
		.again_bytes = (uint64_t)(c->again_before + again),
		.left_bytes = (uint64_t)again,
		.pending_bytes = (uint64_t)c->pending_bytes,
		.rate_bytes = (uint64_t)rate,
	};
	char reason[256];

	if (c->limit_us > in->fixed_us)
		s.fit_bytes = (uint64_t)((double)(c->limit_us - in->fixed_us) * rate / 1e6);
	if (converge_add(&c->converge, &s, reason, sizeof(reason)) &&
	    c->converge.permille > c->highest)
		c->highest = c->converge.permille;
}

static void look(struct sim *c)
{
	double again;

	if (c->now - c->looked < CONVERGE_LOOK_US)
		return;
	c->looked = c->now;
	again = count_again(c);
	if (c->in->throttle && c->round > 1)
		slow_down(c, again);
	check_time(c);
	park_within_round(c, again);
}

static void send_some(struct sim *c, double bytes)
{
	c->round_sent += bytes;
	c->sent += bytes;
	c->pending_bytes -= bytes;
	pass(c, send_us(c, bytes));
	look(c);
}

/* The dirty bits of a part are cleared just before it is sent. */
static void send_part(struct sim *c, struct region *r, unsigned int i)
{
	double pending = r->pending[i];

	if (pending <= 0)
		return;
	r->dirty[i] = r->dirty[i] > pending ? r->dirty[i] - pending : 0;
	r->pending[i] = 0;
	send_some(c, pending * r->part_bytes);
}

/* The order in which parts are sent in the first round, as in order.c. */
static unsigned int scattered(unsigned int k)
{
	unsigned int turned = 0;

	for (unsigned int n = PARTS; n > 1; n /= 2, k /= 2)
		turned = turned * 2 + k % 2;
	return turned;
}

/* The first round leaves a part for the second one if it was written to before its turn. */
static bool is_left(struct sim *c, struct region *r, unsigned int i)
{
	if (c->sent < RATE_SAMPLE_BYTES || r->dirty[i] < 0.5)
		return false;
	c->pending_bytes -= r->pending[i] * r->part_bytes;
	r->dirty[i] = 1;
	r->pending[i] = 0;
	return true;
}

static void send_first_round(struct sim *c)
{
	unsigned int i, k, part;

	for (k = 0; k < PARTS && !c->answer; k++) {
		part = scattered(k);
		for (i = 0; i < c->n_regions && !c->answer; i++)
			if (!is_left(c, &c->region[i], part))
				send_part(c, &c->region[i], part);
		if (!c->answer)
			send_some(c, c->cold_bytes / PARTS);
	}
	c->first_sent = c->sent;
}

static void send_round(struct sim *c)
{
	unsigned int i, k;

	for (k = 0; k < PARTS; k++)
		for (i = 0; i < c->n_regions && !c->answer; i++)
			send_part(c, &c->region[i], k);
}

/* All that is dirty is to be sent in this round. */
static void begin_round(struct sim *c)
{
	c->round++;
	c->round_from = c->looked = c->now;
	c->round_limit_us = c->limit_us;
	c->round_sent = 0;
	c->pending_bytes = 0;
	for (unsigned int i = 0; i < c->n_regions; i++) {
		struct region *r = &c->region[i];

		for (unsigned int k = 0; k < PARTS; k++) {
			r->pending[k] = c->round == 1 ? 1 : r->dirty[k];
			c->pending_bytes += r->pending[k] * r->part_bytes;
		}
	}
	c->pending_bytes += c->round == 1 ? c->cold_bytes : 0;
	c->round_bytes = c->pending_bytes;
}

/* The simulation has gone on for long enough. */
static bool is_hopeless(const struct sim *c)
{
	bool otherwise = c->in->policy || timeout_is_set(&c->in->timeout);
	unsigned int enough = c->in->throttle ? 4 * STALLED_ROUNDS : STALLED_ROUNDS;

	return c->round >= ROUNDS_MAX || c->now > US_MAX || (!otherwise && c->stalled >= enough);
}

/* Counts rounds without progress, for is_hopeless: there may be no policy that counts them. */
static void count_stalled(struct sim *c, double again)
{
	c->stalled = c->round > 1 && again > 0.95 * c->lowest_bytes ? c->stalled + 1 : 0;
	if (c->round == 1 || again < c->lowest_bytes)
		c->lowest_bytes = again;
	if (!c->answer && is_hopeless(c))
		end(c, PREDICT_NEVER, 0);
}

static void follow_course(struct sim *c, double again, const struct course_figures *f)
{
	struct course_verdict v = course_round_end(&c->course, f);

	c->limit_us = v.limit_us;
	if (v.action == COURSE_PARK) {
		park(c, &v);
		c->sent += again;
	} else if (v.action == COURSE_GIVE_UP || v.action == COURSE_POSTCOPY) {
		snprintf(c->reason, sizeof(c->reason), "%s", v.policy_step.reason);
		end(c, PREDICT_GIVEN_UP, 0);
	}
}

static void end_round(struct sim *c)
{
	double again = count_again(c);
	struct course_figures f;

	c->pending_bytes = 0; /* rounding may have left a little */
	if (c->in->throttle && c->round > 1)
		slow_down(c, again);
	c->again_before += c->round > 1 ? again : 0;
	f = figures(c, again);
	if (course_must_wait(&c->course, &f)) {
		pass(c, UNKEEPABLE_US);
		check_time(c);
		f = figures(c, again);
	}
	if (!c->answer)
		follow_course(c, again, &f);
	count_stalled(c, again);
}

static void go(struct sim *c, const struct predict_input *in, bool beyond)
{
	memset(c, 0, sizeof(*c));
	c->in = in;
	c->limit_us = in->limit_us;
	c->converge.bounds = in->bounds;
	c->converge.by_limit = in->by_limit;
	course_begin(&c->course, in->policy, &c->limit_us);
	make_guest(c, beyond);
	while (!c->answer) {
		begin_round(c);
		if (c->round == 1)
			send_first_round(c);
		else
			send_round(c);
		if (c->answer)
			break;
		pass(c, (double)in->round_trip_us);
		end_round(c);
	}
	c->now += c->pause_us;
}

/* -- words -- */

/* What the sentences of a forecast are made of. */
static struct forecast_input rates(const struct predict_input *in, const struct sim *c)
{
	const struct predict_look *last = in->look + in->n_looks - 1, *at = in->look;
	struct forecast_input f = { .send_bytes = in->rate_bytes, .limit_us = c->limit_us };

	if (!in->n_looks)
		return f;
	while (at < last && at->us < CONVERGE_LOOK_US)
		at++;
	f.dirty_bytes = (uint64_t)((double)at->bytes * 1e6 / (double)at->us);
	f.working_set_bytes = is_flat(in) ? last->bytes : 0;
	f.saturated = is_flat(in) && at->bytes >= last->bytes / 10 * 9 && last->bytes;
	return f;
}

/* Of one that does not come to its end: what would bring it there. */
static struct forecast_help find_help(const struct predict_input *in, const struct sim *c,
				      struct forecast *f)
{
	struct forecast_help help = { .compression = !in->compression };
	struct predict_input other = *in;
	struct sim with;

	other.policy = NULL;
	other.timeout = (struct timeout_limits){ 0 };
	f->needed_us = (uint64_t)send_us(c, c->lowest_bytes) + in->fixed_us;
	other.limit_us = f->needed_us + f->needed_us / 10;
	if (f->needed_us < FORECAST_DOWNTIME_MAX_US && f->needed_us > c->limit_us) {
		go(&with, &other, true);
		help.downtime = with.answer == PREDICT_CONVERGES;
	}
	other.limit_us = c->limit_us;
	other.throttle = true;
	if (!in->throttle) {
		go(&with, &other, true);
		help.throttle = with.answer == PREDICT_CONVERGES;
		help.throttle_pct = (with.highest + 9) / 10;
	}
	return help;
}

static void say(const struct predict_input *in, const struct sim *c, struct prediction *out)
{
	struct forecast_input words = rates(in, c);
	struct forecast f = { .total_us = out->total_us,
			      .pause_us = out->pause_us,
			      .throttle_pct = (out->throttle_permille + 9) / 10 };
	struct forecast_help help;

	switch (out->answer) {
	case PREDICT_UNKNOWN:
		snprintf(f.sentence, sizeof(f.sentence),
			 "it depends on how much compression gains: ");
		forecast_say_rates(&words, &f);
		break;
	case PREDICT_CONVERGES:
		forecast_say_yes(&words, false, &f);
		break;
	case PREDICT_FORCED:
		snprintf(f.sentence, sizeof(f.sentence),
			 "would be finished by force, with a pause of %" PRIu64 " ms: %s; ",
			 out->pause_us / 1000, c->reason);
		forecast_say_rates(&words, &f);
		break;
	case PREDICT_GIVEN_UP:
		help = find_help(in, c, &f);
		snprintf(f.sentence, sizeof(f.sentence), "would be given up after %.1f s: %s; ",
			 (double)out->total_us / 1e6, c->reason);
		forecast_say_rates(&words, &f);
		forecast_say_help(&help, &f);
		break;
	case PREDICT_NEVER:
		help = find_help(in, c, &f);
		forecast_say_no(&words, &help, &f);
		break;
	}
	memcpy(out->sentence, f.sentence, sizeof(out->sentence));
}

void predict_make(const struct predict_input *in, struct prediction *out)
{
	struct sim c, least;

	*out = (struct prediction){ .answer = PREDICT_UNKNOWN, .limit_us = in->limit_us };
	if (!in->rate_bytes) {
		snprintf(out->sentence, sizeof(out->sentence),
			 "the speed of the link is not known, so nothing can be predicted");
		return;
	}
	go(&c, in, true);
	go(&least, in, false);
	out->answer = c.answer;
	/* Without compression it would not converge; with it that is known only once it is tried.
	 */
	if (in->compression && (c.answer == PREDICT_NEVER || c.answer == PREDICT_GIVEN_UP))
		out->answer = PREDICT_UNKNOWN;
	out->total_us = (uint64_t)c.now;
	out->least_us = least.now < c.now ? (uint64_t)least.now : out->total_us;
	out->pause_us = (uint64_t)c.pause_us;
	out->limit_us = c.limit_us;
	out->rounds = c.round + (c.answer == PREDICT_CONVERGES || c.answer == PREDICT_FORCED);
	out->sent_bytes = (uint64_t)c.sent;
	out->throttle_permille = c.highest;
	out->lost_us = (uint64_t)c.lost_us;
	say(in, &c, out);
}
