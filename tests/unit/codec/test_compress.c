/*
 * zlib and zstd as codecs: what is compressed comes back, into pieces of any sizes and however it
 * arrives; what is cut short, damaged, too much or too little is an error with a sentence, and
 * nothing but the pieces is written (each has just its size, and the address sanitizer watches).
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <zstd.h>

#include "migrate/codec/compress.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

#define PIECES_MAX 512

static const enum pages_codec codecs[] = { CODEC_ZLIB, CODEC_ZSTD };

static uint64_t seed;

static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void setup(void)
{
	seed = (uint64_t)time(NULL) * 2654435761u | 1;
	printf("seed %lu\n", seed);
}

enum content { ALL_ZERO, ALL_SAME, ALTERNATING, WORDS, MIXED, RANDOM, N_CONTENTS };

static uint8_t *content(enum content kind, size_t n)
{
	uint8_t *out = malloc(n);
	size_t i;

	for (i = 0; i < n; i++)
		switch (kind) {
		case ALL_ZERO:
			out[i] = 0;
			break;
		case ALL_SAME:
			out[i] = 0xa5;
			break;
		case ALTERNATING:
			out[i] = i % 2 ? 0xff : 0;
			break;
		case WORDS:
			out[i] = (uint8_t)(i % 8 ? 0 : next());
			break;
		case MIXED:
			out[i] = (uint8_t)(i / PAGE_SIZE % 2 ? next() : i);
			break;
		default:
			out[i] = (uint8_t)next();
		}
	return out;
}

/* A frame in memory of just its size; NULL when it does not gain. */
static uint8_t *frame(enum pages_codec codec, int level, const uint8_t *in, size_t n, size_t *bytes)
{
	struct compressor c = { 0 };
	uint8_t *out = malloc(n);
	ptrdiff_t done;
	struct err e;

	ck_assert_msg(!compressor_init(&c, codec, level, &e), "%s", e.text);
	done = compressor_run(&c, in, n, out, n, &e);
	ck_assert_msg(done >= 0, "%s", e.text);
	compressor_free(&c);
	if (!done) {
		free(out);
		return NULL;
	}
	*bytes = (size_t)done;
	return realloc(out, (size_t)done);
}

/* Pieces of random sizes for n bytes, some empty; returns how many. */
static unsigned int make_pieces(struct iovec *out, size_t n)
{
	unsigned int i = 0;

	while (n) {
		size_t len = i == PIECES_MAX - 1 ? n : next() % (n < 20000 ? n + 1 : 20000);

		out[i++] = (struct iovec){ malloc(len ? len : 1), len };
		n -= len;
	}
	return i;
}

/* Decompresses into n_out pieces, the frame coming in parts of at most `part` bytes. */
static int take(struct decompressor *d, enum pages_codec codec, const struct iovec *out,
		unsigned int n_out, const uint8_t *in, size_t n, size_t part, struct err *e)
{
	struct iovec pieces[PIECES_MAX];
	uint8_t *copy;
	int rc;

	memcpy(pieces, out, n_out * sizeof(out[0]));
	rc = decompressor_begin(d, codec, pieces, n_out, e);
	while (n && !rc) {
		size_t len = n < part ? n : part;

		copy = malloc(len);
		memcpy(copy, in, len);
		rc = decompressor_feed(d, copy, len, e);
		free(copy);
		in += len;
		n -= len;
	}
	return rc || decompressor_end(d, e) ? -1 : 0;
}

/* The same into one piece of `size` bytes, which is thrown away. */
static int take_size(struct decompressor *d, enum pages_codec codec, const uint8_t *in, size_t n,
		     size_t size, struct err *e)
{
	struct iovec out = { malloc(size), size };
	int rc = take(d, codec, &out, 1, in, n, 100000, e);

	free(out.iov_base);
	return rc;
}

START_TEST(what_is_compressed_comes_back)
{
	static const size_t sizes[] = { 1, 7, PAGE_SIZE, 31 * PAGE_SIZE, COMPRESS_MAX };
	static const size_t parts[] = { 1, 13, 65536, COMPRESS_MAX };
	const enum pages_codec codec = codecs[_i % 2];
	struct decompressor d = { 0 };
	struct iovec out[PIECES_MAX];
	unsigned int s, p, i, n_out;
	size_t n, at;
	struct err e;

	for (s = 0; s < 5; s++) {
		uint8_t *in = content((enum content)(_i / 2), sizes[s]);
		uint8_t *f = frame(codec, 1, in, sizes[s], &n);

		ck_assert(f || _i / 2 == RANDOM || sizes[s] < 100);
		for (p = 0; f && p < 4; p++) {
			if (n / parts[p] > 100000)
				continue;
			n_out = make_pieces(out, sizes[s]);
			ck_assert_msg(!take(&d, codec, out, n_out, f, n, parts[p], &e), "%s",
				      e.text);
			for (at = 0, i = 0; i < n_out; i++) {
				ck_assert(!memcmp(out[i].iov_base, in + at, out[i].iov_len));
				at += out[i].iov_len;
				free(out[i].iov_base);
			}
		}
		free(f);
		free(in);
	}
	decompressor_free(&d);
}
END_TEST

START_TEST(all_levels_of_the_table_work_and_no_others)
{
	const enum pages_codec codec = codecs[_i];
	const struct compression *how = compression_of(codec);
	const size_t size = 64 * PAGE_SIZE;
	uint8_t *in = content(WORDS, size);
	struct decompressor d = { 0 };
	struct compressor c = { 0 };
	struct err e;
	size_t n;
	int level;

	for (level = how->level_min; level <= how->level_max; level++) {
		uint8_t *f = frame(codec, level, in, size, &n);

		ck_assert(f && !take_size(&d, codec, f, n, size, &e));
		free(f);
	}
	ck_assert_int_eq(compressor_init(&c, codec, how->level_min - 1, &e), -1);
	ck_assert_int_eq(compressor_init(&c, codec, how->level_max + 1, &e), -1);
	ck_assert_msg(strstr(e.text, "has no level"), "%s", e.text);
	ck_assert_int_eq(compressor_init(&c, CODEC_PLAIN, 1, &e), -1);
	ck_assert_int_eq(decompressor_begin(&d, CODEC_XBZRLE, NULL, 0, &e), -1);
	decompressor_free(&d);
	free(in);
}
END_TEST

START_TEST(compressor_goes_on_after_what_did_not_fit)
{
	const enum pages_codec codec = codecs[_i];
	const size_t size = 16 * PAGE_SIZE;
	uint8_t *in = content(RANDOM, size), *zeros = content(ALL_ZERO, size);
	uint8_t *out = malloc(size);
	struct decompressor d = { 0 };
	struct compressor c = { 0 };
	unsigned int i;
	ptrdiff_t n;
	struct err e;

	for (i = 0; i < 4; i++) {
		ck_assert(!compressor_init(&c, codec, 1 + (int)i / 2, &e));
		ck_assert_int_eq(compressor_run(&c, in, size, out, size, &e), 0);
		n = compressor_run(&c, zeros, size, out, size, &e);
		ck_assert_int_gt(n, 0);
		ck_assert_int_eq(compressor_run(&c, zeros, size, out, (size_t)n - 1, &e), 0);
		ck_assert_int_eq(compressor_run(&c, zeros, size, out, 0, &e), 0);
		ck_assert_int_eq(compressor_run(&c, zeros, size, out, size, &e), n);
		ck_assert_int_eq(take_size(&d, codec, out, (size_t)n, size, &e), 0);
		ck_assert_int_eq(compressor_run(&c, in, COMPRESS_MAX + 1, out, size, &e), -1);
	}
	compressor_free(&c);
	decompressor_free(&d);
	free(out);
	free(zeros);
	free(in);
}
END_TEST

START_TEST(too_much_too_little_and_what_follows_are_errors_with_a_sentence)
{
	const enum pages_codec codec = codecs[_i];
	const size_t size = 40 * PAGE_SIZE;
	uint8_t *in = content(MIXED, size), *twice;
	struct decompressor d = { 0 };
	struct err e;
	size_t n, at;
	uint8_t *f = frame(codec, 1, in, size, &n);

	ck_assert_int_eq(take_size(&d, codec, f, n, size - 1, &e), -1);
	ck_assert_msg(strstr(e.text, "are more than their pages"), "%s", e.text);
	ck_assert_int_eq(take_size(&d, codec, f, n, size + 1, &e), -1);
	ck_assert_msg(strstr(e.text, "are less than their pages"), "%s", e.text);
	for (at = 0; at < n; at += 1 + at / 7) {
		ck_assert_int_eq(take_size(&d, codec, f, at, size, &e), -1);
		ck_assert_msg(strstr(e.text, "end early"), "%zu of %zu: %s", at, n, e.text);
	}
	ck_assert_int_eq(take_size(&d, codec, f, n - 1, size, &e), -1);
	twice = malloc(2 * n);
	memcpy(twice, f, n);
	memcpy(twice + n, f, n);
	ck_assert_int_eq(take_size(&d, codec, twice, n + 1, size, &e), -1);
	ck_assert_msg(strstr(e.text, "go on after their end"), "%s", e.text);
	ck_assert_int_eq(take_size(&d, codec, twice, 2 * n, 2 * size, &e), -1);
	ck_assert_msg(strstr(e.text, "go on after their end"), "%s", e.text);
	ck_assert_int_eq(take_size(&d, codec, in, 100, size, &e), -1);
	ck_assert_msg(strstr(e.text, "are damaged"), "%s", e.text);
	/* None of it did it any harm. */
	ck_assert_int_eq(take_size(&d, codec, f, n, size, &e), 0);
	decompressor_free(&d);
	free(twice);
	free(f);
	free(in);
}
END_TEST

START_TEST(every_flipped_bit_is_an_error_or_pages)
{
	const enum pages_codec codec = codecs[_i % 2];
	const size_t size = 2 * PAGE_SIZE;
	uint8_t *in = content(_i / 2 ? MIXED : WORDS, size);
	struct decompressor d = { 0 };
	unsigned int bit, refused = 0;
	struct err e;
	size_t n, at;
	uint8_t *f = frame(codec, 1, in, size, &n);

	for (at = 0; at < n; at++)
		for (bit = 0; bit < 8; bit++) {
			struct iovec out = { malloc(size), size };

			f[at] ^= (uint8_t)(1u << bit);
			if (take(&d, codec, &out, 1, f, n, 100000, &e))
				refused++;
			else if (codec == CODEC_ZLIB) /* which has a checksum of its own */
				ck_assert(!memcmp(out.iov_base, in, size));
			f[at] ^= (uint8_t)(1u << bit);
			free(out.iov_base);
		}
	ck_assert_uint_gt(refused, 0);
	ck_assert_int_eq(take_size(&d, codec, f, n, size, &e), 0);
	decompressor_free(&d);
	free(f);
	free(in);
}
END_TEST

START_TEST(zstd_frame_that_wants_much_memory_is_refused)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	uint8_t *in = content(WORDS, PAGE_SIZE), out[2 * PAGE_SIZE];
	struct decompressor d = { 0 };
	ZSTD_inBuffer ib = { in, PAGE_SIZE, 0 };
	ZSTD_outBuffer ob = { out, sizeof(out), 0 };
	struct err e;

	/* Without a size it may want a window of 128 MiB. */
	ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, 27);
	while (ZSTD_compressStream2(c, &ob, &ib, ib.pos < ib.size ? ZSTD_e_flush : ZSTD_e_end))
		;
	ck_assert_int_eq(take_size(&d, CODEC_ZSTD, out, ob.pos, PAGE_SIZE, &e), -1);
	ck_assert_msg(strstr(e.text, "are damaged"), "%s", e.text);
	decompressor_free(&d);
	ZSTD_freeCCtx(c);
	free(in);
}
END_TEST

START_TEST(random_bytes_are_refused)
{
	struct decompressor d = { 0 };
	uint8_t *in = malloc(200);
	unsigned int i, k;
	struct err e;

	for (i = 0; i < 20000; i++) {
		for (k = 0; k < 200; k++)
			in[k] = (uint8_t)next();
		/* Far enough to be taken for a frame. */
		memcpy(in, i % 2 ? "\x28\xb5\x2f\xfd" : "\x78\x01", i % 2 ? 4 : 2);
		take_size(&d, codecs[i % 2], in, next() % 200, PAGE_SIZE, &e);
	}
	decompressor_free(&d);
	free(in);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("compress");
	TCase *c = tcase_create("compress");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_checked_fixture(c, setup, NULL);
	tcase_add_loop_test(c, what_is_compressed_comes_back, 0, 2 * N_CONTENTS);
	tcase_add_loop_test(c, all_levels_of_the_table_work_and_no_others, 0, 2);
	tcase_add_loop_test(c, compressor_goes_on_after_what_did_not_fit, 0, 2);
	tcase_add_loop_test(c, too_much_too_little_and_what_follows_are_errors_with_a_sentence, 0,
			    2);
	tcase_add_loop_test(c, every_flipped_bit_is_an_error_or_pages, 0, 4);
	tcase_add_test(c, zstd_frame_that_wants_much_memory_is_refused);
	tcase_add_test(c, random_bytes_are_refused);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
