/*
 * The decisions of a migration: their names, and whether the documentation has the same ones.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/decisions.h"

/* Run from the top of the tree, as all unit tests. */
#define DOCUMENT "man/godwit-migrate.1"

/* The names of the list that follows GODWIT_DECISION, each between spaces. */
static void documented(char *words, size_t size)
{
	FILE *f = fopen(DOCUMENT, "r");
	char *text = NULL, *line, *rest, *end, *word, *next;
	size_t n = 0;

	ck_assert_ptr_nonnull(f);
	ck_assert_int_gt(getdelim(&text, &n, '\0', f), 0);
	fclose(f);
	rest = strstr(text, "GODWIT_DECISION");
	ck_assert_ptr_nonnull(rest);
	end = strstr(rest, "\n.El");
	ck_assert_ptr_nonnull(end);
	*end = '\0';
	strcpy(words, " ");
	for (line = strtok_r(rest, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (strncmp(line, ".It Li ", 7))
			continue;
		for (word = strtok_r(line + 7, " ,", &next); word;
		     word = strtok_r(NULL, " ,", &next)) {
			ck_assert_uint_lt(strlen(words) + strlen(word) + 2, size);
			strcat(strcat(words, word), " ");
		}
	}
	free(text);
}

START_TEST(documentation_has_every_decision_and_no_other)
{
	char has[1024], name[64];
	size_t length = 1;

	documented(has, sizeof(has));
	for (enum decision d = 0; d < DECISIONS; d++) {
		ck_assert_ptr_nonnull(decision_name(d));
		length += strlen(decision_name(d)) + 1;
		snprintf(name, sizeof(name), " %s ", decision_name(d));
		ck_assert_msg(strstr(has, name), "%s lacks%s", DOCUMENT, name);
	}
	ck_assert_uint_eq(strlen(has), length);
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
