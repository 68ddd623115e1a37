/*
 * How a migration ends: stalled rounds, the course of a policy, timeouts, the forecast. All of it
 * numbers; no clock.
 */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "migrate/policy/forecast.h"
#include "migrate/policy/policy_json.h"
#include "migrate/policy/schedule.h"
#include "migrate/policy/timeout.h"
#include "vmm/base/err.h"

#define N(a) ((int)(sizeof(a) / sizeof((a)[0])))

#define S   1000000ull
#define MIB (1ull << 20)
#define GIB (1ull << 30)

#define HAS(part, whole) \
	ck_assert_msg(strstr((whole), (part)) != NULL, "'%s' is not in: %s", part, whole)

/* -- stalled rounds -- */

static const struct {
	const char *what;
	struct {
		uint64_t us, remaining;
		bool stalled;
	} rounds[8];
	unsigned int n;
} stalls[] = {
	{ "the first round is never stalled", { { 9 * S, 1000, false } }, 1 },
	{ "exactly 5 % less is progress", { { S, 1000, false }, { S, 950, false } }, 2 },
	{ "not quite 5 % less is none", { { S, 1000, false }, { S, 951, true } }, 2 },
	{ "the same and more are none",
	  { { S, 1000, false }, { S, 1000, true }, { S, 2000, true } },
	  3 },
	{ "it counts from the lowest value so far",
	  { { S, 1000, false },
	    { S, 500, false },
	    { S, 900, true },
	    { S, 480, true },
	    { S, 476, true },
	    { S, 450, false } },
	  6 },
	{ "a lowest value that was no progress is one to be under, too",
	  { { S, 1000, false }, { S, 960, true }, { S, 913, true }, { S, 867, false } },
	  4 },
	{ "short rounds make one together, and what remains at its end counts",
	  { { S, 1000, false },
	    { S / 2, 3000, false },
	    { S / 4, 100, false },
	    { S / 4, 990, true } },
	  4 },
	{ "short rounds at the beginning",
	  { { S / 2, 1000, false },
	    { S / 2 - 1, 1000, false },
	    { 1, 1000, false },
	    { S, 990, true } },
	  4 },
	{ "a short one before a long one makes one with it",
	  { { S, 1000, false }, { 1, 1000, false }, { 5 * S, 1000, true }, { 1, 1000, false } },
	  4 },
	{ "small numbers",
	  { { S, 19, false },
	    { S, 19, true },
	    { S, 18, false },
	    { S, 0, false },
	    { S, 0, true }, /* less than nothing it cannot become: something else is in the way */
	    { S, 1, true } },
	  6 },
	{ "large numbers",
	  { { S, UINT64_MAX, false },
	    { S, UINT64_MAX - 1, true },
	    { S, UINT64_MAX / 100 * 94, false } },
	  3 },
};

START_TEST(rounds_stall_as_interface_says)
{
	struct stall s = { 0 };
	unsigned int i, n = 0;

	for (i = 0; i < stalls[_i].n; i++) {
		bool stalled = stall_add(&s, stalls[_i].rounds[i].us,
					 stalls[_i].rounds[i].remaining);

		ck_assert_msg(stalled == stalls[_i].rounds[i].stalled, "%s: round %u",
			      stalls[_i].what, i + 1);
		ck_assert_uint_eq(s.stalled, n += stalled);
	}
}
END_TEST

/* -- the course of a policy -- */

/* Rounds of a second in which nothing is gained, and the limit or the end after each. */
static const struct {
	const char *policy;
	uint64_t initial_ms, ms[12]; /* 0: no item fires; 1: abort; 2: postcopy */
	unsigned int n;
} courses[] = {
	{ "minimal-downtime", 100, { 150, 200, 300, 400, 0, 500, 1, 0 }, 8 },
	{ "suspend-workload-if-needed", 100, { 150, 200, 300, 400, 0, 500, 5000, 1, 0 }, 9 },
	{ "post-copy", 100, { 150, 200, 2, 1, 0 }, 5 },
};

START_TEST(items_fire_when_their_count_is_reached)
{
	struct schedule_step step;
	uint64_t limit = 300000;
	struct schedule s;
	struct policy p;
	struct err e;
	unsigned int i;

	ck_assert_int_eq(policy_from_text(courses[_i].policy, &p, &e), 0);
	schedule_init(&s, &p, &limit);
	ck_assert_uint_eq(limit, courses[_i].initial_ms * 1000);
	ck_assert(!schedule_round(&s, 1, 9 * S, 1000, limit, &step));
	for (i = 0; i < courses[_i].n; i++) {
		uint64_t wanted = courses[_i].ms[i];
		bool fires = schedule_round(&s, i + 2, S, 1000, limit, &step);

		ck_assert_msg(fires == (wanted != 0), "round %u", i + 2);
		if (!fires)
			continue;
		ck_assert_int_eq(step.action, wanted == 1   ? POLICY_ABORT
					      : wanted == 2 ? POLICY_POSTCOPY
							    : POLICY_SET_DOWNTIME);
		ck_assert_uint_eq(step.downtime_us, wanted > 2 ? wanted * 1000 : limit);
		limit = step.downtime_us;
	}
}
END_TEST

START_TEST(firing_has_a_sentence_with_the_numbers)
{
	uint64_t limit = 200000;
	struct schedule_step step;
	struct schedule s;
	struct policy p;
	struct err e;

	ck_assert_int_eq(policy_from_text("minimal-downtime", &p, &e), 0);
	schedule_init(&s, &p, &limit);
	schedule_round(&s, 4, S, 262144000, limit, &step);
	schedule_round(&s, 5, S, 262144000, limit, &step);
	schedule_round(&s, 6, S, 262144000, limit, &step);
	ck_assert(schedule_round(&s, 7, S, 268435456, 200000, &step));
	ck_assert_str_eq(step.reason, "round 7 stalled (3 in all): 268435456 bytes remain, lowest "
				      "262144000: downtime limit 200 -> 300 ms");
	/* Somebody has raised it by hand meanwhile. */
	ck_assert(schedule_round(&s, 8, S, 268435456, 450000, &step));
	ck_assert_uint_eq(step.downtime_us, 450000);
	HAS("downtime limit stays at 450 ms, which is not less than 400 ms", step.reason);
	ck_assert(!schedule_round(&s, 9, S, 268435456, 450000, &step));
	ck_assert(schedule_round(&s, 10, S, 268435456, 450000, &step));
	HAS("(6 in all)", step.reason);
	ck_assert(schedule_round(&s, 11, S, UINT64_MAX, UINT64_MAX, &step));
	ck_assert_int_eq(step.action, POLICY_ABORT);
	HAS("given up", step.reason);
}
END_TEST

START_TEST(progress_never_walks_down_the_schedule)
{
	uint64_t limit = 0, left = UINT64_MAX / 2, round = 1;
	struct schedule_step step;
	struct schedule s;
	struct policy p;
	struct err e;

	ck_assert_int_eq(policy_from_text("minimal-downtime", &p, &e), 0);
	schedule_init(&s, &p, &limit);
	for (; left > 1000; left = left / 100 * 94)
		ck_assert(!schedule_round(&s, round++, 60 * S, left, limit, &step));
}
END_TEST

START_TEST(policy_without_initial_items_leaves_the_limit_as_it_is)
{
	struct policy p = { .n_last = 1, .last = { { POLICY_ABORT, 0 } } };
	uint64_t limit = 300000;
	struct schedule_step step;
	struct schedule s;

	schedule_init(&s, &p, &limit);
	ck_assert_uint_eq(limit, 300000);
	ck_assert(!schedule_round(&s, 1, S, 5, limit, &step));
	ck_assert(schedule_round(&s, 2, S, 5, limit, &step));
	ck_assert_int_eq(step.action, POLICY_ABORT);
}
END_TEST

/* -- timeouts -- */

static const struct {
	struct timeout_limits l;
	uint64_t ram, total_s; /* UINT64_MAX: for ever */
} totals[] = {
	{ { 0, 0, 0 }, GIB, UINT64_MAX },
	{ { 60, 0, 0 }, GIB, 60 },
	{ { 0, 800, 0 }, GIB, 800 },
	{ { 0, 800, 0 }, 16 * GIB, 12800 },
	{ { 0, 800, 0 }, GIB + 1, 1600 },
	{ { 0, 800, 0 }, 32 * MIB, 800 },
	{ { 0, 800, 0 }, 0, UINT64_MAX }, /* not known yet */
	{ { 900, 800, 0 }, GIB, 800 },
	{ { 700, 800, 0 }, GIB, 700 },
	{ { 0, UINT64_MAX, 0 }, 4096 * GIB, UINT64_MAX },
	{ { UINT64_MAX, 0, 0 }, GIB, UINT64_MAX },
};

START_TEST(time_for_the_whole_is_absolute_or_by_memory)
{
	uint64_t us = timeout_total_us(&totals[_i].l, totals[_i].ram);

	ck_assert_uint_eq(us,
			  totals[_i].total_s == UINT64_MAX ? UINT64_MAX : totals[_i].total_s * S);
}
END_TEST

/* One look each: at which second, in which round, what it began with, what remains of it. */
static const struct {
	const char *what;
	struct timeout_limits l;
	struct {
		uint64_t s, round, from, left;
	} looks[10];
	unsigned int n;
	const char *says; /* at the last look; NULL: nothing */
} waits[] = {
	{ "the time is over",
	  { 10, 0, 0 },
	  { { 9, 1, 0, 5 }, { 10, 1, 0, 4 } },
	  2,
	  "the timeout of 10 s has passed" },
	{ "the time is over while it still waits for its turn",
	  { 10, 0, 5 },
	  { { 9, 0, 0, 0 }, { 10, 0, 0, 0 } },
	  2,
	  "the timeout of 10 s has passed" },
	{ "by memory: of 3 GiB",
	  { 0, 5, 0 },
	  { { 14, 1, 0, 5 }, { 15, 1, 0, 4 } },
	  2,
	  "the timeout of 15 s (5 s for each GiB of 3072 MiB) has passed" },
	{ "waiting for its turn is no lack of progress",
	  { 0, 0, 5 },
	  { { 99, 0, 0, 0 } },
	  1,
	  NULL },
	{ "a first round that sends is progress, however long",
	  { 0, 0, 5 },
	  { { 90, 1, 0, 1000 }, { 94, 1, 0, 999 }, { 98, 1, 0, 998 }, { 102, 1, 0, 997 } },
	  4,
	  NULL },
	{ "one that stands still is none",
	  { 0, 0, 5 },
	  { { 90, 1, 0, 1000 }, { 94, 1, 0, 999 }, { 98, 1, 0, 999 }, { 99, 1, 0, 999 } },
	  4,
	  "no progress for 5 s: in round 1 999 bytes remain" },
	{ "rounds that leave less and less",
	  { 0, 0, 5 },
	  { { 90, 1, 0, 10 },
	    { 94, 2, 900, 900 },
	    { 98, 2, 900, 10 },
	    { 102, 3, 800, 800 },
	    { 106, 3, 800, 30 },
	    { 110, 4, 799, 1 } },
	  6,
	  NULL },
	{ "rounds that leave the same again and again, though each sends",
	  { 0, 0, 5 },
	  { { 90, 1, 0, 10 },
	    { 91, 2, 900, 900 },
	    { 92, 2, 900, 10 },
	    { 93, 3, 900, 800 },
	    { 94, 3, 900, 10 },
	    { 96, 4, 950, 500 },
	    { 97, 5, 900, 3 } },
	  7,
	  "no progress for 5 s: in round 5 3 bytes remain, and the lowest at the end of a round "
	  "was 900" },
	{ "rounds that leave less, but hardly",
	  { 0, 0, 5 },
	  { { 90, 1, 0, 10 },
	    { 91, 2, 900, 900 },
	    { 92, 2, 900, 10 },
	    { 94, 3, 895, 10 },
	    { 96, 4, 892, 9 },
	    { 97, 5, 892, 3 } },
	  6,
	  "no progress for 5 s: in round 5 3 bytes remain" },
	{ "rounds that were not looked at",
	  { 0, 0, 5 },
	  { { 90, 7, 900, 10 }, { 94, 19, 800, 800 }, { 98, 40, 700, 10 } },
	  3,
	  NULL },
	{ "no time is set", { 0, 0, 0 }, { { 1, 1, 0, 5 }, { 1000000, 1, 0, 5 } }, 2, NULL },
};

START_TEST(timeout_passes_when_time_or_patience_is_over)
{
	struct timeout t = { 0 };
	char why[256] = "";
	unsigned int i;

	for (i = 0; i < waits[_i].n; i++) {
		struct timeout_sample s = { .start_us = 777,
					    .now_us = 777 + waits[_i].looks[i].s * S,
					    .ram_bytes = 3 * GIB,
					    .round = waits[_i].looks[i].round,
					    .round_bytes = waits[_i].looks[i].from,
					    .remaining_bytes = waits[_i].looks[i].left };
		bool over = timeout_check(&t, &waits[_i].l, &s, why, sizeof(why));

		ck_assert_msg(over == (waits[_i].says && i == waits[_i].n - 1), "%s: look %u: %s",
			      waits[_i].what, i, why);
	}
	if (waits[_i].says)
		HAS(waits[_i].says, why);
}
END_TEST

START_TEST(timeout_actions_have_names)
{
	for (int a = TIMEOUT_ABORT; a <= TIMEOUT_POSTCOPY; a++)
		ck_assert_int_eq(timeout_action_find(timeout_action_name(a)), a);
	ck_assert_int_eq(timeout_action_find("postcopy"), -1);
	ck_assert_int_eq(timeout_action_find(""), -1);
}
END_TEST

/* -- the forecast -- */

#define LINK (117 * MIB)

static const struct {
	const char *what;
	struct forecast_input in;
	enum forecast_answer converges;
	uint64_t total_ms[2], pause_ms[2]; /* from, to */
	unsigned int throttle[2];
	const char *says, *says_not;
} forecasts[] = {
	{ "nothing is known",
	  { .dirty_bytes = 5 },
	  FORECAST_UNKNOWN,
	  { 0, 0 },
	  { 0, 0 },
	  { 0, 0 },
	  "nothing was sent yet",
	  NULL },
	{ "an idle guest",
	  { LINK, 0, GIB, 0, 300000, 5000, false, false, false, 0 },
	  FORECAST_YES,
	  { 8700, 8800 },
	  { 5, 8 },
	  { 0, 0 },
	  "converges: the guest writes 0.0 MiB/s, the link",
	  "throttle" },
	{ "half the link",
	  { LINK, LINK / 2, GIB, 0, 300000, 5000, false, false, false, 0 },
	  FORECAST_YES,
	  { 16000, 18000 },
	  { 5, 300 },
	  { 0, 0 },
	  "about 17",
	  NULL },
	{ "a small working set that is written to flat out",
	  { LINK, 5000 * MIB, GIB, 16 * MIB, 300000, 5000, false, false, false, 0 },
	  FORECAST_YES,
	  { 8700, 9300 },
	  { 100, 200 },
	  { 0, 0 },
	  "again and again to 16.0 MiB",
	  NULL },
	{ "a large one, and nothing is allowed",
	  { LINK, 5000 * MIB, GIB, 256 * MIB, 300000, 5000, false, false, false, 0 },
	  FORECAST_NO,
	  { 0, 0 },
	  { 0, 0 },
	  { 0, 0 },
	  "will not converge: the guest writes 5000.0 MiB/s (again and again to 256.0 MiB), the "
	  "link takes 117.0 MiB/s, so the pause would be 2194 ms, but 300 ms are allowed; what "
	  "would help: --auto-converge (a throttle of about 9",
	  NULL },
	{ "the same: the downtime and compression",
	  { LINK, 5000 * MIB, GIB, 256 * MIB, 300000, 5000, false, false, false, 0 },
	  FORECAST_NO,
	  { 0, 0 },
	  { 0, 0 },
	  { 0, 0 },
	  "--downtime 2500, --compress xbzrle if the guest changes little of each page",
	  NULL },
	{ "compression is known to gain",
	  { LINK, 200 * MIB, GIB, 256 * MIB, 300000, 5000, false, false, false, 20 },
	  FORECAST_NO,
	  { 0, 0 },
	  { 0, 0 },
	  { 0, 0 },
	  ", --compress xbzrle",
	  " if the guest" },
	{ "compression is known not to gain",
	  { LINK, 200 * MIB, GIB, 256 * MIB, 300000, 5000, false, false, false, 100 },
	  FORECAST_NO,
	  { 0, 0 },
	  { 0, 0 },
	  { 0, 0 },
	  "--downtime 2500",
	  "--compress" },
	{ "a throttle is allowed",
	  { LINK, 5000 * MIB, GIB, 256 * MIB, 300000, 5000, false, true, false, 0 },
	  FORECAST_YES,
	  { 8700, 200000 },
	  { 5, 300 },
	  { 97, 99 },
	  "at a throttle of 9",
	  "help" },
	{ "how much is written is not known, only that it is too much",
	  { LINK, LINK, GIB, 256 * MIB, 300000, 5000, true, false, false, 100 },
	  FORECAST_NO,
	  { 0, 0 },
	  { 0, 0 },
	  { 0, 0 },
	  "will not converge: the guest writes at least 117.0 MiB/s (again and again to 256.0 "
	  "MiB), "
	  "the link takes 117.0 MiB/s, so the pause would be 2194 ms, but 300 ms are allowed; "
	  "what "
	  "would help: --auto-converge, --downtime 2500",
	  "a throttle of" },
	{ "the same with a throttle",
	  { LINK, LINK, GIB, 256 * MIB, 300000, 5000, true, true, false, 100 },
	  FORECAST_UNKNOWN,
	  { 0, 0 },
	  { 0, 0 },
	  { 0, 0 },
	  "depends on the throttle: the guest writes at least",
	  "help" },
	{ "a little throttle is enough",
	  { LINK, 120 * MIB, GIB, 256 * MIB, 300000, 5000, false, true, false, 0 },
	  FORECAST_YES,
	  { 8700, 2000000 },
	  { 5, 300 },
	  { 1, 10 },
	  "at a throttle of ",
	  "help" },
	{ "compression is allowed, and enough",
	  { LINK, 150 * MIB, GIB, 256 * MIB, 300000, 5000, false, true, true, 20 },
	  FORECAST_YES,
	  { 1000, 9000 },
	  { 5, 300 },
	  { 0, 0 },
	  "with compression",
	  "throttle" },
	{ "compression is allowed, and nobody knows what it gains",
	  { LINK, 150 * MIB, GIB, 256 * MIB, 300000, 5000, false, false, true, 0 },
	  FORECAST_UNKNOWN,
	  { 0, 0 },
	  { 0, 0 },
	  { 0, 0 },
	  "depends on how much compression gains",
	  "help" },
	{ "even a throttle is not enough",
	  { LINK, 50000 * MIB, GIB, 256 * MIB, 300000, 5000, false, true, false, 100 },
	  FORECAST_NO,
	  { 0, 0 },
	  { 0, 0 },
	  { 0, 0 },
	  "what would help: --downtime 2500",
	  "auto-converge" },
	{ "as slow as can be",
	  { 1, UINT64_MAX, UINT64_MAX, 0, 300000, 5000, false, false, true, 100 },
	  FORECAST_NO,
	  { 0, 0 },
	  { 0, 0 },
	  { 0, 0 },
	  "will not converge",
	  "--downtime" },
	{ "as fast as can be",
	  { UINT64_MAX, 0, UINT64_MAX, UINT64_MAX, 0, 0, false, false, false, 1 },
	  FORECAST_YES,
	  { 0, 2000 },
	  { 0, 1 },
	  { 0, 0 },
	  "converges",
	  NULL },
};

START_TEST(forecast_tells_whether_and_when_or_what_would_help)
{
	const char *what = forecasts[_i].what;
	struct forecast f;

	forecast_make(&forecasts[_i].in, &f);
	ck_assert_msg(f.converges == forecasts[_i].converges, "%s: %s", what, f.sentence);
	HAS(forecasts[_i].says, f.sentence);
	if (forecasts[_i].says_not)
		ck_assert_msg(!strstr(f.sentence, forecasts[_i].says_not), "%s: %s", what,
			      f.sentence);
	if (f.converges != FORECAST_YES)
		return;
	ck_assert_msg(f.total_us / 1000 >= forecasts[_i].total_ms[0] &&
			      f.total_us / 1000 <= forecasts[_i].total_ms[1] &&
			      f.pause_us / 1000 >= forecasts[_i].pause_ms[0] &&
			      f.pause_us / 1000 <= forecasts[_i].pause_ms[1] &&
			      f.throttle_pct >= forecasts[_i].throttle[0] &&
			      f.throttle_pct <= forecasts[_i].throttle[1],
		      "%s: %s", what, f.sentence);
}
END_TEST

/* What is said to help does help, over rates, working sets and limits of all sizes. */
START_TEST(what_a_forecast_advises_helps)
{
	static const uint64_t links[] = { MIB, LINK, 1170 * MIB, 11700 * MIB };
	static const uint64_t sets[] = { 0, MIB, 64 * MIB, 683 * MIB, 4096 * GIB };
	static const uint64_t limits[] = { 10000, 300000, 5000000 };

	for (int i = 0; i < N(links) * N(sets) * N(limits) * 12; i++) {
		struct forecast_input in = { .send_bytes = links[i % N(links)],
					     .working_set_bytes = sets[i / N(links) % N(sets)],
					     .limit_us =
						     limits[i / (N(links) * N(sets)) % N(limits)],
					     .remaining_bytes = 4 * GIB,
					     .fixed_us = 5000,
					     .compressed_pct = 100 };
		struct forecast f, again;

		in.dirty_bytes = in.send_bytes *
				 (uint64_t)(1 + i / (N(links) * N(sets) * N(limits))) / 4;
		forecast_make(&in, &f);
		ck_assert_uint_lt(strlen(f.sentence), sizeof(f.sentence) - 1);
		if (f.converges == FORECAST_YES) {
			ck_assert_uint_le(f.pause_us, in.limit_us);
			continue;
		}
		ck_assert_int_eq(f.converges, FORECAST_NO);
		ck_assert_uint_ge(in.dirty_bytes, in.send_bytes / 20 * 19);
		if (strstr(f.sentence, "--auto-converge")) {
			in.throttle = true;
			forecast_make(&in, &again);
			ck_assert_msg(again.converges == FORECAST_YES, "%s", again.sentence);
			ck_assert_uint_le(again.pause_us, in.limit_us);
			in.throttle = false;
		}
		if (in.working_set_bytes) {
			in.limit_us = f.needed_us;
			forecast_make(&in, &again);
			ck_assert_msg(again.converges == FORECAST_YES, "%s: %s", f.sentence,
				      again.sentence);
		}
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("schedule");
	TCase *c = tcase_create("numbers");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 60);
	tcase_add_loop_test(c, rounds_stall_as_interface_says, 0, N(stalls));
	tcase_add_loop_test(c, items_fire_when_their_count_is_reached, 0, N(courses));
	tcase_add_test(c, firing_has_a_sentence_with_the_numbers);
	tcase_add_test(c, progress_never_walks_down_the_schedule);
	tcase_add_test(c, policy_without_initial_items_leaves_the_limit_as_it_is);
	tcase_add_loop_test(c, time_for_the_whole_is_absolute_or_by_memory, 0, N(totals));
	tcase_add_loop_test(c, timeout_passes_when_time_or_patience_is_over, 0, N(waits));
	tcase_add_test(c, timeout_actions_have_names);
	tcase_add_loop_test(c, forecast_tells_whether_and_when_or_what_would_help, 0, N(forecasts));
	tcase_add_test(c, what_a_forecast_advises_helps);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
