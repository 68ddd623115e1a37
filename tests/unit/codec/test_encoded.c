/*
 * Encoded pages at a destination, over the memory channel: each codec's records make the guest's
 * memory what was encoded, and what is wrong with them ends the migration with the reason.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/codec/compress.h"
#include "migrate/codec/xbzrle.h"
#include "tests/unit/lib/stream_maker.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

/* Two runs of block 0, out of order: pages 20-22 and 3-4. */
static const uint64_t runs[2][2] = { { 20, 3 }, { 3, 2 } };
#define RUN_PAGES 5u

struct data {
	uint8_t pages[RUN_PAGES][PAGE_SIZE]; /* as they shall be, in the order of the runs */
	uint8_t bytes[RUN_PAGES * (PAGE_SIZE + 2) + PAGE_SIZE];
	size_t n;
};

static uint64_t page_no(unsigned int i)
{
	return i < 3 ? 20 + i : i;
}

/* Pages of which each has some of the 0x5a that maker_pages sends. */
static void make_pages(struct data *d)
{
	unsigned int i, k;

	memset(d, 0, sizeof(*d));
	memset(d->pages, 0x5a, sizeof(d->pages));
	for (i = 0; i < RUN_PAGES; i++)
		for (k = 0; i != 2 && k < PAGE_SIZE; k += 5 + 100 * i)
			d->pages[i][k] = (uint8_t)(k + i);
}

static void put_delta(struct data *d, const uint8_t *delta, size_t n)
{
	d->bytes[d->n++] = (uint8_t)n;
	d->bytes[d->n++] = (uint8_t)(n >> 8);
	memcpy(d->bytes + d->n, delta, n);
	d->n += n;
}

static void encode(struct data *d, enum pages_codec codec)
{
	uint8_t before[PAGE_SIZE], delta[PAGE_SIZE];
	struct compressor c = { 0 };
	unsigned int i;
	int n;

	d->n = 0;
	if (codec == CODEC_XBZRLE) {
		memset(before, 0x5a, sizeof(before));
		for (i = 0; i < RUN_PAGES; i++) {
			n = xbzrle_encode(before, d->pages[i], delta, sizeof(delta));
			ck_assert_int_ge(n, 0);
			put_delta(d, delta, (size_t)n);
		}
		return;
	}
	ck_assert(!compressor_init(&c, codec, 1, NULL));
	d->n = (size_t)compressor_run(&c, d->pages, sizeof(d->pages), d->bytes, sizeof(d->pages),
				      NULL);
	ck_assert_uint_gt(d->n, 0);
	compressor_free(&c);
}

/* A stream in which they come after block 0 was filled with 0x5a. */
static void make_stream(struct maker *m, const struct data *d, enum pages_codec codec,
			uint16_t flags)
{
	maker_make(m);
	maker_begin(m);
	maker_run(m, 0, CODEC_PLAIN, 0, MAKER_PAGES_0);
	maker_round_end(m, 1);
	maker_encoded(m, flags, 0, codec, 2, runs, d->bytes, d->n);
	maker_round_end(m, 2);
	maker_states(m, 1000);
	maker_record(m, RECORD_GO, NULL, 0);
}

static void check_memory(const struct fake *f, const struct data *d)
{
	const uint8_t *host = f->guest.blocks[0].host;
	uint8_t untouched[PAGE_SIZE];
	uint64_t page;
	unsigned int i;

	memset(untouched, 0x5a, sizeof(untouched));
	for (i = 0; i < RUN_PAGES; i++)
		ck_assert(!memcmp(host + page_no(i) * PAGE_SIZE, d->pages[i], PAGE_SIZE));
	for (page = 0; page < MAKER_PAGES_0; page++)
		if (page != 3 && page != 4 && (page < 20 || page > 22))
			ck_assert(!memcmp(host + page * PAGE_SIZE, untouched, PAGE_SIZE));
}

static const struct {
	enum pages_codec codec;
	uint16_t flags;
} ways[] = {
	{ CODEC_XBZRLE, RECORD_UNCHECKED },
	{ CODEC_ZLIB, RECORD_UNCHECKED },
	{ CODEC_ZSTD, RECORD_UNCHECKED },
	{ CODEC_XBZRLE, 0 },
	{ CODEC_ZLIB, 0 },
	{ CODEC_ZSTD, 0 },
};

START_TEST(destination_takes_encoded_pages)
{
	struct fake *f = maker_guest();
	struct maker m;
	struct data d;
	struct err e;

	make_pages(&d);
	encode(&d, ways[_i].codec);
	make_stream(&m, &d, ways[_i].codec, ways[_i].flags);
	ck_assert_msg(
		!maker_take_into(f, memory_channel_written(m.ch), m.ch->bytes, false, NULL, &e),
		"%s", e.text);
	check_memory(f, &d);
	maker_unmake(&m);
	fake_free(f);
}
END_TEST

START_TEST(codecs_may_take_turns)
{
	struct fake *f = maker_guest();
	struct maker m;
	struct data d;
	struct err e;
	unsigned int i;

	maker_make(&m);
	maker_begin(&m);
	maker_run(&m, 0, CODEC_PLAIN, 0, MAKER_PAGES_0);
	maker_round_end(&m, 1);
	make_pages(&d);
	for (i = 0; i < 12; i++) {
		const enum pages_codec codec = CODEC_XBZRLE + (i + 1) % 3;

		/* Deltas only to what is there: first, then nothing changes. */
		encode(&d, codec);
		if (codec == CODEC_XBZRLE)
			memset(d.bytes, 0, d.n = 2 * RUN_PAGES);
		maker_encoded(&m, RECORD_UNCHECKED, 0, codec, 2, runs, d.bytes, d.n);
		maker_round_end(&m, i + 2);
	}
	maker_states(&m, 1000);
	maker_record(&m, RECORD_GO, NULL, 0);
	ck_assert_msg(
		!maker_take_into(f, memory_channel_written(m.ch), m.ch->bytes, false, NULL, &e),
		"%s", e.text);
	check_memory(f, &d);
	maker_unmake(&m);
	fake_free(f);
}
END_TEST

START_TEST(large_record_arrives_in_many_pieces)
{
	static const uint64_t all[1][2] = { { 0, MAKER_PAGES_0 } };
	struct fake *f = maker_guest();
	uint8_t *bytes = calloc(MAKER_PAGES_0, PAGE_SIZE + 2), zero[PAGE_SIZE] = { 0 };
	uint8_t page[PAGE_SIZE];
	unsigned int i;
	struct maker m;
	struct err e;
	size_t n = 0;

	/* More than one piece of what a decoder reads at once, and pages that lie across its end.
	 */
	memset(page, 0x77, sizeof(page));
	memset(page, 0, 8);
	for (i = 0; i < MAKER_PAGES_0; i++) {
		int len;

		page[100 + i] = 0;
		len = xbzrle_encode(zero, page, bytes + n + 2, PAGE_SIZE);
		ck_assert_int_gt(len, 3900);
		bytes[n] = (uint8_t)len;
		bytes[n + 1] = (uint8_t)(len >> 8);
		n += 2 + (size_t)len;
	}
	ck_assert_uint_gt(n, 128u << 10);
	maker_make(&m);
	maker_begin(&m);
	maker_encoded(&m, 0, 0, CODEC_XBZRLE, 1, all, bytes, n);
	maker_round_end(&m, 1);
	maker_states(&m, 1000);
	maker_record(&m, RECORD_GO, NULL, 0);
	ck_assert_msg(
		!maker_take_into(f, memory_channel_written(m.ch), m.ch->bytes, false, NULL, &e),
		"%s", e.text);
	ck_assert(!memcmp(f->guest.blocks[0].host + (MAKER_PAGES_0 - 1) * PAGE_SIZE, page,
			  PAGE_SIZE));
	maker_unmake(&m);
	fake_free(f);
	free(bytes);
}
END_TEST

/* -- what is wrong -- */

static int take_bad(const struct data *d, enum pages_codec codec, uint16_t flags, struct err *e)
{
	struct maker m;
	int rc;

	make_stream(&m, d, codec, flags);
	rc = maker_take(memory_channel_written(m.ch), m.ch->bytes, false, NULL, e);
	maker_unmake(&m);
	return rc;
}

static void expect(const struct data *d, enum pages_codec codec, const char *why)
{
	struct err e;

	ck_assert_int_eq(take_bad(d, codec, RECORD_UNCHECKED, &e), -1);
	ck_assert_msg(strstr(e.text, why), "not '%s' but: %s", why, e.text);
}

START_TEST(bad_deltas_are_refused_with_the_reason)
{
	struct data d;

	make_pages(&d);
	encode(&d, CODEC_XBZRLE);
	d.n--;
	expect(&d, CODEC_XBZRLE, "the xbzrle data end within a page");
	d.n += 2;
	expect(&d, CODEC_XBZRLE, "the xbzrle data are more than their pages");
	d.n = 2 * RUN_PAGES - 1;
	expect(&d, CODEC_XBZRLE, "of 5 pages with 9 bytes (xbzrle)");
	memset(d.bytes, 0, sizeof(d.bytes));
	d.n = RUN_PAGES * (PAGE_SIZE + 2);
	expect(&d, CODEC_XBZRLE, "the xbzrle data are more than their pages");
	d.n++;
	expect(&d, CODEC_XBZRLE, "with 20491 bytes (xbzrle)");
	d.bytes[0] = 1;
	d.bytes[1] = 0x10;
	expect(&d, CODEC_XBZRLE, "with 20491 bytes (xbzrle)");
	d.n--;
	expect(&d, CODEC_XBZRLE, "of a page are 4097 bytes, at most 4096 can be");
	memcpy(d.bytes, "\3\0\0\1a\3\0\0\2a", 10);
	expect(&d, CODEC_XBZRLE, "the xbzrle data of a page are damaged");
}
END_TEST

START_TEST(bad_frames_are_refused_with_the_reason)
{
	const enum pages_codec codec = _i ? CODEC_ZSTD : CODEC_ZLIB;
	struct data d;

	make_pages(&d);
	encode(&d, codec);
	d.n--;
	expect(&d, codec, "data end early");
	d.n += 2;
	expect(&d, codec, "data go on after their end");
	d.n = 0;
	expect(&d, codec, "of 5 pages with 0 bytes");
	d.n = RUN_PAGES * PAGE_SIZE + 1;
	expect(&d, codec, "of 5 pages with 20481 bytes");
	encode(&d, codec);
	d.bytes[0] ^= 1;
	expect(&d, codec, "data are damaged");
}
END_TEST

START_TEST(checksum_of_encoded_data_is_checked)
{
	const enum pages_codec codec = CODEC_XBZRLE + _i;
	struct data d;
	struct maker m;
	struct err e;
	uint8_t *stream;
	size_t at;

	make_pages(&d);
	encode(&d, codec);
	make_stream(&m, &d, codec, 0);
	stream = malloc(m.ch->bytes);
	/* The data's last byte, wherever the stream goes on behind it. */
	memcpy(stream, memory_channel_written(m.ch), m.ch->bytes);
	for (at = m.ch->bytes - d.n; memcmp(stream + at, d.bytes, d.n); at--)
		;
	stream[at + d.n - 1] ^= 1;
	ck_assert_int_eq(maker_take(stream, m.ch->bytes, false, NULL, &e), -1);
	if (codec == CODEC_XBZRLE) /* which is right in itself */
		ck_assert_msg(strstr(e.text, "the pages of the record at byte"), "%s", e.text);
	free(stream);
	maker_unmake(&m);
}
END_TEST

START_TEST(more_pages_than_an_encoded_record_may_have_are_refused)
{
	const uint64_t many[1][2] = { { 0, PAGES_ENCODED_MAX + 1 } };
	struct maker m;
	struct err e;
	uint8_t data[4096] = { 0 };

	maker_make(&m);
	maker_begin(&m);
	maker_encoded(&m, RECORD_UNCHECKED, 0, CODEC_XBZRLE + (uint32_t)_i, 1, many, data,
		      sizeof(data));
	ck_assert_int_eq(maker_take(memory_channel_written(m.ch), m.ch->bytes, false, NULL, &e),
			 -1);
	ck_assert_msg(strstr(e.text, "a PAGES record of 513 pages"), "%s", e.text);
	maker_unmake(&m);
}
END_TEST

START_TEST(encoded_pages_outside_a_block_are_refused)
{
	const uint64_t outside[2][2] = { { 0, 1 }, { MAKER_PAGES_0 - 1, 2 } };
	struct maker m;
	struct err e;
	uint8_t data[64] = { 0 };

	maker_make(&m);
	maker_begin(&m);
	maker_encoded(&m, RECORD_UNCHECKED, 0, CODEC_XBZRLE + (uint32_t)_i, 2, outside, data,
		      sizeof(data));
	ck_assert_int_eq(maker_take(memory_channel_written(m.ch), m.ch->bytes, false, NULL, &e),
			 -1);
	ck_assert_msg(strstr(e.text, "pages outside memory block 0"), "%s", e.text);
	maker_unmake(&m);
}
END_TEST

START_TEST(codecs_have_names)
{
	ck_assert_str_eq(pages_codec_name(CODEC_PLAIN), "plain");
	ck_assert_str_eq(pages_codec_name(CODEC_ZERO), "zero");
	ck_assert_str_eq(pages_codec_name(CODEC_XBZRLE), "xbzrle");
	ck_assert_str_eq(pages_codec_name(CODEC_ZLIB), "zlib");
	ck_assert_str_eq(pages_codec_name(CODEC_ZSTD), "zstd");
	ck_assert_str_eq(pages_codec_name(0), "unknown");
	ck_assert_str_eq(pages_codec_name(6), "unknown");
	ck_assert_str_eq(pages_codec_name(~0u), "unknown");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("encoded");
	TCase *c = tcase_create("encoded");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_loop_test(c, destination_takes_encoded_pages, 0, 6);
	tcase_add_test(c, codecs_may_take_turns);
	tcase_add_test(c, large_record_arrives_in_many_pieces);
	tcase_add_test(c, bad_deltas_are_refused_with_the_reason);
	tcase_add_loop_test(c, bad_frames_are_refused_with_the_reason, 0, 2);
	tcase_add_loop_test(c, checksum_of_encoded_data_is_checked, 0, 3);
	tcase_add_loop_test(c, more_pages_than_an_encoded_record_may_have_are_refused, 0, 3);
	tcase_add_loop_test(c, encoded_pages_outside_a_block_are_refused, 0, 3);
	tcase_add_test(c, codecs_have_names);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
