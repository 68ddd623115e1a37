/*
 * Sets of bits: what is looked for is found on both sides of a word's end, and never past the
 * set's.
 */
#include <check.h>

#include "vmm/base/bitmap.h"

#define BITS 150

START_TEST(each_run_of_set_bits_is_found_once)
{
	static const uint64_t runs[][2] = { { 0, 1 }, { 3, 2 }, { 60, 8 }, { 100, 50 } };
	uint64_t map[BITMAP_WORDS(BITS)] = { 0 }, at, n;
	unsigned int found = 0;

	for (unsigned int i = 0; i < 4; i++)
		for (at = runs[i][0]; at < runs[i][0] + runs[i][1]; at++)
			bitmap_set(map, at);
	/* They lie past the end of the set. */
	bitmap_set(map, BITS);
	bitmap_set(map, BITS + 1);

	for (at = 0; bitmap_next_run(map, BITS, &at, &n); at += n, found++) {
		ck_assert_uint_lt(found, 4);
		ck_assert_uint_eq(at, runs[found][0]);
		ck_assert_uint_eq(n, runs[found][1]);
	}
	ck_assert_uint_eq(found, 4);
	ck_assert_uint_eq(at, BITS);
	ck_assert_uint_eq(bitmap_count(map, BITS), 1 + 2 + 8 + 50);
}
END_TEST

START_TEST(a_run_can_begin_within_set_bits)
{
	uint64_t map[BITMAP_WORDS(BITS)] = { ~0ull, ~0ull, 0 }, at = 70, n;

	ck_assert(bitmap_next_run(map, BITS, &at, &n));
	ck_assert_uint_eq(at, 70);
	ck_assert_uint_eq(n, 58);
}
END_TEST

START_TEST(an_empty_set_has_no_run)
{
	uint64_t map[BITMAP_WORDS(BITS)] = { 0 }, at = 0, n;

	ck_assert(!bitmap_next_run(map, BITS, &at, &n));
	ck_assert_uint_eq(at, BITS);
	ck_assert(!bitmap_next_run(map, 0, &at, &n));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("bitmap");
	TCase *cases = tcase_create("bitmap");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_add_test(cases, each_run_of_set_bits_is_found_once);
	tcase_add_test(cases, a_run_can_begin_within_set_bits);
	tcase_add_test(cases, an_empty_set_has_no_run);
	suite_add_tcase(s, cases);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
