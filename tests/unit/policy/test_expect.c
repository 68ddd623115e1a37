/*
 * The pause that users are told of: made of what was rehearsed at both ends and of what the link
 * takes, and said before the guest is parked if it cannot be kept.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/policy/expect.h"
#include "migrate/source/source_internal.h"
#include "migrate/stream/hello.h"
#include "tests/unit/lib/engine_rig.h"
#include "vmm/memory.h"

/* -- the sum -- */

static const struct guest_costs here = {
	.park_us = 100, .save_us = 2000, .states_bytes = 30000, .load_us = 1, .start_us = 1
};

static struct record checked(const uint8_t *body, uint32_t len)
{
	return (struct record){ .type = RECORD_CHECKED, .body = body, .body_bytes = len };
}

START_TEST(pause_is_the_sum_of_its_parts)
{
	const struct checked_costs there = { 50000, 400000, 5000 };
	struct expect x = { 0 };

	ck_assert_uint_eq(expect_fixed_us(&x, 1000000), EXPECT_UNKNOWN_US);
	expect_rehearsed(&x, &here);
	/* Nobody knows of the destination: as here. And at 1 MB/s the states take 30 ms. */
	ck_assert_uint_eq(expect_fixed_us(&x, 1000000), 100 + 2000 + 30000 + 2000 + 100);
	expect_checked(&x, &there, 50700);
	ck_assert_uint_eq(expect_fixed_us(&x, 1000000),
			  100 + 2000 + 30000 + 400000 + 5000 + 2 * 700);
	x.fetch_us = 9;
	expect_answered(&x, 900); /* that was a busy moment */
	expect_answered(&x, 500);
	ck_assert_uint_eq(expect_fixed_us(&x, 0), 100 + 9 + 2000 + 400000 + 5000 + 2 * 500);
}
END_TEST

START_TEST(answers_that_bring_no_costs_are_told_from_refusals)
{
	static const uint8_t zeros[CHECKED_BYTES + 1];
	struct record none = checked(NULL, 0), text = checked((const uint8_t *)"no", 2);
	struct record longer = checked(zeros, sizeof(zeros));
	struct checked c;

	ck_assert(checked_decode(&none, &c) && !c.features);
	ck_assert(!checked_decode(&text, &c));
	ck_assert(!checked_decode(&longer, &c));
}
END_TEST

/* A destination may say what it likes, but no sum overflows. */
START_TEST(no_figure_is_too_large)
{
	const struct checked_costs most = { 0, UINT32_MAX, UINT32_MAX };
	const struct guest_costs vast = { .save_us = 1, .states_bytes = UINT64_MAX };
	struct expect x = { 0 };

	expect_rehearsed(&x, &vast);
	expect_checked(&x, &most, UINT32_MAX);
	ck_assert_uint_lt(expect_fixed_us(&x, 1), 1ull << 40);
}
END_TEST

START_TEST(limit_that_cannot_be_kept_is_said_once)
{
	struct expect x = { 0 };
	char text[512] = "";

	ck_assert(!expect_unkeepable(&x, 0, 1, 1, "", text, sizeof(text)));
	expect_rehearsed(&x, &(struct guest_costs){ .save_us = 210000, .park_us = 10000 });
	x.cost.load_us = 165000;
	ck_assert(!expect_unkeepable(&x, 0, 400000, 254, "", text, sizeof(text)));
	ck_assert(expect_unkeepable(&x, 0, 300000, 254, "so it is", text, sizeof(text)));
	ck_assert_str_eq(text,
			 "the pause will be longer than the 300 ms that are allowed, however "
			 "little is left: without memory it takes about 395 ms (the states of 254 "
			 "vCPUs: 210 ms to collect, 0 ms to send, 165 ms to load); so it is");
	ck_assert(!expect_unkeepable(&x, 0, 300000, 254, "", text, sizeof(text)));
	ck_assert(expect_unkeepable(&x, 0, 350000, 254, "", text, sizeof(text)));
}
END_TEST

/* -- the engine -- */

/* A guest whose states take so long, at both ends, and who says so beforehand. */
static void init(struct rig *r, unsigned int save_us, unsigned int load_us)
{
	rig_init(r, RIG_UNIX);
	r->src->costs = (struct guest_costs){ .park_us = 10, .save_us = save_us };
	r->src->save_takes_us = save_us;
	r->dst->load_takes_us = r->load_us = load_us;
}

START_TEST(expected_pause_counts_what_both_ends_have_rehearsed)
{
	struct rig r;

	init(&r, 60000, 90000);
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	ck_assert_uint_eq(r.src->rehearsals, 1);
	ck_assert(r.engine->expect.told);
	/* What is said is what is measured, and the pause has it. */
	ck_assert_uint_ge(r.source_stats.expected_us, 150000);
	ck_assert_uint_ge(r.source_stats.downtime_us, 150000);
	ck_assert_str_eq(r.limit_reason, "");
	rig_check(&r);
	rig_free(&r);
}
END_TEST

START_TEST(destination_that_tells_nothing_is_taken_for_like_this_one)
{
	struct rig r;

	init(&r, 20000, 0);
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	ck_assert(!r.engine->expect.told);
	ck_assert_uint_ge(r.source_stats.expected_us, 40000);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* With nobody to decide, the guest is moved as soon as rounds can do no more; but it is told. */
START_TEST(limit_that_states_alone_exceed_is_told_before_the_guest_is_parked)
{
	struct rig r;

	init(&r, 30000, 50000);
	r.limits.downtime_us = 60000;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	ck_assert_msg(strstr(r.limit_reason, "longer than the 60 ms that are allowed") &&
			      strstr(r.limit_reason, "30 ms to collect") &&
			      strstr(r.limit_reason, "50 ms to load") &&
			      strstr(r.limit_reason, "moved all the same"),
		      "'%s'", r.limit_reason);
	ck_assert(r.limit_in_time);
	ck_assert_uint_ge(r.source_stats.expected_us, 80000);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* A policy may allow more, or give up: before anything is parked. */
START_TEST(policy_decides_when_states_alone_exceed_the_limit)
{
	const struct policy p = {
		.name = "deciding",
		.n_convergence = 1,
		.convergence = { { 1,
				   { _i ? POLICY_ABORT : POLICY_SET_DOWNTIME, _i ? 0 : 9000 } } },
		.n_last = 1,
		.last = { { POLICY_ABORT, 0 } },
	};
	struct rig r;

	init(&r, 30000, 50000);
	r.limits.downtime_us = 60000;
	r.source.policy = &p;
	rig_run(&r);
	ck_assert(r.limit_in_time);
	ck_assert_msg(strstr(r.limit_reason, "the policy decides"), "'%s'", r.limit_reason);
	ck_assert_int_eq(r.source_rc, _i ? -1 : 0);
	ck_assert_uint_eq(r.src->parks, _i ? 0 : 1);
	if (_i)
		ck_assert_msg(strstr(r.source_error.text, "policy 'deciding'"), "%s",
			      r.source_error.text);
	else
		ck_assert_uint_eq(r.limits.downtime_us, 9000000);
	/* It rests between such rounds: a second of them is no thousand. */
	ck_assert_uint_lt(r.rounds, 200);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* As a timeout does, by force or by a cancel. */
static void after_three_rounds(struct rig *r, uint64_t round)
{
	if (round != 3)
		return;
	if (r->engine->expect.said_limit_us)
		__atomic_store_n(&r->limits.force, true, __ATOMIC_RELAXED);
	else
		rig_stop(r->source_stop);
}

START_TEST(timeout_decides_when_states_alone_exceed_the_limit)
{
	struct rig r;

	init(&r, 30000, 50000);
	r.limits.downtime_us = 60000;
	r.source.parameters.timeout.total_s = 1000;
	r.on_round = after_three_rounds;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	ck_assert_uint_ge(r.rounds, 3);
	ck_assert_msg(strstr(r.limit_reason, "the timeout decides"), "'%s'", r.limit_reason);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

static void force(struct rig *r, uint64_t round)
{
	if (round == 1)
		__atomic_store_n(&r->limits.force, true, __ATOMIC_RELAXED);
}

/* What was expected right before it, however long: never nothing. */
START_TEST(forced_pause_was_expected_as_long_as_it_had_to_be)
{
	struct rig r;
	uint64_t at_least;

	init(&r, 1000, 1000);
	r.limits.bandwidth = 4u << 20;
	r.limits.downtime_us = 1000;
	r.on_round = force;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	/* Some 700 pages at 4 MiB/s: a half of that time is no budget but what a byte costs. */
	at_least = 300 * PAGE_SIZE * 1000000ull / r.limits.bandwidth;
	ck_assert_uint_ge(r.source_stats.expected_us, at_least);
	/* Nothing holds the link back any more. */
	ck_assert_msg(strstr(r.reason, "a pause of at most") != NULL, "%s", r.reason);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("expect");
	TCase *c = tcase_create("expect");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_test(c, pause_is_the_sum_of_its_parts);
	tcase_add_test(c, answers_that_bring_no_costs_are_told_from_refusals);
	tcase_add_test(c, no_figure_is_too_large);
	tcase_add_test(c, limit_that_cannot_be_kept_is_said_once);
	tcase_add_test(c, expected_pause_counts_what_both_ends_have_rehearsed);
	tcase_add_test(c, destination_that_tells_nothing_is_taken_for_like_this_one);
	tcase_add_test(c, limit_that_states_alone_exceed_is_told_before_the_guest_is_parked);
	tcase_add_loop_test(c, policy_decides_when_states_alone_exceed_the_limit, 0, 2);
	tcase_add_test(c, timeout_decides_when_states_alone_exceed_the_limit);
	tcase_add_test(c, forced_pause_was_expected_as_long_as_it_had_to_be);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
