/*
 * A migration whose link is cut, stalls or garbles at each record of the protocol, in both
 * directions, at the record's end and in the middle of it: for every record until one migration
 * gets through. After each the guest runs on exactly one side with its memory whole, or it is
 * undecided, and then GO had been sent; and no thread and no descriptor is left over.
 *
 * The points are named by what goes through last: "READY", "the 3rd PAGES on one of 4 lanes"...
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "tests/unit/lib/engine_rig.h"

/* More records than any of these migrations has. */
#define POINTS_MAX 200

struct walk {
	unsigned int lanes;
	enum proxy_way way;
	enum proxy_fault fault;
};

static const struct walk walks[] = {
	{ 1, PROXY_THERE, PROXY_CUT }, { 1, PROXY_THERE, PROXY_CUT_IN },
	{ 1, PROXY_BACK, PROXY_CUT },  { 1, PROXY_BACK, PROXY_CUT_IN },
	{ 3, PROXY_THERE, PROXY_CUT }, { 3, PROXY_THERE, PROXY_CUT_IN },
	{ 3, PROXY_BACK, PROXY_CUT },  { 3, PROXY_BACK, PROXY_CUT_IN },
};

static const struct walk garbles[] = {
	{ 1, PROXY_THERE, PROXY_FLIP },
	{ 1, PROXY_BACK, PROXY_FLIP },
	{ 3, PROXY_THERE, PROXY_FLIP },
};

#define N(a) ((int)(sizeof(a) / sizeof((a)[0])))

/* One migration with the fault at that record; false when there is no such record any more. */
static bool survive(const struct walk *w, unsigned int at, enum owner *owner)
{
	struct rig r;
	bool struck;

	rig_init(&r, RIG_PROXY);
	rig_dirty_by_plan(&r);
	r.source.n_lanes = w->lanes;
	r.source.checked_ms = r.source.round_ms = 5000;
	r.source.spare_ms = r.source.running_ms = 5000;
	r.lanes_ms = 100;
	r.proxy.fault = w->fault;
	r.proxy.way = w->way;
	r.proxy.at = at;
	rig_run(&r);
	struck = r.proxy.struck && !(r.source_rc == 0 && r.destination_rc == 0);
	*owner = source_owner(r.engine);
	/* A garbled GO is refused, and a garbled RUNNING not believed. */
	if (!r.proxy.go)
		ck_assert_int_ne(r.dst->runs, 1);
	rig_check(&r);
	if (r.source_rc)
		ck_assert(r.source_error.text[0]);
	rig_free(&r);
	return struck;
}

static void walk(const struct walk *w, unsigned int least)
{
	unsigned int at, undecided = 0, fds, threads;
	enum owner owner;

	rig_count(&fds, &threads);
	for (at = 0; survive(w, at, &owner); at++) {
		rig_check_count(fds, threads);
		ck_assert_uint_lt(at, POINTS_MAX);
		undecided += owner == OWNER_NOBODY;
	}
	ck_assert_uint_ge(at, least);
	/* The destination's first answer, CHECKED, ROUND and READY are no reason to doubt. */
	ck_assert_uint_le(undecided, w->way == PROXY_BACK ? 2 : 3);
}

START_TEST(cut_link_leaves_one_guest_at_every_record)
{
	const struct walk *w = &walks[_i];

	/* HELLO MACHINE PAGES ROUND PAGES ROUND STATES GO; CHECKED ROUND ROUND READY
	 * RUNNING. */
	walk(w, w->way == PROXY_BACK ? 4 : 7 + 2 * (w->lanes - 1));
}
END_TEST

START_TEST(garbled_record_leaves_one_guest_whichever_it_is)
{
	walk(&garbles[_i], garbles[_i].way == PROXY_BACK ? 5 : 7);
}
END_TEST

/* -- a destination that falls silent -- */

START_TEST(silent_destination_is_given_up_before_go_and_waited_for_no_longer_after)
{
	static const struct {
		enum proxy_fault fault;
		enum record_type at_type;
		const char *expected;
		bool undecided;
	} cases[] = {
		{ PROXY_STALL, RECORD_CHECKED, "waiting for CHECKED", false },
		{ PROXY_STALL_IN, RECORD_CHECKED, "waiting for CHECKED", false },
		{ PROXY_STALL, RECORD_ROUND, "waiting for ROUND", false },
		{ PROXY_STALL_IN, RECORD_ROUND, "waiting for ROUND", false },
		{ PROXY_STALL, RECORD_READY, "waiting for READY", false },
		{ PROXY_STALL_IN, RECORD_READY, "waiting for READY", false },
		{ PROXY_STALL, RECORD_RUNNING, "waiting for RUNNING", true },
		{ PROXY_STALL_IN, RECORD_RUNNING, "waiting for RUNNING", true },
	};
	unsigned int fds, threads;
	struct rig r;

	rig_count(&fds, &threads);
	rig_init(&r, RIG_PROXY);
	/* Short only where nothing right will come. */
	if (cases[_i].at_type == RECORD_CHECKED)
		r.source.checked_ms = 150;
	if (cases[_i].at_type == RECORD_ROUND)
		r.source.round_ms = 150;
	r.limits.switchover_us = cases[_i].at_type == RECORD_READY ? 500000 : 60000000;
	if (cases[_i].at_type == RECORD_RUNNING)
		r.source.running_ms = 150;
	r.proxy.fault = cases[_i].fault;
	r.proxy.way = PROXY_BACK;
	r.proxy.at_type = cases[_i].at_type;
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, -1);
	ck_assert_msg(strstr(r.source_error.text, cases[_i].expected), "%s", r.source_error.text);
	ck_assert_int_eq(source_owner(r.engine), cases[_i].undecided ? OWNER_NOBODY : OWNER_SOURCE);
	ck_assert_int_eq(r.dst->runs, cases[_i].undecided);
	rig_check(&r);
	rig_free(&r);
	rig_check_count(fds, threads);
}
END_TEST

START_TEST(answer_timeout_bounds_the_wait_for_a_silent_destination)
{
	struct rig r;

	rig_init(&r, RIG_PROXY);
	r.source.checked_ms = r.source.round_ms = 0;
	r.source.parameters.answer_timeout_s = 1;
	r.proxy.fault = PROXY_STALL;
	r.proxy.way = PROXY_BACK;
	r.proxy.at_type = _i ? RECORD_ROUND : RECORD_CHECKED;
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, -1);
	ck_assert_msg(strstr(r.source_error.text, "within 1 s"), "%s", r.source_error.text);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

START_TEST(link_that_stalls_in_the_pause_gives_the_guest_back)
{
	struct rig r;

	rig_init(&r, RIG_PROXY);
	rig_dirty_by_plan(&r);
	r.source.n_lanes = _i ? 3 : 1;
	r.source.spare_ms = 200;
	r.limits.downtime_us = 100000;
	r.proxy.fault = PROXY_STALL;
	r.proxy.way = PROXY_THERE;
	r.proxy.at_type = RECORD_STATES;
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, -1);
	ck_assert_uint_eq(r.src->unparks, 1);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* -- cancel -- */

/* Asks for the end, and how long it took, in ms. */
static unsigned int cancel(struct rig *r)
{
	struct timespec from, to;

	clock_gettime(CLOCK_MONOTONIC, &from);
	rig_stop(r->source_stop);
	pthread_join(r->source_thread, NULL);
	clock_gettime(CLOCK_MONOTONIC, &to);
	/* rig_finish joins once more: something that is there. */
	pthread_create(&r->source_thread, NULL, (void *(*)(void *))(void *)getpid, NULL);
	return (unsigned int)((to.tv_sec - from.tv_sec) * 1000 +
			      (to.tv_nsec - from.tv_nsec) / 1000000);
}

static void check_cancelled(struct rig *r, unsigned int ms)
{
	ck_assert_uint_lt(ms, 200);
	rig_finish(r);
	ck_assert_int_eq(r->source_rc, -1);
	ck_assert_msg(strstr(r->source_error.text, "cancelled"), "%s", r->source_error.text);
	rig_check(r);
}

START_TEST(cancel_before_anything_was_sent_leaves_the_guest_alone)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	rig_stop(r.source_stop);
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, -1);
	ck_assert_uint_eq(r.src->parks, 0);
	ck_assert(r.dst->loads == 0);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* Where the migration is held: at a link that stalls, so that it cannot go on by itself. */
START_TEST(cancel_takes_effect_at_once_however_slow_the_link)
{
	static const struct {
		enum proxy_way way;
		enum record_type at_type; /* 0: the record number `at` */
		unsigned int at, lanes;
		unsigned int parks;
	} cases[] = {
		{ PROXY_BACK, RECORD_CHECKED, 0, 1, 0 },
		{ PROXY_THERE, 0, 2, 1, 0 }, /* in the first round */
		{ PROXY_THERE, 0, 8, 4, 0 }, /* the same, on several lanes */
		{ PROXY_BACK, RECORD_ROUND, 0, 1, 0 },
		{ PROXY_BACK, RECORD_READY, 0, 1, 1 }, /* parked */
		{ PROXY_BACK, RECORD_READY, 0, 4, 1 },
	};
	unsigned int fds, threads, ms;
	struct rig r;

	rig_count(&fds, &threads);
	rig_init(&r, RIG_PROXY);
	r.source.n_lanes = cases[_i].lanes;
	r.proxy.fault = PROXY_STALL;
	r.proxy.way = cases[_i].way;
	r.proxy.at_type = cases[_i].at_type;
	r.proxy.at = cases[_i].at;
	/* Buffers could hold all of so small a guest. */
	r.limits.bandwidth = cases[_i].parks ? 0 : 8u << 20;
	rig_start(&r);
	RIG_AWAIT(proxy_struck(&r.proxy));
	usleep(50000);
	ms = cancel(&r);
	ck_assert(r.src->runs);
	check_cancelled(&r, ms);
	ck_assert_uint_eq(r.src->parks, cases[_i].parks);
	ck_assert_uint_eq(r.src->unparks, cases[_i].parks);
	rig_free(&r);
	rig_check_count(fds, threads);
}
END_TEST

START_TEST(cancel_is_felt_also_at_a_crawl_and_while_nothing_is_sent)
{
	struct rig r;
	unsigned int ms;

	rig_init(&r, RIG_TCP);
	r.limits.bandwidth = _i ? 64u << 20 : 1; /* or a byte a second */
	r.limits.downtime_us = 1;
	r.src->writers = _i;
	r.src->writer_pages = 1100;
	r.source.n_lanes = _i == 2 ? 4 : 1;
	rig_start(&r);
	if (_i)
		RIG_AWAIT(__atomic_load_n(&r.rounds, __ATOMIC_ACQUIRE) > 3);
	else
		RIG_AWAIT(__atomic_load_n(&r.phase, __ATOMIC_ACQUIRE) == PHASE_PRECOPY);
	usleep(20000);
	ms = cancel(&r);
	check_cancelled(&r, ms);
	rig_free(&r);
}
END_TEST

static int say_no(struct rig *r, struct err *e)
{
	(void)r;
	return err_set(e, "cancelled");
}

static int stop_too_late(struct rig *r, struct err *e)
{
	(void)e;
	rig_stop(r->source_stop);
	return 0;
}

START_TEST(cancel_counts_until_go_and_not_after)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.on_commit = say_no;
	rig_run(&r);
	ck_assert_str_eq(r.source_error.text, "cancelled");
	ck_assert_uint_eq(r.dst->loads, 1);
	ck_assert_uint_eq(r.src->unparks, 1);
	ck_assert_msg(strstr(r.destination_error.text, "cancelled"), "%s",
		      r.destination_error.text);
	rig_check(&r);
	rig_free(&r);

	rig_init(&r, RIG_TCP);
	r.on_commit = stop_too_late;
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, 0);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

START_TEST(guest_that_came_back_can_be_moved_again)
{
	struct rig r, s;
	uint64_t n;

	rig_init(&r, RIG_TCP);
	r.on_commit = say_no;
	rig_run(&r);
	rig_init(&s, RIG_TCP);
	fake_free(s.src);
	fake_stop(r.src);
	s.src = r.src;
	s.src->world = &s.world;
	s.world.holder = s.src;
	s.source.guest = &s.src->guest;
	while (read(s.source_stop, &n, sizeof(n)) > 0)
		;
	rig_run(&s);
	ck_assert_msg(s.source_rc == 0, "%s", s.source_error.text);
	rig_check(&s);
	r.src = fake_new(NULL, 1, (const uint64_t[]){ 1 });
	rig_free(&r);
	rig_free(&s);
}
END_TEST

START_TEST(destination_that_is_stopped_says_so)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.limits.bandwidth = 1u << 20;
	r.source.n_lanes = _i ? 3 : 1;
	rig_start(&r);
	RIG_AWAIT(stats_get(&r.destination_stats.data_bytes) > 0);
	rig_stop(r.destination_stop);
	rig_finish(&r);
	ck_assert_int_eq(r.source_rc, -1);
	ck_assert_msg(strstr(r.source_error.text, "the destination gave up: source: cancelled"),
		      "%s", r.source_error.text);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine, cut");
	TCase *c = tcase_create("engine, cut");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 300);
	tcase_add_loop_test(c, cut_link_leaves_one_guest_at_every_record, 0, N(walks));
	tcase_add_loop_test(c, garbled_record_leaves_one_guest_whichever_it_is, 0, N(garbles));
	tcase_add_loop_test(
		c, silent_destination_is_given_up_before_go_and_waited_for_no_longer_after, 0, 8);
	tcase_add_loop_test(c, answer_timeout_bounds_the_wait_for_a_silent_destination, 0, 2);
	tcase_add_loop_test(c, link_that_stalls_in_the_pause_gives_the_guest_back, 0, 2);
	tcase_add_test(c, cancel_before_anything_was_sent_leaves_the_guest_alone);
	tcase_add_loop_test(c, cancel_takes_effect_at_once_however_slow_the_link, 0, 6);
	tcase_add_loop_test(c, cancel_is_felt_also_at_a_crawl_and_while_nothing_is_sent, 0, 3);
	tcase_add_test(c, cancel_counts_until_go_and_not_after);
	tcase_add_test(c, guest_that_came_back_can_be_moved_again);
	tcase_add_loop_test(c, destination_that_is_stopped_says_so, 0, 2);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
