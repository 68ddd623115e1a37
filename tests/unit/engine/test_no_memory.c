/*
 * Allocations that fail, one after the other: whatever is being made is refused with a sentence, or
 * made all the same, and nothing of it is left (the address sanitizer sees that).
 */
#include <check.h>
#include <stdlib.h>

#include "tests/unit/lib/engine_rig.h"
#include "tests/unit/lib/short_memory.h"
#include "vmm/config.h"
#include "vmm/tree.h"

/* More than any of these needs. */
#define ALLOCATIONS_MAX 3000

static char *words[] = { "--kernel",  "/k",
			 "--cpus",    "2",
			 "--disk",    "/d,,e,serial=S,id=x",
			 "--net",     "tap=t0",
			 "--channel", "x.0,socket=/x",
			 "--console", "unix:/c" };

static int make_tree(struct tree *copy, struct err *e)
{
	struct config c;
	struct tree t;
	int rc = -1;

	if (config_parse(&c, CONFIG_RUN, sizeof(words) / sizeof(words[0]), words, e) == 0 &&
	    tree_init(&t, e) == 0) {
		rc = config_tree(&c, &t, e);
		if (rc == 0)
			tree_pack(&t);
		if (rc == 0)
			rc = tree_copy(copy, (const uint8_t *)t.fdt, tree_bytes_used(&t), e);
		tree_free(&t);
	}
	config_free(&c);
	return rc;
}

START_TEST(machine_tree_is_made_or_refused)
{
	unsigned int refused = 0, n;
	bool short_once = true;

	for (n = 1; short_once && n < ALLOCATIONS_MAX; n++) {
		struct err e = { "" };
		struct tree t;
		int rc;

		short_memory_at(n);
		rc = make_tree(&t, &e);
		short_once = short_memory_failed();
		short_memory_at(0);
		if (rc == 0) {
			tree_free(&t);
			continue;
		}
		refused++;
		ck_assert_msg(e.text[0], "no sentence for allocation %u", n);
	}
	ck_assert_uint_gt(refused, 0);
	ck_assert(!short_once);
}
END_TEST

struct kind {
	enum rig_link link;
	unsigned int lanes;
	bool xbzrle;
	enum pages_codec compression;
};

static const struct kind kinds[] = {
	{ RIG_PAIR, 1, false, CODEC_PLAIN },
	{ RIG_UNIX, 3, true, CODEC_PLAIN },
	{ RIG_UNIX, 2, false, CODEC_ZSTD },
	{ RIG_UNIX, 2, false, CODEC_ZLIB },
};

static unsigned int short_at;

static void run_short(void)
{
	short_memory_at(short_at);
}

/* One copy of the guest runs at the end, wherever memory was short; rig_check says it. */
START_TEST(migration_arrives_or_fails_with_a_sentence)
{
	const struct kind *k = &kinds[_i];
	unsigned int failed = 0, n;
	bool short_once = true;

	for (n = 1; short_once && n < ALLOCATIONS_MAX; n++) {
		struct rig r;

		rig_init(&r, k->link);
		r.source.n_lanes = k->lanes;
		r.source.parameters.xbzrle = k->xbzrle;
		r.source.parameters.xbzrle_cache_bytes = 1 << 20;
		r.source.parameters.compression = k->compression;
		/* What waits for somebody who has no memory does not wait for long. */
		r.lanes_ms = 200;
		r.source.checked_ms = r.source.round_ms = r.source.running_ms = 1000;
		rig_dirty_by_plan(&r);
		short_at = n;
		r.on_start = run_short;
		rig_run(&r);
		short_once = short_memory_failed();
		short_memory_at(0);
		if (r.source_rc) {
			failed++;
			ck_assert_msg(r.source_error.text[0], "no sentence for allocation %u", n);
		}
		rig_check(&r);
		rig_free(&r);
	}
	ck_assert_uint_gt(failed, 0);
	ck_assert(!short_once);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("no-memory");
	TCase *c = tcase_create("no-memory");
	SRunner *sr;
	int failed;

	tcase_set_timeout(c, 300);
	tcase_add_test(c, machine_tree_is_made_or_refused);
	tcase_add_loop_test(c, migration_arrives_or_fails_with_a_sentence, 0,
			    sizeof(kinds) / sizeof(kinds[0]));
	suite_add_tcase(s, c);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
