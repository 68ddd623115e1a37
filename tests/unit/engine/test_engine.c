/*
 * The migration engine between two fake guests, without /dev/kvm: what was in the source's memory
 * is in the destination's, over each kind of link and with several connections; and the figures
 * are true. Failures are in test_engine_faults.c and test_engine_cut.c.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "migrate/channel/channel.h"
#include "migrate/source/part.h"
#include "tests/unit/lib/engine_rig.h"
#include "vmm/base/bitmap.h"
#include "vmm/memory.h"

static const unsigned int lane_numbers[] = { 1, 2, 4 };

static void check_moved(struct rig *r)
{
	ck_assert_msg(r->source_rc == 0, "source: %s", r->source_error.text);
	ck_assert_msg(r->destination_rc == 0, "destination: %s", r->destination_error.text);
	ck_assert_uint_eq(r->dst->starts, 1);
	rig_check(r);
}

/* At the end of the first round there is something for a second one, also if the host is so busy
 * that its writers were hardly let run. */
static void write_many(struct fake *f, unsigned int block)
{
	for (uint64_t page = 0; block == 1 && page < 200; page++)
		fake_write(f, 0, page, 3, page + 1);
}

START_TEST(every_op_of_a_guest_is_there)
{
	struct fake *f = fake_new(NULL, 1, (const uint64_t[]){ 1 });
	void (*op[sizeof(struct guest_ops) / sizeof(void (*)(void))])(void);
	unsigned int i;

	memcpy(op, f->guest.ops, sizeof(op));
	for (i = 0; i < sizeof(op) / sizeof(op[0]); i++)
		ck_assert_msg(op[i] != NULL, "op %u", i);
	fake_free(f);
}
END_TEST

START_TEST(memory_of_a_writing_guest_arrives_identical)
{
	static const enum rig_link links[] = { RIG_TCP, RIG_UNIX, RIG_PROXY };
	struct rig r;

	rig_init(&r, links[_i / 3]);
	r.source.n_lanes = lane_numbers[_i % 3];
	r.src->writers = 3;
	r.src->writer_pages = 400;
	r.src->writer_rest_us = 20;
	r.src->on_touched = write_many;
	r.limits.bandwidth = 80u << 20;
	rig_run(&r);
	check_moved(&r);
	ck_assert_uint_ge(r.rounds, 3); /* at least one between the first and the last */
	if (r.link == RIG_PROXY)
		ck_assert_uint_eq(r.proxy.n_links, 2 * r.source.n_lanes);
	rig_free(&r);
}
END_TEST

START_TEST(one_connection_that_is_open_already_is_enough)
{
	struct rig r;

	rig_init(&r, RIG_PAIR);
	r.src->writers = 1;
	r.src->writer_pages = 30;
	r.src->writer_rest_us = 100;
	rig_run(&r);
	check_moved(&r);
	rig_free(&r);
}
END_TEST

START_TEST(guest_goes_on_writing_at_the_destination)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.dst->writers = 2;
	r.dst->writer_pages = 100;
	rig_start(&r);
	RIG_AWAIT(__atomic_load_n(&r.dst->writes, __ATOMIC_RELAXED) > 0);
	rig_finish(&r);
	check_moved(&r);
	rig_free(&r);
}
END_TEST

static void change_zeros(struct fake *f, unsigned int block)
{
	if (block != 1)
		return;
	fake_clear(f, 0, 4);	     /* was sent with content */
	fake_write(f, 0, 5, 77, 1);  /* was zero */
	fake_write(f, 0, 6, 511, 1); /* was never touched */
	fake_clear(f, 0, 9);	     /* was never touched, and is zero still */
	fake_clear(f, 0, 11);	     /* content, zero, content again */
	fake_write(f, 0, 11, 0, 5);
	fake_clear(f, 1, 4); /* before it was ever sent */
}

static void change_back(struct rig *r, uint64_t round)
{
	if (round != 2 || r->src->parked)
		return;
	fake_write(r->src, 0, 8, 3, 12);
	fake_clear(r->src, 0, 7);
	fake_clear(r->src, 0, 14);
}

START_TEST(pages_that_become_zero_or_cease_to_be_zero_arrive_so)
{
	static const uint8_t zero[PAGE_SIZE];
	struct rig r;

	rig_init(&r, RIG_PROXY);
	r.source.n_lanes = lane_numbers[_i];
	r.src->on_touched = change_zeros;
	r.on_round = change_back;
	/* A crawl: so even those few pages are worth another round. */
	r.limits.bandwidth = 4u << 20;
	rig_run(&r);
	check_moved(&r);
	ck_assert_mem_eq(r.dst->guest.blocks[0].host + 4 * PAGE_SIZE, zero, PAGE_SIZE);
	ck_assert_mem_eq(r.dst->guest.blocks[0].host + 7 * PAGE_SIZE, zero, PAGE_SIZE);
	ck_assert_uint_ge(r.destination_stats.zero_pages, 2);
	rig_free(&r);
}
END_TEST

START_TEST(paused_guest_arrives_paused)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.idle = _i == 0; /* it was paused before; or the destination is told to */
	r.paused = _i == 1;
	rig_run(&r);
	check_moved(&r);
	ck_assert(!r.dst->runs);
	ck_assert_int_eq(r.world.running, 0);
	rig_free(&r);
}
END_TEST

START_TEST(idle_guest_is_moved_with_a_short_pause_whatever_the_limit)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.limits.downtime_us = _i ? 0 : 1000000000; /* even a limit that no pause can meet */
	rig_run(&r);
	check_moved(&r);
	ck_assert_uint_eq(r.rounds, 2);
	ck_assert_uint_lt(r.source_stats.downtime_us, 500000);
	ck_assert_msg(strstr(r.reason, "hardly anything is left"), "%s", r.reason);
	rig_free(&r);
}
END_TEST

START_TEST(clock_is_told_of_the_pause)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	rig_run(&r);
	check_moved(&r);
	ck_assert_uint_gt(r.dst->advance_ns, 0);
	ck_assert_uint_le(r.dst->advance_ns, r.source_stats.downtime_us * 1000);
	rig_free(&r);
}
END_TEST

/* -- the figures -- */

struct sampler {
	struct rig *rig;
	pthread_t thread;
	bool stop, wrong; /* atomic */
	unsigned int samples;
};

static void *sample(void *arg)
{
	struct sampler *s = arg;
	const struct stats *st = &s->rig->source_stats;
	struct stats last = { 0 };

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		struct stats now = {
			.data_bytes = stats_get(&st->data_bytes),
			.meta_bytes = stats_get(&st->meta_bytes),
			.normal_pages = stats_get(&st->normal_pages),
			.zero_pages = stats_get(&st->zero_pages),
			.round = stats_get(&st->round),
			/* Before the total: it is set after that. */
			.remaining_pages = stats_get(&st->remaining_pages),
		};
		uint64_t total = stats_get(&st->total_pages);

		if (now.data_bytes < last.data_bytes || now.meta_bytes < last.meta_bytes ||
		    now.normal_pages < last.normal_pages || now.zero_pages < last.zero_pages ||
		    now.round < last.round || now.remaining_pages > total)
			__atomic_store_n(&s->wrong, true, __ATOMIC_RELEASE);
		last = now;
		s->samples++;
		usleep(50);
	}
	return NULL;
}

START_TEST(figures_add_up_to_the_bytes_that_crossed_the_link)
{
	struct sampler s = { 0 };
	const struct stats *src, *dst;
	struct rig r;

	rig_init(&r, RIG_PROXY);
	src = &r.source_stats;
	dst = &r.destination_stats;
	r.source.n_lanes = lane_numbers[_i];
	r.src->writers = 2;
	r.src->writer_pages = 300;
	r.src->writer_rest_us = 20;
	r.limits.bandwidth = 80u << 20;
	s.rig = &r;
	pthread_create(&s.thread, NULL, sample, &s);
	rig_run(&r);
	__atomic_store_n(&s.stop, true, __ATOMIC_RELEASE);
	pthread_join(s.thread, NULL);
	check_moved(&r);

	ck_assert(!s.wrong && s.samples > 10);
	ck_assert_uint_eq(src->data_bytes + src->meta_bytes, r.proxy.bytes[PROXY_THERE]);
	ck_assert_uint_eq(src->data_bytes, src->normal_pages * PAGE_SIZE);
	ck_assert_uint_eq(dst->data_bytes, src->data_bytes);
	ck_assert_uint_eq(dst->meta_bytes, src->meta_bytes);
	ck_assert_uint_eq(dst->normal_pages, src->normal_pages);
	ck_assert_uint_le(dst->zero_pages, src->zero_pages);
	ck_assert_uint_eq(src->total_pages, 1170);
	ck_assert_uint_eq(dst->total_pages, 1170);
	ck_assert_uint_eq(src->remaining_pages, 0);
	ck_assert_uint_eq(src->round, r.rounds);
	ck_assert_uint_ge(src->downtime_us, src->park_us + src->pages_us + src->states_us +
						    src->load_us + src->start_us);
	rig_free(&r);
}
END_TEST

START_TEST(each_touched_page_is_counted_once_in_each_round)
{
	uint64_t touched = 0, i, again;
	unsigned int b;
	struct rig r;

	rig_init(&r, RIG_PROXY);
	r.source.n_lanes = lane_numbers[_i];
	for (b = 0; b < 2; b++)
		for (i = 0; i < r.src->guest.blocks[b].pages; i++)
			touched += i % 3 != 0;
	rig_dirty_by_plan(&r);
	rig_run(&r);
	check_moved(&r);
	/* What the plan writes is found once more each: 300, of which a third was touched for the
	 * first time by it, then 200 and 120. */
	again = 300 + 200 + 120;
	ck_assert_uint_eq(r.source_stats.normal_pages + r.source_stats.zero_pages, touched + again);
	ck_assert_uint_eq(r.rounds, 5);
	rig_free(&r);
}
END_TEST

/* How many bytes went out in a part of the run that was limited from begin to end; a slow machine
 * may send less, never more. What follows would take half a minute with the limit. */
START_TEST(bandwidth_is_kept_by_all_lanes_together_and_may_change)
{
	uint64_t rate = 128u << 10, from, to, start, took;
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.source.n_lanes = lane_numbers[_i];
	r.src->writers = 1; /* all the time: it never ends by itself */
	r.src->writer_pages = 1100;
	r.limits.downtime_us = 1;
	r.limits.bandwidth = rate;
	rig_start(&r);
	RIG_AWAIT(stats_get(&r.source_stats.data_bytes) > rate / 10);
	from = stats_get(&r.source_stats.data_bytes) + stats_get(&r.source_stats.meta_bytes);
	start = clock_us();
	usleep(1000000);
	to = stats_get(&r.source_stats.data_bytes) + stats_get(&r.source_stats.meta_bytes);
	took = clock_us() - start;
	/* What is sent is counted a batch at a time: some are on their way at both ends. */
	ck_assert_msg(to - from <=
			      rate * took / 1000000 * 105 / 100 + r.source.n_lanes * (64u << 10),
		      "%lu bytes in %lu us at %lu", to - from, took, rate);
	__atomic_store_n(&r.limits.bandwidth, 0, __ATOMIC_RELAXED);
	RIG_AWAIT(stats_get(&r.source_stats.data_bytes) > to + (4u << 20));
	rig_stop(r.source_stop);
	rig_finish(&r);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* -- the order of a first round -- */

#define LARGE_PAGES 20000u
#define HOT_FIRST   (31u * CHUNK_PAGES) /* among the last to be sent */

static uint64_t in_first_round;

static void count_first_round(struct rig *r, uint64_t round)
{
	if (round == 2)
		in_first_round = stats_get(&r->source_stats.normal_pages) +
				 stats_get(&r->source_stats.zero_pages);
}

START_TEST(pages_that_are_written_all_the_time_are_not_sent_in_the_first_round)
{
	uint64_t touched = 0, hot = 0, i;
	struct rig r;

	rig_init_sized(&r, RIG_TCP, LARGE_PAGES);
	r.source.n_lanes = 1 + _i / 2;
	r.src->log_is_taken = _i % 2;
	r.src->writers = 2;
	r.src->writer_first = HOT_FIRST;
	r.src->writer_pages = 400;
	r.limits.bandwidth = 64u << 20;
	r.on_round = count_first_round;
	for (i = 0; i < LARGE_PAGES; i++) {
		touched += bitmap_test(r.src->touched[0], i);
		hot += i / CHUNK_PAGES == HOT_FIRST / CHUNK_PAGES &&
		       bitmap_test(r.src->touched[0], i);
	}
	in_first_round = 0;
	rig_run(&r);
	check_moved(&r);
	ck_assert_uint_gt(in_first_round, touched / 2);
	ck_assert_uint_lt(in_first_round, touched - hot / 2);
	rig_free(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine");
	TCase *c = tcase_create("engine");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_test(c, every_op_of_a_guest_is_there);
	tcase_add_loop_test(c, memory_of_a_writing_guest_arrives_identical, 0, 9);
	tcase_add_test(c, one_connection_that_is_open_already_is_enough);
	tcase_add_test(c, guest_goes_on_writing_at_the_destination);
	tcase_add_loop_test(c, pages_that_become_zero_or_cease_to_be_zero_arrive_so, 0, 3);
	tcase_add_loop_test(c, paused_guest_arrives_paused, 0, 2);
	tcase_add_loop_test(c, idle_guest_is_moved_with_a_short_pause_whatever_the_limit, 0, 2);
	tcase_add_test(c, clock_is_told_of_the_pause);
	tcase_add_loop_test(c, figures_add_up_to_the_bytes_that_crossed_the_link, 0, 3);
	tcase_add_loop_test(c, each_touched_page_is_counted_once_in_each_round, 0, 3);
	tcase_add_loop_test(c, pages_that_are_written_all_the_time_are_not_sent_in_the_first_round,
			    0, 4);
	tcase_add_loop_test(c, bandwidth_is_kept_by_all_lanes_together_and_may_change, 0, 3);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
