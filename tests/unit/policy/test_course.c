/*
 * The decision at the end of a round and within one, as a pure function: what is decided from which
 * figures. No clock, no guest.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/policy/course.h"

#define MIB (1ull << 20)

static const struct policy patient = {
	.name = "patient",
	.n_initial = 1,
	.initial = { { POLICY_SET_DOWNTIME, 100 } },
	.n_convergence = 1,
	.convergence = { { 1, { POLICY_SET_DOWNTIME, 5000 } } },
	.n_last = 1,
	.last = { { POLICY_ABORT, 0 } },
};

static struct course c;

/* 100 MiB/s, 5 ms beside the pages, 300 ms allowed; 100 MiB remain after a round of 2 s. */
static struct course_figures busy(void)
{
	return (struct course_figures){ .round = 1,
					.remaining_bytes = 100 * MIB,
					.rate_bytes = 100 * MIB,
					.fixed_us = 5000,
					.limit_us = 300000,
					.round_us = 2000000,
					.round_limit_us = 300000,
					.rest_us = UINT64_MAX };
}

static void begin(const struct policy *p)
{
	uint64_t limit = 300000;

	course_begin(&c, p, &limit);
	ck_assert_uint_eq(limit, p && p->n_initial ? p->initial[0].downtime_ms * 1000ull : 300000);
}

START_TEST(too_long_a_pause_goes_on)
{
	struct course_figures f = busy();
	struct course_verdict v;

	begin(NULL);
	v = course_round_end(&c, &f);
	ck_assert_int_eq(v.action, COURSE_GO_ON);
	ck_assert_uint_eq(v.expected_us, 1005000);
	ck_assert_uint_eq(v.limit_us, 300000);
	ck_assert(!v.policy_fired && !v.stalled && v.progressed);
}
END_TEST

START_TEST(guest_is_parked_once_another_round_gains_little)
{
	struct course_figures f = busy();

	begin(NULL);
	f.remaining_bytes = 20 * MIB; /* fits; but the next round may leave less */
	ck_assert_int_eq(course_round_end(&c, &f).action, COURSE_GO_ON);
	f.remaining_bytes = 10 * MIB; /* it did */
	ck_assert_int_eq(course_round_end(&c, &f).action, COURSE_GO_ON);
	f.remaining_bytes = 9 * MIB;
	ck_assert_int_eq(course_round_end(&c, &f).action, COURSE_PARK);
	f.remaining_bytes = 0;
	ck_assert_int_eq(course_round_end(&c, &f).action, COURSE_PARK);
}
END_TEST

START_TEST(busy_agent_is_waited_for_and_not_judged_by_the_policy)
{
	struct course_figures f = busy();
	struct course_verdict v;

	begin(&patient);
	f.agent_busy = true;
	f.remaining_bytes = 0;
	for (int i = 0; i < 5; i++) {
		v = course_round_end(&c, &f);
		ck_assert_int_eq(v.action, COURSE_AWAIT_AGENT);
		ck_assert(!v.policy_fired && !v.stalled);
	}
	f.agent_busy = false;
	ck_assert_int_eq(course_round_end(&c, &f).action, COURSE_PARK);
}
END_TEST

START_TEST(force_parks_whatever_remains_and_waits_for_nobody)
{
	struct course_figures f = busy();
	struct course_verdict v;

	begin(_i ? &patient : NULL);
	f.forced = f.agent_busy = true;
	v = course_round_end(&c, &f);
	ck_assert_int_eq(v.action, COURSE_PARK);
	ck_assert_str_eq(v.reason, COURSE_BY_FORCE);
	ck_assert_uint_eq(v.expected_us, 1005000);
	ck_assert(!v.policy_fired);
	v = course_within_round(&c, &f);
	ck_assert_int_eq(v.action, COURSE_PARK);
	ck_assert_str_eq(v.reason, COURSE_BY_FORCE);
	f.remaining_bytes = 0;
	ck_assert_int_eq(course_round_end(&c, &f).action, COURSE_PARK);
}
END_TEST

START_TEST(policy_raises_the_limit_and_the_round_is_judged_by_it)
{
	struct course_figures f = busy();
	struct course_verdict v;

	begin(&patient);
	f.limit_us = 100000;
	ck_assert_int_eq(course_round_end(&c, &f).action, COURSE_GO_ON);
	f.round = 2;
	v = course_round_end(&c, &f); /* stalled: 5 s are allowed, and all fits */
	ck_assert(v.policy_fired);
	ck_assert_int_eq(v.policy_step.action, POLICY_SET_DOWNTIME);
	ck_assert_uint_eq(v.limit_us, 5000000);
	ck_assert_int_eq(v.action, COURSE_PARK);
}
END_TEST

START_TEST(policy_never_lowers_the_limit)
{
	struct course_figures f = busy();
	struct course_verdict v;

	begin(&patient);
	f.remaining_bytes = 10000 * MIB;
	f.limit_us = 9000000; /* a person has allowed more */
	course_round_end(&c, &f);
	v = course_round_end(&c, &f);
	ck_assert(v.policy_fired);
	ck_assert_uint_eq(v.limit_us, 9000000);
	ck_assert_int_eq(v.action, COURSE_GO_ON);
}
END_TEST

START_TEST(policy_gives_up_or_asks_for_post_copy)
{
	struct policy last = patient;
	struct course_figures f = busy();
	struct course_verdict v;

	last.n_convergence = 0;
	last.last[0].action = _i ? POLICY_POSTCOPY : POLICY_ABORT;
	begin(&last);
	ck_assert_int_eq(course_round_end(&c, &f).action, COURSE_GO_ON);
	v = course_round_end(&c, &f);
	ck_assert_int_eq(v.action, _i ? COURSE_POSTCOPY : COURSE_GIVE_UP);
	ck_assert(v.policy_fired);
	ck_assert_msg(strstr(v.policy_step.reason, "stalled (1 in all)") != NULL, "%s",
		      v.policy_step.reason);
}
END_TEST

START_TEST(limit_below_what_no_round_can_change)
{
	struct course_figures f = busy();
	bool decided = _i > 0; /* by a timeout, or a policy */

	begin(_i == 2 ? &patient : NULL);
	f.timed = _i == 1;
	f.remaining_bytes = 0;
	f.fixed_us = 400000;
	ck_assert(course_must_wait(&c, &f) == decided);
	ck_assert_int_eq(course_round_end(&c, &f).action, decided ? COURSE_GO_ON : COURSE_PARK);
	f.fixed_us = 5000;
	ck_assert(!course_must_wait(&c, &f));
	f.remaining_bytes = 100 * MIB; /* a round can help here */
	ck_assert(!course_must_wait(&c, &f));
}
END_TEST

START_TEST(rounds_without_gain_are_stalled_and_short_ones_count_together)
{
	struct course_figures f = busy();
	struct course_verdict v;

	begin(NULL);
	v = course_round_end(&c, &f);
	ck_assert(v.progressed && !v.stalled);
	v = course_round_end(&c, &f);
	ck_assert(!v.progressed && v.stalled);
	f.round_us = 400000;
	v = course_round_end(&c, &f);
	ck_assert(!v.progressed && !v.stalled);
	v = course_round_end(&c, &f);
	ck_assert(!v.progressed && !v.stalled);
	v = course_round_end(&c, &f);
	ck_assert(!v.progressed && v.stalled);
	f.remaining_bytes = 60 * MIB;
	f.round_us = 1000000;
	v = course_round_end(&c, &f);
	ck_assert(v.progressed && !v.stalled);
}
END_TEST

START_TEST(limit_that_is_raised_within_a_round_parks_if_all_fits)
{
	struct course_figures f = busy();

	begin(NULL);
	f.round = 2;
	f.rest_us = 1000000;
	ck_assert_int_eq(course_within_round(&c, &f).action, COURSE_GO_ON);
	f.limit_us = 1004999;
	ck_assert(!course_fits_raised_limit(&f));
	f.limit_us = 1005000;
	ck_assert(course_fits_raised_limit(&f));
	ck_assert_int_eq(course_within_round(&c, &f).action, COURSE_PARK);
	f.agent_busy = true;
	ck_assert_int_eq(course_within_round(&c, &f).action, COURSE_GO_ON);
	f.agent_busy = false;
	f.round_limit_us = 1005000; /* as it was when the round began: its end decides */
	ck_assert_int_eq(course_within_round(&c, &f).action, COURSE_GO_ON);
	f.round_limit_us = 300000;
	f.rest_us = UINT64_MAX; /* nobody has looked yet */
	ck_assert_int_eq(course_within_round(&c, &f).action, COURSE_GO_ON);
	f.rest_us = 0;
	f.fixed_us = 2000000;
	ck_assert_int_eq(course_within_round(&c, &f).action, COURSE_GO_ON);
}
END_TEST

START_TEST(zeroed_course_has_no_policy)
{
	struct course_figures f = busy();

	c = (struct course){ 0 };
	ck_assert_int_eq(course_round_end(&c, &f).action, COURSE_GO_ON);
	f.remaining_bytes = 0;
	ck_assert_int_eq(course_round_end(&c, &f).action, COURSE_PARK);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("course");
	TCase *t = tcase_create("course");
	SRunner *r;
	int failed;

	tcase_add_test(t, too_long_a_pause_goes_on);
	tcase_add_test(t, guest_is_parked_once_another_round_gains_little);
	tcase_add_test(t, busy_agent_is_waited_for_and_not_judged_by_the_policy);
	tcase_add_loop_test(t, force_parks_whatever_remains_and_waits_for_nobody, 0, 2);
	tcase_add_test(t, policy_raises_the_limit_and_the_round_is_judged_by_it);
	tcase_add_test(t, policy_never_lowers_the_limit);
	tcase_add_loop_test(t, policy_gives_up_or_asks_for_post_copy, 0, 2);
	tcase_add_loop_test(t, limit_below_what_no_round_can_change, 0, 3);
	tcase_add_test(t, rounds_without_gain_are_stalled_and_short_ones_count_together);
	tcase_add_test(t, limit_that_is_raised_within_a_round_parks_if_all_fits);
	tcase_add_test(t, zeroed_course_has_no_policy);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
