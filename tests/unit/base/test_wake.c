/*
 * Wake-ups: a signal stays until it is drained, and ends the sleep of whoever can be cancelled.
 */
#include <check.h>
#include <string.h>

#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/wake.h"

START_TEST(a_signal_stays_until_it_is_drained)
{
	int fd;

	ck_assert_int_eq(wake_init(&fd, NULL), 0);
	ck_assert(!wake_is_set(fd));
	ck_assert(!wake_drain(fd)); /* and does not wait */
	wake_signal(fd);
	wake_signal(fd);
	ck_assert(wake_is_set(fd));
	ck_assert(wake_is_set(fd));
	ck_assert(wake_drain(fd));
	ck_assert(!wake_is_set(fd));
	wake_free(&fd);
	ck_assert_int_eq(fd, -1);
	wake_free(&fd);
}
END_TEST

START_TEST(a_signal_ends_a_nap)
{
	struct err e = { "" };
	int fd;

	ck_assert_int_eq(wake_init(&fd, NULL), 0);
	ck_assert_int_eq(wake_nap(fd, 0, &e), 0);
	wake_signal(fd);
	/* The test's own time-out ends it if it sleeps. */
	ck_assert_int_eq(wake_nap(fd, 1000000000000, &e), -1);
	ck_assert_str_eq(e.text, "cancelled");
	ck_assert_int_eq(wake_nap(fd, 0, &e), -1);
	wake_free(&fd);
}
END_TEST

START_TEST(no_descriptor_is_never_set)
{
	uint64_t start = clock_us();

	ck_assert(!wake_is_set(-1));
	ck_assert_int_eq(wake_nap(-1, 1000, NULL), 0);
	ck_assert_uint_ge(clock_us() - start, 1000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("wake");
	TCase *cases = tcase_create("wake");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_add_test(cases, a_signal_stays_until_it_is_drained);
	tcase_add_test(cases, a_signal_ends_a_nap);
	tcase_add_test(cases, no_descriptor_is_never_set);
	suite_add_tcase(s, cases);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
