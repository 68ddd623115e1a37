/*
 * The looks at the dirty pages within a round, with the throttle alone: no engine, no thread. How
 * much a guest is slowed is in policy/test_converge.c, and in migrations in test_engine_codecs.c.
 */
#include <check.h>
#include <stdlib.h>

#include "migrate/decisions.h"
#include "migrate/parameters.h"
#include "migrate/source/dirty.h"
#include "migrate/source/dirty_rate.h"
#include "migrate/source/link.h"
#include "migrate/source/throttle.h"
#include "tests/unit/lib/fake_guest.h"

#define PAGES 1024u

struct rig {
	struct fake *fake;
	struct stats stats;
	struct migration_parameters parameters;
	uint64_t downtime_us, bandwidth;
	struct link link;
	struct dirty_rate dirty_rate;
	struct decisions nobody;
	struct dirty dirty;
	struct throttle throttle;
};

static void set_up(struct rig *r)
{
	const uint64_t pages = PAGES;

	*r = (struct rig){ .downtime_us = 300000, .bandwidth = 1 << 20 };
	r->fake = fake_new(NULL, 1, &pages);
	link_init(&r->link, &r->stats, &r->bandwidth);
	dirty_rate_init(&r->dirty_rate, &r->stats);
	ck_assert_int_eq(dirty_init(&r->dirty, &r->fake->guest, -1, &r->nobody, NULL), 0);
	ck_assert_int_eq(dirty_start(&r->dirty, NULL), 0);
	throttle_init(&r->throttle, &(struct throttle_uses){ .guest = &r->fake->guest,
							     .stats = &r->stats,
							     .parameters = &r->parameters,
							     .downtime_us = &r->downtime_us,
							     .link = &r->link,
							     .dirty_rate = &r->dirty_rate,
							     .decisions = &r->nobody });
}

static void tear_down(struct rig *r)
{
	throttle_release(&r->throttle);
	dirty_stop(&r->dirty);
	dirty_free(&r->dirty);
	fake_free(r->fake);
}

static void begin_round(struct rig *r, uint64_t round)
{
	link_round_begin(&r->link, round, 1);
	throttle_round_begin(&r->throttle);
}

static int look(struct rig *r)
{
	return throttle_look(&r->throttle, &r->dirty, NULL);
}

START_TEST(first_round_does_not_know_what_is_left)
{
	struct rig r;

	set_up(&r);
	begin_round(&r, 1);
	ck_assert_int_eq(look(&r), 1);
	ck_assert_uint_eq(r.throttle.seen.left_pages, 0);
	ck_assert_uint_eq(r.throttle.seen.rest_us, UINT64_MAX);
	tear_down(&r);
}
END_TEST

START_TEST(later_round_sees_what_is_left_and_how_long_it_takes)
{
	struct rig r;

	set_up(&r);
	begin_round(&r, 2);
	ck_assert_uint_eq(r.throttle.seen.rest_us, UINT64_MAX); /* not known before a look */
	stats_set(&r.stats.remaining_pages, 256);
	ck_assert_int_eq(look(&r), 1);
	ck_assert_uint_eq(r.throttle.seen.left_pages, PAGES); /* the log says all are dirty */
	ck_assert_uint_eq(r.throttle.seen.pending_pages, 256);
	/* 5 MiB at 1 MiB/s, as far as rates go. */
	ck_assert_uint_ge(r.throttle.seen.rest_us, 4999000);
	ck_assert_uint_le(r.throttle.seen.rest_us, 5000000);
	ck_assert_uint_eq(r.throttle.round_limit_us, 300000);
	begin_round(&r, 3);
	ck_assert_uint_eq(r.throttle.seen.left_pages, 0);
	ck_assert_uint_eq(r.throttle.seen.rest_us, UINT64_MAX);
	tear_down(&r);
}
END_TEST

START_TEST(looks_are_apart_from_each_other)
{
	struct rig r;

	set_up(&r);
	begin_round(&r, 2);
	ck_assert_int_eq(look(&r), 1);
	ck_assert_uint_ge(r.throttle.every_us, CONVERGE_LOOK_US);
	r.throttle.every_us = UINT64_MAX; /* however slow this machine is */
	ck_assert_int_eq(look(&r), 0);
	r.throttle.every_us = 0;
	ck_assert_int_eq(look(&r), 1);
	tear_down(&r);
}
END_TEST

START_TEST(guest_that_may_not_be_slowed_is_not)
{
	struct rig r;

	set_up(&r);
	for (uint64_t round = 1; round < 20; round++) {
		begin_round(&r, round);
		ck_assert_int_ge(look(&r), 0);
		throttle_adjust(&r.throttle, 0);
		throttle_round_end(&r.throttle, PAGES, 0);
	}
	ck_assert_uint_eq(r.fake->highest_permille, 0);
	ck_assert_uint_eq(r.fake->dirty_limits, 0);
	tear_down(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("looks");
	TCase *c = tcase_create("looks");
	SRunner *run;
	int failed;

	tcase_add_test(c, first_round_does_not_know_what_is_left);
	tcase_add_test(c, later_round_sees_what_is_left_and_how_long_it_takes);
	tcase_add_test(c, looks_are_apart_from_each_other);
	tcase_add_test(c, guest_that_may_not_be_slowed_is_not);
	suite_add_tcase(s, c);
	run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed != 0;
}
