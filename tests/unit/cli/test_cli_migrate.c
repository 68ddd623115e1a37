/*
 * `godwit migrate` against a fake VM whose migration goes as each test has written it down: what it
 * says, what it leaves behind, how it exits.
 */
#include <sys/stat.h>

#include "tests/unit/lib/scene.h"

START_TEST(guest_that_has_moved_is_summed_up_and_its_vm_ended)
{
	start(&moves);
	ck_assert_msg(verb("migrate fake tcp:b:7777") == VERB_DONE, "%s", err);
	HAS("'fake' has moved to tcp:b:7777 in 1.23 s, with a pause of 4.5 ms\n", out);
	HAS("Job type:            Completed\n", out);
	HAS("round 1", out); /* a line a round */
	HAS("round 2", out);
	ck_assert_str_eq(err, "");
	ck_assert_str_eq(seen.uri, "tcp:b:7777");
	ck_assert_int_ne(access(vm.path, F_OK), 0);
	ck_assert_uint_eq(vm.machine.requests[REQUEST_QUIT], 1);
	stop();
}
END_TEST

START_TEST(json_is_the_last_answer_with_a_result)
{
	json_t *o;

	start(&moves);
	ck_assert_int_eq(verb("migrate fake tcp:b:7777 --json"), VERB_DONE);
	o = json_loads(out, 0, NULL);
	ck_assert_msg(o != NULL, "%s", out);
	ck_assert_str_eq(json_string_value(json_object_get(o, "result")), "moved");
	ck_assert_int_eq(json_integer_value(json_object_get(o, "total-time")), 1230);
	json_decref(o);
	stop();
}
END_TEST

START_TEST(failure_tells_why_and_that_the_guest_runs_on)
{
	const struct scene fails = { .answers = { ACTIVE, FAILED } };

	start(&fails);
	ck_assert_int_eq(verb("migrate fake tcp:b:7777"), VERB_FAILED);
	ck_assert_str_eq(err, "godwit: 'fake' was not moved: the link? is gone; the guest runs on "
			      "here\n");
	HAS("Job type:            Failed\n", out);
	ck_assert_uint_eq(vm.machine.requests[REQUEST_QUIT], 0);
	vm.machine.status = MACHINE_PAUSED;
	seen.begun = false;
	ck_assert_int_eq(verb("migrate fake tcp:b:7777 --json"), VERB_FAILED);
	HAS("the guest is still here, its status is paused", err);
	HAS("\"result\": \"failed\"", out);
	stop();
}
END_TEST

START_TEST(migration_that_cannot_begin_is_a_failure)
{
	const struct scene refused = { .refusal = "its status is 'shutdown'" };

	start(&refused);
	ck_assert_int_eq(verb("migrate fake tcp:b:7777 --bandwidth 1M --channels 4"), VERB_FAILED);
	ck_assert_str_eq(err, "godwit: its status is 'shutdown'\n");
	/* And leaves nothing behind. */
	ck_assert_int_eq(parameter("max-bandwidth"), 7);
	ck_assert_int_eq(parameter("multifd-channels"), 2);
	ck_assert(!seen.multifd);
	stop();
}
END_TEST

START_TEST(second_migration_is_refused_and_touches_nothing)
{
	const struct scene busy = { .answers = { ACTIVE }, .under_way = true };

	start(&busy);
	ck_assert_int_eq(verb("migrate fake tcp:b:7777 --bandwidth 1M --report /tmp/no.html"),
			 VERB_FAILED);
	HAS("under way already", err);
	ck_assert_str_eq(seen.uri, "");
	ck_assert_int_eq(parameter("max-bandwidth"), 7);
	ck_assert_int_ne(access("/tmp/no.html", F_OK), 0);
	stop();
}
END_TEST

START_TEST(interrupt_cancels_and_a_second_one_does_nothing_worse)
{
	const struct scene interrupted = { .answers = { ACTIVE },
					   .after_cancel = CANCELLED,
					   .interrupted = true };

	start(&interrupted);
	ck_assert_int_eq(verb("migrate fake tcp:b:7777 --downtime 10 --channels 2"),
			 VERB_CANCELLED);
	ck_assert_str_eq(err, "godwit: 'fake' was not moved: cancelled; the guest runs on here\n");
	ck_assert_uint_eq(seen.cancels, 1);
	/* The options were for this one only. */
	ck_assert_int_eq(parameter("downtime-limit"), 300);
	ck_assert(!seen.multifd);
	stop();
}
END_TEST

START_TEST(interrupt_that_comes_too_late_changes_nothing)
{
	const struct scene late = { .answers = { ACTIVE },
				    .after_cancel = COMPLETED,
				    .interrupted = true };

	start(&late);
	ck_assert_int_eq(verb("migrate fake tcp:b:7777"), VERB_DONE);
	HAS("has moved", out);
	stop();
}
END_TEST

START_TEST(undecided_tells_what_to_do)
{
	const struct scene undecided = { .answers = { ACTIVE, UNDECIDED } };

	start(&undecided);
	ck_assert_int_eq(verb("migrate fake tcp:b:7777 --json"), VERB_UNDECIDED);
	HAS("no RUNNING", err);
	HAS("Look at the destination", err);
	HAS("godwit resume fake --force", err);
	HAS("\"result\": \"undecided\"", out);
	ck_assert_uint_eq(vm.machine.requests[REQUEST_QUIT], 0);
	stop();
}
END_TEST

static const struct {
	const char *event, *says;
	int code;
} lost[] = {
	{ "MIGRATION {\"status\":\"active\"}", "has ended while its guest was being moved",
	  VERB_FAILED },
	{ "SHUTDOWN {\"guest\":true,\"reason\":\"guest-shutdown\"}", "(guest-shutdown)",
	  VERB_FAILED },
	/* Between the hand-over and the news of it the guest may be anywhere. */
	{ "MIGRATION {\"status\":\"device\"}", "it is not known where its guest runs",
	  VERB_UNDECIDED },
	{ "MIGRATION {\"status\":\"completed\"}", "", VERB_DONE },
};

START_TEST(vm_that_goes_away_is_not_taken_for_a_result)
{
	struct scene gone = { .answers = { ACTIVE, "" }, .events = { lost[_i].event } };

	start(&gone);
	ck_assert_int_eq(verb("migrate fake tcp:b:7777"), lost[_i].code);
	HAS(lost[_i].says, err);
	LACKS("runs on", err);
	stop();
}
END_TEST

START_TEST(options_become_parameters)
{
	start(&moves);
	ck_assert_msg(verb("migrate fake tcp:b:7777 --bandwidth 20M --downtime 100 --timeout 9 "
			   "--timeout-action force --progress-timeout 150 --channels=4") ==
			      VERB_DONE,
		      "%s", err);
	ck_assert_int_eq(parameter("max-bandwidth"), 20 << 20);
	ck_assert_int_eq(parameter("downtime-limit"), 100);
	ck_assert_int_eq(parameter("x-godwit-timeout"), 9);
	ck_assert_int_eq(parameter("x-godwit-progress-timeout"), 150);
	ck_assert_int_eq(parameter("multifd-channels"), 4);
	ck_assert(seen.multifd);
	stop();
}
END_TEST

static const struct scene decides = {
	.answers = { ACTIVE, COMPLETED },
	.events = { "GODWIT_DECISION {\"action\":\"downtime\",\"reason\":\"round 7 "
		    "stalled\"}",
		    "GODWIT_DECISION {\"action\":\"switchover\",\"reason\":\"little\"}" },
};

START_TEST(decisions_are_lines_between_the_rounds)
{
	start(&decides);
	ck_assert_msg(verb("migrate fake tcp:b:7777") == VERB_DONE, "%s", err);
	HAS("downtime: round 7 stalled\n", out);
	HAS("switchover: little\n", out);
	stop();
}
END_TEST

START_TEST(parameter_that_the_vm_refuses_stops_it)
{
	start(&moves);
	ck_assert_int_eq(verb("migrate fake tcp:b:7777 --bind 10.9.9.9"), VERB_FAILED);
	ck_assert_str_eq(err, "godwit: no such address\n");
	ck_assert(!seen.begun);
	stop();
}
END_TEST

START_TEST(detached_migration_is_left_to_itself)
{
	const struct scene goes_on = { .answers = { ACTIVE } };

	start(&goes_on);
	ck_assert_int_eq(verb("migrate fake tcp:b:7777 --detach --bandwidth 1M"), VERB_DONE);
	HAS("is being moved", out);
	ck_assert(seen.begun);
	ck_assert_int_eq(parameter("max-bandwidth"), 1 << 20);
	ck_assert_uint_eq(vm.machine.requests[REQUEST_QUIT], 0);
	stop();
}
END_TEST

static const char *report(const char *name)
{
	static char path[128], line[256];

	snprintf(path, sizeof(path), "%s/%s", vm.dir, name);
	snprintf(line, sizeof(line), "migrate fake tcp:b:7777 --report %s", path);
	return line;
}

/* Reads the report and takes it away. */
static void read_report(const char *name)
{
	char path[128];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", vm.dir, name);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	n = fread(out, 1, sizeof(out) - 1, f);
	out[n] = '\0';
	fclose(f);
	unlink(path);
}

START_TEST(report_has_the_decisions)
{
	start(&moves);
	ck_assert_msg(verb(report(_i ? "r.html" : "r.json")) == VERB_DONE, "%s", err);
	read_report(_i ? "r.html" : "r.json");
	HAS("hardly anything", out);
	HAS(_i ? "</html>" : "\"decisions\"", out);
	stop();
}
END_TEST

START_TEST(report_of_a_failure_is_written_too_and_replaces_an_older_one)
{
	const struct scene fails = { .answers = { ACTIVE, FAILED } };
	char path[128];
	FILE *f;
	json_t *o;

	start(&fails);
	snprintf(path, sizeof(path), "%s/r.json", vm.dir);
	f = fopen(path, "w");
	for (int i = 0; i < 5000; i++)
		fputs("old ", f);
	fclose(f);
	ck_assert_int_eq(verb(report("r.json")), VERB_FAILED);
	read_report("r.json");
	o = json_loads(out, 0, NULL);
	ck_assert_msg(o != NULL, "%s", out);
	ck_assert_str_eq(json_string_value(json_object_get(o, "result")), "failed");
	json_decref(o);
	stop();
}
END_TEST

START_TEST(report_that_cannot_be_written_is_said_before_anything_moves)
{
	start(&moves);
	ck_assert_int_eq(verb("migrate fake tcp:b:7777 --report /nonexistent/r.html"), VERB_FAILED);
	HAS("cannot write the report /nonexistent/r.html", err);
	ck_assert(!seen.begun);
	stop();
}
END_TEST

START_TEST(relative_paths_are_made_absolute_for_the_vm)
{
	start(&moves);
	ck_assert_int_eq(chdir("/tmp"), 0);
	ck_assert_msg(verb("migrate fake unix:b.sock") == VERB_DONE, "%s", err);
	ck_assert_str_eq(seen.uri, "unix:/tmp/b.sock");
	stop();
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *s = suite_create("cli-migrate");
	TCase *verbs = tcase_create("verbs");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(verbs, 60);
	tcase_add_test(verbs, guest_that_has_moved_is_summed_up_and_its_vm_ended);
	tcase_add_test(verbs, json_is_the_last_answer_with_a_result);
	tcase_add_test(verbs, failure_tells_why_and_that_the_guest_runs_on);
	tcase_add_test(verbs, migration_that_cannot_begin_is_a_failure);
	tcase_add_test(verbs, second_migration_is_refused_and_touches_nothing);
	tcase_add_test(verbs, interrupt_cancels_and_a_second_one_does_nothing_worse);
	tcase_add_test(verbs, interrupt_that_comes_too_late_changes_nothing);
	tcase_add_test(verbs, undecided_tells_what_to_do);
	tcase_add_loop_test(verbs, vm_that_goes_away_is_not_taken_for_a_result, 0, COUNT(lost));
	tcase_add_test(verbs, options_become_parameters);
	tcase_add_test(verbs, decisions_are_lines_between_the_rounds);
	tcase_add_test(verbs, parameter_that_the_vm_refuses_stops_it);
	tcase_add_test(verbs, detached_migration_is_left_to_itself);
	tcase_add_loop_test(verbs, report_has_the_decisions, 0, 2);
	tcase_add_test(verbs, report_of_a_failure_is_written_too_and_replaces_an_older_one);
	tcase_add_test(verbs, report_that_cannot_be_written_is_said_before_anything_moves);
	tcase_add_test(verbs, relative_paths_are_made_absolute_for_the_vm);
	suite_add_tcase(s, verbs);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
