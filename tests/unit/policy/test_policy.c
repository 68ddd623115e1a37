/*
 * The engine's pure parts: the rate limit on a clock of the test's own, and the decision when to
 * park. No threads, no sleep.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/channel/pace.h"
#include "migrate/policy/switchover.h"
#include "vmm/memory.h"

#define N(a) ((int)(sizeof(a) / sizeof((a)[0])))

#define SECOND 1000000ull

/* -- the rate -- */

/* A sender that runs for `seconds`, and what it sent, when. */
struct sender {
	struct pace pace;
	uint64_t now, rate;
	uint64_t oversleep_us; /* at most, by a number that looks random */
	uint64_t piece_bytes;  /* 0: as much as a batch may be */
	uint64_t seed;
	uint64_t *at, *bytes;
	size_t n, size;
};

static uint64_t chance(struct sender *s, uint64_t below)
{
	s->seed = s->seed * 6364136223846793005ull + 1442695040888963407ull;
	return below ? (s->seed >> 33) % below : 0;
}

static void send_until(struct sender *s, uint64_t end)
{
	while (s->now < end) {
		uint64_t bytes = s->piece_bytes ? s->piece_bytes
						: pace_batch_bytes(s->rate, 512 * PAGE_SIZE);
		uint64_t wait = pace_take(&s->pace, s->now, s->rate, bytes);

		if (wait)
			s->now += wait + chance(s, s->oversleep_us);
		if (s->n == s->size) {
			s->size = s->size ? 2 * s->size : 4096;
			s->at = realloc(s->at, s->size * sizeof(s->at[0]));
			s->bytes = realloc(s->bytes, s->size * sizeof(s->bytes[0]));
		}
		s->at[s->n] = s->now;
		s->bytes[s->n++] = bytes;
	}
}

/* The bytes of every window of a second between two times must be the rate's, within 5 %. */
static void check_windows(const struct sender *s, uint64_t from, uint64_t to)
{
	size_t first = 0, last = 0;
	uint64_t sum = 0, start;

	for (start = from; start + SECOND <= to; start += 777) {
		while (last < s->n && s->at[last] < start + SECOND)
			sum += s->bytes[last++];
		while (first < last && s->at[first] < start)
			sum -= s->bytes[first++];
		ck_assert_msg(sum >= s->rate / 100 * 95 && sum <= s->rate / 100 * 105,
			      "%lu bytes in the second from %lu us at %lu", sum, start, s->rate);
	}
}

static void forget(struct sender *s)
{
	free(s->at);
	free(s->bytes);
}

static const uint64_t rates[] = { 1000000,	 8u << 20,	100000000,
				  1000000000ull, 3333333333ull, 10000000000ull };

START_TEST(rate_holds_over_any_second_from_a_megabyte_to_ten_gigabytes)
{
	/* Batches; single pages, which take less than a microsecond at the highest rate; naps that
	 * last too long, as on a busy machine. */
	static const uint64_t pieces[] = { 0, PAGE_SIZE + 48, 0 }, oversleeps[] = { 0, 0, 8000 };
	struct sender s = { .now = 123456789,
			    .rate = rates[_i % N(rates)],
			    .piece_bytes = pieces[_i / N(rates)],
			    .oversleep_us = oversleeps[_i / N(rates)] };

	send_until(&s, s.now + 3 * SECOND);
	check_windows(&s, 123456789, s.now);
	forget(&s);
}
END_TEST

START_TEST(time_that_was_not_used_is_made_up_for_only_a_little)
{
	struct sender s = { .now = 1, .rate = 100000000 };
	size_t before;
	uint64_t at_once = 0;

	send_until(&s, SECOND);
	s.now += 10 * SECOND; /* nothing to send for ten seconds */
	before = s.n;
	send_until(&s, s.now + 1);
	for (; before < s.n; before++)
		at_once += s.bytes[before];
	ck_assert_uint_le(at_once, s.rate * 5 / 100);
	forget(&s);
}
END_TEST

START_TEST(new_rate_holds_at_once)
{
	struct sender s = { .now = 5000, .rate = 50000000 };
	uint64_t from;

	send_until(&s, 2 * SECOND);
	s.rate = _i ? 1000000000 : 2000000;
	from = s.now + 100000;
	send_until(&s, 5 * SECOND);
	check_windows(&s, from, s.now);
	forget(&s);
}
END_TEST

START_TEST(debt_of_a_crawl_does_not_outlive_it)
{
	struct pace p = { 0 };

	pace_take(&p, 1000, 1, 1u << 20); /* a megabyte at a byte a second: twelve days */
	ck_assert_uint_gt(pace_take(&p, 2000, 1, 1), 1000000 * SECOND);
	ck_assert_uint_lt(pace_take(&p, 3000, 1000000000, 4096), SECOND / 100);
	ck_assert_uint_eq(pace_take(&p, 4000, 0, 1u << 30), 0);
	ck_assert_uint_eq(pace_take(&p, 5000, 0, 1u << 30), 0);
	ck_assert_uint_le(pace_rescale(1000, 7, 0), 0);
	ck_assert_uint_eq(pace_rescale(1000, 100, 50), 2000);
	ck_assert_uint_gt(pace_rescale(UINT64_MAX, UINT64_MAX, 1), SECOND);
}
END_TEST

START_TEST(batches_are_small_where_the_rate_is)
{
	ck_assert_uint_eq(pace_batch_bytes(0, 2u << 20), 2u << 20);
	ck_assert_uint_eq(pace_batch_bytes(100000000, 2u << 20), 1000000);
	ck_assert_uint_eq(pace_batch_bytes(10000000000ull, 2u << 20), 2u << 20);
	/* Never nothing. */
	ck_assert_uint_ge(pace_batch_bytes(1, 2u << 20), PAGE_SIZE);
}
END_TEST

/* -- when to park -- */

#define NONE UINT64_MAX
#define MIB  (1ull << 20)

static const struct {
	const char *what;
	struct switchover_input in;
	bool stop;
	const char *reason;
} decisions[] = {
	{ "nothing is left",
	  { 0, NONE, 1000 * MIB, 5000, 300000, false },
	  true,
	  "hardly anything" },
	{ "little is left, in the first round",
	  { MIB, NONE, 1000 * MIB, 5000, 300000, false },
	  true,
	  "hardly anything" },
	{ "it would fit, but another round is worth it",
	  { 100 * MIB, NONE, 1000 * MIB, 5000, 300000, false },
	  false,
	  "shorter" },
	{ "it fits, and gets smaller",
	  { 50 * MIB, 100 * MIB, 1000 * MIB, 5000, 300000, false },
	  false,
	  "shorter" },
	{ "it fits, and stays as it is",
	  { 100 * MIB, 101 * MIB, 1000 * MIB, 5000, 300000, false },
	  true,
	  "notably shorter" },
	{ "it fits, and grows",
	  { 100 * MIB, 50 * MIB, 1000 * MIB, 5000, 300000, false },
	  true,
	  "notably shorter" },
	{ "it stays as it is, above the limit",
	  { 400 * MIB, 400 * MIB, 1000 * MIB, 5000, 300000, false },
	  false,
	  "longer than the limit" },
	{ "what is not pages counts, too",
	  { 100 * MIB, 100 * MIB, 1000 * MIB, 250000, 300000, false },
	  false,
	  "longer than the limit" },
	{ "no rate is known, and something is left",
	  { 1, NONE, 0, 5000, 300000, false },
	  false,
	  "longer than the limit" },
	{ "no rate is known, nothing is left",
	  { 0, NONE, 0, 5000, 300000, false },
	  true,
	  "hardly" },
	{ "a limit that no pause can meet, nothing left",
	  { 0, NONE, 1000 * MIB, 5000, 1000, false },
	  true,
	  "no round makes the pause fit" },
	{ "a limit that no pause can meet, and a policy to decide",
	  { 0, NONE, 1000 * MIB, 5000, 1000, true },
	  false,
	  "no round makes the pause fit" },
	{ "a limit that what is hardly left does not fit either",
	  { MIB, MIB, 1000 * MIB, 299900, 300000, false },
	  true,
	  "no round makes the pause fit" },
	{ "a limit that no pause can meet, and much left",
	  { 100 * MIB, 100 * MIB, 1000 * MIB, 5000, 1000, false },
	  false,
	  "longer than the limit" },
	{ "more than any machine has",
	  { UINT64_MAX, UINT64_MAX - 1, 1, 5000, 300000, false },
	  false,
	  "longer than the limit" },
};

START_TEST(guest_is_parked_when_another_round_gains_nothing_and_the_limit_holds)
{
	struct switchover_verdict v = switchover_decide(&decisions[_i].in);

	ck_assert_msg(v.stop == decisions[_i].stop, "%s: %s", decisions[_i].what, v.reason);
	ck_assert_msg(strstr(v.reason, decisions[_i].reason), "%s: %s", decisions[_i].what,
		      v.reason);
	ck_assert_uint_ge(v.expected_us, decisions[_i].in.fixed_us);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("policy");
	TCase *c = tcase_create("policy");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_loop_test(c, rate_holds_over_any_second_from_a_megabyte_to_ten_gigabytes, 0,
			    3 * N(rates));
	tcase_add_test(c, time_that_was_not_used_is_made_up_for_only_a_little);
	tcase_add_loop_test(c, new_rate_holds_at_once, 0, 2);
	tcase_add_test(c, debt_of_a_crawl_does_not_outlive_it);
	tcase_add_test(c, batches_are_small_where_the_rate_is);
	tcase_add_loop_test(c, guest_is_parked_when_another_round_gains_nothing_and_the_limit_holds,
			    0, N(decisions));
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
