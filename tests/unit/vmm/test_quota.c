/*
 * The dirty limit of a vCPU on a clock of the test's own: no thread, no sleep, no ring.
 */
#include <check.h>
#include <stdint.h>

#include "vmm/quota.h"
#include "vmm/throttle.h"

#define N(a) ((int)(sizeof(a) / sizeof((a)[0])))

#define MIB    1048576ull
#define MS     1000000ull
#define SECOND (1000 * MS)
#define PAGE   4096ull
/* A ring of 4096 entries: then the vCPU leaves KVM by itself. */
#define RING_BYTES (4096 * PAGE)

struct sim {
	struct quota q;
	uint64_t speed;	  /* bytes a second while it runs */
	uint64_t late_ns; /* a slice ends so much late, a nap as well */
	uint64_t now_ns, ran_ns, naps, looks, longest_nap_ns;
	double dirtied;
};

static void simulate(struct sim *s, uint64_t ns)
{
	uint64_t end = s->now_ns + ns, slice, due;
	double bytes;

	while (s->now_ns < end) {
		slice = quota_slice_ns(&s->q) + s->late_ns;
		bytes = (double)s->speed * (double)slice / (double)SECOND;
		if (bytes > RING_BYTES) {
			slice = (uint64_t)((double)RING_BYTES * (double)SECOND / (double)s->speed);
			bytes = RING_BYTES;
		}
		s->now_ns += slice;
		s->ran_ns += slice;
		s->dirtied += bytes;
		s->looks++;
		quota_spent(&s->q, (uint64_t)bytes, slice);
		quota_passed(&s->q, slice);
		due = quota_nap_ns(&s->q);
		ck_assert_uint_le(due, THROTTLE_NAP_MAX_NS);
		if (!due)
			continue;
		due += s->late_ns;
		s->naps++;
		s->now_ns += due;
		if (due > s->longest_nap_ns)
			s->longest_nap_ns = due;
		quota_passed(&s->q, due);
	}
}

static const struct {
	uint64_t quota, speed, late_ns;
} writers[] = {
	{ 10 * MIB, 100 * MIB, 0 },	   { 20 * MIB, 1000 * MIB, 0 },
	{ 50 * MIB, 400 * MIB, 100000 },   { 50 * MIB, 55 * MIB, 0 },
	{ 100 * MIB, 1000 * MIB, 50000 },  { 117 * MIB, 4096 * MIB, 0 },
	{ 1000 * MIB, 4096 * MIB, 50000 }, { 4000 * MIB, 4096 * MIB, 0 },
};

START_TEST(writer_is_held_to_its_quota)
{
	struct sim s = { .speed = writers[_i].speed, .late_ns = writers[_i].late_ns };
	double got;

	quota_set(&s.q, writers[_i].quota);
	simulate(&s, SECOND); /* a first burst is paid off */
	s.dirtied = 0;
	s.now_ns = 0;
	simulate(&s, 5 * SECOND);
	got = s.dirtied * (double)SECOND / (double)s.now_ns / (double)writers[_i].quota;
	ck_assert_double_ge(got, 0.95);
	ck_assert_double_le(got, 1.05);
}
END_TEST

START_TEST(first_burst_is_bounded_and_paid_off)
{
	struct sim s = { .speed = 4096 * MIB };

	quota_set(&s.q, 100 * MIB);
	simulate(&s, 500 * MS);
	ck_assert_double_le(s.dirtied, 1.2 * 50 * MIB);
}
END_TEST

START_TEST(who_stays_within_it_never_naps)
{
	static const uint64_t speeds[] = { 0, MIB, 49 * MIB };
	struct sim s = { .speed = speeds[_i] };

	quota_set(&s.q, 50 * MIB);
	simulate(&s, 10 * SECOND);
	ck_assert_uint_eq(s.naps, 0);
	ck_assert_uint_le(s.looks, 1100); /* every 10 ms, soon after the start */
}
END_TEST

START_TEST(reader_that_begins_to_write_is_held_soon_and_let_go_again)
{
	struct sim s = { 0 };
	uint64_t naps;

	quota_set(&s.q, 50 * MIB);
	simulate(&s, SECOND);
	s.speed = 1000 * MIB;
	s.dirtied = 0;
	simulate(&s, SECOND);
	ck_assert_double_le(s.dirtied, 1.2 * 50 * MIB);
	s.speed = 0;
	simulate(&s, SECOND); /* owes at most as much */
	naps = s.naps;
	simulate(&s, SECOND);
	ck_assert_uint_eq(s.naps, naps);
}
END_TEST

START_TEST(shortest_slice_bounds_how_low_a_quota_can_hold)
{
	struct sim s = { .speed = 1000 * MIB };

	quota_set(&s.q, 1);
	simulate(&s, 10 * SECOND);
	ck_assert_double_le(s.dirtied, 1.05 * 10 * 10 * MIB);
	ck_assert_uint_gt(s.ran_ns, 0);
}
END_TEST

START_TEST(changed_quota_holds_at_once)
{
	struct sim s = { .speed = 1000 * MIB };
	unsigned int i;

	for (i = 0; i < 1000; i++) {
		quota_set(&s.q, (50 + i % 2) * MIB);
		simulate(&s, 7 * MS);
	}
	ck_assert_double_le(s.dirtied * (double)SECOND / (double)s.now_ns, 1.05 * 51 * MIB);
	quota_set(&s.q, 0);
	ck_assert_uint_eq(quota_nap_ns(&s.q), 0);
	s.naps = 0;
	simulate(&s, SECOND);
	ck_assert_uint_eq(s.naps, 0);
}
END_TEST

START_TEST(numbers_at_their_ends_do_no_harm)
{
	struct quota q = { 0 };

	quota_spent(&q, UINT64_MAX / 4, SECOND);
	ck_assert_uint_eq(quota_nap_ns(&q), 0);
	quota_set(&q, 1000000000000);
	quota_spent(&q, UINT64_MAX / 4, 1);
	ck_assert_uint_eq(quota_nap_ns(&q), THROTTLE_NAP_MAX_NS);
	quota_passed(&q, UINT64_MAX);
	quota_passed(&q, UINT64_MAX);
	ck_assert_uint_eq(quota_nap_ns(&q), 0);
	ck_assert_uint_le(quota_slice_ns(&q), THROTTLE_NAP_MAX_NS);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("quota");
	TCase *c = tcase_create("quota");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_loop_test(c, writer_is_held_to_its_quota, 0, N(writers));
	tcase_add_test(c, first_burst_is_bounded_and_paid_off);
	tcase_add_loop_test(c, who_stays_within_it_never_naps, 0, 3);
	tcase_add_test(c, reader_that_begins_to_write_is_held_soon_and_let_go_again);
	tcase_add_test(c, shortest_slice_bounds_how_low_a_quota_can_hold);
	tcase_add_test(c, changed_quota_holds_at_once);
	tcase_add_test(c, numbers_at_their_ends_do_no_harm);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
