/*
 * A migration with a second part beside RAM, as a disk will be: it has its rounds with RAM's, its
 * chunks go over the same lanes, and what it leaves counts into what remains.
 */
#include <check.h>
#include <stdlib.h>

#include "migrate/source/source_internal.h"
#include "tests/unit/lib/engine_rig.h"
#include "vmm/base/bitmap.h"

#define LEFT_BYTES (1ull << 40) /* more than fits in any pause */
#define FETCHES	   3u		/* that find so much dirty */

struct other {
	struct part part; /* first */
	struct lanes *lanes;
	unsigned int rounds, fetches;
	bool in_order;
	uint64_t sent_pages; /* atomic */
	const char *fail;
};

static struct other other;

static int other_round(struct part *p, uint64_t round, struct err *e)
{
	struct other *o = (struct other *)p;
	struct chunk c = { .part = p, .pages = { 7 } };

	o->in_order = o->in_order && round == ++o->rounds;
	if (o->fail && round == 2)
		return err_set(e, "%s", o->fail);
	return lanes_send(o->lanes, &c, e);
}

static int other_fetch(struct part *p, uint64_t *bytes, struct err *e)
{
	struct other *o = (struct other *)p;

	(void)e;
	*bytes = ++o->fetches <= FETCHES ? LEFT_BYTES : 0;
	return 0;
}

static int other_send(struct part *p, unsigned int lane, struct writer *w, struct chunk *c,
		      struct err *e)
{
	struct other *o = (struct other *)p;

	(void)lane, (void)w, (void)e;
	__atomic_add_fetch(&o->sent_pages, bitmap_count(c->pages, CHUNK_PAGES), __ATOMIC_RELAXED);
	return 0;
}

static const struct part_ops other_ops = { other_round, other_fetch, other_send };

/* The first round is about to begin, on the migration's thread. */
static void add_part(struct rig *r, uint64_t round)
{
	if (round != 1)
		return;
	other.lanes = &r->engine->lanes;
	r->engine->parts[r->engine->n_parts++] = &other.part;
}

static void init(struct rig *r, unsigned int lanes)
{
	other = (struct other){ .part = { &other_ops }, .in_order = true };
	rig_init(r, RIG_UNIX);
	r->source.n_lanes = lanes;
	r->on_round = add_part;
}

START_TEST(second_part_has_its_rounds_and_counts_into_what_remains)
{
	struct rig r;

	init(&r, _i ? 4 : 1);
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	/* It was parked in no round that left so much of the other part. */
	ck_assert_uint_gt(other.rounds, FETCHES + 1);
	ck_assert_uint_eq(other.rounds, r.rounds);
	/* Once more when it was parked. */
	ck_assert_uint_eq(other.fetches, other.rounds);
	ck_assert(other.in_order);
	ck_assert_uint_eq(other.sent_pages, 3 * other.rounds);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

START_TEST(part_that_fails_ends_the_migration_and_the_guest_runs_on)
{
	struct rig r;

	init(&r, _i ? 4 : 1);
	other.fail = "the image cannot be read";
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, -1);
	ck_assert_str_eq(r.source_error.text, other.fail);
	ck_assert_uint_eq(other.rounds, 2);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("parts");
	TCase *c = tcase_create("parts");
	SRunner *run;
	int failed;

	tcase_set_timeout(c, 60);
	tcase_add_loop_test(c, second_part_has_its_rounds_and_counts_into_what_remains, 0, 2);
	tcase_add_loop_test(c, part_that_fails_ends_the_migration_and_the_guest_runs_on, 0, 2);
	suite_add_tcase(s, c);
	run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed != 0;
}
