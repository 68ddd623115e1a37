/*
 * Words: what of those from elsewhere may reach a terminal, UTF-8, sizes.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/words.h"

static const struct {
	const char *from;
	size_t size;
	const char *to;
} texts[] = {
	{ "plain", 16, "plain" },
	{ "plain", 5, "plai" },
	{ "plain", 1, "" },
	{ "", 1, "" },
	{ "\033[2J\a\n\t\177", 16, "?[2J????" },
	{ "\xe2\x80\x9cit\xe2\x80\x9d \xc3\xbc \xf0\x9f\x98\x80", 32,
	  "\xe2\x80\x9cit\xe2\x80\x9d \xc3\xbc \xf0\x9f\x98\x80" },
	/* Control characters of two bytes: 0x9b begins a sequence as ESC [ does. */
	{ "a\xc2\x9b"
	  "31m\xc2\xa0",
	  16, "a?31m\xc2\xa0" },
	/* No UTF-8: cut, too long, surrogates, beyond the last code, lone bytes. */
	{ "\xe2\x80", 16, "??" },
	{ "\xc0\x80\xe0\x80\x80", 16, "?????" },
	{ "\xed\xa0\x80", 16, "???" },
	{ "\xf4\x90\x80\x80\xff\x80z", 16, "??????z" },
	/* A sequence that does not fit is left out whole. */
	{ "ab\xe2\x80\x9c", 5, "ab" },
	{ "ab\xe2\x80\x9c", 6, "ab\xe2\x80\x9c" },
};

START_TEST(text_from_elsewhere_is_harmless_and_keeps_its_letters)
{
	char to[64];

	memset(to, 'x', sizeof(to));
	word_printable(to, texts[_i].size, texts[_i].from);
	ck_assert_str_eq(to, texts[_i].to);
	ck_assert_int_eq(to[texts[_i].size], 'x');
}
END_TEST

START_TEST(utf8_is_read_to_the_code)
{
	uint32_t code;

	ck_assert_uint_eq(word_utf8("", 0, &code), 0);
	ck_assert_uint_eq(word_utf8("a", 1, &code), 1);
	ck_assert_uint_eq(code, 'a');
	ck_assert_uint_eq(word_utf8("\xe2\x82\xac!", 4, &code), 3);
	ck_assert_uint_eq(code, 0x20ac);
	ck_assert_uint_eq(word_utf8("\xe2\x82\xac", 2, &code), 0);
	ck_assert_uint_eq(word_utf8("\xf4\x8f\xbf\xbf", 4, &code), 4);
	ck_assert_uint_eq(code, 0x10ffff);
}
END_TEST

static const struct {
	const char *text;
	uint64_t bytes;
} sizes[] = {
	{ "0", 0 },
	{ "512", 512 },
	{ "512B", 512 },
	{ "4k", 4096 },
	{ "4K", 4096 },
	{ "512m", 512ull << 20 },
	{ "512M", 512ull << 20 },
	{ "512MB", 512ull << 20 },
	{ "512mb", 512ull << 20 },
	{ "512Mi", 512ull << 20 },
	{ "512MiB", 512ull << 20 },
	{ "2GiB", 2ull << 30 },
	{ "2gib", 2ull << 30 },
	{ "1t", 1ull << 40 },
	{ "16777215T", 16777215ull << 40 },
	{ "18446744073709551615", UINT64_MAX },
};

START_TEST(sizes_are_taken_as_people_write_them)
{
	struct err e = { "" };
	uint64_t bytes;

	ck_assert_msg(parse_size(sizes[_i].text, &bytes, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(bytes, sizes[_i].bytes);
}
END_TEST

static const struct {
	const char *text, *says;
} no_sizes[] = {
	{ "", "not a size" },
	{ "M", "not a size" },
	{ "-1", "not a size" },
	{ "+1", "not a size" },
	{ " 1", "not a size" },
	{ "1 M", "not a size" },
	{ "1.5G", "not a size" },
	{ "0x10", "not a size" },
	{ "1P", "not a size" },
	{ "1i", "not a size" },
	{ "1iB", "not a size" },
	{ "1b", "not a size" },
	{ "100Mb", "not a size" },
	{ "100Mib", "not a size" },
	{ "100Mbit", "not a size" },
	{ "1MiBs", "not a size" },
	{ "1MM", "not a size" },
	{ "16777216T", "too large" },
	{ "18446744073709551616", "too large" },
	{ "99999999999999999999999999K", "too large" },
};

START_TEST(what_is_no_size_is_refused)
{
	struct err e = { "" };
	uint64_t bytes = 7;

	ck_assert_int_eq(parse_size(no_sizes[_i].text, &bytes, &e), -1);
	ck_assert_msg(strstr(e.text, no_sizes[_i].says) != NULL, "%s", e.text);
	ck_assert_uint_eq(bytes, 7);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *s = suite_create("words");
	TCase *cases = tcase_create("words");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_add_loop_test(cases, text_from_elsewhere_is_harmless_and_keeps_its_letters, 0,
			    COUNT(texts));
	tcase_add_loop_test(cases, sizes_are_taken_as_people_write_them, 0, COUNT(sizes));
	tcase_add_loop_test(cases, what_is_no_size_is_refused, 0, COUNT(no_sizes));
	tcase_add_test(cases, utf8_is_read_to_the_code);
	suite_add_tcase(s, cases);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
