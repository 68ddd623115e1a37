/*
 * How fast the link is, and how fast the guest dirties: measured from the counters, on a fake
 * clock.
 */
#include <check.h>
#include <stdlib.h>

#include "migrate/policy/rate.h"
#include "migrate/source/dirty_rate.h"
#include "migrate/source/link.h"
#include "migrate/stats.h"
#include "vmm/memory.h"

#define MIB	    (1ull << 20)
#define MIB_PAGES   (MIB / PAGE_SIZE)
#define GUESS	    (256 * MIB)
#define ABOUT(rate) ((rate) / 100)

static struct stats stats;
static struct link l;
static uint64_t bandwidth, now, n_rounds;

static void set_up(void)
{
	stats = (struct stats){ 0 };
	bandwidth = 0;
	now = 1000000;
	n_rounds = 0;
	link_init(&l, &stats, &bandwidth);
}

/* So many bytes of plain pages go over meanwhile. */
static void send(uint64_t bytes, uint64_t us)
{
	stats_add(&stats.data_bytes, bytes);
	stats_add(&stats.normal_pages, bytes / PAGE_SIZE);
	now += us;
}

/* Pages that become a part of their size. */
static void send_encoded(uint64_t bytes, uint64_t pages, uint64_t us)
{
	stats_add(&stats.data_bytes, bytes);
	stats_add(&stats.xbzrle_pages, pages);
	now += us;
}

static void send_round(uint64_t bytes, uint64_t us)
{
	link_round_begin(&l, ++n_rounds, now);
	send(bytes, us);
	link_round_end(&l, now);
}

START_TEST(unmeasured_link_is_guessed_and_never_above_the_bandwidth)
{
	set_up();
	ck_assert_uint_eq(link_rate(&l, now), GUESS);
	bandwidth = 5 * MIB;
	ck_assert_uint_eq(link_rate(&l, now), 5 * MIB);
	ck_assert_uint_le(link_us(&l, 5 * MIB, now), 1000000);
	ck_assert_uint_ge(link_us(&l, 5 * MIB, now), 999000);
}
END_TEST

START_TEST(round_with_enough_data_sets_the_send_rate)
{
	set_up();
	send_round(64 * MIB, 500000);
	ck_assert_uint_ge(stats.send_rate, 128 * MIB - ABOUT(128 * MIB));
	ck_assert_uint_le(stats.send_rate, 128 * MIB);
	ck_assert_uint_eq(link_rate(&l, now), stats.send_rate);
	ck_assert_uint_ge(link_us(&l, 128 * MIB, now), 1000000);
	ck_assert_uint_le(link_us(&l, 128 * MIB, now), 1010000);
}
END_TEST

START_TEST(short_rounds_count_together_until_they_tell)
{
	set_up();
	send_round(64 * MIB, 500000);
	for (int i = 0; i < 3; i++) {
		send_round(4 * MIB, 1000); /* a sudden 4 GiB/s: believed only when seen for long */
		ck_assert_uint_le(stats.send_rate, 128 * MIB);
	}
	send_round(4 * MIB, 1000);
	ck_assert_uint_ge(stats.send_rate, 3900 * MIB);
}
END_TEST

START_TEST(slow_link_is_known_from_less_data)
{
	set_up();
	send_round(MIB - PAGE_SIZE, 900000);
	ck_assert_uint_eq(stats.send_rate, 0);
	send_round(MIB, 100000);
	ck_assert_uint_ge(stats.send_rate, 2 * MIB - ABOUT(2 * MIB));
	ck_assert_uint_le(stats.send_rate, 2 * MIB);
}
END_TEST

START_TEST(round_under_way_tells_while_no_rate_is_known)
{
	set_up();
	link_round_begin(&l, 1, now);
	send(10 * MIB, 40000);
	ck_assert_uint_eq(link_rate(&l, now), GUESS); /* buffers may have taken all of it */
	send(10 * MIB, 160000);
	ck_assert_uint_ge(link_rate(&l, now), 99 * MIB);
	ck_assert_uint_le(link_rate(&l, now), 100 * MIB);
}
END_TEST

START_TEST(rate_of_another_bandwidth_does_not_count)
{
	set_up();
	bandwidth = 10 * MIB;
	send_round(20 * MIB, 2000000);
	ck_assert_uint_le(link_rate(&l, now), 10 * MIB);
	bandwidth = 100 * MIB;
	link_round_begin(&l, 2, now);
	ck_assert_uint_eq(link_rate(&l, now), 100 * MIB);
	send(50 * MIB, 1000000);
	ck_assert_uint_le(link_rate(&l, now), 50 * MIB);
	ck_assert_uint_ge(link_rate(&l, now), 49 * MIB);
	bandwidth = 5 * MIB;
	ck_assert_uint_eq(link_rate(&l, now), 5 * MIB);
}
END_TEST

START_TEST(encoded_pages_count_as_pages)
{
	set_up();
	link_round_begin(&l, 1, now);
	send_encoded(MIB, 64 * MIB_PAGES, 1000000);
	link_round_end(&l, now);
	ck_assert_uint_le(stats.send_rate, MIB);
	ck_assert_uint_ge(link_rate(&l, now), 63 * MIB);
	ck_assert_uint_le(link_rate(&l, now), 64 * MIB);
	/* A round without any: the link has what it carries. */
	send_round(32 * MIB, 1000000);
	ck_assert_uint_le(link_rate(&l, now), 32 * MIB);
}
END_TEST

START_TEST(zero_pages_are_progress_and_say_nothing_of_the_link)
{
	set_up();
	link_round_begin(&l, 1, now);
	stats_add(&stats.zero_pages, 90 * MIB_PAGES);
	send(10 * MIB, 1000000);
	ck_assert_uint_le(link_round_data_rate(&l, now), 10 * MIB);
	ck_assert_uint_ge(link_round_data_rate(&l, now), 9 * MIB);
	ck_assert_uint_le(link_round_page_rate(&l, now), 100 * MIB);
	ck_assert_uint_ge(link_round_page_rate(&l, now), 99 * MIB);
	/* The next round begins anew. */
	link_round_begin(&l, 2, now);
	now += 1000;
	ck_assert_uint_eq(link_round_page_rate(&l, now), 0);
}
END_TEST

START_TEST(dirty_rate_is_taken_within_a_round_and_at_its_end)
{
	struct dirty_rate d;

	set_up();
	dirty_rate_init(&d, &stats);
	dirty_rate_look(&d, 1000, now);
	ck_assert_uint_eq(stats.dirty_rate, 0);
	dirty_rate_look(&d, 2000, now + 100000); /* too soon to tell */
	ck_assert_uint_eq(stats.dirty_rate, 0);
	dirty_rate_look(&d, 3000, now + 400000);
	ck_assert_uint_ge(stats.dirty_rate, 4990);
	ck_assert_uint_le(stats.dirty_rate, 5000);
	dirty_rate_round(&d, 700, 100000);
	ck_assert_uint_ge(stats.dirty_rate, 6990);
	ck_assert_uint_le(stats.dirty_rate, 7000);
}
END_TEST

START_TEST(dirty_rate_does_not_span_a_change_of_speed)
{
	struct dirty_rate d;

	set_up();
	dirty_rate_init(&d, &stats);
	dirty_rate_look(&d, 1000, now);
	dirty_rate_restart(&d);
	dirty_rate_look(&d, 500000, now + 400000);
	ck_assert_uint_eq(stats.dirty_rate, 0);
	dirty_rate_look(&d, 501000, now + 1400000);
	ck_assert_uint_ge(stats.dirty_rate, 990);
	ck_assert_uint_le(stats.dirty_rate, 1000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("link");
	TCase *t = tcase_create("link");
	SRunner *r;
	int failed;

	tcase_add_test(t, unmeasured_link_is_guessed_and_never_above_the_bandwidth);
	tcase_add_test(t, round_with_enough_data_sets_the_send_rate);
	tcase_add_test(t, short_rounds_count_together_until_they_tell);
	tcase_add_test(t, slow_link_is_known_from_less_data);
	tcase_add_test(t, round_under_way_tells_while_no_rate_is_known);
	tcase_add_test(t, rate_of_another_bandwidth_does_not_count);
	tcase_add_test(t, encoded_pages_count_as_pages);
	tcase_add_test(t, zero_pages_are_progress_and_say_nothing_of_the_link);
	tcase_add_test(t, dirty_rate_is_taken_within_a_round_and_at_its_end);
	tcase_add_test(t, dirty_rate_does_not_span_a_change_of_speed);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
