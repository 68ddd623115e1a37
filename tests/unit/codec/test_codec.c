/*
 * The codecs by themselves: what is encoded comes back, whatever is done to it on the way ends in
 * an error or a page, and nothing outside is read or written (buffers have just their size, and the
 * address sanitizer watches).
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "migrate/codec/scan.h"
#include "migrate/codec/xbzrle.h"
#include "migrate/codec/zero.h"
#include "vmm/memory.h"

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

/* -- pairs of pages -- */

enum pair {
	EQUAL,
	ZERO_TO_ONES,
	FIRST_BYTE,
	LAST_BYTE,
	BOTH_ENDS,
	ALTERNATING,
	ALTERNATING_FROM_1,
	ALL_BUT_ONE,
	RANDOM,
	SPARSE,
	RUNS,
	RUNS_OF_127_128,
	N_PAIRS,
};

static void make_runs(const uint8_t *old, uint8_t *new, unsigned int same, unsigned int other)
{
	unsigned int at, i;

	for (at = same; at < PAGE_SIZE; at += same + other)
		for (i = at; i < at + other && i < PAGE_SIZE; i++)
			new[i] = (uint8_t)~old[i];
}

static void make_pair(enum pair kind, uint8_t *old, uint8_t *new)
{
	unsigned int i;

	for (i = 0; i < PAGE_SIZE; i++)
		old[i] = (uint8_t)next();
	memcpy(new, old, PAGE_SIZE);
	switch (kind) {
	case ZERO_TO_ONES:
		memset(old, 0, PAGE_SIZE);
		memset(new, 1, PAGE_SIZE);
		break;
	case FIRST_BYTE:
		new[0] ^= 1;
		break;
	case LAST_BYTE:
		new[PAGE_SIZE - 1] ^= 0x80;
		break;
	case BOTH_ENDS:
		new[0] ^= 1;
		new[PAGE_SIZE - 1] ^= 0x80;
		break;
	case ALTERNATING:
		make_runs(old, new, 1, 1);
		break;
	case ALTERNATING_FROM_1:
		make_runs(new, old, 1, 1);
		new[0] ^= 1;
		break;
	case ALL_BUT_ONE:
		make_runs(old, new, 0, PAGE_SIZE);
		i = (unsigned int)next() % PAGE_SIZE;
		new[i] = old[i];
		break;
	case RANDOM:
		for (i = 0; i < PAGE_SIZE; i++)
			new[i] = (uint8_t)next();
		break;
	case SPARSE:
		for (i = 0; i < 8; i++)
			new[next() % PAGE_SIZE]++;
		break;
	case RUNS:
		make_runs(old, new, 1 + (unsigned int)next() % 300, 1 + (unsigned int)next() % 300);
		break;
	case RUNS_OF_127_128:
		make_runs(old, new, 127 + (unsigned int)next() % 2, 127 + (unsigned int)next() % 2);
		break;
	default:
		break;
	}
}

/* Page by page in memory of its own, at odd addresses too, so that every end is seen. */
static uint8_t *exactly(const void *bytes, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	if (n)
		memcpy(copy, bytes, n);
	return copy;
}

/* -- scanning -- */

START_TEST(all_paths_find_the_same_bytes)
{
	uint64_t diff[SCAN_WORDS], expected[SCAN_WORDS];
	uint8_t old[PAGE_SIZE], new[PAGE_SIZE];
	unsigned int i, k, try;

	for (try = 0; try < 50; try++) {
		uint32_t least = 0;

		make_pair((enum pair)_i, old, new);
		memset(expected, 0, sizeof(expected));
		for (k = 0; k < PAGE_SIZE; k++) {
			if (old[k] == new[k])
				continue;
			expected[k / 64] |= 1ull << k % 64;
			least += !k || old[k - 1] == new[k - 1] ? 3 : 1;
		}
		for (i = 0; scan_path(i); i++) {
			const struct scan *s = scan_path(i);

			memset(diff, 0x55, sizeof(diff));
			ck_assert_msg(s->diff(old, new, diff) == least, "%s", s->name);
			ck_assert_msg(!memcmp(diff, expected, sizeof(diff)), "%s", s->name);
		}
		ck_assert_ptr_eq(scan_path(i - 1), &scan_portable);
		ck_assert_ptr_eq(scan_path(i + 1), NULL);
		ck_assert_ptr_eq(scan_path(0), scan_best());
	}
}
END_TEST

START_TEST(a_single_bit_anywhere_is_not_zero)
{
	uint8_t *page = aligned_alloc(PAGE_SIZE, PAGE_SIZE);
	unsigned int i, at;

	memset(page, 0, PAGE_SIZE);
	ck_assert(zero_page(page));
	for (i = 0; scan_path(i); i++) {
		const struct scan *s = scan_path(i);

		ck_assert_msg(s->zero(page), "%s", s->name);
		for (at = 0; at < PAGE_SIZE; at++) {
			page[at] = (uint8_t)(1u << at % 8);
			ck_assert_msg(!s->zero(page), "%s, byte %u", s->name, at);
			page[at] = 0;
		}
	}
	free(page);
}
END_TEST

/* -- XBZRLE -- */

/* The format as its description says it, a byte at a time. */
static unsigned int put_number(uint8_t *out, unsigned int n)
{
	unsigned int done = 0;

	for (; n >= 0x80; n >>= 7)
		out[done++] = (uint8_t)(n | 0x80);
	out[done++] = (uint8_t)n;
	return done;
}

static unsigned int by_the_book(const uint8_t *old, const uint8_t *new, uint8_t *out)
{
	unsigned int at = 0, from, done = 0;

	for (;;) {
		for (from = at; at < PAGE_SIZE && old[at] == new[at]; at++)
			;
		if (at == PAGE_SIZE)
			return done;
		done += put_number(out + done, at - from);
		for (from = at; at < PAGE_SIZE && old[at] != new[at]; at++)
			;
		done += put_number(out + done, at - from);
		memcpy(out + done, new + from, at - from);
		done += at - from;
	}
}

START_TEST(xbzrle_says_what_the_format_says_and_it_comes_back)
{
	uint8_t old[PAGE_SIZE], new[PAGE_SIZE], book[3 * PAGE_SIZE];
	unsigned int i, try, n;

	for (try = 0; try < 50; try++) {
		make_pair((enum pair)_i, old, new);
		n = by_the_book(old, new, book);
		for (i = 0; scan_path(i); i++) {
			const struct scan *s = scan_path(i);
			uint8_t *page = exactly(old, PAGE_SIZE), *to = exactly(new, PAGE_SIZE);
			uint8_t *out = malloc(n + 1);

			ck_assert_int_eq(xbzrle_encode_with(s, page, to, out, n), (int)n);
			ck_assert(!memcmp(out, book, n));
			if (n)
				ck_assert_int_eq(xbzrle_encode_with(s, page, to, out, n - 1), -1);
			free(out);
			out = exactly(book, n);
			ck_assert_int_eq(xbzrle_decode(out, n, page), 0);
			ck_assert(!memcmp(page, new, PAGE_SIZE));
			free(out);
			free(to);
			free(page);
		}
		ck_assert_int_eq(xbzrle_encode(old, new, book, sizeof(book)), (int)n);
	}
}
END_TEST

START_TEST(xbzrle_keeps_within_what_it_may_write)
{
	uint8_t old[PAGE_SIZE], new[PAGE_SIZE], book[3 * PAGE_SIZE];
	unsigned int max, n, i;

	make_pair((enum pair)_i, old, new);
	n = by_the_book(old, new, book);
	for (max = 0; max <= n; max += max < n && max + 61 > n ? 1 : 61)
		for (i = 0; scan_path(i); i++) {
			uint8_t *out = malloc(max ? max : 1);

			ck_assert_int_eq(xbzrle_encode_with(scan_path(i), old, new, out, max),
					 max < n ? -1 : (int)n);
			free(out);
		}
}
END_TEST

/* Some bytes that may be anything, decoded into a page of just its size: what comes of it. */
static int decode(const uint8_t *in, size_t n)
{
	uint8_t *page = calloc(1, PAGE_SIZE), *copy = exactly(in, n);
	int rc = xbzrle_decode(copy, n, page);

	ck_assert(rc == 0 || rc == -1);
	free(copy);
	free(page);
	return rc;
}

START_TEST(xbzrle_that_is_cut_short_or_damaged_is_an_error_or_a_page)
{
	uint8_t old[PAGE_SIZE], new[PAGE_SIZE], out[3 * PAGE_SIZE];
	unsigned int n, at, bit;

	make_pair((enum pair)_i, old, new);
	n = (unsigned int)xbzrle_encode(old, new, out, sizeof(out));
	for (at = 0; at < n; at++) {
		decode(out, at);
		for (bit = 0; bit < 8; bit++) {
			out[at] ^= (uint8_t)(1u << bit);
			decode(out, n);
			out[at] ^= (uint8_t)(1u << bit);
		}
	}
	ck_assert_int_eq(decode(out, n), 0);
}
END_TEST

START_TEST(xbzrle_that_nobody_encodes_is_refused)
{
	static const struct {
		const char *what;
		size_t n;
		uint8_t in[8];
	} bad[] = {
		{ "nothing after the unchanged bytes", 1, { 5 } },
		{ "nothing at all changes", 2, { 5, 0 } },
		{ "no new bytes", 2, { 0, 1 } },
		{ "fewer new bytes than said", 4, { 0, 3, 'a', 'b' } },
		{ "two runs that are one", 6, { 0, 1, 'a', 0, 1, 'b' } },
		{ "unchanged bytes at the end", 4, { 0, 1, 'a', 5 } },
		{ "a length of two bytes that needs one", 4, { 0x80, 0, 1, 'a' } },
		{ "a length of two bytes that needs one", 4, { 0xff, 0, 1, 'a' } },
		{ "the same, of new bytes", 5, { 0, 0x81, 0, 'a', 'b' } },
		{ "a length of three bytes", 5, { 0x80, 0x80, 1, 1, 'a' } },
		{ "half a length", 1, { 0x80 } },
		{ "half a length of new bytes", 2, { 1, 0x80 } },
		{ "unchanged bytes beyond the page", 4, { 0x81, 0x20, 1, 'a' } },
		{ "a new byte beyond the page", 4, { 0x80, 0x20, 1, 'a' } },
		{ "two new bytes at the last", 5, { 0xff, 0x1f, 2, 'a', 'b' } },
		{ "the longest length", 4, { 0xff, 0x7f, 1, 'a' } },
	};
	static const uint8_t good[] = { 0xff, 0x1f, 1, 'a' }; /* the last byte of the page */
	unsigned int i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(decode(bad[i].in, bad[i].n) == -1, "%s", bad[i].what);
	ck_assert_int_eq(decode(good, sizeof(good)), 0);
	ck_assert_int_eq(decode(good, 0), 0);
}
END_TEST

START_TEST(xbzrle_of_random_bytes_is_an_error_or_a_page)
{
	uint8_t in[64];
	unsigned int i, k, taken = 0;

	for (i = 0; i < 100000; i++) {
		for (k = 0; k < sizeof(in); k++)
			in[k] = (uint8_t)(next() % (k % 2 ? 4 : 256));
		taken += decode(in, next() % sizeof(in)) == 0;
	}
	ck_assert_uint_gt(taken, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("codec");
	TCase *c = tcase_create("codec");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_checked_fixture(c, setup, NULL);
	tcase_add_loop_test(c, all_paths_find_the_same_bytes, 0, N_PAIRS);
	tcase_add_test(c, a_single_bit_anywhere_is_not_zero);
	tcase_add_loop_test(c, xbzrle_says_what_the_format_says_and_it_comes_back, 0, N_PAIRS);
	tcase_add_loop_test(c, xbzrle_keeps_within_what_it_may_write, 0, N_PAIRS);
	tcase_add_loop_test(c, xbzrle_that_is_cut_short_or_damaged_is_an_error_or_a_page, 0,
			    N_PAIRS);
	tcase_add_test(c, xbzrle_that_nobody_encodes_is_refused);
	tcase_add_test(c, xbzrle_of_random_bytes_is_an_error_or_a_page);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
