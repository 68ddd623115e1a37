/*
 * The engine with each codec, and with the throttle: what arrives is what was there, codecs are
 * used where they gain, and a guest that was slowed is at full speed again however it ended.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/source/source_internal.h"
#include "tests/unit/lib/engine_rig.h"
#include "vmm/memory.h"

static const unsigned int lane_numbers[] = { 1, 2, 4 };

static const struct {
	bool xbzrle;
	enum pages_codec rest;
} codecs[] = {
	{ true, CODEC_PLAIN },
	{ false, CODEC_ZLIB },
	{ false, CODEC_ZSTD },
	{ true, CODEC_ZSTD },
};

#define N(array) ((int)(sizeof(array) / sizeof((array)[0])))

static void check_moved(struct rig *r)
{
	ck_assert_msg(r->source_rc == 0, "source: %s", r->source_error.text);
	ck_assert_msg(r->destination_rc == 0, "destination: %s", r->destination_error.text);
	ck_assert_uint_eq(r->dst->starts, 1);
	rig_check(r);
}

static void use_codecs(struct rig *r, int i)
{
	r->source.parameters.xbzrle = codecs[i].xbzrle;
	r->source.parameters.xbzrle_cache_bytes = 8u << 20;
	r->source.parameters.compression = codecs[i].rest;
	r->source.parameters.zlib_level = r->source.parameters.zstd_level = 1;
}

START_TEST(memory_of_a_writing_guest_arrives_identical_in_each_codec)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	use_codecs(&r, _i / N(lane_numbers));
	r.source.n_lanes = lane_numbers[_i % N(lane_numbers)];
	r.src->writers = 2;
	r.src->writer_pages = 300;
	r.src->writer_rest_us = 50;
	r.limits.bandwidth = 20u << 20;
	rig_run(&r);
	check_moved(&r);
	if (r.source.parameters.xbzrle) {
		/* Words here and there: what was sent before shrinks. */
		ck_assert_uint_gt(r.source_stats.xbzrle_pages, 0);
		ck_assert_uint_lt(r.source_stats.xbzrle_bytes,
				  r.source_stats.xbzrle_pages * PAGE_SIZE / 2);
	}
	if (codecs[_i / N(lane_numbers)].rest != CODEC_PLAIN) {
		ck_assert_uint_gt(r.source_stats.compressed_pages, 0);
		ck_assert_uint_lt(r.source_stats.compressed_bytes,
				  r.source_stats.compressed_pages * PAGE_SIZE);
	}
	/* Nothing is counted twice or not at all. */
	ck_assert_uint_eq(r.source_stats.data_bytes,
			  (r.source_stats.normal_pages - r.source_stats.compressed_pages) *
					  PAGE_SIZE +
				  r.source_stats.compressed_bytes + r.source_stats.xbzrle_bytes);
	rig_free(&r);
}
END_TEST

/*
 * Pages have checksums between hosts, and a guest that writes to them while they are sent never
 * makes a false alarm: what is summed is what is sent.
 */
START_TEST(pages_of_a_writing_guest_never_fail_their_checksums)
{
	struct rig r;

	rig_init(&r, _i % 2 ? RIG_TCP : RIG_UNIX);
	r.far = true;
	if (_i / 4)
		use_codecs(&r, _i / 4 - 1);
	r.source.n_lanes = _i / 2 % 2 ? 4 : 1;
	r.src->writers = 4;
	r.src->writer_pages = 1000;
	r.limits.bandwidth = 200u << 20;
	r.limits.downtime_us = 2000000;
	rig_run(&r);
	check_moved(&r);
	ck_assert_uint_eq(r.engine->features, FEATURE_CHECKSUMS);
	rig_free(&r);
}
END_TEST

START_TEST(pages_damaged_between_hosts_are_found)
{
	struct rig r;

	rig_init(&r, RIG_PROXY);
	r.far = _i;
	r.proxy.fault = PROXY_FLIP_DATA;
	r.proxy.at_type = RECORD_PAGES;
	rig_run(&r);
	if (_i) {
		ck_assert_int_eq(r.source_rc, -1);
		ck_assert_int_eq(r.destination_rc, -1);
		ck_assert_msg(strstr(r.destination_error.text, "are damaged"), "%s",
			      r.destination_error.text);
		ck_assert_msg(strstr(r.source_error.text, "are damaged"), "%s",
			      r.source_error.text);
		rig_check(&r);
	}
	ck_assert_uint_eq(r.destination.hello.wanted & FEATURE_CHECKSUMS,
			  _i ? FEATURE_CHECKSUMS : 0);
	rig_free(&r);
}
END_TEST

START_TEST(cache_smaller_than_what_is_written_to_harms_nothing)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	use_codecs(&r, 0);
	r.source.parameters.xbzrle_cache_bytes = 1u << 20;
	r.src->writers = 3;
	r.src->writer_pages = 5000;
	r.limits.bandwidth = 20u << 20;
	r.limits.downtime_us = 2000000;
	rig_run(&r);
	check_moved(&r);
	ck_assert_uint_gt(r.source_stats.xbzrle_misses, 0);
	rig_free(&r);
}
END_TEST

/* -- the throttle -- */

static void flat_out(struct rig *r)
{
	rig_init(r, RIG_TCP);
	r->source.parameters.auto_converge = true;
	r->src->writers = 2;
	r->src->writer_pages = 1500;
	r->limits.bandwidth = 10u << 20;
	r->limits.downtime_us = 100000;
}

START_TEST(guest_that_writes_too_much_is_slowed_and_arrives)
{
	struct rig r;

	flat_out(&r);
	r.src->log_is_taken = _i;
	rig_run(&r);
	check_moved(&r);
	ck_assert_uint_gt(r.src->highest_permille, 0);
	ck_assert_uint_eq(r.src->permille, 0);
	ck_assert_uint_eq(r.source_stats.throttle_permille, 0);
	rig_free(&r);
}
END_TEST

/* Writes of devices among them: only whoever fetched them knows of them. */
START_TEST(what_a_look_within_a_round_has_taken_is_not_lost)
{
	struct rig r;

	flat_out(&r);
	r.src->log_is_taken = true;
	r.src->writer_rest_us = 300;
	r.limits.bandwidth = 6u << 20;
	r.limits.downtime_us = 400000;
	rig_run(&r);
	check_moved(&r);
	ck_assert_uint_ge(r.rounds, 3);
	rig_free(&r);
}
END_TEST

START_TEST(guest_that_converges_is_not_slowed)
{
	struct rig r;

	flat_out(&r);
	r.src->writer_pages = 20;
	rig_run(&r);
	check_moved(&r);
	ck_assert_uint_eq(r.src->highest_permille, 0);
	rig_free(&r);
}
END_TEST

/* A second vCPU writes nothing, and it is known who writes. */
static void two_vcpus(struct rig *r)
{
	flat_out(r);
	r->src->guest.n_vcpus = 2;
	r->src->guest.vcpu_dirty_known = true;
}

START_TEST(vcpu_that_writes_nothing_is_not_slowed)
{
	struct rig r;

	two_vcpus(&r);
	rig_run(&r);
	check_moved(&r);
	ck_assert_uint_gt(r.src->highest_permille, 0);
	ck_assert_uint_eq(r.src->others_permille, 0);
	ck_assert_uint_eq(r.src->dirty_limits, 0);
	rig_free(&r);
}
END_TEST

START_TEST(guest_is_slowed_by_a_dirty_limit_and_nothing_else)
{
	struct rig r;

	two_vcpus(&r);
	r.source.parameters.dirty_limit = true;
	r.source.parameters.auto_converge = _i;
	rig_run(&r);
	check_moved(&r);
	ck_assert_uint_gt(r.src->dirty_limits, 0);
	ck_assert_uint_eq(r.src->dirty_limit, 0);
	ck_assert_uint_eq(r.src->highest_permille, 0);
	ck_assert_uint_eq(r.source_stats.vcpu_limit_bytes, 0);
	rig_free(&r);
}
END_TEST

START_TEST(slowed_guest_is_at_full_speed_after_a_failure_or_a_cancel)
{
	struct rig r;

	flat_out(&r);
	r.limits.downtime_us = 0; /* it would go on for long */
	r.source.parameters.throttle_max = 30;
	r.source.parameters.dirty_limit = _i > 1;
	r.src->guest.vcpu_dirty_known = _i > 1;
	/* More than what would be enough. */
	r.source.parameters.vcpu_dirty_limit = 100;
	rig_start(&r);
	RIG_AWAIT(__atomic_load_n(&r.src->permille, __ATOMIC_RELAXED) ||
		  __atomic_load_n(&r.src->dirty_limit, __ATOMIC_RELAXED));
	rig_stop(_i % 2 ? r.source_stop : r.destination_stop);
	rig_finish(&r);
	ck_assert_int_eq(r.source_rc, -1);
	ck_assert_uint_le(r.src->highest_permille, 300);
	ck_assert_uint_eq(r.src->permille, 0);
	ck_assert_uint_eq(r.src->dirty_limit, 0);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine, codecs");
	TCase *c = tcase_create("engine, codecs");
	SRunner *r;
	int failed;

	tcase_set_timeout(c, 300);
	tcase_add_loop_test(c, memory_of_a_writing_guest_arrives_identical_in_each_codec, 0,
			    N(codecs) * N(lane_numbers));
	tcase_add_loop_test(c, pages_of_a_writing_guest_never_fail_their_checksums, 0,
			    4 * (N(codecs) + 1));
	tcase_add_test(c, pages_damaged_between_hosts_are_found);
	tcase_add_test(c, cache_smaller_than_what_is_written_to_harms_nothing);
	tcase_add_loop_test(c, guest_that_writes_too_much_is_slowed_and_arrives, 0, 2);
	tcase_add_test(c, what_a_look_within_a_round_has_taken_is_not_lost);
	tcase_add_test(c, guest_that_converges_is_not_slowed);
	tcase_add_test(c, vcpu_that_writes_nothing_is_not_slowed);
	tcase_add_loop_test(c, guest_is_slowed_by_a_dirty_limit_and_nothing_else, 0, 2);
	tcase_add_loop_test(c, slowed_guest_is_at_full_speed_after_a_failure_or_a_cancel, 0, 4);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
