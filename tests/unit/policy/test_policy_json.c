/*
 * Migration policies from JSON: RHV's own three, everything that is wrong with the path of its
 * place, files and names. No clock.
 */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/policy/policy_json.h"
#include "vmm/base/err.h"

#define N(a) ((int)(sizeof(a) / sizeof((a)[0])))

/* -- RHV's own -- */

#define SET(ms)	    "{\"action\":\"setDowntime\",\"params\":[\"" ms "\"]}"
#define DO(action)  "{\"action\":\"" action "\",\"params\":[]}"
#define AT(n, item) "{\"stallingLimit\":" n ",\"convergenceItem\":" item "}"
#define TO_200	    AT("1", SET("150")) "," AT("2", SET("200"))
#define TO_500	    TO_200 "," AT("3", SET("300")) "," AT("4", SET("400")) "," AT("6", SET("500"))
#define BOOLEANS(zip) \
	"\"autoConvergence\":true,\"migrationCompression\":" zip ",\"enableGuestEvents\":true,"
#define CONFIG(steps, last)                          \
	"\"config\":{\"convergenceItems\":[" steps   \
	"],\"initialItems\":[" SET("100") "],\"last" \
					  "Items\":[" last "]}"
#define RHV(uuid, max, zip, name, steps, last)                   \
	"{\"id\":{\"uuid\":\"" uuid "\"},\"maxMigrations\":" max \
	"," BOOLEANS(zip) "\"name\":\"" name "\",\"description\":\"\"," CONFIG(steps, last) "}"

#define UUID_B "80554327-0569-496b-bdeb-fcbbf52b827b"
#define UUID_C "80554327-0569-496b-bdeb-fcbbf52b827c"
#define UUID_P "a7aeedb2-8d66-4e51-bb22-32595027ce71"

static const char minimal[] = RHV(UUID_B, "2", "false", "Minimal downtime", TO_500, DO("abort"));
static const char suspend[] = RHV(UUID_C, "1", "true", "Suspend workload if needed", TO_500,
				  SET("5000") "," DO("abort"));
static const char post_copy[] = RHV(UUID_P, "2", "false", "Post-copy migration", TO_200,
				    DO("postcopy") "," DO("abort"));

static const struct {
	const char *word, *text, *uuid, *name;
	uint32_t max;
	bool compression;
	unsigned int steps;
	struct policy_item last[2];
	unsigned int n_last;
} table[] = {
	{ "minimal-downtime",
	  minimal,
	  UUID_B,
	  "Minimal downtime",
	  2,
	  false,
	  5,
	  { { POLICY_ABORT, 0 } },
	  1 },
	{ "suspend-workload-if-needed",
	  suspend,
	  UUID_C,
	  "Suspend workload if needed",
	  1,
	  true,
	  5,
	  { { POLICY_SET_DOWNTIME, 5000 }, { POLICY_ABORT, 0 } },
	  2 },
	{ "post-copy",
	  post_copy,
	  UUID_P,
	  "Post-copy migration",
	  2,
	  false,
	  2,
	  { { POLICY_POSTCOPY, 0 }, { POLICY_ABORT, 0 } },
	  2 },
};

static const struct policy_convergence steps[] = {
	{ 1, { POLICY_SET_DOWNTIME, 150 } }, { 2, { POLICY_SET_DOWNTIME, 200 } },
	{ 3, { POLICY_SET_DOWNTIME, 300 } }, { 4, { POLICY_SET_DOWNTIME, 400 } },
	{ 6, { POLICY_SET_DOWNTIME, 500 } },
};

static void check_row(const struct policy *p, int row)
{
	unsigned int i;

	ck_assert_str_eq(p->uuid, table[row].uuid);
	ck_assert_str_eq(p->name, table[row].name);
	ck_assert_uint_eq(p->max_migrations, table[row].max);
	ck_assert(p->auto_convergence && p->guest_events);
	ck_assert(p->compression == table[row].compression);
	ck_assert_uint_eq(p->n_initial, 1);
	ck_assert_uint_eq(p->initial[0].downtime_ms, 100);
	ck_assert_uint_eq(p->n_convergence, table[row].steps);
	for (i = 0; i < p->n_convergence; i++) {
		ck_assert_uint_eq(p->convergence[i].stalling_limit, steps[i].stalling_limit);
		ck_assert_int_eq(p->convergence[i].item.action, steps[i].item.action);
		ck_assert_uint_eq(p->convergence[i].item.downtime_ms, steps[i].item.downtime_ms);
	}
	ck_assert_uint_eq(p->n_last, table[row].n_last);
	for (i = 0; i < p->n_last; i++) {
		ck_assert_int_eq(p->last[i].action, table[row].last[i].action);
		ck_assert_uint_eq(p->last[i].downtime_ms, table[row].last[i].downtime_ms);
	}
	ck_assert(policy_has(p, POLICY_POSTCOPY) == (row == 2));
	ck_assert(policy_has(p, POLICY_ABORT) && policy_has(p, POLICY_SET_DOWNTIME));
}

START_TEST(rhv_s_own_objects_and_the_built_in_ones_are_the_same)
{
	struct policy p;
	struct err e;

	ck_assert_msg(!policy_parse(table[_i].text, strlen(table[_i].text), NULL, &p, &e), "%s",
		      e.text);
	check_row(&p, _i);
	ck_assert_ptr_null(p.builtin);
	ck_assert_msg(!policy_from_word(table[_i].word, &p, &e), "%s", e.text);
	check_row(&p, _i);
	ck_assert_str_eq(p.builtin, table[_i].word);
}
END_TEST

START_TEST(policy_as_text_is_the_same_policy)
{
	struct policy p, q;
	char *text, *again;
	struct err e;

	ck_assert_int_eq(policy_from_word(table[_i].word, &p, &e), 0);
	text = policy_to_text(&p);
	ck_assert_str_eq(text, table[_i].word);
	free(text);
	p.builtin = NULL;
	text = policy_to_text(&p);
	ck_assert_msg(!policy_from_text(text, &q, &e), "%s", e.text);
	check_row(&q, _i);
	ck_assert_str_eq(q.description, p.description);
	again = policy_to_text(&q);
	ck_assert_str_eq(text, again);
	free(again);
	free(text);
}
END_TEST

/* -- what is wrong -- */

#define OK_CONFIG CONFIG(TO_200, DO("abort"))

/* The good policy with one thing in place of another. */
static const char good[] = RHV(UUID_B, "2", "false", "X", TO_200, DO("abort"));

static const struct {
	const char *from, *to, *says;
} damages[] = {
	{ "{\"id\"", "[\"id\"", "line 1, column" },
	{ "\"maxMigrations\":2", "\"maxMigrations\":2,\"maxMigrations\":1", "duplicate" },
	{ "]}]}}", "]}]}} x", "line 1, column" },
	/* Fields. */
	{ "\"id\":", "\"ID\":", "$: unknown field 'ID' (known: id name " },
	{ "\"id\":", "\"name config\":", "$: unknown field 'name config'" },
	{ "\"id\":", "\"\":", "$: unknown field ''" },
	{ "\"id\":{\"uuid\":\"" UUID_B "\"},", "", "$: the field 'id' is missing" },
	{ "\"uuid\"", "\"uid\"", "$.id: unknown field 'uid' (known: uuid)" },
	{ "{\"uuid\":\"" UUID_B "\"}", "{}", "$.id: the field 'uuid' is missing" },
	{ "{\"uuid\":\"" UUID_B "\"}", "7", "$.id: an integer where an object was expected" },
	{ "\"" UUID_B "\"", "null", "$.id.uuid: null where a string was expected" },
	{ UUID_B, "80554327-0569-496b-bdeb-fcbbf52b827", "$.id.uuid: '80554327" },
	{ UUID_B, "80554327-0569-496b-bdeb-fcbbf52b827x", "is no uuid" },
	{ UUID_B, UUID_B "0", "$.id.uuid: 37 bytes where at most 36" },
	{ "\"name\":\"X\",", "", "$: the field 'name' is missing" },
	{ "\"name\":\"X\"", "\"name\":\"\"", "$.name: it is empty" },
	{ "\"name\":\"X\"", "\"name\":[]", "$.name: an array where a string was expected" },
	{ "\"name\":\"X\"",
	  "\"name\":\"0123456789012345678901234567890123456789012345678901234567890123\"",
	  "$.name: 64 bytes where at most 63" },
	{ "\"description\":\"\"", "\"description\":true",
	  "$.description: a boolean where a string" },
	{ "\"maxMigrations\":2,", "", "$: the field 'maxMigrations' is missing" },
	{ "\"maxMigrations\":2", "\"maxMigrations\":\"2\"",
	  "$.maxMigrations: a string where an integer was expected" },
	{ "\"maxMigrations\":2", "\"maxMigrations\":2.0", "$.maxMigrations: a fraction where" },
	{ "\"maxMigrations\":2", "\"maxMigrations\":0", "$.maxMigrations: 0 is not from 1 to 64" },
	{ "\"maxMigrations\":2", "\"maxMigrations\":-1", "$.maxMigrations: -1 is not from 1" },
	{ "\"maxMigrations\":2", "\"maxMigrations\":65", "$.maxMigrations: 65 is not from 1" },
	{ "\"maxMigrations\":2", "\"maxMigrations\":4294967298", "is not from 1 to 64" },
	{ "\"maxMigrations\":2", "\"maxMigrations\":99999999999999999999", "line 1, column" },
	{ "\"autoConvergence\":true,", "", "$: the field 'autoConvergence' is missing" },
	{ "\"autoConvergence\":true", "\"autoConvergence\":1",
	  "$.autoConvergence: an integer where true or false was expected" },
	{ "\"migrationCompression\":false", "\"migrationCompression\":\"no\"",
	  "$.migrationCompression: a string where true or false" },
	{ "\"enableGuestEvents\":true", "\"enableGuestEvents\":null", "$.enableGuestEvents: null" },
	{ "," OK_CONFIG, "", "$: the field 'config' is missing" },
	{ OK_CONFIG, "\"config\":\"\"", "$.config: a string where an object was expected" },
	/* Lists. */
	{ "\"initialItems\"", "\"firstItems\"", "$.config: unknown field 'firstItems'" },
	{ "\"initialItems\":[" SET("100") "],", "", "$.config: the field 'initialItems'" },
	{ "\"lastItems\":[", "\"lastItems\":{\"x\":[", "line 1, column" },
	{ "[" DO("abort") "]", "{}", "$.config.lastItems: an object where an array was expected" },
	{ "[" TO_200 "]", "7", "$.config.convergenceItems: an integer where an array" },
	{ TO_200, TO_200 ",7", "$.config.convergenceItems[2]: an integer where an object" },
	{ "\"stallingLimit\":2,", "",
	  "$.config.convergenceItems[1]: the field 'stallingLimit' is missing" },
	{ "\"stallingLimit\":2", "\"stallingLimit\":0",
	  "$.config.convergenceItems[1].stallingLimit: 0 is not from 1 to 1000000" },
	{ "\"stallingLimit\":2", "\"stallingLimit\":1",
	  "$.config.convergenceItems[1].stallingLimit: 1 after 1: it must rise" },
	{ "\"stallingLimit\":1", "\"stallingLimit\":3",
	  "$.config.convergenceItems[1].stallingLimit: 2 after 3: it must rise" },
	{ "\"stallingLimit\":1,\"convergenceItem\":" SET("150"), "\"stallingLimit\":1",
	  "$.config.convergenceItems[0]: the field 'convergenceItem' is missing" },
	{ "\"stallingLimit\":1", "\"when\":1",
	  "$.config.convergenceItems[0]: unknown field 'when'" },
	/* Items. */
	{ SET("200"), DO("foo"),
	  "$.config.convergenceItems[1].convergenceItem.action: unknown action 'foo' (known: "
	  "setDowntime, abort, postcopy)" },
	{ DO("abort"), DO("Abort"), "$.config.lastItems[0].action: unknown action 'Abort'" },
	{ DO("abort"), "{\"action\":3,\"params\":[]}", "$.config.lastItems[0].action: an integer" },
	{ DO("abort"), "{\"params\":[]}", "$.config.lastItems[0]: the field 'action' is missing" },
	{ DO("abort"), "{\"action\":\"abort\"}",
	  "$.config.lastItems[0]: the field 'params' is missing" },
	{ DO("abort"), "{\"action\":\"abort\",\"params\":[\"1\"]}",
	  "$.config.lastItems[0].params: 1 parameters where 'abort' takes none" },
	{ DO("abort"), "{\"action\":\"abort\",\"params\":[],\"why\":\"\"}",
	  "$.config.lastItems[0]: unknown field 'why' (known: action params)" },
	{ SET("100"), "{\"action\":\"setDowntime\",\"params\":[]}",
	  "$.config.initialItems[0].params: 0 parameters where 'setDowntime' takes one" },
	{ SET("100"), "{\"action\":\"setDowntime\",\"params\":[\"1\",\"2\"]}",
	  "$.config.initialItems[0].params: 2 parameters where" },
	{ SET("100"), "{\"action\":\"setDowntime\",\"params\":[100]}",
	  "$.config.initialItems[0].params[0]: an integer where a string of digits" },
	{ SET("100"), SET("0"), "$.config.initialItems[0].params[0]: '0' is not a number of ms" },
	{ SET("100"), SET("-5"), "$.config.initialItems[0].params[0]: '-5' is not a number" },
	{ SET("100"), SET("1.5"), "$.config.initialItems[0].params[0]: '1.5' is not" },
	{ SET("100"), SET("2000001"), "'2000001' is not a number of ms from 1 to 2000000" },
	/* The course. */
	{ SET("100"), DO("abort"),
	  "$.config.initialItems[0]: a migration cannot begin with 'abort'" },
	{ SET("100"), DO("postcopy"), "a migration cannot begin with 'postcopy'" },
	{ SET("100"), SET("150"),
	  "$.config.convergenceItems[0].convergenceItem: a downtime of 150 ms after one of 150 "
	  "ms: it must rise" },
	{ SET("150"), SET("250"),
	  "$.config.convergenceItems[1].convergenceItem: a downtime of 200" },
	{ DO("abort"), SET("199") "," DO("abort"),
	  "$.config.lastItems[0]: a downtime of 199 ms after one of 200" },
	{ DO("abort"), DO("abort") "," SET("900"), "$.config.lastItems[1]: it is never reached" },
	{ DO("abort"), DO("postcopy") "," SET("900"),
	  "$.config.lastItems[1]: only 'abort' makes sense after 'postcopy'" },
	{ SET("150"), DO("abort"), "$.config.convergenceItems[1].convergenceItem: it is never" },
	{ DO("abort"), "",
	  "$.config.lastItems: neither 'abort' nor 'postcopy': a migration that makes no progress "
	  "would never end" },
	{ DO("abort"), SET("900"), "$.config.lastItems: neither" },
};

static char *replaced(const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);
	char *out = NULL;

	ck_assert_msg(at != NULL, "'%s' is not in the text", from);
	ck_assert_int_gt(asprintf(&out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)),
			 0);
	return out;
}

static void check_refused(const char *text, const char *which, const char *says)
{
	struct policy p;
	struct err e = { "" };

	ck_assert_int_eq(policy_parse(text, strlen(text), which, &p, &e), -1);
	ck_assert_msg(strstr(e.text, says) != NULL, "'%s' is not in: %s", says, e.text);
}

START_TEST(every_damage_is_refused_with_its_path)
{
	char *text = replaced(good, damages[_i].from, damages[_i].to), *list = NULL;
	bool has_path = !strncmp(damages[_i].says, "$.", 2);

	check_refused(text, NULL, damages[_i].says);
	/* As one of several, too. */
	if (has_path) {
		char says[200];

		snprintf(says, sizeof(says), "$[1]%s", damages[_i].says + 1);
		ck_assert_int_gt(asprintf(&list, "[%s,%s]", suspend, text), 0);
		if (strstr(text, "\"name\":\"X\""))
			check_refused(list, "X", says);
	}
	free(list);
	free(text);
}
END_TEST

static const struct {
	const char *from, *to;
} accepted[] = {
	{ "\"description\":\"\",", "" }, { "\"name\":\"X\"", "\"name\":\"\xc3\xbc# \"" },
	{ "[" SET("100") "]", "[]" },	 { "[" TO_200 "]", "[]" },
	{ SET("150"), SET("149") },	 { "\"stallingLimit\":2", "\"stallingLimit\":1000000" },
	{ SET("200"), DO("abort") }, /* and last items that are never reached */
	{ DO("abort"), DO("postcopy") }, { DO("abort"), SET("2000000") "," DO("abort") },
};

START_TEST(what_makes_sense_is_accepted)
{
	char *text = replaced(good, accepted[_i].from, accepted[_i].to);
	struct policy p;
	struct err e;

	ck_assert_msg(!policy_parse(text, strlen(text), NULL, &p, &e), "%s", e.text);
	free(text);
}
END_TEST

/* Cut anywhere, or with any byte changed: refused, or some policy; never a crash. */
START_TEST(text_of_any_shape_ends_in_a_sentence_or_a_policy)
{
	size_t n = strlen(good);
	struct policy p;
	struct err e;
	char *text;

	for (size_t i = 0; i < n; i++) {
		ck_assert_int_eq(policy_parse(good, i, NULL, &p, &e), -1);
		text = strdup(good);
		text[i] ^= (char)(1 << i % 7);
		e.text[0] = '\0';
		if (policy_parse(text, n, NULL, &p, &e))
			ck_assert(e.text[0]);
		free(text);
	}
}
END_TEST

START_TEST(lists_that_are_too_long_are_refused)
{
	char *items = strdup(SET("1")), *longer, *text;
	struct policy p;
	struct err e;

	for (int i = 2; i <= 65; i++) {
		ck_assert_int_gt(asprintf(&longer,
					  "%s,{\"action\":\"setDowntime\",\"params\":"
					  "[\"%d\"]}",
					  items, i),
				 0);
		free(items);
		items = longer;
		text = replaced(good, SET("100"), items);
		if (i <= 64)
			ck_assert_msg(!policy_parse(text, strlen(text), NULL, &p, &e), "%s",
				      e.text);
		else
			check_refused(text, NULL,
				      "$.config.initialItems: 65 items, but at most 64");
		free(text);
	}
	free(items);
}
END_TEST

/* -- which one -- */

START_TEST(one_of_several_is_chosen_by_name_or_uuid)
{
	char *list = NULL, *twice = NULL, *one = NULL;
	struct policy p;
	struct err e;

	ck_assert_int_gt(asprintf(&list, "[%s,%s,%s]", minimal, suspend, post_copy), 0);
	ck_assert_int_eq(policy_parse(list, strlen(list), "Suspend workload if needed", &p, &e), 0);
	check_row(&p, 1);
	ck_assert_int_eq(policy_parse(list, strlen(list), UUID_P, &p, &e), 0);
	check_row(&p, 2);
	ck_assert_int_eq(
		policy_parse(list, strlen(list), "80554327-0569-496B-BDEB-FCBBF52B827B", &p, &e),
		0);
	check_row(&p, 0);
	check_refused(list, NULL,
		      "$: there are 3 policies; choose one by its name or uuid (Minimal "
		      "downtime, Suspend workload if needed, Post-copy migration)");
	check_refused(list, "Max", "$: no policy is called 'Max' (there are: Minimal downtime, ");
	ck_assert_int_gt(asprintf(&twice, "[%s,%s,%s]", good, minimal, minimal), 0);
	check_refused(twice, "Minimal downtime",
		      "$[2]: a second policy is called 'Minimal downtime' (the first: $[1])");
	check_refused(minimal, "Max", "$: the policy is called 'Minimal downtime', not 'Max'");
	ck_assert_int_eq(policy_parse(minimal, strlen(minimal), UUID_B, &p, &e), 0);
	ck_assert_int_gt(asprintf(&one, "[%s]", suspend), 0);
	ck_assert_int_eq(policy_parse(one, strlen(one), NULL, &p, &e), 0);
	check_refused("[]", NULL, "$: there are 0 policies");
	check_refused("[7]", "x", "$: no policy is called 'x'");
	check_refused("[7]", NULL, "$[0]: an integer where an object was expected");
	free(list);
	free(twice);
	free(one);
}
END_TEST

static char dir[32], file[64];

static void write_file(const char *name, const char *text)
{
	FILE *f;

	snprintf(file, sizeof(file), "%s/%s", dir, name);
	f = fopen(file, "w");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

static const char *word_refusal(const char *word)
{
	static struct err e;
	struct policy p;

	ck_assert_int_eq(policy_from_word(word, &p, &e), -1);
	return e.text;
}

START_TEST(word_is_a_built_in_name_or_a_file)
{
	char word[128], *list = NULL;
	struct policy p;
	struct err e;

	snprintf(dir, sizeof(dir), "/tmp/godwit-unit-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_gt(asprintf(&list, "[%s,%s]", minimal, suspend), 0);
	write_file("a#b.json", list);
	snprintf(word, sizeof(word), "%s#Suspend workload if needed", file);
	ck_assert_msg(!policy_from_word(word, &p, &e), "%s", e.text);
	check_row(&p, 1);
	ck_assert_ptr_nonnull(strstr(word_refusal(file), "a#b.json: $: there are 2 policies"));
	unlink(file);
	write_file("one.json", post_copy);
	ck_assert_msg(!policy_from_word(file, &p, &e), "%s", e.text);
	check_row(&p, 2);
	snprintf(word, sizeof(word), "%s#", file);
	ck_assert_msg(!policy_from_word(word, &p, &e), "%s", e.text);
	write_file("one.json", "");
	ck_assert_ptr_nonnull(strstr(word_refusal(file), "one.json: line 1"));
	ck_assert_int_eq(truncate(file, 1 << 20), 0);
	ck_assert_ptr_nonnull(strstr(word_refusal(file), "more than 262144 bytes"));
	unlink(file);
	ck_assert_ptr_nonnull(strstr(word_refusal(file), "cannot read the policy"));
	ck_assert_ptr_nonnull(strstr(word_refusal(dir), "cannot read the policy"));
	ck_assert_ptr_nonnull(strstr(word_refusal("minimal"), "'minimal' is neither a policy "
							      "(minimal-downtime, "));
	ck_assert_ptr_nonnull(strstr(word_refusal("#x"), "is neither"));
	ck_assert_int_eq(policy_from_text("tcp", &p, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "'tcp' is no policy (expected minimal-downtime"));
	rmdir(dir);
	free(list);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("policy-json");
	TCase *c = tcase_create("json");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 60);
	tcase_add_loop_test(c, rhv_s_own_objects_and_the_built_in_ones_are_the_same, 0, N(table));
	tcase_add_loop_test(c, policy_as_text_is_the_same_policy, 0, N(table));
	tcase_add_loop_test(c, every_damage_is_refused_with_its_path, 0, N(damages));
	tcase_add_loop_test(c, what_makes_sense_is_accepted, 0, N(accepted));
	tcase_add_test(c, text_of_any_shape_ends_in_a_sentence_or_a_policy);
	tcase_add_test(c, lists_that_are_too_long_are_refused);
	tcase_add_test(c, one_of_several_is_chosen_by_name_or_uuid);
	tcase_add_test(c, word_is_a_built_in_name_or_a_file);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
