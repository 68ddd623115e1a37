/*
 * A fake VM whose migration goes as a test has written it down, its scene; and the verbs of the
 * command line, run against it with what they print caught. Included by one file of a test program.
 */
#ifndef GODWIT_TESTS_SCENE_H
#define GODWIT_TESTS_SCENE_H

#include <pthread.h>

#include "tests/unit/lib/fake_vm.h"
#include "tests/unit/lib/verb_output.h"

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
#define UNDECIDED                                                                        \
	"{\"status\":\"x-godwit-undecided\",\"x-godwit-undecided\":true,\"error-desc\":" \
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
	json_t *list = json_object_get(arguments, "x-godwit-capabilities");

	(void)context;
	(void)result;
	if (json_object_get(arguments, "x-godwit-bind"))
		return err_set(e, "no such address");
	if (list)
		seen.multifd = json_is_true(json_object_get(json_array_get(list, 0), "state"));
	json_object_update(seen.parameters, arguments);
	json_object_del(seen.parameters, "x-godwit-capabilities");
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
	{ .name = "x-godwit-capabilities", .type = CONTROL_ARRAY },
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

static const struct scene moves = {
	.answers = { "{\"status\":\"setup\"}", ACTIVE, COMPLETED },
	.events = { "MIGRATION {\"status\":\"setup\"}", "MIGRATION_PASS {\"pass\":1}",
		    "MIGRATION_PASS {\"pass\":2}",
		    "GODWIT_DECISION {\"action\":\"switchover\",\"reason\":\"hardly anything\"}" },
};

/* -- running a verb -- */

/* The words of a command line, without quoting; returns the exit code. */
static int verb(const char *line)
{
	char words[512], *argv[16], *rest = words, *word;
	int argc = 0;

	snprintf(words, sizeof(words), "%s", line);
	while ((word = strsep(&rest, " ")))
		argv[argc++] = word;
	return run_verb(argv[0], argc - 1, argv + 1);
}

#endif
