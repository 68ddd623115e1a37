/*
 * The throttle as a pure function: on a fake clock, link and guest it is swept over dirty rates,
 * working sets, links of 1 to 100 Gb/s and memory up to 4 TiB.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/codec/choice.h"
#include "migrate/policy/converge.h"
#include "migrate/policy/switchover.h"

#define N(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* -- a pre-copy in small: memory is so many units, each of which is dirty or not -- */

#define UNITS 8192u

struct world {
	/* A guest that writes to its working set from end to end, again and again. */
	double memory, working_set, writes; /* bytes, bytes a second at full speed */
	double link;			    /* bytes a second */
	uint64_t downtime_us;
	bool by_limit;

	/* What became of it. */
	bool finished;
	double s, lost_s; /* time, and guest work not done in it */
	double sent;
	unsigned int highest; /* permille */
	unsigned int turns;   /* how often the throttle changed its direction */
	unsigned int changes;
};

struct sim {
	struct world *w;
	bool dirty[UNITS], pending[UNITS];
	double unit, at, written, now; /* the writer's place, in units */
	unsigned int set;
	uint64_t sent_before, again_before; /* in whole rounds */
	int direction;
	struct converge c;
};

static void write_on(struct sim *s, double seconds)
{
	double limit = (double)s->c.limit_bytes / s->w->writes;
	double keep = limit > 0 && limit < 1 ? limit : 1 - s->c.permille / 1000.0;
	double more = s->w->writes * keep * seconds / s->unit, to = s->at + more;
	unsigned int i, n = more >= s->set ? s->set : (unsigned int)(to - (double)(uint64_t)s->at);

	for (i = 0; i < n; i++)
		s->dirty[((uint64_t)s->at + i) % s->set] = true;
	s->at = to;
	s->now += seconds;
	s->w->lost_s += seconds * (1 - keep);
}

static uint64_t count(const bool *set)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < UNITS; i++)
		n += set[i];
	return n;
}

static void look(struct sim *s, double round_from, uint64_t sent, uint64_t pending)
{
	uint64_t before = s->c.permille + s->c.limit_bytes;
	struct converge_sample x = {
		.now_us = (uint64_t)(s->now * 1e6),
		.sent_bytes = (uint64_t)((double)(s->sent_before + sent) * s->unit),
		.pending_bytes = (uint64_t)((double)pending * s->unit),
		.rate_bytes = (uint64_t)((double)sent * s->unit / (s->now - round_from + 1e-9)),
	};
	uint64_t again = 0;
	char reason[256];
	int direction;

	for (unsigned int i = 0; i < UNITS; i++)
		again += s->dirty[i] && !s->pending[i];
	x.left_bytes = (uint64_t)((double)again * s->unit);
	x.again_bytes = (uint64_t)((double)(s->again_before + again) * s->unit);
	x.fit_bytes = x.rate_bytes / 1000 * (s->w->downtime_us / 1000);
	if (!converge_add(&s->c, &x, reason, sizeof(reason)))
		return;
	ck_assert_uint_ne(s->c.permille + s->c.limit_bytes, before);
	ck_assert_ptr_nonnull(
		strstr(reason, s->w->by_limit ? "the vCPUs may dirty" : "taken from the vCPUs"));
	ck_assert(s->w->by_limit ? !s->c.permille : !s->c.limit_bytes);
	direction = (s->c.permille + s->c.limit_bytes > before) ? 1 : -1;
	s->w->turns += s->direction && direction != s->direction;
	s->direction = direction;
	s->w->changes++;
	s->w->highest = s->c.permille > s->w->highest ? s->c.permille : s->w->highest;
}

static void simulate(struct world *w, const struct converge_bounds *bounds)
{
	static struct sim s;
	struct switchover_input in = { .previous_remaining_bytes = UINT64_MAX, .fixed_us = 5000 };
	double step, looked, from;
	uint64_t sent, round, left, i;

	memset(&s, 0, sizeof(s));
	s.w = w;
	s.c.bounds = *bounds;
	s.c.by_limit = w->by_limit;
	s.unit = w->memory / UNITS;
	s.set = (unsigned int)(w->working_set / s.unit);
	step = s.unit / w->link;
	for (i = 0; i < UNITS; i++)
		s.dirty[i] = true;
	for (round = 1; round < 200; round++) {
		memcpy(s.pending, s.dirty, sizeof(s.pending));
		left = count(s.pending);
		from = looked = s.now;
		for (sent = i = 0; i < UNITS; i++) {
			if (!s.pending[i])
				continue;
			s.pending[i] = s.dirty[i] = false;
			write_on(&s, step);
			sent++;
			/* Units are large where memory is: a look needs some of them. */
			if (round > 1 && s.now - looked >= 0.1 && s.now - looked >= 31.5 * step) {
				looked = s.now;
				look(&s, from, sent, left - sent);
			}
		}
		if (round > 1) {
			if (s.now - looked >= 31.5 * step)
				look(&s, from, sent, 0);
			s.sent_before += sent;
			s.again_before += count(s.dirty);
		}
		w->sent += (double)sent * s.unit;
		in.remaining_bytes = (uint64_t)((double)count(s.dirty) * s.unit);
		in.rate_bytes = (uint64_t)w->link;
		in.limit_us = w->downtime_us;
		if (switchover_decide(&in).stop) {
			w->finished = true;
			break;
		}
		in.previous_remaining_bytes = in.remaining_bytes;
	}
	w->s = s.now;
}

#define MIB  (1024.0 * 1024)
#define GIB  (1024 * MIB)
#define GBIT (1e9 / 8)

static const double links[] = { 1 * GBIT, 10 * GBIT, 25 * GBIT, 100 * GBIT };
static const double memories[] = { 1 * GIB, 16 * GIB, 256 * GIB, 4096 * GIB };
static const double sets[] = { 0.02, 0.25, 0.67, 1 };		  /* of memory */
static const double speeds[] = { 0.3, 0.8, 1.2, 3, 10, 30, 100 }; /* of the link */

START_TEST(precopy_finishes_whatever_the_guest_writes)
{
	double link = links[_i % N(links)], memory = memories[_i / N(links) % N(memories)];

	for (int i = 0; i < N(sets); i++)
		for (int k = 0; k < N(speeds); k++) {
			struct world w = { .memory = memory,
					   .working_set = memory * sets[i],
					   .writes = link * speeds[k],
					   .link = link,
					   .downtime_us = 300000,
					   .by_limit = _i >= N(links) * N(memories) };
			double once = memory / link, again = w.working_set / link, needed;

			simulate(&w, &(struct converge_bounds){ 0 });
			ck_assert_msg(w.finished, "%g GiB, %g of it at %g of the link",
				      memory / GIB, sets[i], speeds[k]);
			/* All of it once, the working set as often as it takes to see what goes on.
			 */
			if (speeds[k] > 1)
				ck_assert_msg(w.s <= once + 2.2 * again + 3,
					      "%g GiB, %g of it at %g of the link: %g s",
					      memory / GIB, sets[i], speeds[k], w.s);
			/* The model: while the working set crosses, a seventh of the link may be
			 * dirtied again. */
			needed = 1 - 0.15 / speeds[k];
			ck_assert_msg(w.highest <= 1000 * (needed < 0 ? 0 : needed) + 100,
				      "%g GiB, %g of it at %g of the link: %u permille, needed %g",
				      memory / GIB, sets[i], speeds[k], w.highest, 1000 * needed);
			if (speeds[k] < 0.9)
				ck_assert_uint_eq(w.highest, 0);
			/* What it does not see at first it has to find out; it does not swing. */
			ck_assert_msg(w.turns <= 6, "%g GiB, %g of it at %g of the link: %u turns",
				      memory / GIB, sets[i], speeds[k], w.turns);
		}
}
END_TEST

START_TEST(bounds_of_the_user_hold)
{
	struct world w = { .memory = 1 * GIB,
			   .working_set = 256 * MIB,
			   .writes = 3 * GIB,
			   .link = 117 * MIB,
			   .downtime_us = 300000 };
	struct world capped = w, slow = w;

	simulate(&capped, &(struct converge_bounds){ .max = 300 });
	ck_assert(!capped.finished);
	ck_assert_uint_eq(capped.highest, 300);
	simulate(&slow, &(struct converge_bounds){ .initial = 100, .increment = 100 });
	ck_assert(slow.finished);
	ck_assert_uint_ge(slow.changes, 9);
}
END_TEST

START_TEST(flat_out_writer_costs_little_more_than_the_bound)
{
	/* The time to send all once, and the working set while the guest hardly writes. */
	struct world w = { .memory = 1 * GIB,
			   .working_set = (_i % 2 ? 683 : 256) * MIB,
			   .writes = 3 * GIB,
			   .link = 117 * MIB,
			   .downtime_us = 300000,
			   .by_limit = _i > 1 };
	double bound = (w.memory + w.working_set) / w.link;

	simulate(&w, &(struct converge_bounds){ 0 });
	ck_assert(w.finished);
	ck_assert_msg(w.s < bound + 1.5, "%g s, bound %g", w.s, bound);
	ck_assert_msg(w.lost_s < w.working_set / w.link + 1, "%g s lost", w.lost_s);
}
END_TEST

/* At the floor of a limit nothing is too much: it is eased as soon as less is dirtied. */
START_TEST(limit_at_its_floor_is_eased)
{
	struct converge c = { .by_limit = true, .bounds.least_bytes = 64 << 20 };
	struct converge_sample s = { .rate_bytes = 100 << 20, .fit_bytes = 1 << 20 };
	uint64_t lowest = UINT64_MAX;
	char reason[256];
	int i;

	for (i = 1; i <= 600; i++) {
		bool writes = i < 20;

		s.now_us = (uint64_t)i * 100000;
		s.sent_bytes += 10 << 20;
		s.again_bytes += writes ? 10 << 20 : 1 << 16;
		s.left_bytes = 100 << 20;
		s.pending_bytes = 200 << 20;
		if (converge_add(&c, &s, reason, sizeof(reason)) && c.limit_bytes < lowest)
			lowest = c.limit_bytes;
	}
	ck_assert_uint_eq(lowest, 64 << 20);
	ck_assert_uint_gt(c.limit_bytes, 64 << 20);
}
END_TEST

/* -- whether a codec gains -- */

#define BYTE_PS 8000 /* of a link of 119 MiB/s */

START_TEST(codec_is_left_out_where_it_does_not_gain_and_tried_again)
{
	struct choice c = { 0 };
	uint64_t skipped = 0;

	ck_assert(choice_wants(&c, 512));
	/* A tenth of the size for little time. */
	ck_assert_int_eq(
		choice_add(&c, CHOICE_PAGES, CHOICE_PAGES * 400, CHOICE_PAGES * 1000, BYTE_PS),
		CHOICE_AS_BEFORE);
	ck_assert(choice_wants(&c, 512));
	/* It does not shrink. */
	ck_assert_int_eq(
		choice_add(&c, CHOICE_PAGES, CHOICE_PAGES * 4096, CHOICE_PAGES * 1000, BYTE_PS),
		CHOICE_SWITCHED_OFF);
	while (!choice_wants(&c, 512))
		skipped += 512;
	ck_assert_uint_eq(skipped, CHOICE_SKIP_MIN);
	/* The trial fails: it is tried less often. */
	ck_assert_int_eq(choice_add(&c, CHOICE_PAGES, CHOICE_PAGES * 4096, 0, BYTE_PS),
			 CHOICE_AS_BEFORE);
	for (skipped = 0; !choice_wants(&c, 512); skipped += 512)
		;
	ck_assert_uint_eq(skipped, 2 * CHOICE_SKIP_MIN);
	ck_assert_int_eq(choice_add(&c, CHOICE_PAGES, CHOICE_PAGES * 400, 0, BYTE_PS),
			 CHOICE_SWITCHED_ON);
	/* It shrinks, but takes longer than the link would. */
	ck_assert_int_eq(
		choice_add(&c, CHOICE_PAGES, CHOICE_PAGES * 2048, CHOICE_PAGES * 34000, BYTE_PS),
		CHOICE_SWITCHED_OFF);
}
END_TEST

START_TEST(codec_is_not_judged_by_little_or_without_a_known_link)
{
	struct choice c = { 0 };

	ck_assert_int_eq(choice_add(&c, CHOICE_PAGES - 1, CHOICE_PAGES * 4096, 0, BYTE_PS),
			 CHOICE_AS_BEFORE);
	ck_assert(choice_wants(&c, 1));
	ck_assert_int_eq(choice_add(&c, CHOICE_PAGES, CHOICE_PAGES * 4096, 0, 0), CHOICE_AS_BEFORE);
	ck_assert(choice_wants(&c, 1));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("converge");
	TCase *c = tcase_create("converge");
	SRunner *r;
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_loop_test(c, precopy_finishes_whatever_the_guest_writes, 0,
			    2 * N(links) * N(memories));
	tcase_add_test(c, bounds_of_the_user_hold);
	tcase_add_loop_test(c, flat_out_writer_costs_little_more_than_the_bound, 0, 4);
	tcase_add_test(c, limit_at_its_floor_is_eased);
	tcase_add_test(c, codec_is_left_out_where_it_does_not_gain_and_tried_again);
	tcase_add_test(c, codec_is_not_judged_by_little_or_without_a_known_link);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
