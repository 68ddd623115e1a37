/*
 * The control socket's bytes are QMP's, as QEMU's docs/interop/qmp-spec has them. The server is
 * real; the machine is a fake.
 */
#include "tests/unit/lib/fake_vm.h"
#include "tests/unit/lib/qmp_client.h"

static struct fake_vm vm; /* of the one test that runs in this process */

/* Sent before the greeting is read, in one piece; and what comes back, to the byte. */
static const char *const wire[][2] = {
	{ "\xff", NULL },
	{ "{'execute':'qmp_capabilities','id':null}", "{\"return\": {}, \"id\": null}" },
	{ "{'execute':'query-name','id':18446744073709551615}",
	  "{\"return\": {\"name\": \"fake\"}, \"id\": 18446744073709551615}" },
	{ "{\"execute\":\"query-name\",\"id\":\"\\u0000\"}",
	  "{\"return\": {\"name\": \"fake\"}, \"id\": \"\\u0000\"}" },
	{ "{\"execute\":\"query-na\xff{'id':'\xc3\xa9','execute':'\xf0\x9f\x98\x80'}", NULL },
	{ "", "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"there is no command "
	      "'\\uD83D\\uDE00'\"}, \"id\": \"\\u00e9\"}" },
	{ "{'execute':'echo','arguments':{'text':'\xe2\x80\x9cit\\'s\xe2\x80\x9d'}}",
	  "{\"return\": {\"text\": \"\\u201Cit's\\u201D\"}}" },
	{ "{'execute':'echo','arguments':{'text':1},'id':[]}",
	  "{\"error\": {\"class\": \"GenericError\", \"desc\": \"argument 'text' of echo is not a "
	  "string\"}, \"id\": []}" },
};

START_TEST(wire_is_that_of_qmp)
{
	char all[1024] = "";
	int fd;

	fake_start(&vm);
	fd = dial(vm.path);
	for (size_t i = 0; i < sizeof(wire) / sizeof(wire[0]); i++)
		strcat(all, wire[i][0]);
	say(fd, all);
	ck_assert_ptr_nonnull(strstr(hear_line(fd), "\"QMP\""));
	for (size_t i = 0; i < sizeof(wire) / sizeof(wire[0]); i++) {
		const char *line = hear_line(fd);

		if (wire[i][1])
			ck_assert_str_eq(line, wire[i][1]);
		else
			ck_assert_ptr_nonnull(strstr(line, "malformed JSON"));
	}
	control_event(vm.control, "QUOTES", json_pack("{s:s}", "said", "\xe2\x80\x9c"));
	ck_assert_ptr_nonnull(strstr(hear_line(fd), "\"said\": \"\\u201C\""));
	close(fd);
	fake_stop(&vm);
}
END_TEST

/* Each with one that is right behind it, on the same line. */
static const char *const broken[] = {
	"{'execute':}",
	"{'execute':'query-name',}",
	"{'execute':'query-name' 2}",
	"{'execute':'query-name",
	"{'execute':'query-name'\xfe",
	"nonsense",
	"[1,2]",
	"'text'",
	"}",
	"{'execute':%s}",
};

START_TEST(what_follows_broken_input_on_its_line_is_answered)
{
	int fd;

	fake_start(&vm);
	fd = dial_qmp(vm.path);
	for (int i = 0; i < 2; i++) {
		json_t *answer;

		say(fd, broken[_i]);
		say(fd, "\x01{'execute':'query-name','id':7}");
		do {
			answer = hear(fd);
			ck_assert_ptr_nonnull(answer);
			if (json_object_get(answer, "return"))
				break;
			ck_assert_ptr_nonnull(json_object_get(answer, "error"));
			json_decref(answer);
		} while (true);
		ck_assert_int_eq(json_integer_value(json_object_get(answer, "id")), 7);
		json_decref(answer);
	}
	close(fd);
	fake_stop(&vm);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *s = suite_create("qmp_wire");
	TCase *cases = tcase_create("qmp_wire");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(cases, 60);
	tcase_add_test(cases, wire_is_that_of_qmp);
	tcase_add_loop_test(cases, what_follows_broken_input_on_its_line_is_answered, 0,
			    COUNT(broken));
	suite_add_tcase(s, cases);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
