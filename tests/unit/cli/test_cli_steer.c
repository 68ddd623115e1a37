/*
 * The verbs beside a plain `godwit migrate` against the same fake VM: cancel, set, status, migrate
 * --check; and what none of them takes.
 */
#include "tests/unit/lib/scene.h"

/* -- cancel, set, status -- */

START_TEST(cancel_returns_when_it_is_over)
{
	const struct scene busy = { .answers = { ACTIVE },
				    .under_way = true,
				    .after_cancel = CANCELLED };

	start(&busy);
	ck_assert_msg(verb("cancel fake") == VERB_DONE, "%s", err);
	ck_assert_uint_eq(seen.cancels, 1);
	ck_assert_str_eq(out, "");
	stop();
}
END_TEST

START_TEST(cancel_that_comes_too_late_says_so)
{
	struct scene busy = { .answers = { ACTIVE },
			      .under_way = true,
			      .after_cancel = _i ? UNDECIDED : COMPLETED };

	start(&busy);
	ck_assert_int_eq(verb("cancel fake"), _i ? VERB_UNDECIDED : VERB_FAILED);
	HAS("too late to cancel", err);
	stop();
}
END_TEST

START_TEST(cancel_without_a_migration_fails)
{
	const struct scene idle = { .answers = { ACTIVE } };

	start(&idle);
	ck_assert_int_eq(verb("cancel fake"), VERB_FAILED);
	HAS("no migration of 'fake' is under way", err);
	ck_assert_uint_eq(seen.cancels, 0);
	stop();
}
END_TEST

START_TEST(set_sets_all_or_nothing)
{
	start(&moves);
	ck_assert_msg(verb("set fake bandwidth=2M downtime-limit=50 channels=3") == VERB_DONE, "%s",
		      err);
	ck_assert_int_eq(parameter("max-bandwidth"), 2 << 20);
	ck_assert_int_eq(parameter("downtime-limit"), 50);
	ck_assert(seen.multifd);
	ck_assert_int_eq(verb("set fake bandwidth=3M downtime=soon"), VERB_USAGE);
	ck_assert_int_eq(parameter("max-bandwidth"), 2 << 20);
	/* What only the VM can refuse: nothing is changed either, nor a capability. */
	ck_assert_int_eq(verb("set fake bandwidth=3M channels=1 bind=nowhere"), VERB_FAILED);
	HAS("no such address", err);
	ck_assert_int_eq(parameter("max-bandwidth"), 2 << 20);
	ck_assert_int_eq(parameter("multifd-channels"), 3);
	ck_assert(seen.multifd);
	/* Twice: the last one would win in silence. */
	ck_assert_int_eq(verb("set fake downtime=1 downtime-limit=2"), VERB_USAGE);
	HAS("downtime-limit: it is given twice", err);
	ck_assert_int_eq(parameter("downtime-limit"), 50);
	stop();
}
END_TEST

START_TEST(set_without_values_lists_them)
{
	json_t *o, *row;

	start(&moves);
	ck_assert_int_eq(verb("set fake channels=3 downtime=50"), VERB_DONE);
	ck_assert_int_eq(verb("set fake"), VERB_DONE);
	HAS("\ndowntime         50                         ms\n", out);
	HAS("\nchannels         3                          connections\n", out);
	ck_assert_int_eq(verb("set fake --json"), VERB_DONE);
	o = json_loads(out, 0, NULL);
	row = json_array_get(o, 1);
	ck_assert_str_eq(json_string_value(json_object_get(row, "name")), "downtime");
	ck_assert_int_eq(json_integer_value(json_object_get(row, "value")), 50);
	json_decref(o);
	/* Without the capability their number does not count. */
	ck_assert_int_eq(verb("set fake channels=1"), VERB_DONE);
	ck_assert_int_eq(verb("set fake"), VERB_DONE);
	HAS("\nchannels         1                          connections\n", out);
	ck_assert_int_eq(verb("set fake downtime=1 --json"), VERB_USAGE);
	stop();
}
END_TEST

static const struct {
	const char *answer, *says;
} shown[] = {
	{ ACTIVE, "migration: active, 75 %, 100.0 MiB sent, 50.0 MiB left, 1000.0 MiB/s, round 1" },
	{ FAILED, "migration: failed: the link? is gone\n" },
	{ UNDECIDED, "migration: undecided: no RUNNING\n" },
	{ "{\"status\":\"setup\",\"x-godwit-waiting\":\"under way: \\u001b b\"}",
	  "migration: setup, waits: under way: ? b\n" },
};

START_TEST(status_shows_the_migration)
{
	struct scene s = { .answers = { shown[_i].answer }, .under_way = true };
	json_t *o;

	start(&s);
	ck_assert_int_eq(verb("status fake"), VERB_DONE);
	HAS(shown[_i].says, out);
	ck_assert_int_eq(verb("status fake --json"), VERB_DONE);
	o = json_loads(out, 0, NULL);
	ck_assert_ptr_nonnull(json_object_get(json_object_get(o, "migration"), "status"));
	json_decref(o);
	stop();
}
END_TEST

/* -- check -- */

#define CHECKING "{\"status\":\"active\"}"
#define SAMPLE                                                                                 \
	"\"downtime-limit\":300,\"sample\":{\"touched-bytes\":1048576,\"zero-bytes\":4096,"    \
	"\"rate\":122683392,\"round-trip-us\":200,\"dirty\":[{\"us\":25000,\"bytes\":65536},{" \
	"\"us\":"                                                                              \
	"50000,\"bytes\":131072}]}"
#define CAN                                                                                    \
	"{\"status\":\"completed\"," SAMPLE ",\"compression-left-out\":true,"                  \
	"\"prediction\":{\"answer\":\"converges\",\"moves\":true,\"sentence\":\"it\\u001b "    \
	"does\",\"total-time\":15200,\"total-time-least\":10100,\"downtime\":12,\"rounds\":5," \
	"\"transferred\":1048576,\"lost-time\":1500,\"cpu-throttle-percentage\":90}}"
#define CANNOT                                                                           \
	"{\"status\":\"completed\"," SAMPLE                                              \
	",\"prediction\":{\"answer\":\"never\",\"moves\":false,\"sentence\":\"will not " \
	"converge: it writes\"}}"

static const struct {
	struct scene scene;
	int code;
	const char *out[6], *err;
} checks[] = {
	{ .scene = { .answers = { CHECKING, CAN } },
	  .code = VERB_DONE,
	  .out = { "'fake' can be moved to tcp:b:1: it? does\n",
		   "Total time:          10.1 to 15.2 s", "Pause:               12 ms (300 ms are",
		   "90 %, 1.5 s of the guest's work lost",
		   "Link:                117.0 MiB/s, a round", "Compression:" } },
	{ .scene = { .answers = { CANNOT } },
	  .code = VERB_FAILED,
	  .out = { "64.0 KiB in 0.03 s\n" },
	  .err = "'fake' would not be moved to tcp:b:1: will not converge: it writes\n" },
	{ .scene = { .answers = { "{\"status\":\"failed\",\"error-desc\":\"nobody is there\"}" } },
	  .code = VERB_FAILED,
	  .err = "'fake' cannot be checked: nobody is there\n" },
	{ .scene = { .refusal = "a check of this VM is under way" },
	  .code = VERB_FAILED,
	  .err = "a check of this VM is under way" },
	{ .scene = { .answers = { CHECKING },
		     .interrupted = true,
		     .after_cancel = "{\"status\":\"cancelled\"}" },
	  .code = VERB_CANCELLED,
	  .err = "the check of 'fake' was cancelled\n" },
	{ .scene = { .answers = { CHECKING, "{\"status\":\"none\"}" } },
	  .code = VERB_FAILED,
	  .err = "its check is gone" },
	{ .scene = { .answers = { CHECKING, "" } }, .code = VERB_FAILED, .err = "'fake'" },
};

START_TEST(check_tells_what_would_become_of_it)
{
	start(&checks[_i].scene);
	ck_assert_int_eq(verb("migrate fake tcp:b:1 --check --bandwidth 9K"), checks[_i].code);
	for (int i = 0; i < 6 && checks[_i].out[i]; i++)
		HAS(checks[_i].out[i], out);
	if (checks[_i].err)
		HAS(checks[_i].err, err);
	else
		ck_assert_str_eq(err, "");
	ck_assert_uint_eq(seen.checks, 1);
	ck_assert_str_eq(seen.uri, "tcp:b:1");
	/* What was set for it is as it was, where there is anybody left. */
	if (strcmp(checks[_i].scene.answers[1] ? checks[_i].scene.answers[1] : "-", ""))
		ck_assert_int_eq(parameter("max-bandwidth"), 7);
	stop();
}
END_TEST

START_TEST(check_as_json_is_the_answer)
{
	json_t *o;

	start(&checks[0].scene);
	ck_assert_int_eq(verb("migrate fake tcp:b:1 --check --json"), VERB_DONE);
	o = json_loads(out, 0, NULL);
	ck_assert_msg(o != NULL, "%s", out);
	ck_assert_str_eq(json_string_value(json_object_get(o, "status")), "completed");
	json_decref(o);
	stop();
}
END_TEST

/* -- misuse -- */

static const struct {
	const char *line, *says;
} misused[] = {
	{ "migrate", "migrate: the VM's name is missing" },
	{ "migrate a", "migrate: the destination's URI is missing" },
	{ "migrate a tcp:b:1 c", "migrate: unexpected 'c'" },
	{ "migrate a b", "'b': expected tcp:HOST:PORT" },
	{ "migrate a tcp:::1:7777", "goes into brackets" },
	{ "migrate a tcp:b:65536", "the port" },
	{ "migrate a unix:", "the path is missing" },
	{ "migrate a tcp:b:1 --bandwidth fast", "--bandwidth: 'fast' is not a size" },
	{ "migrate a tcp:b:1 --channels 0", "--channels: '0' is not a number from 1 to 16" },
	{ "migrate a tcp:b:1 --timeout -1", "--timeout: '-1' is not a number" },
	{ "migrate a tcp:b:1 --timeout", "needs a value" },
	{ "migrate a tcp:b:1 --report r.pdf", "neither in .html nor in .json" },
	{ "migrate a tcp:b:1 --report r.json --detach", "so it does not go with --detach" },
	{ "migrate a tcp:b:1 --band 3", "unknown option '--band'" },
	{ "migrate a tcp:b:1 --policy x",
	  "--policy: 'x' is neither a policy (minimal-downtime, suspend-workload-if-needed, "
	  "post-copy) nor a file" },
	{ "migrate a tcp:b:1 --policy /nonexistent/x#y",
	  "--policy: cannot read the policy /nonexistent/x: No such file" },
	{ "migrate a tcp:b:1 --timeout-action wait",
	  "--timeout-action: 'wait' is not abort, force or post-copy" },
	{ "migrate a tcp:b:1 --timeout 800/GB", "'800/GB' is neither a number of seconds nor" },
	{ "migrate a tcp:b:1 --timeout /GiB", "'/GiB' is neither" },
	{ "migrate a tcp:b:1 --timeout 0/GiB", "'0/GiB' is neither" },
	{ "migrate a tcp:b:1 --progress-timeout x", "--progress-timeout: 'x' is not a number" },
	{ "migrate a tcp:b:1 --compress lz4", "--compress: 'lz4' is not none, xbzrle, zlib or" },
	{ "set a auto-converge=yes", "auto-converge: 'yes' is neither on nor off" },
	{ "set a xbzrle-cache-size=4K", "'4K' is less than 1048576 bytes" },
	{ "set a max-cpu-throttle=100", "'100' is not a number from 0 to 99" },
	{ "migrate a tcp:b:1 --post-copy", "--post-copy is not implemented" },
	{ "migrate a tcp:b:1 --storage", "--storage is not implemented" },
	{ "migrate a tcp:b:1 --check --detach",
	  "--check moves nothing, so it does not go with --detach" },
	{ "migrate a tcp:b:1 --check --report x.html",
	  "--check moves nothing, so it does not go with --report" },
	{ "migrate a file:/x --check", "--check needs a destination that answers" },
	{ "migrate a fd:3 --check", "--check needs a destination that answers" },
	{ "cancel", "cancel: the VM's name is missing" },
	{ "set", "set: the VM's name is missing" },
	{ "set a bandwidth=1 --json", "set: --json is for the list" },
	{ "set a bandwidth", "expected PARAM=VALUE instead of 'bandwidth'" },
	{ "set a =3", "expected PARAM=VALUE" },
	{ "set a bandwith=3", "did you mean bandwidth?" },
	{ "set a 0123456789012345678901234567890123456789=1", "unknown parameter" },
};

START_TEST(misuse_is_a_sentence_and_2)
{
	ck_assert_int_eq(verb(misused[_i].line), VERB_USAGE);
	HAS(misused[_i].says, err);
	ck_assert(!strncmp(err, "godwit: ", 8));
	ck_assert_str_eq(out, "");
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *s = suite_create("cli-steer");
	TCase *verbs = tcase_create("verbs");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(verbs, 60);
	tcase_add_loop_test(verbs, check_tells_what_would_become_of_it, 0, COUNT(checks));
	tcase_add_test(verbs, check_as_json_is_the_answer);
	tcase_add_test(verbs, cancel_returns_when_it_is_over);
	tcase_add_loop_test(verbs, cancel_that_comes_too_late_says_so, 0, 2);
	tcase_add_test(verbs, cancel_without_a_migration_fails);
	tcase_add_test(verbs, set_sets_all_or_nothing);
	tcase_add_test(verbs, set_without_values_lists_them);
	tcase_add_loop_test(verbs, status_shows_the_migration, 0, COUNT(shown));
	tcase_add_loop_test(verbs, misuse_is_a_sentence_and_2, 0, COUNT(misused));
	suite_add_tcase(s, verbs);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
