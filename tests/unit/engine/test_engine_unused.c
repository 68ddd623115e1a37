/*
 * Pages that the guest has named as free, between two fake guests: they do not cross the link, and
 * whatever is written to one after it was named does, however late the name is heard.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/source/part.h"
#include "tests/unit/lib/engine_rig.h"
#include "vmm/memory.h"

/* Pages of block 0: all of [FREE, FREE + N) are named. */
#define FREE 200u
#define N    600u
#define ALL  1100u /* that the block has */

static const unsigned int lane_numbers[] = { 1, 2, 4 };

/* Stands for a guest whose memory changes: rig_check does not ask for the sum from before. */
static void nothing(struct rig *r, uint64_t round)
{
	(void)r;
	(void)round;
}

static void init(struct rig *r, bool log_is_taken)
{
	rig_init(r, RIG_TCP);
	r->src->names_free = true;
	r->src->log_is_taken = log_is_taken;
	r->src->arg = r;
	r->on_round = nothing;
}

static const uint64_t *word(const struct fake *f, uint64_t page)
{
	return (const void *)(f->guest.blocks[0].host + page * PAGE_SIZE);
}

static bool is_zero(const struct fake *f, uint64_t page)
{
	const uint64_t *w = word(f, page);

	return !w[0] && !memcmp(w, w + 1, PAGE_SIZE - sizeof(*w));
}

/* What was left out is as good as zero, so it need not be the same. */
static void check_moved(struct rig *r)
{
	uint64_t page;

	ck_assert_msg(r->source_rc == 0, "source: %s", r->source_error.text);
	ck_assert_msg(r->destination_rc == 0, "destination: %s", r->destination_error.text);
	for (page = FREE; page < FREE + N; page++)
		if (is_zero(r->dst, page))
			fake_clear(r->src, 0, page);
	rig_check(r);
	ck_assert_uint_eq(r->src->names_asked, 1);
	ck_assert_uint_eq(r->src->names_stopped, 1);
	ck_assert_uint_eq(r->src->names_done, 1);
	ck_assert(r->src->done_parked);
}

static void name_all(struct fake *f)
{
	fake_name(f, 0, FREE, N);
}

START_TEST(named_pages_are_not_sent)
{
	uint64_t sent[2], page;
	struct rig r;
	int named;

	for (named = 0; named < 2; named++) {
		init(&r, _i);
		r.source.n_lanes = 2;
		if (named)
			r.src->on_asked = name_all;
		rig_run(&r);
		check_moved(&r);
		sent[named] = stats_get(&r.source_stats.normal_pages);
		ck_assert_uint_eq(stats_get(&r.source_stats.remaining_pages), 0);
		for (page = FREE; named && page < FREE + N; page++)
			ck_assert_msg(is_zero(r.dst, page), "page %lu was sent", page);
		rig_free(&r);
	}
	/* 2 of 3 pages are touched, and some of those are zero. */
	ck_assert_uint_lt(sent[1] + N / 2, sent[0]);
}
END_TEST

/* Before the round has come to them; one before the name is heard, others after it. */
static void name_and_write(struct fake *f)
{
	fake_write(f, 0, FREE + 1, 5, 0x1111);
	name_all(f);
	fake_write(f, 0, FREE + 2, 5, 0x2222);
	fake_clear(f, 0, FREE + 3);
	fake_write(f, 0, FREE + 3, 7, 0x3333);
	fake_write(f, 0, FREE + 4, 5, 0x4444);
}

/* While the round is under way: the block's log was cleared a moment ago. */
static void write_meanwhile(struct fake *f, unsigned int block)
{
	if (block)
		return;
	fake_write(f, 0, FREE + 4, 6, 0x4444);
	fake_write(f, 0, FREE + 6, 5, 0x6666);
}

START_TEST(named_page_that_is_written_arrives_with_what_was_written)
{
	static const uint16_t want[] = { 1, 2, 3, 4, 6 };
	uint64_t i;
	struct rig r;

	init(&r, _i % 2);
	r.source.n_lanes = lane_numbers[_i / 2];
	r.src->on_asked = name_and_write;
	r.src->on_touched = write_meanwhile;
	rig_run(&r);
	check_moved(&r);
	for (i = 0; i < sizeof(want) / sizeof(want[0]); i++)
		ck_assert_msg(!memcmp(word(r.src, FREE + want[i]), word(r.dst, FREE + want[i]),
				      PAGE_SIZE) &&
				      !is_zero(r.dst, FREE + want[i]),
			      "page %u has lost its write", FREE + want[i]);
	ck_assert(is_zero(r.dst, FREE + 5));
	rig_free(&r);
}
END_TEST

/* All of them, among which are those that a round without names would take samples of. */
static void name_and_write_all(struct fake *f)
{
	name_all(f);
	for (uint64_t i = 0; i < N; i++)
		fake_write(f, 0, FREE + i, 3, 0x1234 + i);
}

START_TEST(named_pages_that_are_all_written_arrive)
{
	struct rig r;

	init(&r, _i);
	r.src->on_asked = name_and_write_all;
	rig_run(&r);
	ck_assert(fake_same(r.src, r.dst));
	check_moved(&r);
	rig_free(&r);
}
END_TEST

/* Those that the first step has taken. */
static void name_late(struct fake *f, unsigned int block)
{
	if (block == 0)
		fake_name(f, 0, FREE, N < CHUNK_PAGES - FREE ? N : CHUNK_PAGES - FREE);
}

START_TEST(name_that_comes_when_its_page_is_on_the_way_changes_nothing)
{
	struct rig r;

	init(&r, false);
	r.src->on_touched = name_late;
	rig_run(&r);
	/* All the same: nothing is left out. */
	ck_assert(fake_same(r.src, r.dst));
	check_moved(&r);
	rig_free(&r);
}
END_TEST

/* Names each page, and writes to every second one right after it, or before the name is heard. */
static void *namer(void *arg)
{
	struct fake *f = arg;
	uint64_t page;

	for (page = FREE; page < FREE + N; page++) {
		if (page % 4 == 0)
			fake_write(f, 0, page, 9, page);
		fake_name(f, 0, page, 1);
		if (page % 4 == 2)
			fake_write(f, 0, page, 9, page);
		usleep(20);
	}
	return NULL;
}

static void start_namer(struct fake *f)
{
	f->namer_runs = pthread_create(&f->namer, NULL, namer, f) == 0;
}

START_TEST(pages_that_are_named_and_written_all_the_time_arrive)
{
	struct rig r;
	uint64_t page;

	init(&r, _i % 2);
	r.source.n_lanes = lane_numbers[_i / 2];
	r.src->on_asked = start_namer;
	r.src->writers = 2;
	r.src->writer_pages = FREE;
	r.src->writer_rest_us = 50;
	r.limits.bandwidth = 80u << 20;
	rig_run(&r);
	check_moved(&r);
	for (page = FREE; page < FREE + N; page += 2)
		ck_assert_msg(word(r.dst, page)[9] == page, "page %lu has lost its write", page);
	rig_free(&r);
}
END_TEST

static void force(struct fake *f)
{
	name_all(f);
	fake_write(f, 0, FREE + 2, 5, 0x2222);
	__atomic_store_n(&((struct rig *)f->arg)->limits.force, true, __ATOMIC_RELAXED);
}

START_TEST(guest_that_is_parked_in_the_first_round_loses_nothing)
{
	struct rig r;

	init(&r, false);
	r.src->on_asked = force;
	rig_run(&r);
	check_moved(&r);
	ck_assert(is_zero(r.dst, FREE + 1));
	ck_assert_uint_eq(word(r.dst, FREE + 2)[5], 0x2222);
	rig_free(&r);
}
END_TEST

static void cancel(struct fake *f)
{
	name_all(f);
	rig_stop(((struct rig *)f->arg)->source_stop);
}

/* It has its pages back, whatever the migration came to. */
START_TEST(guest_hears_the_end_of_a_migration_that_fails)
{
	struct rig r;

	init(&r, false);
	if (_i)
		r.src->on_asked = cancel;
	else
		r.src->fail_park = "the guest has powered off";
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, -1);
	ck_assert_uint_eq(r.src->names_asked, 1);
	ck_assert_uint_eq(r.src->names_stopped, 1);
	ck_assert_uint_eq(r.src->names_done, 1);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

START_TEST(guest_that_names_nothing_is_not_asked_and_one_that_never_answers_moves)
{
	struct rig r;

	init(&r, false);
	r.src->names_free = false;
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, 0);
	ck_assert_uint_eq(r.src->names_asked + r.src->names_stopped + r.src->names_done, 0);
	rig_check(&r);
	rig_free(&r);
	init(&r, false);
	rig_run(&r);
	ck_assert(fake_same(r.src, r.dst));
	check_moved(&r);
	rig_free(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine_unused");
	TCase *t = tcase_create("engine_unused");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, named_pages_are_not_sent, 0, 2);
	tcase_add_loop_test(t, named_page_that_is_written_arrives_with_what_was_written, 0, 6);
	tcase_add_loop_test(t, named_pages_that_are_all_written_arrive, 0, 2);
	tcase_add_test(t, name_that_comes_when_its_page_is_on_the_way_changes_nothing);
	tcase_add_loop_test(t, pages_that_are_named_and_written_all_the_time_arrive, 0, 6);
	tcase_add_test(t, guest_that_is_parked_in_the_first_round_loses_nothing);
	tcase_add_loop_test(t, guest_hears_the_end_of_a_migration_that_fails, 0, 2);
	tcase_add_test(t, guest_that_names_nothing_is_not_asked_and_one_that_never_answers_moves);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
