/*
 * Framing of the control socket's bytes: hostile, in any pieces, without end.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/control/framing.h"

/*
 * Feeds in pieces of `step` bytes and writes "N" for each object's member n, "!" for each error,
 * and an object's id in parentheses.
 */
static void frame(const char *bytes, size_t len, size_t step, char *result)
{
	struct framing f = { 0 };
	json_t *object;
	struct err e;
	int rc;

	*result = '\0';
	for (size_t at = 0; at < len; at += step) {
		ck_assert_int_eq(framing_feed(&f, bytes + at, at + step > len ? len - at : step),
				 0);
		while ((rc = framing_next(&f, &object, &e))) {
			char *end = result + strlen(result);

			if (rc < 0)
				strcpy(end, "!");
			else if (f.id)
				sprintf(end, "(%s)", f.id);
			else
				sprintf(end, "%d",
					(int)json_integer_value(json_object_get(object, "n")));
			json_decref(object);
		}
	}
	framing_free(&f);
}

static const struct {
	const char *bytes, *gives;
} streams[] = {
	{ "{\"n\":1}{\"n\":2}\r\n{\"n\":3}", "123" },
	{ " \n\r\n\t{ \"n\" :\n 1 \n}\n\n", "1" },
	{ "{\"n\":1,\"s\":\"}{]\\\"\\\\\"}{\"n\":2}", "12" },
	{ "{\"n\":1,\"a\":[{},[],{\"b\":[[1]]}]}", "1" },
	{ "{\"n\":1", "" },
	{ "{\"n\":1]\n{\"n\":2}", "!2" },
	{ "{\"n\":[1}\n{\"n\":2}", "!2" },
	{ "{\"n\":}\n{\"n\":2}", "!2" },
	{ "{n:1}\n{\"n\":2}", "!2" },
	{ "{\"n\":1 2}\n{\"n\":2}", "!2" },
	{ "{\"n\":1,\"n\":2}\n{\"n\":2}", "!2" },
	{ "{\"s\":\"\\u0000\"}\n{\"n\":2}", "!2" },
	{ "{\"s\":\"\x80\"}\n{\"n\":2}", "!2" },
	{ "{\"s\":\"\xed\xa0\x80\"}\n{\"n\":2}", "!2" },
	{ "{\"n\":1e999}\n{\"n\":2}", "!2" },
	/* Single quotes, and \' in strings of both kinds. */
	{ "{'n':1}{'n' : 2}", "12" },
	{ "{'n':1,'s':'\"}{['}{\"n\":2,\"s\":\"'}\"}", "12" },
	{ "{'n':1,'s':'it\\'s \\\"}'}{'n':2,'s':\"it\\'s\"}{'n':3,'s':'\\\\'}", "123" },
	{ "{'n\":1}\n{'n':2}", "!2" },
	{ "{'n':1,'s':'\\x'}{'n':2}", "!2" },
	{ "{'n':1,'s':'\\u12'}{'n':2}", "!2" },
	/* What follows broken input on its line is read. */
	{ "{\"n\":}{\"n\":2}", "!2" },
	{ "{\"n\":1,}{\"n\":2}", "!2" },
	{ "{\"n\":1]{\"n\":2}", "!2" },
	{ "{n:1}{\"n\":2}", "!2" },
	{ "{\"n\":1 {\"n\":8}}{\"n\":2}", "!2" },
	{ "{\"n\":tru}{\"n\":-}{\"n\":01}{\"n\":2}", "!!!2" },
	{ "{\"n\":%d}{\"n\":2}", "!2" },
	{ "{\"n\":1}}{\"n\":2}", "1!2" },
	{ "{\"n\":1}x{\"n\":2}", "1!2" },
	{ "nonsense of words {\"n\":1}\n{\"n\":2}", "!12" },
	{ "// words {\"n\":1}", "!1" },
	{ "7 {\"n\":1}", "!1" },
	{ "[1,{\"n\":7}]{\"n\":1}", "!1" },
	{ "\"x{\\\"\"{\"n\":1}'\"{'{\"n\":2}", "!1!2" },
	{ "7\n\"x\"\nnull\n{\"n\":1}", "!!!1" },
	{ "}{\"n\":1}]{\"n\":2}", "!1!2" },
	{ "}\n]\n,\n{\"n\":1}", "!!!1" },
	{ "\xef\xbb\xbf{\"n\":1}", "!1" },
	{ "{\"n\":1}\xc3\xa9{\"n\":2}", "1!2" },
	/* A control character or 0xFF ends what was begun: between values, inside, in a string. */
	{ "\xff{\"n\":1}", "!1" },
	{ "\x01{\"n\":1}\n\x1f{\"n\":2}", "!1!2" },
	{ "\xfe\n\xff\n{\"n\":1}", "!!1" },
	{ "{\"n\":\xff{\"n\":2}", "!2" },
	{ "{\"n\":[[{\x01{\"n\":2}", "!2" },
	{ "{\"n\":1,\"s\":\"a\xff{\"n\":2}", "!2" },
	{ "{\"n\":1,'s':'a\x01{\"n\":2}", "!2" },
	{ "{\"n\":1,'s':'a\\\x01{\"n\":2}", "!2" },
	{ "{\"n\":1,'s':'a\tb'}\n{\"n\":2}", "!2" },
	{ "[[\xff{\"n\":2}", "!2" },
	{ "{\"n\":'a\n'}{\"n\":2}\xff'x{\"n\":3}", "!2!3" },
	{ "words \xff words \xff{\"n\":2}", "!!2" },
	/* Cut off in the middle, then a new request on a line of its own. */
	{ "{\"n\":1\n{\"n\":2}", "!2" },
	{ "{\"n\":\"abc\n{\"n\":2}", "!2" },
	{ "{\"n\":{\"m\":1}\n  {\"n\":2}\n{\"n\":3}", "!23" },
	{ "[1\n{\"n\":2}", "!2" },
};

START_TEST(objects_are_found_however_the_bytes_come)
{
	size_t len = strlen(streams[_i].bytes);
	char result[256];

	for (size_t step = 1; step <= len; step++) {
		frame(streams[_i].bytes, len, step, result);
		ck_assert_msg(!strcmp(result, streams[_i].gives),
			      "'%s' in steps of %zu gave '%s' and not '%s'", streams[_i].bytes,
			      step, result, streams[_i].gives);
	}
}
END_TEST

static const struct {
	const char *sent, *back; /* NULL: the request is malformed */
} ids[] = {
	{ "18446744073709551615", "18446744073709551615" },
	{ "-9223372036854775809", "-9223372036854775809" },
	{ "123456789012345678901234567890", "123456789012345678901234567890" },
	{ "1.10", "1.10" },
	{ "-0.0", "-0.0" },
	{ "\"\\u0000\"", "\"\\u0000\"" },
	{ "'a\\u0000\"\\'b'", "\"a\\u0000\\\"'b\"" },
	{ "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", "\"\\u00e9\\u20ac\\ud83d\\ude00\"" },
	{ " null ", "null" },
	{ "true", "true" },
	{ "[1, {\"id\":'x'}, []]", "[1, {\"id\":\"x\"}, []]" },
	{ "{ 'b' : 1, 'a' : 18446744073709551615 }",
	  "{ \"b\" : 1, \"a\" : 18446744073709551615 }" },
	{ "", NULL },
	{ "1 2", NULL },
	{ "\"\x80\"", NULL },
	{ "'\\ud800'", NULL },
	{ "{'a':1,'a':2}", NULL },
	{ "1,'id':2", NULL },
};

START_TEST(ids_come_back_as_they_were_sent)
{
	static const char *const around[][2] = { { "{\"id\":", "}" },
						 { "{'id':", ", 'n' : 1}" },
						 { "{\"n\":{'id':2},\"id\"\n: ", "\n}" } };
	char bytes[256], want[256], result[256];

	for (size_t i = 0; i < sizeof(around) / sizeof(around[0]); i++) {
		snprintf(bytes, sizeof(bytes), "%s%s%s{\"n\":2}", around[i][0], ids[_i].sent,
			 around[i][1]);
		snprintf(want, sizeof(want), ids[_i].back ? "(%s)2" : "!2", ids[_i].back);
		for (size_t step = 1; step <= strlen(bytes); step++) {
			frame(bytes, strlen(bytes), step, result);
			ck_assert_msg(!strcmp(result, want), "'%s' gave '%s' and not '%s'", bytes,
				      result, want);
		}
	}
}
END_TEST

START_TEST(id_whose_name_is_escaped_comes_back)
{
	static const char bytes[] = "{\"\\u0069d\":\"\xc3\xa9\"}";
	char result[64];

	frame(bytes, sizeof(bytes) - 1, 1, result);
	ck_assert_str_eq(result, "(\"\\u00E9\")");
}
END_TEST

START_TEST(zero_bytes_are_only_malformed)
{
	static const char bytes[] = "\0\0{\n{\"n\":1}\n{\"\0\":1}\n{\"n\":2}\n";
	char result[64];

	frame(bytes, sizeof(bytes) - 1, 3, result);
	ck_assert_str_eq(result, "!!1!2");
}
END_TEST

START_TEST(nesting_is_bounded)
{
	char bytes[400], result[64];

	for (int depth = FRAMING_DEPTH_MAX - 1; depth <= FRAMING_DEPTH_MAX; depth++) {
		strcpy(bytes, "{\"n\":1,\"a\":");
		for (int i = 0; i < depth; i++)
			strcat(bytes, "[");
		for (int i = 0; i < depth; i++)
			strcat(bytes, "]");
		strcat(bytes, "}\n{\"n\":2}");
		frame(bytes, strlen(bytes), 7, result);
		ck_assert_str_eq(result, depth < FRAMING_DEPTH_MAX ? "12" : "!2");
	}
}
END_TEST

START_TEST(request_length_is_bounded)
{
	/* One string that fills the request up to the bound, and one byte more. */
	for (size_t extra = 0; extra < 2; extra++) {
		size_t len = FRAMING_REQUEST_MAX + extra;
		char *bytes = malloc(len + 64), result[64];

		memset(bytes, 'x', len);
		memcpy(bytes, "{\"n\":1,\"s\":\"", 12);
		memcpy(bytes + len - 2, "\"}", 2);
		strcpy(bytes + len, "\n{\"n\":2}");
		frame(bytes, strlen(bytes), 16384, result);
		ck_assert_str_eq(result, extra ? "!2" : "12");
		free(bytes);
	}
}
END_TEST

START_TEST(endless_garbage_takes_no_memory)
{
	struct framing f = { 0 };
	char garbage[65536];
	json_t *object;
	int errors = 0;

	memset(garbage, '{', sizeof(garbage));
	for (int i = 0; i < 256; i++) {
		ck_assert_int_eq(framing_feed(&f, garbage, sizeof(garbage)), 0);
		while (framing_next(&f, &object, NULL))
			errors++;
		ck_assert_uint_le(f.in.capacity + f.text.capacity, 4 * sizeof(garbage));
	}
	ck_assert_int_eq(errors, 1);
	framing_free(&f);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *s = suite_create("framing");
	TCase *cases = tcase_create("framing");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_add_loop_test(cases, objects_are_found_however_the_bytes_come, 0, COUNT(streams));
	tcase_add_loop_test(cases, ids_come_back_as_they_were_sent, 0, COUNT(ids));
	tcase_add_test(cases, id_whose_name_is_escaped_comes_back);
	tcase_add_test(cases, zero_bytes_are_only_malformed);
	tcase_add_test(cases, nesting_is_bounded);
	tcase_add_test(cases, request_length_is_bounded);
	tcase_add_test(cases, endless_garbage_takes_no_memory);
	suite_add_tcase(s, cases);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
