/*
 * The conversation with the guest's agent, without time and threads: what is asked, which answers
 * count, and that nothing a hostile one says is believed or goes on for ever.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/agent/agent.h"

#define SYNCED "\xff{\"return\": 77}\n"

/* What the agent says after each of our requests, up to the end; and how it ends. */
static const struct script {
	const char *says[4];
	enum agent_next last;
	bool started;
	const char *said;
} scripts[] = {
	{ { SYNCED, "{\"return\":{\"pid\":5}}\n",
	    "{\"return\":{\"exited\":true,\"exitcode\":0}}\n" },
	  AGENT_OVER,
	  true,
	  AGENT_HOOK " has run in the guest, and ended with 0" },
	{ { SYNCED, "{\"return\":{\"pid\":5}}\n", "{\"return\":{\"exited\":false}}\n",
	    "{\"return\":{\"exited\":true,\"exitcode\":3}}\n" },
	  AGENT_OVER,
	  true,
	  AGENT_HOOK " has run in the guest, and ended with 3" },
	{ { SYNCED, "{\"return\":{\"pid\":5}}\n", "{\"return\":{\"exited\":true,\"signal\":9}}\n" },
	  AGENT_OVER,
	  true,
	  AGENT_HOOK " was ended in the guest by signal 9" },
	{ { SYNCED, "{\"return\":{\"pid\":5}}\n", "{\"return\":{\"exited\":true}}\n" },
	  AGENT_OVER,
	  true,
	  AGENT_HOOK " has run in the guest" },
	{ { SYNCED, "{\"return\":{\"pid\":5}}\n", "{\"error\":{\"desc\":\"PID 5 is gone\"}}\n" },
	  AGENT_OVER,
	  true,
	  "the guest's agent does not tell of the end of " AGENT_HOOK ": PID 5 is gone" },
	{ { SYNCED, "{\"return\":{\"pid\":5}}\n", "{\"return\":{\"exited\":\"yes\"}}\n" },
	  AGENT_OVER,
	  true,
	  "the guest's agent does not say whether " AGENT_HOOK " has ended" },
	/* No hook, or guest-exec is forbidden: no failure; and nothing for a terminal. */
	{ { SYNCED,
	    "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"\\u001b[2Jno \xc3\xbc\"}}\n" },
	  AGENT_OVER,
	  false,
	  "the guest's agent does not run " AGENT_HOOK ": ?[2Jno \xc3\xbc" },
	{ { SYNCED, "{\"error\":{}}\n" },
	  AGENT_OVER,
	  false,
	  "the guest's agent does not run " AGENT_HOOK ": it does not say why" },
	{ { SYNCED, "{\"return\":{\"pid\":\"5\"}}\n" },
	  AGENT_OVER,
	  true,
	  "the guest's agent does not say whether it runs " AGENT_HOOK },
	{ { SYNCED, "{\"return\":7}\n" },
	  AGENT_OVER,
	  true,
	  "the guest's agent does not say whether it runs " AGENT_HOOK },
	/* What it said to others: whole, in part, without an end; another sync's answer. */
	{ { "{\"return\":{}}\n{\"retu" SYNCED, "{\"return\":{\"pid\":5}}\n",
	    "{\"return\":{\"exited\":true,\"exitcode\":0}}\n" },
	  AGENT_OVER,
	  true,
	  AGENT_HOOK " has run in the guest, and ended with 0" },
	{ { "{\"return\":77}\n\xff{\"return\":78}\n\xff\xff{\"return\":\"77\"}\n" SYNCED,
	    "{\"error\":{}}\n" },
	  AGENT_OVER,
	  false,
	  "it does not say why" },
	/* What came before it was asked is no answer. */
	{ { SYNCED "{\"return\":{\"pid\":1}}\n", "{\"error\":{\"desc\":\"none\"}}\n" },
	  AGENT_OVER,
	  false,
	  ": none" },
	/* Garbage is passed over, and waits for the end of the time. */
	{ { "{\"return\":77}\n" }, AGENT_LISTEN, false, "" },
	{ { "\xff{\"return\":7" }, AGENT_LISTEN, false, "" },
	{ { "\xff\xff\xff" }, AGENT_LISTEN, false, "" },
	{ { "login: \n\x01\x02[[[[\"\n" SYNCED, "]]}}\n5\n\"x\"\n[{}]\n" },
	  AGENT_LISTEN,
	  true,
	  "" },
	{ { SYNCED, "{\"return\":{\"pid\":5}}\n", "{\"return\":{\"exited\":tr" },
	  AGENT_LISTEN,
	  true,
	  "" },
};

static enum agent_next feed(struct agent *a, const char *text, size_t at_once)
{
	enum agent_next next = AGENT_LISTEN;
	size_t len = strlen(text), n, i;

	for (i = 0; i < len && next == AGENT_LISTEN; i += n) {
		n = len - i < at_once ? len - i : at_once;
		next = agent_take(a, (const uint8_t *)text + i, n);
	}
	return next;
}

/* As it comes, and byte by byte. */
START_TEST(answers_are_taken_or_passed_over)
{
	const struct script *s = &scripts[_i / 2];
	enum agent_next next = AGENT_ASK;
	uint8_t out[AGENT_REQUEST_BYTES];
	struct agent a;
	unsigned int i;

	agent_begin(&a, GUEST_BEFORE_MIGRATION, 77);
	for (i = 0; i < 4 && s->says[i]; i++) {
		ck_assert_int_ne(next, AGENT_LISTEN);
		ck_assert_uint_lt(agent_request(&a, out), sizeof(out));
		next = feed(&a, s->says[i], _i % 2 ? 1 : SIZE_MAX);
	}
	ck_assert_int_eq(next, s->last);
	ck_assert_int_eq(a.started, s->started);
	ck_assert_msg(strstr(a.said.text, s->said) != NULL, "%s", a.said.text);
	agent_free(&a);
}
END_TEST

static void check_request(struct agent *a, const char *expected)
{
	uint8_t out[AGENT_REQUEST_BYTES];
	size_t n = agent_request(a, out);

	ck_assert_uint_eq(n, strlen(expected));
	ck_assert_msg(!memcmp(out, expected, n), "%.*s", (int)n, (char *)out);
}

START_TEST(requests_are_those_of_qemu_guest_agent)
{
	struct agent a;

	agent_begin(&a, GUEST_AFTER_MIGRATION, UINT32_MAX);
	check_request(
		&a,
		"\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":4294967295}}\n");
	ck_assert_int_eq(feed(&a, "\xff{\"return\":4294967295}", SIZE_MAX), AGENT_ASK);
	check_request(
		&a,
		"{\"execute\":\"guest-exec\",\"arguments\":{\"path\":\"/etc/qemu/migration-hook\","
		"\"arg\":[\"after_migration\"]}}\n");
	ck_assert_int_eq(feed(&a, "{\"return\":{\"pid\":-9223372036854775808}}", SIZE_MAX),
			 AGENT_ASK_LATER);
	check_request(&a, "{\"execute\":\"guest-exec-status\",\"arguments\":{\"pid\":"
			  "-9223372036854775808}}\n");
	agent_free(&a);
}
END_TEST

START_TEST(agent_that_never_stops_is_not_listened_to)
{
	static const char *const endless[] = { "x",	  "{",
					       "{\"a\":", "{\"return\":77}\n",
					       "\xff",	  "\xff{\"return\":78}\n",
					       "[[[[\n",  "{}" };
	struct agent a;
	size_t n;

	agent_begin(&a, GUEST_BEFORE_MIGRATION, 77);
	for (n = 0; n <= AGENT_BYTES_MAX; n += strlen(endless[_i]))
		if (feed(&a, endless[_i], SIZE_MAX) == AGENT_OVER)
			break;
	ck_assert_uint_gt(n + strlen(endless[_i]), AGENT_BYTES_MAX);
	ck_assert_str_eq(a.said.text,
			 "the guest's agent says more than 64 KiB, and is not listened to");
	agent_free(&a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("agent");
	TCase *c = tcase_create("agent");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_loop_test(c, answers_are_taken_or_passed_over, 0,
			    2 * (int)(sizeof(scripts) / sizeof(scripts[0])));
	tcase_add_test(c, requests_are_those_of_qemu_guest_agent);
	tcase_add_loop_test(c, agent_that_never_stops_is_not_listened_to, 0, 8);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
