/*
 * Predictions from samples that are written down: whether it converges, how long it takes, what is
 * taken from the guest, and what the sentence says. No clock.
 */
#include <check.h>
#include <string.h>

#include "migrate/policy/policy_json.h"
#include "migrate/check/predict.h"

#define MIB	 (1ull << 20)
#define GIB	 (1ull << 30)
#define N(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* A guest that writes to `set` bytes at `rate` bytes a second, looked at as check.c does. */
static void look_at(struct predict_input *in, uint64_t set, uint64_t rate)
{
	static const uint64_t at_us[] = { 25000, 50000, 100000, 200000, 400000, 800000, 1600000 };

	for (in->n_looks = 0; in->n_looks < N(at_us); in->n_looks++) {
		uint64_t us = at_us[in->n_looks];
		uint64_t bytes = (uint64_t)((double)rate * (double)us / 1e6);

		in->look[in->n_looks] = (struct predict_look){ us, bytes < set ? bytes : set };
	}
}

/* The link and the guest of scripts/bench converge. */
static struct predict_input bench(uint64_t set, uint64_t rate)
{
	struct predict_input in = { .send_bytes = 1000 * MIB,
				    .rate_bytes = 117 * MIB,
				    .round_trip_us = 100,
				    .limit_us = 300000,
				    .fixed_us = 5000,
				    .ram_bytes = GIB };

	look_at(&in, set, rate);
	return in;
}

struct row {
	const char *name;
	uint64_t set_mib, rate_mib;
	bool throttle, compression;
	uint64_t floor_mib; /* of a dirty limit, which the throttle is then; 0: it is none */
	unsigned int max_permille;
	uint64_t limit_ms;
	struct timeout_limits timeout;
	enum timeout_action action;
	const char *policy;

	enum predict_answer answer;
	double least_s, most_s; /* between which the total is */
	double lost_s;		/* at most */
	const char *words[4];
};

static const struct row rows[] = {
	{ .name = "idle",
	  .answer = PREDICT_CONVERGES,
	  .least_s = 8.54,
	  .most_s = 8.6,
	  .words = { "converges: the guest writes 0.0 MiB/s", "the link takes 117.0 MiB/s" } },
	{ .name = "flat out, nothing allowed",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .answer = PREDICT_NEVER,
	  .words = { "will not converge: the guest writes ", "(again and again to 256.0 MiB)",
		     "so the pause would be 2", "what would help: --auto-converge" } },
	{ .name = "flat out, a downtime that is long enough",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .limit_ms = 2500,
	  .answer = PREDICT_CONVERGES,
	  .least_s = 8.5,
	  .most_s = 13.1 },
	/* Real: 9.2 s with 2.4 to 3.3 s lost. */
	{ .name = "flat out, throttled",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .throttle = true,
	  .answer = PREDICT_CONVERGES,
	  .least_s = 8.6,
	  .most_s = 10.2,
	  .lost_s = 3.2,
	  .words = { "at a throttle of " } },
	{ .name = "683 MiB flat out, throttled",
	  .set_mib = 683,
	  .rate_mib = 2000,
	  .throttle = true,
	  .answer = PREDICT_CONVERGES,
	  .least_s = 8.6,
	  .most_s = 12,
	  .lost_s = 7.5 },
	{ .name = "flat out, held by a dirty limit",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .throttle = true,
	  .floor_mib = 1,
	  .answer = PREDICT_CONVERGES,
	  .least_s = 8.6,
	  .most_s = 11.5,
	  .lost_s = 4 },
	{ .name = "flat out, a dirty limit with a floor above the link",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .throttle = true,
	  .floor_mib = 200,
	  .answer = PREDICT_NEVER,
	  .lost_s = 1e6 },
	{ .name = "flat out, throttled too little",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .throttle = true,
	  .max_permille = 300,
	  .answer = PREDICT_NEVER,
	  .lost_s = 1e6,
	  .words = { "what would help: --downtime " } },
	/* Real: 9.7 s. */
	{ .name = "paced",
	  .set_mib = 256,
	  .rate_mib = 50,
	  .throttle = true,
	  .answer = PREDICT_CONVERGES,
	  .least_s = 9,
	  .most_s = 14 },
	{ .name = "given up in time",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .timeout = { .total_s = 20 },
	  .answer = PREDICT_GIVEN_UP,
	  .least_s = 20,
	  .most_s = 20.2,
	  .words = { "would be given up after 20.", "the timeout of 20 s has passed",
		     "what would help: --auto-converge" } },
	{ .name = "no progress",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .timeout = { .progress_s = 5 },
	  .answer = PREDICT_GIVEN_UP,
	  .least_s = 15,
	  .most_s = 23,
	  .words = { "no progress for 5 s" } },
	{ .name = "by force",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .timeout = { .per_gib_s = 20 },
	  .action = TIMEOUT_FORCE,
	  .answer = PREDICT_FORCED,
	  .least_s = 22,
	  .most_s = 22.5,
	  .words = { "by force, with a pause of 2", "20 s for each GiB of 1024 MiB" } },
	{ .name = "a timeout that is long enough",
	  .set_mib = 256,
	  .rate_mib = 50,
	  .timeout = { .total_s = 20 },
	  .answer = PREDICT_CONVERGES,
	  .least_s = 9,
	  .most_s = 14 },
	{ .name = "compression may do it",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .compression = true,
	  .answer = PREDICT_UNKNOWN,
	  .words = { "it depends on how much compression gains: the guest writes " } },
	{ .name = "a policy that gives up",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .policy = "minimal-downtime",
	  .answer = PREDICT_GIVEN_UP,
	  .least_s = 20,
	  .most_s = 30,
	  .words = { "would be given up after ", " stalled (", "given up; the guest writes " } },
	{ .name = "a policy that allows more at last",
	  .set_mib = 256,
	  .rate_mib = 2000,
	  .policy = "suspend-workload-if-needed",
	  .answer = PREDICT_CONVERGES,
	  .least_s = 20,
	  .most_s = 35 },
};

START_TEST(guest_of_the_table_is_predicted)
{
	const struct row *r = &rows[_i];
	struct predict_input in = bench(r->set_mib * MIB, r->rate_mib * MIB);
	struct policy policy;
	struct prediction p;

	in.throttle = r->throttle;
	in.by_limit = r->floor_mib;
	in.bounds.least_bytes = r->floor_mib * MIB;
	in.compression = r->compression;
	in.bounds.max = r->max_permille;
	in.limit_us = r->limit_ms ? r->limit_ms * 1000 : in.limit_us;
	in.timeout = r->timeout;
	in.timeout_action = r->action;
	if (r->policy) {
		ck_assert_int_eq(policy_from_text(r->policy, &policy, NULL), 0);
		in.policy = &policy;
	}
	predict_make(&in, &p);
	ck_assert_msg(p.answer == r->answer, "%s: %s: %s", r->name, predict_answer_name(p.answer),
		      p.sentence);
	ck_assert_msg((double)p.total_us / 1e6 >= r->least_s, "%s: %g s", r->name,
		      (double)p.total_us / 1e6);
	if (r->most_s)
		ck_assert_msg((double)p.total_us / 1e6 <= r->most_s, "%s: %g s", r->name,
			      (double)p.total_us / 1e6);
	ck_assert_msg((double)p.lost_us / 1e6 <= r->lost_s, "%s: %g s lost", r->name,
		      (double)p.lost_us / 1e6);
	ck_assert_uint_le(p.least_us, p.total_us);
	if (p.answer == PREDICT_CONVERGES && !r->policy)
		ck_assert_uint_le(p.pause_us, in.limit_us + 2 * in.round_trip_us);
	if (p.answer == PREDICT_FORCED)
		ck_assert_uint_gt(p.pause_us, in.limit_us);
	for (int i = 0; i < N(r->words) && r->words[i]; i++)
		ck_assert_msg(strstr(p.sentence, r->words[i]) != NULL, "%s: no '%s' in: %s",
			      r->name, r->words[i], p.sentence);
}
END_TEST

/* It has 256 MiB, of which the sample has seen 80: the truth is between the two. */
START_TEST(what_was_not_seen_makes_a_range)
{
	struct predict_input in = bench(256 * MIB, 50 * MIB), seen = bench(80 * MIB, 50 * MIB);
	struct prediction p, q;

	predict_make(&in, &p);
	ck_assert_uint_lt(p.least_us, 11900000);
	ck_assert_uint_gt(p.total_us, 11900000);
	/* One whose curve was flat is as the least. */
	seen.look[seen.n_looks++] = (struct predict_look){ 3200000, 80 * MIB };
	predict_make(&seen, &q);
	ck_assert_uint_eq(q.least_us, q.total_us);
	ck_assert_uint_lt(q.total_us, p.total_us);
}
END_TEST

/* A few pages all the time, and others now and then: the few are not the whole rate. */
START_TEST(regions_of_different_heat_are_told_apart)
{
	struct predict_input in = bench(0, 0);
	struct prediction p;

	for (unsigned int i = 0; i < in.n_looks; i++)
		in.look[i].bytes = 8 * MIB + 10 * MIB * in.look[i].us / 1000000;
	predict_make(&in, &p);
	/* 8 MiB in 25 ms would be 320 MiB/s. */
	ck_assert_int_eq(p.answer, PREDICT_CONVERGES);
	ck_assert_uint_lt(p.total_us, 11000000);
	ck_assert_uint_lt(p.pause_us, 150000);
}
END_TEST

START_TEST(unknown_link_is_said)
{
	struct predict_input in = bench(256 * MIB, 50 * MIB);
	struct prediction p;

	in.rate_bytes = 0;
	predict_make(&in, &p);
	ck_assert_int_eq(p.answer, PREDICT_UNKNOWN);
	ck_assert_ptr_nonnull(strstr(p.sentence, "the speed of the link is not known"));
}
END_TEST

START_TEST(nothing_to_send_is_sent_at_once)
{
	struct predict_input in = { .rate_bytes = 1, .limit_us = 300000, .fixed_us = 5000 };
	struct prediction p;

	predict_make(&in, &p);
	ck_assert_int_eq(p.answer, PREDICT_CONVERGES);
	ck_assert_uint_eq(p.total_us, 5000);
}
END_TEST

/* The states alone take longer than is allowed: as the engine does it, the guest is moved all the
 * same, or a policy or a timeout decides. */
START_TEST(limit_that_states_alone_exceed_is_predicted)
{
	static const struct policy patient = {
		.name = "patient",
		.n_convergence = 1,
		.convergence = { { 1, { POLICY_SET_DOWNTIME, 500 } } },
		.n_last = 1,
		.last = { { POLICY_ABORT, 0 } },
	};
	static const struct policy hasty = {
		.name = "hasty",
		.n_last = 1,
		.last = { { POLICY_ABORT, 0 } },
	};
	static const struct {
		const struct policy *policy;
		struct timeout_limits timeout;
		enum timeout_action action;
		enum predict_answer answer;
		const char *words;
	} cases[] = {
		{ NULL,
		  { 0 },
		  TIMEOUT_ABORT,
		  PREDICT_CONVERGES,
		  "300 ms are allowed, but no round" },
		{ &patient, { 0 }, TIMEOUT_ABORT, PREDICT_CONVERGES, "a pause of 401 ms" },
		{ &hasty, { 0 }, TIMEOUT_ABORT, PREDICT_GIVEN_UP, "would be given up" },
		{ NULL, { .total_s = 900 }, TIMEOUT_ABORT, PREDICT_GIVEN_UP, "would be given up" },
		{ NULL, { .total_s = 30 }, TIMEOUT_FORCE, PREDICT_FORCED, "a pause of 400 ms" },
	};
	struct predict_input in = bench(0, 0);
	struct prediction p;

	in.fixed_us = 400000;
	in.policy = cases[_i].policy;
	in.timeout = cases[_i].timeout;
	in.timeout_action = cases[_i].action;
	predict_make(&in, &p);
	ck_assert_msg(p.answer == cases[_i].answer, "%d: %s", p.answer, p.sentence);
	ck_assert_msg(strstr(p.sentence, cases[_i].words) != NULL, "%s", p.sentence);
	if (p.answer != PREDICT_GIVEN_UP)
		ck_assert_uint_ge(p.pause_us, 400000);
}
END_TEST

/* Whatever was sampled, there is an answer; and a throttle always brings it to an end. */
START_TEST(sweep_ends_and_keeps_in_proportion)
{
	static const uint64_t memories[] = { 64 * MIB, 16 * GIB, 4096 * GIB };
	static const double sets[] = { 0.0001, 0.02, 0.67, 1 };
	static const double speeds[] = { 0.01, 0.3, 0.9, 1.2, 10, 100 };
	static const uint64_t links[] = { 1 * MIB, 119 * MIB, 12000 * MIB };
	uint64_t memory = memories[_i / N(links)], link = links[_i % N(links)];

	for (int s = 0; s < N(sets); s++)
		for (int k = 0; k < N(speeds); k++) {
			struct predict_input in = { .send_bytes = memory,
						    .rate_bytes = link,
						    .limit_us = 300000,
						    .fixed_us = 5000 };
			double once = (double)memory / (double)link;
			struct prediction free, slowed;

			look_at(&in, (uint64_t)((double)memory * sets[s]),
				(uint64_t)((double)link * speeds[k]));
			predict_make(&in, &free);
			in.throttle = true;
			predict_make(&in, &slowed);
			ck_assert_msg(slowed.answer == PREDICT_CONVERGES,
				      "%g of %g MiB at %g of %g MiB/s: %s", sets[s],
				      (double)memory / MIB, speeds[k], (double)link / MIB,
				      slowed.sentence);
			ck_assert_double_ge((double)slowed.total_us / 1e6, once * 0.99);
			/* Near the link's rate each round leaves nearly what it began with. */
			ck_assert_msg((double)slowed.total_us / 1e6 <=
					      (speeds[k] > 0.8 && speeds[k] < 2 ? 10 : 4.5) * once +
						      5,
				      "%g of %g MiB at %g of %g MiB/s: %g s, once %g", sets[s],
				      (double)memory / MIB, speeds[k], (double)link / MIB,
				      (double)slowed.total_us / 1e6, once);
			if (speeds[k] < 0.5) {
				ck_assert_int_eq(free.answer, PREDICT_CONVERGES);
				ck_assert_uint_eq(slowed.lost_us, 0);
			}
		}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("predict");
	TCase *c = tcase_create("predict");
	SRunner *r;
	int failed;

	tcase_set_timeout(c, 60);
	tcase_add_loop_test(c, guest_of_the_table_is_predicted, 0, N(rows));
	tcase_add_test(c, what_was_not_seen_makes_a_range);
	tcase_add_test(c, regions_of_different_heat_are_told_apart);
	tcase_add_test(c, unknown_link_is_said);
	tcase_add_test(c, nothing_to_send_is_sent_at_once);
	tcase_add_loop_test(c, limit_that_states_alone_exceed_is_predicted, 0, 5);
	tcase_add_loop_test(c, sweep_ends_and_keeps_in_proportion, 0, 9);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
