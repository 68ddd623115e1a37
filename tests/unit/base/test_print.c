/*
 * What somebody else chose reaches a terminal as text and as nothing more: one line stays one line.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/print.h"

static const struct {
	const char *given, *printed;
} rows[] = {
	{ "plain", "plain\n" },
	{ "", "\n" },
	{ "a\033[2J\033]0;title\ab", "a?[2J?]0;title?b\n" },
	{ "two\nlines\r\tand a tab\177", "two?lines??and a tab?\n" },
	{ "\302\2332J and \2332J, cut \303", "?2J and ?2J, cut ?\n" }, /* C1, and no UTF-8 */
	{ "Gr\303\274\303\237e \342\200\234quoted\342\200\235",
	  "Gr\303\274\303\237e \342\200\234quoted\342\200\235\n" },
};

#define N_ROWS ((int)(sizeof(rows) / sizeof(rows[0])))

static char *printed(const char *given)
{
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	print_line(out, "%s", given);
	fclose(out);
	return text;
}

START_TEST(controls_are_replaced_and_text_is_kept)
{
	char *text = printed(rows[_i].given);

	ck_assert_str_eq(text, rows[_i].printed);
	free(text);
}
END_TEST

START_TEST(long_lines_are_whole)
{
	char *given = malloc(100001), *text;

	memset(given, 'x', 100000);
	given[100000] = 0;
	text = printed(given);
	ck_assert_uint_eq(strlen(text), 100001);
	free(given);
	free(text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("print");
	TCase *c = tcase_create("print");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_loop_test(c, controls_are_replaced_and_text_is_kept, 0, N_ROWS);
	tcase_add_test(c, long_lines_are_whole);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
