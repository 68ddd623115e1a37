/*
 * Framing of the control socket's bytes: hostile, in any pieces, without end.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/control/framing.h"

/* Feeds in pieces of `step` bytes and writes "N" for each object's member n, "!" for each error. */
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

			if (rc > 0)
				sprintf(end, "%d",
					(int)json_integer_value(json_object_get(object, "n")));
			else
				strcpy(end, "!");
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
	{ "nonsense {\"n\":1}\n{\"n\":2}", "!2" },
	{ "[1,2]\n{\"n\":1}", "!1" },
	{ "7\n\"x\"\nnull\n{\"n\":1}", "!!!1" },
	{ "}\n]\n{\"n\":1}", "!!1" },
	{ "{\"n\":1]\n{\"n\":2}", "!2" },
	{ "{\"n\":[1}\n{\"n\":2}", "!2" },
	{ "{\"n\":}\n{\"n\":2}", "!2" },
	{ "{\"n\":1,}{\"n\":9}\n{\"n\":2}", "!2" },
	{ "{n:1}\n{\"n\":2}", "!2" },
	{ "{\"n\":1 2}\n{\"n\":2}", "!2" },
	{ "{\"n\":1,\"n\":2}\n{\"n\":2}", "!2" },
	{ "{\"s\":\"\\u0000\"}\n{\"n\":2}", "!2" },
	{ "{\"s\":\"\xff\"}\n{\"n\":2}", "!2" },
	{ "{\"n\":99999999999999999999}\n{\"n\":2}", "!2" },
	/* Cut off in the middle, then a new request on a line of its own. */
	{ "{\"n\":1\n{\"n\":2}", "!2" },
	{ "{\"n\":\"abc\n{\"n\":2}", "!2" },
	{ "{\"n\":{\"m\":1}\n  {\"n\":2}\n{\"n\":3}", "!23" },
	{ "{\"n\":1 {\"n\":8}}\n{\"n\":2}", "!2" },
	{ "{\"n\":1}x\n{\"n\":2}", "1!2" },
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

START_TEST(zero_bytes_are_only_malformed)
{
	static const char bytes[] = "\0\0{\n{\"n\":1}\n{\"\0\":1}\n{\"n\":2}\n";
	char result[64];

	frame(bytes, sizeof(bytes) - 1, 3, result);
	ck_assert_str_eq(result, "!1!2");
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
		ck_assert_uint_le(f.capacity, 4 * sizeof(garbage));
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
