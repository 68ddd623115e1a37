/*
 * The verbs of migration against a fake VM whose migration goes as each test has written it down:
 * what they say, what they leave behind, how they exit.
 */
#include <pthread.h>
#include <sys/stat.h>

#include "tests/unit/fake_vm.h"
#include "vmm/cli/verb.h"

#define HAS(text, in)	ck_assert_msg(strstr(in, text), "no '%s' in: %s", text, in)
#define LACKS(text, in) ck_assert_msg(!strstr(in, text), "'%s' in: %s", text, in)

static struct fake_vm vm; /* of the one test that runs in this process */

/* -- the script -- */

struct scene {
	/* Answers to query-migrate after `migrate`, one after the other; the last again and again.
	 * "" closes the connection in place of an answer. */
	const char *answers[6];
	const char *events[6];	  /* sent by `migrate`: name, space, data */
	const char *refusal;	  /* of `migrate` */
	const char *after_cancel; /* what query-migrate answers from then on */
	bool under_way;		  /* from the start */
	bool interrupted;	  /* Ctrl-C while `migrate` is executed */
};

static struct scene scene;
static struct {
	unsigned int asked, cancels, quits, checks;
	bool begun;
	const char *cancelled; /* the answer after a cancel */
	char uri[128];
	json_t *parameters; /* present ones */
	bool multifd;
} seen;

#define RAM                                                                              \
	"\"ram\":{\"transferred\":104857600,\"remaining\":52428800,\"total\":209715200," \
	"\"dirty-sync-count\":1,\"page-size\":4096}"
#define ACTIVE	  "{\"status\":\"active\",\"total-time\":100," RAM "}"
#define CANCELLED "{\"status\":\"cancelled\",\"total-time\":300," RAM "}"
#define FAILED	  "{\"status\":\"failed\",\"error-desc\":\"the link\\u001b is gone\"," RAM "}"
#define UNDECIDED                                                                     \
	"{\"status\":\"postcopy-paused\",\"x-godwit-undecided\":true,\"error-desc\":" \
	"\"no RUNNING\"," RAM "}"
#define COMPLETED                                                           \
	"{\"status\":\"completed\",\"total-time\":1230,\"downtime\":5," RAM \
	",\"x-godwit-downtime\":{\"total-us\":4500}}"

static int scripted_migrate(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)context;
	(void)result;
	snprintf(seen.uri, sizeof(seen.uri), "%s",
		 json_string_value(json_object_get(arguments, "uri")));
	if (scene.refusal)
		return err_set(e, "%s", scene.refusal);
	seen.begun = true;
	for (int i = 0; scene.events[i]; i++) {
		const char *data = strchr(scene.events[i], ' ');
		char name[32];

		snprintf(name, sizeof(name), "%.*s", (int)(data - scene.events[i]),
			 scene.events[i]);
		control_event(vm.control, name, json_loads(data, 0, NULL));
	}
	if (scene.interrupted)
		kill(getpid(), SIGINT);
	return 0;
}

static int scripted_cancel(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)context;
	(void)arguments;
	(void)result;
	(void)e;
	seen.cancels++;
	seen.cancelled = scene.after_cancel;
	if (scene.interrupted && seen.cancels == 1)
		kill(getpid(), SIGINT); /* the second Ctrl-C */
	return 0;
}

static int scripted_query(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const char *text = seen.cancelled;

	(void)context;
	(void)arguments;
	(void)e;
	if (!seen.begun && !scene.under_way)
		text = "{}";
	else if (!text)
		text = scene.answers[seen.asked];
	if (seen.begun && scene.answers[seen.asked + 1])
		seen.asked++;
	if (!text[0]) {
		loop_post(&vm.loop, fake_close_now, &vm);
		text = ACTIVE;
	}
	*result = json_loads(text, 0, NULL);
	ck_assert_ptr_nonnull(*result);
	return 0;
}

/* As `migrate` and query-migrate are, in the same scene. */
static int scripted_check(void *context, json_t *arguments, json_t **result, struct err *e)
{
	seen.checks++;
	return scripted_migrate(context, arguments, result, e);
}

static int scripted_set(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)context;
	(void)result;
	if (json_object_get(arguments, "x-godwit-bind"))
		return err_set(e, "no such address");
	json_object_update(seen.parameters, arguments);
	return 0;
}

static int scripted_get(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)context;
	(void)arguments;
	(void)e;
	*result = json_deep_copy(seen.parameters);
	return 0;
}

static int scripted_set_capability(void *context, json_t *arguments, json_t **result, struct err *e)
{
	json_t *item = json_array_get(json_object_get(arguments, "capabilities"), 0);

	(void)context;
	(void)result;
	(void)e;
	seen.multifd = json_is_true(json_object_get(item, "state"));
	return 0;
}

static int scripted_get_capabilities(void *context, json_t *arguments, json_t **result,
				     struct err *e)
{
	(void)context;
	(void)arguments;
	(void)e;
	*result = json_pack("[{s:s,s:b}]", "capability", "multifd", "state", (int)seen.multifd);
	return 0;
}

static const struct control_argument uri_arguments[] = {
	{ .name = "uri", .type = CONTROL_STRING, .required = true },
	{ .name = NULL },
};

static const struct control_argument parameter_arguments[] = {
	{ .name = "max-bandwidth", .type = CONTROL_INTEGER },
	{ .name = "downtime-limit", .type = CONTROL_INTEGER },
	{ .name = "multifd-channels", .type = CONTROL_INTEGER },
	{ .name = "x-godwit-timeout", .type = CONTROL_INTEGER },
	{ .name = "x-godwit-timeout-per-gib", .type = CONTROL_INTEGER },
	{ .name = "x-godwit-progress-timeout", .type = CONTROL_INTEGER },
	{ .name = "x-godwit-timeout-action", .type = CONTROL_STRING },
	{ .name = "x-godwit-policy", .type = CONTROL_STRING },
	{ .name = "x-godwit-bind", .type = CONTROL_STRING },
	{ .name = NULL },
};

static const struct control_argument capability_arguments[] = {
	{ .name = "capabilities", .type = CONTROL_ARRAY, .required = true },
	{ .name = NULL },
};

static const struct control_command scripted[] = {
	{ .name = "migrate", .arguments = uri_arguments, .run = scripted_migrate },
	{ .name = "x-godwit-check", .arguments = uri_arguments, .run = scripted_check },
	{ .name = "x-godwit-query-check", .run = scripted_query },
	{ .name = "migrate_cancel", .run = scripted_cancel },
	{ .name = "query-migrate", .run = scripted_query },
	{ .name = "migrate-set-parameters", .arguments = parameter_arguments, .run = scripted_set },
	{ .name = "query-migrate-parameters", .run = scripted_get },
	{ .name = "migrate-set-capabilities",
	  .arguments = capability_arguments,
	  .run = scripted_set_capability },
	{ .name = "query-migrate-capabilities", .run = scripted_get_capabilities },
	{ .name = NULL },
};

static void start(const struct scene *s)
{
	sigset_t set;

	/* Before the loop's thread is there: as in a process of its own, nobody else takes it. */
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	memset(&seen, 0, sizeof(seen));
	scene = *s;
	seen.parameters = json_pack("{s:i,s:i,s:i,s:i}", "max-bandwidth", 7, "downtime-limit", 300,
				    "multifd-channels", 2, "x-godwit-timeout", 0);
	fake_start(&vm);
	vm.tables[1] = (struct control_table){ scripted, &vm };
	setenv("GODWIT_RUNTIME_DIR", vm.dir, 1);
}

static void stop(void)
{
	fake_stop(&vm);
	json_decref(seen.parameters);
}

static json_int_t parameter(const char *name)
{
	return json_integer_value(json_object_get(seen.parameters, name));
}

/* -- running a verb -- */

static char out[16384], err[4096];

static int redirect(int fd, int *saved)
{
	char name[] = "/tmp/godwit-unit-XXXXXX";
	int to = mkstemp(name);

	ck_assert_int_ge(to, 0);
	unlink(name);
	*saved = dup(fd);
	dup2(to, fd);
	return to;
}

static void collect(int fd, int saved, int from, char *text, size_t size)
{
	ssize_t n = pread(from, text, size - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	dup2(saved, fd);
	close(saved);
	close(from);
}

/* The words of a command line, without quoting; returns the exit code. */
static int verb(const char *line)
{
	char words[512], *argv[16], *rest = words, *word;
	int argc = 0, saved[2], to[2], rc;
	const struct verb *v;

	snprintf(words, sizeof(words), "%s", line);
	while ((word = strsep(&rest, " ")))
		argv[argc++] = word;
	v = verb_find(argv[0]);
	ck_assert_ptr_nonnull(v);
	fflush(stdout);
	to[0] = redirect(1, &saved[0]);
	to[1] = redirect(2, &saved[1]);
	rc = v->run(argc - 1, argv + 1);
	fflush(stdout);
	collect(1, saved[0], to[0], out, sizeof(out));
	collect(2, saved[1], to[1], err, sizeof(err));
	return rc;
}

/* -- migrate -- */

static const struct scene moves = {
	.answers = { "{\"status\":\"setup\"}", ACTIVE, COMPLETED },
	.events = { "MIGRATION {\"status\":\"setup\"}", "MIGRATION_PASS {\"pass\":1}",
		    "MIGRATION_PASS {\"pass\":2}",
		    "GODWIT_DECISION {\"action\":\"switchover\",\"reason\":\"hardly anything\"}" },
};

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
	{ "MIGRATION {\"status\":\"device\"}", "it cannot be told where its guest runs",
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
	LACKS("switchover", out);
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
	{ "migrate a tcp:b:1 --report r.json --detach", "not with --detach" },
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
	{ "migrate a tcp:b:1 --post-copy", "--post-copy is not there yet" },
	{ "migrate a tcp:b:1 --storage", "--storage is not there yet" },
	{ "migrate a tcp:b:1 --check --detach", "--check moves nothing: not with --detach" },
	{ "migrate a tcp:b:1 --check --report x.html", "--check moves nothing: not with --report" },
	{ "migrate a file:/x --check", "--check needs a destination that answers" },
	{ "migrate a fd:3 --check", "--check needs a destination that answers" },
	{ "cancel", "cancel: the VM's name is missing" },
	{ "set", "set: the VM's name is missing" },
	{ "set a bandwidth=1 --json", "set: --json is for the list" },
	{ "set a bandwidth", "expected PARAM=VALUE in place of 'bandwidth'" },
	{ "set a =3", "expected PARAM=VALUE" },
	{ "set a bandwith=3", "did you mean bandwidth?" },
	{ "set a 0123456789012345678901234567890123456789=1", "unknown parameter" },
};

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
