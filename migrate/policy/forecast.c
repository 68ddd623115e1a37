/*
 * The forecast. The model: a round sends what was dirty when it began. Meanwhile the guest dirties
 * its rate times the length of the round, but no more than its working set.
 */
#include "migrate/policy/forecast.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "migrate/policy/switchover.h"
#include "vmm/base/math.h"

/* A migration that has not ended after this many rounds never will. */
#define ROUNDS_MAX 1000

/* A vCPU is never stopped completely. */
#define THROTTLE_MAX_PCT 99

#define US_MAX (UINT64_MAX / 4)

/* a * b / c, at most US_MAX. */
static uint64_t scale(uint64_t a, uint64_t b, uint64_t c)
{
	return min_u64(mul_div(a, b, c), US_MAX);
}

struct outcome {
	bool ends;
	uint64_t total_us, pause_us;
	uint64_t steady_bytes; /* if it does not end: what each round leaves */
};

/* Simulates the rounds at these rates. */
static struct outcome go(const struct forecast_input *in, uint64_t send, uint64_t dirty)
{
	uint64_t set = in->working_set_bytes ? in->working_set_bytes : UINT64_MAX;
	struct switchover_input s = { .remaining_bytes = in->remaining_bytes,
				      .previous_remaining_bytes = UINT64_MAX,
				      .rate_bytes = send,
				      .fixed_us = in->fixed_us,
				      .limit_us = in->limit_us };
	struct outcome c = { 0 };
	unsigned int round;

	for (round = 0; round < ROUNDS_MAX; round++) {
		struct switchover_verdict v = switchover_decide(&s);
		uint64_t us = scale(s.remaining_bytes, 1000000, send), next;

		if (v.stop) {
			c.ends = true;
			c.pause_us = v.expected_us;
			c.total_us += v.expected_us;
			return c;
		}
		next = scale(dirty, us, 1000000);
		next = min_u64(next, set);
		c.total_us = min_u64(c.total_us + us, US_MAX);
		s.previous_remaining_bytes = s.remaining_bytes;
		s.remaining_bytes = next;
		/* From here on each round leaves as much, or more. */
		if (next >= s.previous_remaining_bytes && v.expected_us > s.limit_us)
			break;
	}
	c.steady_bytes = s.remaining_bytes;
	if (dirty >= send && in->working_set_bytes > c.steady_bytes)
		c.steady_bytes = in->working_set_bytes;
	return c;
}

/* The least throttle with which it ends; THROTTLE_MAX_PCT + 1 if there is none. */
static unsigned int least_throttle(const struct forecast_input *in, uint64_t send,
				   struct outcome *out)
{
	unsigned int pct;

	for (pct = 1; pct <= THROTTLE_MAX_PCT; pct++) {
		*out = go(in, send, scale(in->dirty_bytes, 100 - pct, 100));
		if (out->ends)
			break;
	}
	return pct;
}

/* -- words -- */

static void put(struct forecast *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(struct forecast *f, const char *fmt, ...)
{
	size_t n = strlen(f->sentence);
	va_list args;

	va_start(args, fmt);
	vsnprintf(f->sentence + n, sizeof(f->sentence) - n, fmt, args);
	va_end(args);
}

static double mib(uint64_t bytes)
{
	return (double)bytes / (1 << 20);
}

/* "the guest writes 512.0 MiB/s to 256.0 MiB, the link takes 117.0 MiB/s" */
void forecast_say_rates(const struct forecast_input *in, struct forecast *f)
{
	put(f, "the guest writes %s%.1f MiB/s", in->saturated ? "at least " : "",
	    mib(in->dirty_bytes));
	if (in->working_set_bytes)
		put(f, " (again and again to %.1f MiB)", mib(in->working_set_bytes));
	put(f, ", the link takes %.1f MiB/s", mib(in->send_bytes));
}

/* A tenth more, rounded up to two digits: nobody sets a limit of 2187 ms. */
static uint64_t round_up_ms(uint64_t us)
{
	uint64_t ms = us / 1000 + us / 10000 + 1, step = 1;

	while (ms / step >= 100)
		step *= 10;
	return (ms + step - 1) / step * step;
}

void forecast_say_help(const struct forecast_help *help, struct forecast *f)
{
	const char *before = "; what would help: ";

	if (help->throttle) {
		put(f, "%s--auto-converge", before);
		if (help->throttle_pct)
			put(f, " (a throttle of about %u %%)", help->throttle_pct);
		before = ", ";
	}
	if (help->downtime) {
		put(f, "%s--downtime %" PRIu64, before, round_up_ms(f->needed_us));
		before = ", ";
	}
	if (help->compression) {
		put(f, "%s--compress xbzrle%s", before,
		    help->compression_known ? "" : " if the guest changes little of each page");
		before = ", ";
	}
	if (!strcmp(before, ", "))
		return;
	put(f, "; only a faster link would help");
}

void forecast_say_yes(const struct forecast_input *in, bool compression, struct forecast *f)
{
	put(f, "converges: ");
	forecast_say_rates(in, f);
	put(f, "; about %.1f s from now on, with a pause of %" PRIu64 " ms",
	    (double)f->total_us / 1e6, (f->pause_us + 999) / 1000);
	if (f->pause_us > in->limit_us)
		put(f, " (%" PRIu64 " ms are allowed, but no round makes it shorter)",
		    in->limit_us / 1000);
	if (f->throttle_pct)
		put(f, ", at a throttle of %u %%", f->throttle_pct);
	if (compression)
		put(f, ", with compression");
}

void forecast_say_no(const struct forecast_input *in, const struct forecast_help *help,
		     struct forecast *f)
{
	put(f, "will not converge: ");
	forecast_say_rates(in, f);
	put(f, ", so the pause would be %" PRIu64 " ms, but %" PRIu64 " ms are allowed",
	    (f->needed_us + 999) / 1000, in->limit_us / 1000);
	forecast_say_help(help, f);
}

/* -- the answer -- */

static void say_yes(const struct forecast_input *in, const struct outcome *c, unsigned int throttle,
		    bool compression, struct forecast *f)
{
	f->converges = FORECAST_YES;
	f->total_us = c->total_us;
	f->pause_us = c->pause_us;
	f->throttle_pct = throttle;
	forecast_say_yes(in, compression, f);
}

static void say_no(const struct forecast_input *in, const struct outcome *c, uint64_t faster,
		   struct forecast *f)
{
	struct outcome slowed;
	unsigned int pct = in->throttle ? THROTTLE_MAX_PCT + 1
					: least_throttle(in, in->send_bytes, &slowed);
	struct forecast_help help = {
		.throttle = pct <= THROTTLE_MAX_PCT,
		.throttle_pct = in->saturated ? 0 : pct,
		.compression = !in->compression &&
			       (!in->compressed_pct || go(in, faster, in->dirty_bytes).ends),
		.compression_known = in->compressed_pct,
	};

	f->converges = FORECAST_NO;
	f->needed_us = scale(c->steady_bytes, 1000000, in->send_bytes) + in->fixed_us;
	help.downtime = f->needed_us < FORECAST_DOWNTIME_MAX_US;
	forecast_say_no(in, &help, f);
}

void forecast_make(const struct forecast_input *in, struct forecast *out)
{
	/* Pages become smaller, so more of them are sent in the same time. */
	unsigned int pct = in->compressed_pct && in->compressed_pct < 100 ? in->compressed_pct
									  : 100;
	uint64_t faster = scale(in->send_bytes, 100, pct);
	struct outcome plain, c;
	unsigned int throttle;

	*out = (struct forecast){ .converges = FORECAST_UNKNOWN };
	if (!in->send_bytes) {
		put(out, "nothing was sent yet, so whether it will converge is not known");
		return;
	}
	plain = go(in, in->send_bytes, in->dirty_bytes);
	if (plain.ends) {
		say_yes(in, &plain, 0, false, out);
		return;
	}
	if (in->compression && (c = go(in, faster, in->dirty_bytes)).ends) {
		say_yes(in, &c, 0, true, out);
		return;
	}
	/* A lower bound of the dirty rate does not tell how much throttle is needed. */
	if (in->throttle && in->saturated) {
		put(out, "it depends on the throttle: ");
		forecast_say_rates(in, out);
		return;
	}
	throttle = in->throttle ? least_throttle(in, in->compression ? faster : in->send_bytes, &c)
				: THROTTLE_MAX_PCT + 1;
	if (throttle <= THROTTLE_MAX_PCT) {
		say_yes(in, &c, throttle, in->compression && pct < 100, out);
		return;
	}
	if (in->compression && !in->compressed_pct) {
		put(out, "it depends on how much compression gains: ");
		forecast_say_rates(in, out);
		return;
	}
	say_no(in, &plain, faster, out);
}
