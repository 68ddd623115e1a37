/*
 * Products and quotients of figures of any size: no overflow, and one rule for division by zero.
 */
#include <check.h>

#include "vmm/base/math.h"

static const struct {
	uint64_t a, b, c, result;
} quotients[] = {
	{ 0, 0, 0, 0 },
	{ 0, 5, 7, 0 },
	{ 7, 5, 3, 11 },
	{ 1, 1, 0, UINT64_MAX },
	{ UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX },
	{ UINT64_MAX, 1000000, 1000000, UINT64_MAX },
	{ UINT64_MAX, 1000000, 2000000, UINT64_MAX / 2 },
	{ UINT64_MAX, UINT64_MAX, 1, UINT64_MAX },
	{ 1ull << 63, 2, 1, UINT64_MAX },
	{ 1ull << 62, 2, 1, 1ull << 63 },
};

START_TEST(quotients_do_not_overflow)
{
	ck_assert_uint_eq(mul_div(quotients[_i].a, quotients[_i].b, quotients[_i].c),
			  quotients[_i].result);
}
END_TEST

START_TEST(values_are_kept_between_their_bounds)
{
	ck_assert_uint_eq(min_u64(3, UINT64_MAX), 3);
	ck_assert_uint_eq(max_u64(3, UINT64_MAX), UINT64_MAX);
	ck_assert_uint_eq(clamp_u64(1, 2, 4), 2);
	ck_assert_uint_eq(clamp_u64(3, 2, 4), 3);
	ck_assert_uint_eq(clamp_u64(5, 2, 4), 4);
	ck_assert_uint_eq(clamp_u64(1, 4, 2), 2);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("math");
	TCase *cases = tcase_create("math");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_add_loop_test(cases, quotients_do_not_overflow, 0,
			    (int)(sizeof(quotients) / sizeof(quotients[0])));
	tcase_add_test(cases, values_are_kept_between_their_bounds);
	suite_add_tcase(s, cases);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
