/*
 * The decisions of a migration: their names, and whether the documentation has the same ones.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/decisions.h"

/* Run from the top of the tree, as all unit tests. */
#define DOCUMENT "README.md"

/* The words in backticks in the parentheses after "`action`", each followed by a space. */
static void documented(char *words, size_t size)
{
	FILE *f = fopen(DOCUMENT, "r");
	char *text = NULL, *at, *end;
	size_t n = 0;

	ck_assert_ptr_nonnull(f);
	ck_assert_int_gt(getdelim(&text, &n, '\0', f), 0);
	fclose(f);
	at = strstr(text, "`GODWIT_DECISION`");
	ck_assert_ptr_nonnull(at);
	at = strstr(at, "`action`");
	ck_assert_ptr_nonnull(at);
	at = strchr(at, '(');
	ck_assert_ptr_nonnull(at);
	end = strchr(at, ')');
	ck_assert_ptr_nonnull(end);
	*end = '\0';
	words[0] = '\0';
	for (at = strtok(at, "`"); (at = strtok(NULL, "`")); at = strtok(NULL, "`")) {
		ck_assert_uint_lt(strlen(words) + strlen(at) + 2, size);
		strcat(strcat(words, at), " ");
	}
	free(text);
}

START_TEST(documentation_has_every_decision_and_no_other)
{
	char has[1024], expected[1024] = "";

	documented(has, sizeof(has));
	for (enum decision d = 0; d < DECISIONS; d++) {
		ck_assert_ptr_nonnull(decision_name(d));
		strcat(strcat(expected, decision_name(d)), " ");
	}
	ck_assert_str_eq(has, expected);
}
END_TEST

static void remember(void *arg, enum decision d, const char *reason)
{
	snprintf(arg, 64, "%s: %s", decision_name(d), reason);
}

START_TEST(sink_gets_the_reason_as_a_sentence)
{
	char told[64] = "";

	decision_tell(&(struct decisions){ remember, told }, DECISION_WAIT, "for %d others", 3);
	ck_assert_str_eq(told, "wait: for 3 others");
	decision_tell(&(struct decisions){ NULL, told }, DECISION_WAIT, "nobody hears it");
	ck_assert_str_eq(told, "wait: for 3 others");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("decisions");
	TCase *all = tcase_create("all");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_add_test(all, documentation_has_every_decision_and_no_other);
	tcase_add_test(all, sink_gets_the_reason_as_a_sentence);
	suite_add_tcase(s, all);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
