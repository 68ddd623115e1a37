/*
 * What decides over a migration beside the guest's own pace, between two fake guests: the course of
 * a policy, and the end by force.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/policy/policy_json.h"
#include "migrate/policy/course.h"
#include "tests/unit/lib/engine_rig.h"
#include "vmm/base/clock.h"
#include "vmm/memory.h"

/* A guest that writes to most of its memory all the time, over a link on which that takes a little
 * more than a second. */
static void init_endless(struct rig *r)
{
	rig_init(r, RIG_UNIX);
	r->src->writers = 2;
	r->src->writer_pages = 500;
	r->src->writer_rest_us = 50;
	r->limits.bandwidth = 3u << 20;
}

START_TEST(policy_raises_the_downtime_until_it_fits)
{
	const struct policy p = {
		.name = "patient",
		.n_initial = 1,
		.initial = { { POLICY_SET_DOWNTIME, 100 } },
		.n_convergence = 2,
		.convergence = { { 1, { POLICY_SET_DOWNTIME, 200 } },
				 { 2, { POLICY_SET_DOWNTIME, 20000 } } },
		.n_last = 1,
		.last = { { POLICY_ABORT, 0 } },
	};
	struct rig r;

	init_endless(&r);
	r.limits.downtime_us = 7;
	r.source.policy = &p;
	source_free(source_new(&r.source, NULL));
	ck_assert_uint_eq(r.limits.downtime_us, 100000);
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	ck_assert_uint_eq(r.limits.downtime_us, 20000000);
	ck_assert_uint_ge(r.rounds, 4);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

START_TEST(policy_gives_up_and_the_guest_runs_on)
{
	const struct policy p = {
		.name = "hasty",
		.n_convergence = 1,
		.convergence = { { 1, { POLICY_SET_DOWNTIME, 301 } } },
		.n_last = 1,
		.last = { { _i ? POLICY_POSTCOPY : POLICY_ABORT, 0 } },
	};
	struct rig r;

	init_endless(&r);
	r.source.policy = &p;
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, -1);
	ck_assert_msg(
		strstr(r.source_error.text, "policy 'hasty': round ") != NULL &&
			strstr(r.source_error.text, " stalled (2 in all): ") != NULL &&
			strstr(r.source_error.text,
			       _i ? "post-copy begins, which is not implemented" : "given up"),
		"%s", r.source_error.text);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

static void force(struct rig *r, uint64_t round)
{
	if (round == (uint64_t)(uintptr_t)r->src->arg)
		__atomic_store_n(&r->limits.force, true, __ATOMIC_RELAXED);
}

/* In the first round, a later one, and with several connections. */
START_TEST(force_parks_the_guest_and_finishes)
{
	uint64_t last = _i % 2 ? 3 : 1;
	struct rig r;

	init_endless(&r);
	r.limits.bandwidth = 16u << 20;
	r.limits.downtime_us = 20000;
	r.source.n_lanes = _i / 2 ? 3 : 1;
	r.src->arg = (void *)(uintptr_t)last;
	r.on_round = force;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	ck_assert_uint_eq(r.rounds, last + 1);
	ck_assert_msg(strstr(r.reason, COURSE_BY_FORCE ": ") == r.reason, "%s", r.reason);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* What the lanes have taken, too: at this bandwidth the guest would be moved in an hour. */
START_TEST(force_ends_the_pacing)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.limits.bandwidth = 1000;
	r.source.n_lanes = _i ? 3 : 1;
	rig_start(&r);
	RIG_AWAIT(__atomic_load_n(&r.phase, __ATOMIC_ACQUIRE) == PHASE_PRECOPY);
	usleep(20000);
	__atomic_store_n(&r.limits.force, true, __ATOMIC_RELAXED);
	rig_finish(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

static void raise_limit(struct rig *r, uint64_t round)
{
	if (round == 3)
		__atomic_store_n(&r->limits.downtime_us, 20000000, __ATOMIC_RELAXED);
}

START_TEST(limit_that_is_raised_within_a_round_counts_at_once)
{
	struct rig r;

	init_endless(&r);
	r.limits.downtime_us = 20000;
	r.on_round = raise_limit;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	ck_assert_msg(strstr(r.reason, "the limit was raised, and all fits: ") == r.reason, "%s",
		      r.reason);
	ck_assert_msg(strstr(r.reason, "; 20000 ms are allowed") != NULL, "%s", r.reason);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* Nothing is known of such a link but by what it has carried so far. */
START_TEST(forced_pause_has_the_time_that_a_slow_link_takes)
{
	struct rig r;

	rig_init_sized(&r, RIG_PROXY, 20000);
	r.src->writers = 1;
	r.src->writer_pages = 500;
	r.src->writer_rest_us = 50;
	r.proxy.rate = 20u << 20;
	r.limits.downtime_us = 20000;
	r.source.spare_ms = 200;
	rig_start(&r);
	RIG_AWAIT(stats_get(&r.source_stats.data_bytes) > 2u << 20);
	__atomic_store_n(&r.limits.force, true, __ATOMIC_RELAXED);
	rig_finish(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	ck_assert_uint_gt(r.source_stats.downtime_us, 500000);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

static void linger(struct fake *f, unsigned int block)
{
	(void)f;
	(void)block;
	usleep(150000);
}

/* Its rounds are too short to say anything of the link, each by itself. */
START_TEST(slow_first_round_is_not_taken_for_the_link)
{
	struct rig r;

	rig_init(&r, RIG_UNIX);
	r.src->writers = 2;
	r.src->writer_pages = 700;
	r.src->on_touched = linger;
	r.limits.downtime_us = 60000;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	ck_assert_uint_lt(r.rounds, 200);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* The pause may be long then, but not endless, and whoever cancels still can. */
START_TEST(forced_migration_can_be_cancelled)
{
	struct rig r;

	init_endless(&r);
	r.limits.bandwidth = 1u << 18;
	r.src->arg = (void *)1ul;
	r.src->sync_hangs =
		true; /* by force all goes as fast as it can: the pause would be over at once */
	r.on_round = force;
	rig_start(&r);
	RIG_AWAIT(__atomic_load_n(&r.phase, __ATOMIC_ACQUIRE) == PHASE_SWITCHOVER);
	rig_stop(r.source_stop);
	rig_finish(&r);
	ck_assert_int_eq(r.source_rc, -1);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

static char forecast[400];
static unsigned int forecasts;

static void remember(void *arg, enum decision d, const char *reason)
{
	struct rig *r = arg;

	if (d != DECISION_FORECAST)
		return;
	snprintf(forecast, sizeof(forecast), "%s", reason);
	if (++forecasts == 1)
		r->limits.downtime_us = 20000000;
}

START_TEST(migration_that_will_not_converge_says_so_once)
{
	struct rig r;

	init_endless(&r);
	r.source.decisions.tell = remember;
	r.limits.downtime_us = 50000;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	ck_assert_uint_eq(forecasts, 1);
	ck_assert_msg(strstr(forecast, "will not converge: the guest writes at least ") != NULL &&
			      strstr(forecast, "the link takes ") != NULL &&
			      strstr(forecast, "50 ms are allowed; what would help: --auto-conv"),
		      "%s", forecast);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine-steer");
	TCase *c = tcase_create("steer");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_test(c, policy_raises_the_downtime_until_it_fits);
	tcase_add_loop_test(c, policy_gives_up_and_the_guest_runs_on, 0, 2);
	tcase_add_loop_test(c, force_parks_the_guest_and_finishes, 0, 4);
	tcase_add_loop_test(c, force_ends_the_pacing, 0, 2);
	tcase_add_test(c, limit_that_is_raised_within_a_round_counts_at_once);
	tcase_add_test(c, forced_pause_has_the_time_that_a_slow_link_takes);
	tcase_add_test(c, slow_first_round_is_not_taken_for_the_link);
	tcase_add_test(c, forced_migration_can_be_cancelled);
	tcase_add_test(c, migration_that_will_not_converge_says_so_once);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
