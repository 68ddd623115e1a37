/*
 * Guests whose pages are missing until they are placed: whole migrations over lanes and codecs, in
 * which nothing but the place ever reaches the guest's memory.
 */
#include <check.h>
#include <string.h>

#include "migrate/stream/hello.h"
#include "tests/unit/lib/engine_rig.h"
#include "tests/unit/lib/missing.h"
#include "tests/unit/lib/stream_maker.h"
#include "vmm/memory.h"

static const unsigned int lane_numbers[] = { 1, 2, 4 };
static const enum pages_codec codecs[] = { CODEC_PLAIN, CODEC_ZLIB, CODEC_ZSTD };

#define N(array) ((int)(sizeof(array) / sizeof((array)[0])))

static void init(struct rig *r, struct missing *m, unsigned int lanes)
{
	rig_init(r, RIG_TCP);
	missing_init(m, &r->dst->guest);
	r->place = &m->place;
	r->source.n_lanes = lanes;
	rig_dirty_by_plan(r);
}

START_TEST(pages_that_were_missing_arrive_as_they_were)
{
	struct missing m;
	struct rig r;

	init(&r, &m, lane_numbers[_i % N(lane_numbers)]);
	r.source.parameters.compression = codecs[_i / N(lane_numbers)];
	r.source.parameters.zlib_level = r.source.parameters.zstd_level = 1;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "source: %s", r.source_error.text);
	ck_assert_msg(r.destination_rc == 0, "destination: %s", r.destination_error.text);
	ck_assert_uint_eq(m.touches, 0);
	ck_assert_uint_gt(r.destination_stats.normal_pages, 0);
	missing_free(&m);
	rig_check(&r);
	ck_assert_uint_eq(r.dst->starts, 1);
	rig_free(&r);
}
END_TEST

/* What has no older page cannot be changed to a newer one. */
START_TEST(changes_to_missing_pages_are_refused)
{
	struct missing m;
	struct rig r;

	init(&r, &m, 1);
	r.source.parameters.xbzrle = true;
	r.source.parameters.xbzrle_cache_bytes = 8u << 20;
	rig_run(&r);
	ck_assert_int_eq(r.destination_rc, -1);
	ck_assert_msg(strstr(r.destination_error.text, "changes to older ones (xbzrle)"), "%s",
		      r.destination_error.text);
	ck_assert_uint_eq(m.touches, 0);
	missing_free(&m);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* One record with the pages 3 and 4 of block 0. */
static int take_record(struct missing *m, bool damaged, struct err *e)
{
	static const uint64_t runs[1][2] = { { 3, 2 } };
	static uint8_t data[2 * PAGE_SIZE];
	struct stats stats = { 0 };
	struct ahead ahead;
	struct record rec;
	struct hello hello;
	struct maker maker;
	struct reader r = { 0 };
	struct intake in = { .reader = &r, .place = &m->place, .ahead = &ahead, .stats = &stats };
	uint8_t stream[3 * PAGE_SIZE];
	size_t n;
	int rc;

	memset(data, 0x33, sizeof(data));
	maker_make(&maker);
	hello = maker_good_hello();
	maker_hello(&maker, &hello);
	n = maker.ch->bytes;
	maker_encoded(&maker, 0, 0, CODEC_PLAIN, 1, runs, data, sizeof(data));
	ck_assert_uint_le(maker.ch->bytes, sizeof(stream));
	memcpy(stream, memory_channel_written(maker.ch), maker.ch->bytes);
	stream[maker.ch->bytes - 1] ^= damaged;
	ck_assert_int_eq(memory_channel(&r.channel, stream, maker.ch->bytes, NULL), 0);
	ahead_init(&ahead, &m->place);
	ck_assert_int_eq(hello_take(&r, &hello, NULL), 0);
	ck_assert_uint_eq(r.bytes, n);
	ck_assert_int_eq(reader_record(&r, &rec, NULL), 0);
	rc = intake_pages(&in, &rec, e);
	intake_free(&in);
	ahead_free(&ahead);
	channel_close(r.channel);
	reader_free(&r);
	maker_unmake(&maker);
	return rc;
}

START_TEST(damaged_pages_are_never_placed_where_a_guest_may_run)
{
	struct fake *f = maker_guest();
	struct missing m;
	struct err e;

	missing_init(&m, &f->guest);
	ck_assert_int_eq(take_record(&m, true, &e), -1);
	ck_assert_msg(strstr(e.text, "are damaged"), "%s", e.text);
	ck_assert_uint_eq(m.here[0][0], 0);
	ck_assert_msg(!take_record(&m, false, &e), "%s", e.text);
	ck_assert_uint_eq(m.here[0][0], 3u << 3);
	ck_assert_int_eq(f->guest.blocks[0].host[5 * PAGE_SIZE - 1], 0x33);
	missing_free(&m);
	fake_free(f);
}
END_TEST

/* -- the place of memory that is there -- */

#define PAGES 100u

START_TEST(place_has_what_its_guest_has)
{
	const struct guest g = { .n_blocks = 2, .blocks = { { NULL, PAGES }, { NULL, 1 } } };
	struct place p;

	place_memory_init(&p, &g);
	ck_assert(place_has(&p, 0, 0, PAGES));
	ck_assert(place_has(&p, 0, PAGES - 1, 1));
	ck_assert(place_has(&p, 1, 0, 1));
	ck_assert(!place_has(&p, 0, 0, PAGES + 1));
	ck_assert(!place_has(&p, 0, PAGES, 1));
	ck_assert(!place_has(&p, 0, 1, UINT64_MAX));
	ck_assert(!place_has(&p, 0, UINT64_MAX, 2));
	ck_assert(!place_has(&p, 1, 0, 2));
	ck_assert(!place_has(&p, 2, 0, 1));
	ck_assert(!place_has(&p, UINT64_MAX, 0, 1));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("place");
	TCase *c = tcase_create("place");
	SRunner *r;
	int failed;

	tcase_set_timeout(c, 60);
	tcase_add_loop_test(c, pages_that_were_missing_arrive_as_they_were, 0,
			    N(lane_numbers) * N(codecs));
	tcase_add_test(c, changes_to_missing_pages_are_refused);
	tcase_add_test(c, damaged_pages_are_never_placed_where_a_guest_may_run);
	tcase_add_test(c, place_has_what_its_guest_has);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
