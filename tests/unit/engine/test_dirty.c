/*
 * Dirty pages, without a migration: each page that was written to comes once, in this round or in
 * the next, whatever is looked at, sampled, deferred or named as free in between. With a log that
 * is read, and with one that is taken.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/decisions.h"
#include "migrate/source/dirty.h"
#include "tests/unit/lib/fake_guest.h"
#include "vmm/base/bitmap.h"

/* Pages of the two blocks; a step is shorter than the first one. */
#define FIRST  2600u
#define SECOND 70u
#define STEP   (2 * CHUNK_PAGES)

static const uint64_t sizes[] = { FIRST, SECOND };

struct rig {
	struct fake *fake;
	struct dirty dirty;
	struct decisions nobody;
	unsigned int times[2][FIRST]; /* how often each page was given out in this round */
	unsigned int hot;	      /* chunks */
};

static void set_up(struct rig *r, bool log_is_taken, bool names_free)
{
	memset(r, 0, sizeof(*r));
	r->fake = fake_new(NULL, 2, sizes);
	r->fake->log_is_taken = log_is_taken;
	r->fake->names_free = names_free;
	for (unsigned int b = 0; b < 2; b++)
		for (uint64_t p = 0; p < sizes[b]; p++)
			fake_write(r->fake, b, p, 0, 1);
	ck_assert_int_eq(dirty_init(&r->dirty, &r->fake->guest, -1, &r->nobody, NULL), 0);
	ck_assert_int_eq(dirty_start(&r->dirty, NULL), 0);
	ck_assert_int_eq(dirty_ask_free(&r->dirty, NULL), 0);
	ck_assert_int_eq(dirty_begin_samples(&r->dirty, NULL), 0);
	for (unsigned int b = 0; b < 2; b++)
		ck_assert_int_eq(dirty_sample(&r->dirty, b, 0, sizes[b], NULL), 0);
}

static void tear_down(struct rig *r)
{
	dirty_end_free(&r->dirty);
	dirty_stop(&r->dirty);
	dirty_free(&r->dirty);
	fake_free(r->fake);
}

static uint64_t step_of(unsigned int block, uint64_t first)
{
	return sizes[block] - first < STEP ? sizes[block] - first : STEP;
}

/* Gives out what was taken; hot chunks are left for the next round. */
static void give_out(struct rig *r)
{
	struct chunk c;
	bool hot;

	while (dirty_next(&r->dirty, &c, &hot)) {
		ck_assert_uint_eq(c.first % CHUNK_PAGES, 0);
		r->hot += hot;
		if (hot)
			dirty_defer(&r->dirty, &c);
		for (uint64_t i = 0; i < CHUNK_PAGES; i++) {
			ck_assert(!bitmap_test(c.pages, i) || c.first + i < sizes[c.block]);
			if (bitmap_test(c.pages, i) && !hot)
				r->times[c.block][c.first + i]++;
		}
	}
}

static void take_first(struct rig *r, unsigned int block, uint64_t first)
{
	uint64_t to_send;

	ck_assert_int_eq(
		dirty_take_first(&r->dirty, block, first, step_of(block, first), &to_send, NULL),
		0);
	ck_assert_uint_le(to_send, step_of(block, first));
	give_out(r);
}

static void first_round(struct rig *r)
{
	for (unsigned int b = 0; b < 2; b++)
		for (uint64_t at = 0; at < sizes[b]; at += STEP)
			take_first(r, b, at);
}

static void take(struct rig *r, unsigned int block, uint64_t first)
{
	ck_assert_int_eq(dirty_take(&r->dirty, block, first, step_of(block, first), NULL), 0);
	give_out(r);
}

/* All of a later round; returns how many pages it began with. */
static uint64_t later_round(struct rig *r)
{
	uint64_t count;

	memset(r->times, 0, sizeof(r->times));
	ck_assert_int_eq(dirty_fetch(&r->dirty, &count, NULL), 0);
	for (unsigned int b = 0; b < 2; b++)
		for (uint64_t at = 0; at < sizes[b]; at += STEP)
			take(r, b, at);
	return count;
}

static uint64_t given_out(const struct rig *r)
{
	uint64_t n = 0;

	for (unsigned int b = 0; b < 2; b++)
		for (uint64_t p = 0; p < sizes[b]; p++) {
			ck_assert_uint_le(r->times[b][p], 1);
			n += r->times[b][p];
		}
	return n;
}

START_TEST(each_touched_page_comes_once_in_a_first_round)
{
	struct rig r;

	set_up(&r, _i, false);
	bitmap_clear(r.fake->touched[0], 7); /* as if it had never been */
	first_round(&r);
	ck_assert_uint_eq(given_out(&r), FIRST + SECOND - 1);
	ck_assert_uint_eq(r.times[0][7], 0);
	ck_assert_uint_eq(later_round(&r), 0);
	tear_down(&r);
}
END_TEST

START_TEST(write_after_its_page_was_taken_comes_in_the_next_round)
{
	struct rig r;

	set_up(&r, _i, false);
	first_round(&r);
	fake_write(r.fake, 0, FIRST - 1, 0, 2);
	fake_write(r.fake, 1, 3, 0, 2);
	ck_assert_uint_eq(later_round(&r), 2);
	ck_assert_uint_eq(given_out(&r), 2);
	ck_assert(r.times[0][FIRST - 1] && r.times[1][3]);
	ck_assert_uint_eq(later_round(&r), 0);
	tear_down(&r);
}
END_TEST

START_TEST(write_before_its_page_is_taken_comes_once_though_it_was_seen)
{
	struct rig r;

	set_up(&r, _i, false);
	take_first(&r, 0, 0);
	fake_write(r.fake, 0, STEP + 5, 0, 2);
	ck_assert_int_eq(dirty_look(&r.dirty, NULL), 0);
	for (uint64_t at = STEP; at < FIRST; at += STEP)
		take_first(&r, 0, at);
	take_first(&r, 1, 0);
	ck_assert_uint_eq(given_out(&r), FIRST + SECOND);
	ck_assert_uint_eq(later_round(&r), 0);
	tear_down(&r);
}
END_TEST

START_TEST(what_is_left_is_dirty_and_not_pending)
{
	struct rig r;
	uint64_t count;

	set_up(&r, _i, false);
	first_round(&r);
	fake_write(r.fake, 0, 10, 0, 2);
	fake_write(r.fake, 0, STEP + 10, 0, 2);
	ck_assert_int_eq(dirty_fetch(&r.dirty, &count, NULL), 0);
	ck_assert_uint_eq(count, 2);
	ck_assert_uint_eq(dirty_next_pending(&r.dirty, 0, 0, FIRST), 10);
	ck_assert_uint_eq(dirty_next_pending(&r.dirty, 0, 11, FIRST), STEP + 10);
	ck_assert_uint_eq(dirty_next_pending(&r.dirty, 0, STEP + 11, FIRST), FIRST);
	take(&r, 0, 0);
	fake_write(r.fake, 0, 10, 0, 3);	/* sent: for the next round */
	fake_write(r.fake, 0, STEP + 10, 0, 3); /* still to be sent in this one */
	fake_write(r.fake, 0, STEP + 11, 0, 3);
	ck_assert_int_eq(dirty_look(&r.dirty, NULL), 0);
	ck_assert_uint_eq(dirty_left(&r.dirty), 2);
	take(&r, 0, STEP);
	ck_assert_uint_eq(dirty_left(&r.dirty), 2);
	ck_assert_uint_eq(later_round(&r), 2);
	ck_assert(r.times[0][10] && r.times[0][STEP + 11]);
	tear_down(&r);
}
END_TEST

START_TEST(hot_chunk_is_found_and_comes_in_the_next_round_when_it_is_deferred)
{
	const uint64_t hot = STEP + CHUNK_PAGES;
	struct rig r;

	set_up(&r, _i, false);
	for (uint64_t i = 0; i < CHUNK_PAGES; i++)
		fake_write(r.fake, 0, hot + i, 0, 2);
	ck_assert_int_eq(dirty_look(&r.dirty, NULL), 0);
	first_round(&r);
	ck_assert_uint_eq(r.hot, 1);
	ck_assert_uint_eq(given_out(&r), FIRST + SECOND - CHUNK_PAGES);
	ck_assert_uint_eq(r.times[0][hot], 0);
	ck_assert_uint_eq(later_round(&r), CHUNK_PAGES);
	ck_assert_uint_eq(r.hot, 1);
	ck_assert_uint_eq(given_out(&r), CHUNK_PAGES);
	ck_assert_uint_eq(r.times[0][hot], 1);
	tear_down(&r);
}
END_TEST

START_TEST(names_at_the_edges_of_words_and_blocks_are_exact)
{
	static const struct {
		uint64_t first, n;
	} names[] = { { 0, 1 },	  { 63, 2 },	    { 128, 64 },	 { 250, 200 },
		      { 500, 0 }, { FIRST - 1, 1 }, { 700, FIRST - 700 } };
	struct rig r;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		set_up(&r, _i, true);
		fake_name(r.fake, 0, names[i].first, names[i].n);
		first_round(&r);
		for (uint64_t p = 0; p < FIRST; p++)
			ck_assert_msg(r.times[0][p] == !(p - names[i].first < names[i].n),
				      "names %zu, page %lu", i, p);
		ck_assert_uint_eq(given_out(&r), FIRST + SECOND - names[i].n);
		tear_down(&r);
	}
}
END_TEST

START_TEST(write_to_a_free_page_is_found_even_if_it_came_before_the_name)
{
	struct rig r;

	set_up(&r, _i, true);
	fake_write(r.fake, 0, 100, 0, 2);
	fake_name(r.fake, 0, 100, 50);
	fake_write(r.fake, 0, 101, 0, 2);
	first_round(&r);
	fake_write(r.fake, 0, 102, 0, 2);
	ck_assert_uint_eq(given_out(&r), FIRST + SECOND - 50);
	dirty_stop_free(&r.dirty);
	ck_assert_uint_eq(later_round(&r), 3);
	ck_assert(r.times[0][100] && r.times[0][101] && r.times[0][102]);
	ck_assert_uint_eq(r.fake->names_stopped, 1);
	ck_assert_uint_eq(r.fake->names_done, 0);
	tear_down(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dirty");
	TCase *c = tcase_create("dirty");
	SRunner *run;
	int failed;

	tcase_set_timeout(c, 60);
	/* 0: the log is read; 1: it is taken */
	tcase_add_loop_test(c, each_touched_page_comes_once_in_a_first_round, 0, 2);
	tcase_add_loop_test(c, write_after_its_page_was_taken_comes_in_the_next_round, 0, 2);
	tcase_add_loop_test(c, write_before_its_page_is_taken_comes_once_though_it_was_seen, 0, 2);
	tcase_add_loop_test(c, what_is_left_is_dirty_and_not_pending, 0, 2);
	tcase_add_loop_test(c, hot_chunk_is_found_and_comes_in_the_next_round_when_it_is_deferred,
			    0, 2);
	tcase_add_loop_test(c, names_at_the_edges_of_words_and_blocks_are_exact, 0, 2);
	tcase_add_loop_test(c, write_to_a_free_page_is_found_even_if_it_came_before_the_name, 0, 2);
	suite_add_tcase(s, c);
	run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed != 0;
}
