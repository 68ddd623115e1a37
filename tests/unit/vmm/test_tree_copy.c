/*
 * A tree from elsewhere is only read, and what comes out of it is well formed: whatever a file or a
 * peer wrote, nothing that is done with a machine tree (walked, printed, written to, packed) leaves
 * its memory. The sanitizers watch.
 */
#include <check.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/config.h"
#include "vmm/tree.h"

#define WORDS_MAX 32

/* The words of `line`, parted by '|', as after the verb. */
static void parse(struct config *c, enum config_verb verb, char *line)
{
	char *argv[WORDS_MAX], *word;
	struct err e = { "" };
	int argc = 0;

	for (word = strtok(line, "|"); word; word = strtok(NULL, "|"))
		argv[argc++] = word;
	ck_assert_msg(config_parse(c, verb, argc, argv, &e) == 0, "%s", e.text);
}

/* A machine with one of each, packed. */
static struct tree machine(void)
{
	char line[] =
		"--kernel|/k|--name|web|--cpus|2|--memory|4G|--console|null|--disk|/d,serial=S|"
		"--net|tap=t0,mac=52:54:00:01:02:03|--channel|x.0,socket=/x";
	struct err e = { "" };
	struct config c;
	struct tree t;

	parse(&c, CONFIG_RUN, line);
	ck_assert_int_eq(tree_init(&t, NULL), 0);
	ck_assert_msg(config_tree(&c, &t, &e) == 0, "%s", e.text);
	config_free(&c);
	tree_pack(&t);
	return t;
}

static void walk(const struct tree *t, const char *path)
{
	char child[TREE_PATH_MAX];
	unsigned int it = 0;

	while (tree_next_child(t, path, &it, child)) {
		ck_assert(tree_has(t, child, NULL));
		walk(t, child);
	}
}

/* What becomes of a machine tree that came from elsewhere, but for KVM. */
static void use(struct tree *t, const struct config *ours, FILE *out)
{
	struct tree again;
	struct err e;

	ck_assert_int_eq(fdt_check_full(t->fdt, tree_bytes_used(t)), 0);
	walk(t, "/");
	tree_print(t, out);
	tree_pack(t); /* as it came: nothing is replaced here */
	config_override_tree(ours, t, &e);
	tree_pack(t);
	ck_assert_msg(tree_copy(&again, t->fdt, tree_bytes_used(t), &e) == 0, "%s", e.text);
	ck_assert_int_eq(tree_bytes_used(&again), tree_bytes_used(t));
	tree_free(&again);
}

START_TEST(any_damaged_byte_of_a_machine_tree_harms_nothing)
{
	char line[] =
		"--listen|fd:0|--name|other|--console|file:/log|--disk|disk0=/a/long/path/that/"
		"/needs/room|--net|net0=tap:t1|--channel|x.0,socket=/y|--dirty-ring|4096";
	struct tree whole = machine(), t;
	size_t len = tree_bytes_used(&whole), i, taken = 0;
	FILE *out = fopen("/dev/null", "w");
	struct config ours;
	uint8_t *bytes = malloc(len);
	struct err e;

	parse(&ours, CONFIG_RECEIVE, line);
	for (i = 0; i < len; i++) {
		const uint8_t was = ((const uint8_t *)whole.fdt)[i];
		const uint8_t values[] = { 0, 3, 9, 0x7f, 0xff, was ^ 1, was + 4, was - 4 };

		for (size_t v = 0; v < sizeof(values); v++) {
			memcpy(bytes, whole.fdt, len);
			bytes[i] = values[v];
			e.text[0] = 0;
			if (tree_copy(&t, bytes, len, &e)) {
				ck_assert_ptr_null(t.fdt);
				ck_assert_str_ne(e.text, "");
				continue;
			}
			taken++;
			use(&t, &ours, out);
			tree_free(&t);
		}
	}
	/* Values and padding may be anything. */
	ck_assert_uint_gt(taken, len / 2);
	config_free(&ours);
	fclose(out);
	free(bytes);
	tree_free(&whole);
}
END_TEST

/* A structure and strings written by hand, with the header around them. */
struct made {
	uint8_t bytes[1 << 18];
	uint32_t n, strings;
};

static void cell(struct made *m, uint32_t v)
{
	fdt32_t be = cpu_to_fdt32(v);

	memcpy(m->bytes + m->n, &be, 4);
	m->n += 4;
}

static void text(struct made *m, const char *s)
{
	size_t n = strlen(s) + 1;

	ck_assert_uint_lt(m->n + n + 4, sizeof(m->bytes));
	memcpy(m->bytes + m->n, s, n);
	memset(m->bytes + m->n + n, 0, 3);
	m->n += (uint32_t)(n + 3) & ~3u;
}

static void begin(struct made *m, const char *name)
{
	cell(m, FDT_BEGIN_NODE);
	text(m, name);
}

static void property(struct made *m, uint32_t name)
{
	cell(m, FDT_PROP);
	cell(m, 0);
	cell(m, name);
}

static struct made *made(void)
{
	struct made *m = calloc(1, sizeof(*m));

	m->n = 56;
	begin(m, "");
	return m;
}

/* Ends the open node, and says what tree_copy says of it all; NULL: it is taken. */
static const char *said(struct made *m, const char *strings, size_t n_strings)
{
	static struct err e;
	uint32_t strings_at;
	struct tree t;
	int rc;

	cell(m, FDT_END_NODE);
	cell(m, FDT_END);
	strings_at = m->n;
	memcpy(m->bytes + m->n, strings, n_strings);
	m->n = 0;
	cell(m, FDT_MAGIC);
	cell(m, strings_at + (uint32_t)n_strings);
	cell(m, 56);
	cell(m, strings_at);
	cell(m, 40);
	cell(m, 17);
	cell(m, 16);
	cell(m, 0);
	cell(m, (uint32_t)n_strings);
	cell(m, strings_at - 56);
	rc = tree_copy(&t, m->bytes, strings_at + n_strings, &e);
	free(m);
	tree_free(&t);
	return rc ? e.text : NULL;
}

#define NAMES "one\0two" /* at 0 and 4 */

#define refused(m, why)                                              \
	do {                                                         \
		const char *why_not = said(m, NAMES, sizeof(NAMES)); \
		ck_assert_ptr_nonnull(why_not);                      \
		ck_assert_msg(strstr(why_not, why), "%s", why_not);  \
	} while (0)

START_TEST(names_that_occur_twice_are_refused)
{
	struct made *m = made();

	property(m, 0);
	property(m, 4);
	begin(m, "a");
	property(m, 0);
	ck_assert_ptr_null((cell(m, FDT_END_NODE), said(m, NAMES, sizeof(NAMES))));

	m = made();
	property(m, 0);
	property(m, 4);
	property(m, 0);
	refused(m, "two properties of one name");

	m = made();
	begin(m, "a");
	begin(m, "b"); /* elsewhere, so another */
	cell(m, FDT_END_NODE);
	cell(m, FDT_END_NODE);
	begin(m, "b");
	cell(m, FDT_END_NODE);
	begin(m, "a");
	cell(m, FDT_END_NODE);
	refused(m, "two nodes of one name");
}
END_TEST

START_TEST(names_that_are_none_are_refused)
{
	static const char *const names[] = { "",
					     "a/b",
					     "a b",
					     "\x1b[31m",
					     "a\x7f",
					     "a\xc2\x9b",
					     "\xff",
					     "a\"",
					     "a\n",
					     ".."
					     "/x" };
	struct made *m;
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		m = made();
		begin(m, names[i]);
		cell(m, FDT_END_NODE);
		refused(m, "a node's name");
		m = made();
		property(m, 0);
		ck_assert_ptr_nonnull(said(m, names[i], strlen(names[i]) + 1));
	}
	m = made();
	property(m, 3); /* the end of the first name */
	refused(m, "without a name");
	m = made();
	property(m, 8);
	refused(m, "without a name");
	m = made();
	property(m, 0);
	ck_assert_ptr_nonnull(said(m, "one", 3)); /* not ended */
}
END_TEST

START_TEST(trees_of_a_shape_that_costs_are_refused)
{
	struct made *m = made();
	char name[TREE_PATH_MAX + 1];
	unsigned int i;

	for (i = 0; i <= TREE_DEPTH_MAX; i++)
		begin(m, "a");
	while (i--)
		cell(m, FDT_END_NODE);
	refused(m, "too deep");

	m = made();
	memset(name, 'a', TREE_PATH_MAX - 1); /* with the '/' one more than a path may have */
	name[TREE_PATH_MAX - 1] = 0;
	begin(m, name);
	cell(m, FDT_END_NODE);
	refused(m, "too deep");

	m = made();
	for (i = 0; i <= TREE_CHILDREN_MAX; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		begin(m, name);
		cell(m, FDT_END_NODE);
	}
	refused(m, "too many children");

	m = made();
	for (i = 0; i <= TREE_CHILDREN_MAX; i++)
		property(m, 0);
	refused(m, "too many properties");

	/* Each look-up goes through all that come before. */
	m = made();
	for (i = 0; i <= TREE_NODES_MAX; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		if (i % 1000 == 0)
			begin(m, name);
		begin(m, name);
		cell(m, FDT_END_NODE);
		if (i % 1000 == 999)
			cell(m, FDT_END_NODE);
	}
	refused(m, "too many nodes in all");
}
END_TEST

START_TEST(tokens_out_of_order_are_refused)
{
	struct made *m = made();

	/* libfdt would never find it. */
	begin(m, "a");
	cell(m, FDT_END_NODE);
	property(m, 0);
	refused(m, "does not end");

	m = made();
	cell(m, FDT_END_NODE);
	begin(m, "second");
	refused(m, "no end");

	m = made();
	cell(m, FDT_NOP);
	refused(m, "does not end");

	m = made();
	cell(m, FDT_PROP);
	cell(m, 0xfffffff0);
	cell(m, 0);
	refused(m, "longer than the tree");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tree_copy");
	TCase *c = tcase_create("tree_copy");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_test(c, any_damaged_byte_of_a_machine_tree_harms_nothing);
	tcase_add_test(c, names_that_occur_twice_are_refused);
	tcase_add_test(c, names_that_are_none_are_refused);
	tcase_add_test(c, trees_of_a_shape_that_costs_are_refused);
	tcase_add_test(c, tokens_out_of_order_are_refused);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
