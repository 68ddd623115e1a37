/*
 * What is said of a host's kernel mode: the verdict over figures of several machines.
 */
#include <check.h>

#include "vmm/probe.h"

static const struct {
	const char *host;
	struct probe_result r;
	enum probe_verdict verdict;
} hosts[] = {
	/* Nested KVM without VT-x: 2000 turns took 1036 us in kernel mode, and 62 us (or 88) in
	   user mode. */
	{ "2000 turns are mostly an exit",
	  { .user = { 60000, 62000, 2000 }, .kernel = { 60500, 1036000, 2000 } },
	  PROBE_INTERPRETED },
	{ "the same when nothing is known of the exit",
	  { .user = { 0, 62000, 2000 }, .kernel = { 0, 1036000, 2000 } },
	  PROBE_INTERPRETED },
	{ "the same, slower",
	  { .user = { 86000, 88000, 2000 }, .kernel = { 86000, 1498000, 2000 } },
	  PROBE_INTERPRETED },
	{ "the same, with as many turns as outweigh the exit",
	  { .user = { 21000, 412000, 1048576 }, .kernel = { 23000, 770000, 1024 } },
	  PROBE_INTERPRETED },
	{ "one that interprets and is busy in user mode only",
	  { .user = { 21000, 2900000, 1048576 }, .kernel = { 23000, 770000, 1024 } },
	  PROBE_INTERPRETED },
	{ "one that interprets ten times as slowly as the processor runs",
	  { .user = { 2000, 16400, 16384 }, .kernel = { 2000, 17500, 1600 } },
	  PROBE_INTERPRETED },
	{ "VT-x",
	  { .user = { 1800, 16100, 65536 }, .kernel = { 1750, 16000, 65536 } },
	  PROBE_HARDWARE },
	{ "VT-x with other lengths in the two rings",
	  { .user = { 1800, 62000, 262144 }, .kernel = { 3100, 250000, 1048576 } },
	  PROBE_HARDWARE },
	{ "VT-x, busy in kernel mode only",
	  { .user = { 1800, 16100, 65536 }, .kernel = { 2600, 44000, 65536 } },
	  PROBE_HARDWARE },
	{ "VT-x, busy in user mode only",
	  { .user = { 2600, 60000, 65536 }, .kernel = { 1750, 16000, 65536 } },
	  PROBE_HARDWARE },
	{ "KVM in an emulated machine: exits and turns are slow, alike in both rings",
	  { .user = { 410000, 4300000, 262144 }, .kernel = { 395000, 4100000, 262144 } },
	  PROBE_HARDWARE },
	{ "VT-x, too few turns: nearly all is exit",
	  { .user = { 5000, 5500, 2000 }, .kernel = { 5000, 5600, 2000 } },
	  PROBE_UNKNOWN },
	{ "a busy host whose exits took longer than its loops",
	  { .user = { 90000, 62000, 2000 }, .kernel = { 95000, 63000, 2000 } },
	  PROBE_UNKNOWN },
	{ "nothing measured", { .refused = false }, PROBE_UNKNOWN },
	{ "one that interprets at full speed, but not every instruction",
	  { .user = { 1800, 16100, 65536 }, .kernel = { 1750, 16000, 65536 }, .refused = true },
	  PROBE_INTERPRETED },
};
#define N(a) ((int)(sizeof(a) / sizeof((a)[0])))

START_TEST(verdict_is_right_on_every_host)
{
	ck_assert_msg(probe_verdict(&hosts[_i].r) == hosts[_i].verdict, "%s: %d, not %d",
		      hosts[_i].host, probe_verdict(&hosts[_i].r), hosts[_i].verdict);
}
END_TEST

/* Whatever an exit costs, the more turns a run has the less it matters. */
START_TEST(cost_of_an_exit_does_not_count_as_a_turn)
{
	for (uint64_t exit_ns = 1; exit_ns < 10000000; exit_ns *= 10) {
		struct probe_ring ring = { exit_ns, exit_ns + 3 * 8 * exit_ns, 8 * exit_ns };

		ck_assert_uint_eq(probe_turn_ps(&ring), 3000);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("probe");
	TCase *c = tcase_create("probe");
	SRunner *r;
	int failed;

	tcase_add_loop_test(c, verdict_is_right_on_every_host, 0, N(hosts));
	tcase_add_test(c, cost_of_an_exit_does_not_count_as_a_turn);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
