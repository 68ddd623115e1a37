/*
 * The keyboard controller: there is always room for a command, and one command resets the machine.
 */
#include <check.h>
#include <stdlib.h>

#include "devices/models.h"
#include "tests/unit/lib/vring.h"

#define DATA   0x60u
#define STATUS 0x64u

static struct bench bench;
static struct err e;
static unsigned int resets;

static void request(void *machine, enum machine_request r)
{
	(void)machine;
	ck_assert_int_eq(r, REQUEST_RESET);
	resets++;
}

static uint8_t in(unsigned int port)
{
	uint8_t v = 0xff;

	bus_access(&bench.ports, port, &v, 1, false);
	return v;
}

static void out(unsigned int port, uint8_t v)
{
	bus_access(&bench.ports, port, &v, 1, true);
}

static void setup(void)
{
	ck_assert_msg(!bench_init(&bench, "i8042", "i8042", &e), "%s", e.text);
	ck_assert(!tree_set_u32_pair(&bench.tree, BENCH_PATH, "port", DATA, 5, &e));
	bench.env.request = request;
	ck_assert_msg(!bench_create(&bench, &i8042_model, &e), "%s", e.text);
	resets = 0;
}

static void teardown(void)
{
	bench_free(&bench);
}

START_TEST(there_is_room_for_a_command_and_nothing_to_read)
{
	for (unsigned int v = 0; v < 256; v++) {
		ck_assert_uint_eq(in(STATUS), 0);
		ck_assert_uint_eq(in(DATA), 0);
		out(DATA, (uint8_t)v);
		if (v != 0xfe)
			out(STATUS, (uint8_t)v);
	}
	ck_assert_uint_eq(resets, 0);
}
END_TEST

START_TEST(its_command_resets_the_machine_at_once)
{
	out(STATUS, 0xfe);
	ck_assert_uint_eq(resets, 1);
}
END_TEST

START_TEST(ports_between_belong_to_others)
{
	/* The speaker's gate and the timer's output: KVM's own. */
	for (unsigned int port = DATA - 1; port < STATUS + 2; port++)
		if (port != DATA && port != STATUS)
			ck_assert_uint_eq(in(port), 0xff);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("i8042");
	TCase *t = tcase_create("i8042");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, there_is_room_for_a_command_and_nothing_to_read);
	tcase_add_test(t, its_command_resets_the_machine_at_once);
	tcase_add_test(t, ports_between_belong_to_others);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
