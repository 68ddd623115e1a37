/*
 * Slices and naps of a throttled vCPU on a clock of the test's own: no thread, no sleep.
 */
#include <check.h>
#include <stdbool.h>
#include <stdlib.h>

#include "vmm/throttle.h"

#define N(a) ((int)(sizeof(a) / sizeof((a)[0])))

#define MS	  1000000ull
#define SECOND	  (1000 * MS)
#define UNLIMITED UINT64_MAX

/* A vCPU that runs and naps as it is told, and what came of it. */
struct vcpu_sim {
	struct throttle t;
	uint64_t late_ns;      /* a slice ends late, by at most this */
	uint64_t oversleep_ns; /* a nap does */
	uint64_t busy_ns;      /* it runs so long, ... */
	uint64_t asleep_ns;    /* ... then sleeps by itself so long, and so on */
	uint64_t into_ns;      /* of the stretch that it is in */
	bool asleep;
	uint64_t seed;

	uint64_t now_ns, ran_ns, napped_ns, naps, looks, longest_nap_ns;
};

static uint64_t chance(struct vcpu_sim *v, uint64_t below)
{
	v->seed = v->seed * 6364136223846793005ull + 1442695040888963407ull;
	return below ? (v->seed >> 33) % below : 0;
}

/* So much time passes in the guest; returns how much of it it ran. */
static uint64_t guest(struct vcpu_sim *v, uint64_t ns)
{
	uint64_t ran = 0, step, left;

	if (!v->asleep_ns)
		return ns;
	while (ns) {
		left = (v->asleep ? v->asleep_ns : v->busy_ns) - v->into_ns;
		step = ns < left ? ns : left;
		ran += v->asleep ? 0 : step;
		v->into_ns += step;
		ns -= step;
		if (step == left) {
			v->asleep = !v->asleep;
			v->into_ns = 0;
		}
	}
	return ran;
}

/* While it naps, its own sleep goes on, but nothing that it has to do. */
static void nap(struct vcpu_sim *v, uint64_t ns)
{
	v->naps++;
	v->napped_ns += ns;
	v->now_ns += ns;
	if (ns > v->longest_nap_ns)
		v->longest_nap_ns = ns;
	if (v->asleep)
		guest(v, ns < v->asleep_ns - v->into_ns ? ns : v->asleep_ns - v->into_ns);
	throttle_napped(&v->t, ns);
}

static void simulate(struct vcpu_sim *v, uint64_t ns)
{
	uint64_t end = v->now_ns + ns, slice, ran, due;

	while (v->now_ns < end) {
		slice = throttle_slice_ns(&v->t) + chance(v, v->late_ns);
		ran = guest(v, slice);
		v->now_ns += slice;
		v->ran_ns += ran;
		v->looks++;
		throttle_ran(&v->t, ran, slice);
		due = throttle_nap_ns(&v->t);
		ck_assert_uint_le(due, THROTTLE_NAP_MAX_NS);
		if (due)
			nap(v, due + chance(v, v->oversleep_ns));
	}
}

/* Permille of the time that it did not run. */
static double share(const struct vcpu_sim *v)
{
	return 1000.0 * (double)(v->now_ns - v->ran_ns) / (double)v->now_ns;
}

static const unsigned int shares[] = {
	1, 10, 50, 100, 250, 500, 750, 900, 950, 980, 990, 995, 999
};

START_TEST(busy_vcpu_loses_the_share_that_was_asked)
{
	struct vcpu_sim v = { .seed = 1 };

	throttle_set(&v.t, shares[_i]);
	simulate(&v, 5 * SECOND);
	ck_assert_double_le(share(&v), shares[_i] + 1);
	/* Naps have their longest and slices their shortest: 990 is the most that gives. */
	ck_assert_double_ge(share(&v), (shares[_i] < 990 ? shares[_i] : 990) - 1.0);
	ck_assert_uint_le(v.longest_nap_ns, THROTTLE_NAP_MAX_NS);
}
END_TEST

START_TEST(what_comes_late_is_made_up_for)
{
	struct vcpu_sim v = { .seed = 2, .late_ns = 60000, .oversleep_ns = 200000 };

	if (shares[_i] >= 990)
		return; /* slices as short as may be: nothing can be made up for */
	throttle_set(&v.t, shares[_i]);
	simulate(&v, 10 * SECOND);
	ck_assert_double_le(share(&v), shares[_i] + 10);
	ck_assert_double_ge(share(&v), (double)shares[_i] - 10);
	/* What is left to run is right as well, where it is little. */
	ck_assert_double_ge((1000 - share(&v)) / (1000 - shares[_i]), 0.95);
	ck_assert_double_le((1000 - share(&v)) / (1000 - shares[_i]), 1.05);
}
END_TEST

START_TEST(slices_that_end_much_too_late_are_paid_by_several_naps)
{
	struct vcpu_sim v = { .seed = 3 };

	throttle_set(&v.t, 900);
	throttle_ran(&v.t, 50 * MS, 50 * MS); /* owes 450 ms */
	v.ran_ns = v.now_ns = 50 * MS;
	simulate(&v, 950 * MS);
	ck_assert_uint_le(v.longest_nap_ns, THROTTLE_NAP_MAX_NS);
	ck_assert_double_ge(share(&v), 890);
	ck_assert_double_le(share(&v), 910);
}
END_TEST

START_TEST(nothing_is_owed_without_a_throttle)
{
	struct vcpu_sim v = { .seed = 4 };

	throttle_set(&v.t, 990);
	throttle_ran(&v.t, 100 * MS, 100 * MS);
	ck_assert_uint_eq(throttle_nap_ns(&v.t), THROTTLE_NAP_MAX_NS);
	throttle_set(&v.t, 0);
	ck_assert_uint_eq(throttle_nap_ns(&v.t), 0);
	throttle_ran(&v.t, SECOND, SECOND);
	ck_assert_uint_eq(throttle_nap_ns(&v.t), 0);
	simulate(&v, SECOND);
	ck_assert_uint_eq(v.naps, 0);
	ck_assert_double_eq(share(&v), 0);
}
END_TEST

START_TEST(new_share_takes_over_at_most_one_nap)
{
	struct throttle t = { 0 };

	throttle_set(&t, 999);
	throttle_ran(&t, 10 * MS, 10 * MS);
	throttle_set(&t, 100);
	ck_assert_uint_eq(throttle_nap_ns(&t), MS);
	throttle_napped(&t, MS);
	ck_assert_uint_eq(throttle_nap_ns(&t), 0);
	ck_assert_uint_eq(throttle_slice_ns(&t), 9 * MS);
	throttle_set(&t, 5000);
	ck_assert_uint_eq(t.permille, THROTTLE_MAX_PERMILLE);
}
END_TEST

/* A controller that sets it anew all the time takes nothing away from it. */
START_TEST(share_holds_while_it_is_set_again_and_again)
{
	struct vcpu_sim v = { .seed = 7 };
	unsigned int i;

	for (i = 0; i < 2000; i++) {
		throttle_set(&v.t, 800 + i % 2);
		simulate(&v, 3 * MS);
	}
	ck_assert_double_ge(share(&v), 790);
	ck_assert_double_le(share(&v), 811);
}
END_TEST

START_TEST(vcpu_that_mostly_sleeps_is_hardly_looked_at_and_still_held)
{
	struct vcpu_sim idle = { .seed = 5, .busy_ns = 20000, .asleep_ns = 10 * MS };
	struct vcpu_sim half = { .seed = 6, .busy_ns = 2 * MS, .asleep_ns = 2 * MS };

	/* 2 permille of its time: what it owes is small. */
	throttle_set(&idle.t, 500);
	simulate(&idle, 10 * SECOND);
	ck_assert_uint_le(idle.napped_ns, 50 * MS);
	ck_assert_uint_le(idle.looks, 10 * SECOND / (5 * MS));
	/* For each us that it runs it naps one. */
	throttle_set(&half.t, 500);
	simulate(&half, 10 * SECOND);
	ck_assert_double_ge((double)half.napped_ns / (double)half.ran_ns, 0.98);
	ck_assert_double_le((double)half.napped_ns / (double)half.ran_ns, 1.02);
}
END_TEST

START_TEST(clocks_that_jump_do_no_harm)
{
	struct throttle t = { 0 };

	throttle_set(&t, 999);
	throttle_ran(&t, UNLIMITED, UNLIMITED);
	ck_assert_uint_eq(throttle_nap_ns(&t), THROTTLE_NAP_MAX_NS);
	ck_assert_uint_eq(throttle_slice_ns(&t), THROTTLE_SLICE_MIN_NS);
	throttle_napped(&t, UNLIMITED);
	ck_assert_uint_eq(throttle_nap_ns(&t), 0);
	ck_assert_uint_le(throttle_slice_ns(&t), THROTTLE_NAP_MAX_NS);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("throttle");
	TCase *c = tcase_create("throttle");
	SRunner *r;
	int failed;

	tcase_add_loop_test(c, busy_vcpu_loses_the_share_that_was_asked, 0, N(shares));
	tcase_add_loop_test(c, what_comes_late_is_made_up_for, 0, N(shares));
	tcase_add_test(c, slices_that_end_much_too_late_are_paid_by_several_naps);
	tcase_add_test(c, nothing_is_owed_without_a_throttle);
	tcase_add_test(c, new_share_takes_over_at_most_one_nap);
	tcase_add_test(c, share_holds_while_it_is_set_again_and_again);
	tcase_add_test(c, vcpu_that_mostly_sleeps_is_hardly_looked_at_and_still_held);
	tcase_add_test(c, clocks_that_jump_do_no_harm);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
