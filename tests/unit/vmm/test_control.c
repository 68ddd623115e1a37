/*
 * The control socket: QMP's envelope, the machine's commands, clients that do not read or do not
 * stay, events. The server is real; the machine is a fake.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>

#include "tests/unit/lib/fake_vm.h"
#include "tests/unit/lib/qmp_client.h"

static struct fake_vm vm; /* of the one test that runs in this process */

/* Says `text` (if any), and hears `want` as the next line. */
static void expect(int fd, const char *text, const char *want)
{
	json_t *answer, *wanted = json_loads(want, 0, NULL);
	char *got;

	ck_assert_ptr_nonnull(wanted);
	if (*text)
		say(fd, text);
	answer = hear(fd);
	ck_assert_msg(answer != NULL, "'%s' ended the connection", text);
	got = json_dumps(answer, 0);
	/* `want` may leave the sentence out. */
	if (!json_object_get(json_object_get(wanted, "error"), "desc"))
		json_object_del(json_object_get(answer, "error"), "desc");
	ck_assert_msg(json_equal(answer, wanted), "'%s' gave %s and not %s", text, got, want);
	free(got);
	json_decref(answer);
	json_decref(wanted);
}

START_TEST(greeting_is_what_qmp_clients_expect)
{
	json_t *greeting, *qmp, *version;
	int fd;

	fake_start(&vm);
	fd = dial(vm.path);
	greeting = hear(fd);
	qmp = json_object_get(greeting, "QMP");
	version = json_object_get(qmp, "version");
	ck_assert(json_is_array(json_object_get(qmp, "capabilities")));
	ck_assert(json_is_integer(json_object_get(json_object_get(version, "qemu"), "major")));
	ck_assert(json_is_integer(json_object_get(json_object_get(version, "qemu"), "minor")));
	ck_assert(json_is_integer(json_object_get(json_object_get(version, "qemu"), "micro")));
	ck_assert(!strncmp(json_string_value(json_object_get(version, "package")), "godwit ", 7));
	json_decref(greeting);
	close(fd);
	fake_stop(&vm);
}
END_TEST

START_TEST(nothing_is_executed_before_negotiation)
{
	int fd;

	fake_start(&vm);
	fd = dial(vm.path);
	json_decref(hear(fd));
	expect(fd, "{\"execute\":\"stop\",\"id\":1}",
	       "{\"error\":{\"class\":\"CommandNotFound\"},\"id\":1}");
	expect(fd, "{\"execute\":\"query-commands\"}",
	       "{\"error\":{\"class\":\"CommandNotFound\"}}");
	expect(fd, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}",
	       "{\"error\":{\"class\":\"GenericError\",\"desc\":\"capability 'oob' is not offered "
	       "(none is)\"}}");
	expect(fd, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[]}}",
	       "{\"return\":{}}");
	expect(fd, "{\"execute\":\"qmp_capabilities\"}",
	       "{\"error\":{\"class\":\"CommandNotFound\"}}");
	expect(fd, "{\"execute\":\"query-name\"}", "{\"return\":{\"name\":\"fake\"}}");
	close(fd);
	fake_stop(&vm);
	ck_assert_uint_eq(vm.machine.parks, 0);
}
END_TEST

#define ERR(text) "{\"error\":{\"class\":\"GenericError\",\"desc\":\"" text "\"}}"

static const struct {
	const char *says, *gets;
} talks[] = {
	{ "{\"execute\":\"query-name\",\"id\":null}",
	  "{\"return\":{\"name\":\"fake\"},\"id\":null}" },
	{ "{\"id\":[1,{\"a\":2}],\"execute\":\"query-name\"}",
	  "{\"return\":{\"name\":\"fake\"},\"id\":[1,{\"a\":2}]}" },
	{ "{\"execute\":\"no-such\",\"id\":\"x\"}",
	  "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"there is no command "
	  "'no-such'\"},\"id\":\"x\"}" },
	{ "{\"execute\":\"fail\",\"id\":2}",
	  "{\"error\":{\"class\":\"GenericError\",\"desc\":\"disk ?: broken\"},\"id\":2}" },
	{ "{}", ERR("a request has no 'execute'") },
	{ "{\"execute\":1}", ERR("'execute' is not a string") },
	{ "{\"execute\":\"stop\",\"arguments\":[]}", ERR("'arguments' is not an object") },
	{ "{\"execute\":\"stop\",\"arguments\":null}", ERR("'arguments' is not an object") },
	{ "{\"exec-oob\":\"stop\"}", ERR("a request has no member 'exec-oob'") },
	{ "{\"execute\":\"stop\",\"arguments\":{\"a\":1}}", ERR("stop has no argument 'a'") },
	{ "{\"execute\":\"echo\"}", ERR("argument 'text' of echo is missing") },
	{ "{\"execute\":\"echo\",\"arguments\":{\"text\":\"t\"}}",
	  "{\"return\":{\"text\":\"t\"}}" },
	{ "{\"execute\":\"echo\",\"arguments\":{\"text\":1}}",
	  ERR("argument 'text' of echo is not a string") },
	{ "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"number\":0}}",
	  ERR("argument 'number' of echo is 0 (expected 1 to 10)") },
	{ "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"number\":11}}",
	  ERR("argument 'number' of echo is 11 (expected 1 to 10)") },
	{ "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"number\":1.5}}",
	  ERR("argument 'number' of echo is not an integer") },
	{ "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"number\":10,\"any\":-"
	  "9223372036854775808,"
	  "\"yes\":true,\"list\":[],\"map\":{}}}",
	  "{\"return\":{\"text\":\"\",\"number\":10,\"any\":-9223372036854775808,\"yes\":true,"
	  "\"list\":[],"
	  "\"map\":{}}}" },
	{ "{'execute':'echo','arguments':{'number':18446744073709551616,'text':'','any':1}}",
	  ERR("argument 'number' of echo is 1.84467e+19 (expected 1 to 10)") },
	{ "{'execute':'echo','arguments':{'text':'','number':1,'any':-9223372036854775809}}",
	  ERR("argument 'any' of echo is -9.22337e+18 (expected -9223372036854775808 to "
	      "9223372036854775807)") },
	{ "{'execute':'echo','arguments':{'text':'a\\u0000b'}}",
	  "{\"error\":{\"class\":\"GenericError\"}}" },
	{ "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"yes\":1}}",
	  ERR("argument 'yes' of echo is not true or false") },
	{ "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"list\":{}}}",
	  ERR("argument 'list' of echo is not an array") },
	{ "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"map\":[]}}",
	  ERR("argument 'map' of echo is not an object") },
	{ "no json\n", "{\"error\":{\"class\":\"GenericError\"}}" },
	{ "{\"execute\":}\n", "{\"error\":{\"class\":\"GenericError\"}}" },
	{ "{\"execute\":\"query-status\"}",
	  "{\"return\":{\"status\":\"running\",\"singlestep\":false,\"running\":true}}" },
	{ "{\"execute\":\"query-cpus-fast\"}",
	  "{\"return\":[{\"cpu-index\":0,\"thread-id\":100,\"qom-path\":\"/machine/"
	  "cpu[0]\",\"target\":\"z80\",\"props\":{}},"
	  "{\"cpu-index\":1,\"thread-id\":101,\"qom-path\":\"/machine/"
	  "cpu[1]\",\"target\":\"z80\",\"props\":{}}]}" },
	{ "{\"execute\":\"query-balloon\"}", ERR("the machine has no balloon") },
	{ "{\"execute\":\"balloon\",\"arguments\":{\"value\":0}}",
	  ERR("argument 'value' of balloon is 0 (expected 1 to 9223372036854775807)") },
	{ "{\"execute\":\"balloon\"}", ERR("argument 'value' of balloon is missing") },
	{ "{\"execute\":\"balloon\",\"arguments\":{\"value\":1048576}}", "{\"return\":{}}" },
	{ "{\"execute\":\"query-balloon\"}", "{\"return\":{\"actual\":1048576}}" },
	{ "{\"execute\":\"block_resize\",\"arguments\":{\"device\":\"disk0\",\"size\":1024}}",
	  "{\"return\":{}}" },
	{ "{\"execute\":\"block_resize\",\"arguments\":{\"node-name\":\"disk0\"}}",
	  "{\"return\":{}}" },
	{ "{\"execute\":\"block_resize\",\"arguments\":{\"device\":\"disk9\"}}",
	  ERR("there is no disk 'disk9' (the VM has disk0)") },
	{ "{\"execute\":\"block_resize\",\"arguments\":{\"size\":1024}}",
	  ERR("either 'device' or 'node-name' must say which disk") },
	{ "{\"execute\":\"block_resize\",\"arguments\":{\"device\":\"disk0\",\"size\":0}}",
	  ERR("argument 'size' of block_resize is 0 (expected 1 to 9223372036854775807)") },
};

START_TEST(requests_are_answered_and_the_connection_stays)
{
	int fd;

	fake_start(&vm);
	fd = dial_qmp(vm.path);
	for (size_t i = 0; i < sizeof(talks) / sizeof(talks[0]); i++)
		expect(fd, talks[i].says, talks[i].gets);
	close(fd);
	fake_stop(&vm);
}
END_TEST

START_TEST(query_commands_lists_every_table)
{
	static const char *const want[] = { "qmp_capabilities", "query-commands", "query-status",
					    "quit", "echo" };
	size_t found = 0, i;
	json_t *answer, *c;
	int fd;

	fake_start(&vm);
	fd = dial_qmp(vm.path);
	say(fd, "{\"execute\":\"query-commands\"}");
	answer = hear(fd);
	json_array_foreach(json_object_get(answer, "return"), i,
			   c) for (size_t j = 0; j < sizeof(want) / sizeof(want[0]); j++)
		found += !strcmp(json_string_value(json_object_get(c, "name")), want[j]);
	ck_assert_uint_eq(found, sizeof(want) / sizeof(want[0]));
	json_decref(answer);
	close(fd);
	fake_stop(&vm);
}
END_TEST

/* Commands on the machine. */

START_TEST(stop_and_cont_are_idempotent_and_tell_their_events_first)
{
	json_t *o;
	int fd;

	fake_start(&vm);
	fd = dial_qmp(vm.path);
	say(fd, "{\"execute\":\"stop\",\"id\":1}{\"execute\":\"stop\",\"id\":2}{\"execute\":"
		"\"cont\",\"id\":3}"
		"{\"execute\":\"cont\",\"id\":4}");
	o = hear(fd);
	ck_assert_str_eq(json_string_value(json_object_get(o, "event")), "STOP");
	ck_assert_int_gt(
		json_integer_value(json_object_get(json_object_get(o, "timestamp"), "seconds")),
		1600000000);
	ck_assert(
		json_is_integer(json_object_get(json_object_get(o, "timestamp"), "microseconds")));
	json_decref(o);
	expect(fd, "", "{\"return\":{},\"id\":1}");
	expect(fd, "", "{\"return\":{},\"id\":2}");
	o = hear(fd);
	ck_assert_str_eq(json_string_value(json_object_get(o, "event")), "RESUME");
	json_decref(o);
	expect(fd, "", "{\"return\":{},\"id\":3}");
	expect(fd, "", "{\"return\":{},\"id\":4}");
	close(fd);
	fake_stop(&vm);
	ck_assert_uint_eq(vm.machine.parks, 1);
	ck_assert_uint_eq(vm.machine.resumes, 1);
}
END_TEST

static const struct {
	enum machine_status status;
	const char *command, *says;
} wrong_times[] = {
	{ MACHINE_INMIGRATE, "system_reset", "has not arrived yet" },
	{ MACHINE_FINISH_MIGRATE, "stop", "is being saved or handed over" },
	{ MACHINE_FINISH_MIGRATE, "cont", "is being saved or handed over" },
	{ MACHINE_FINISH_MIGRATE, "system_reset", "is being saved or handed over" },
	{ MACHINE_FINISH_MIGRATE, "system_powerdown", "is being saved or handed over" },
	{ MACHINE_POSTMIGRATE, "cont", "runs elsewhere or lies in a file" },
	{ MACHINE_POSTMIGRATE, "system_reset", "runs elsewhere or lies in a file" },
	{ MACHINE_SHUTDOWN, "cont", "has powered off" },
	{ MACHINE_SHUTDOWN, "system_reset", "has powered off" },
	{ MACHINE_INTERNAL_ERROR, "cont", "reset it" },
	{ MACHINE_INTERNAL_ERROR, "system_powerdown", "what KVM cannot run" },
};

START_TEST(commands_at_the_wrong_time_touch_nothing)
{
	char text[128];
	const char *desc;
	json_t *answer;
	int fd;

	fake_start(&vm);
	vm.machine.status = wrong_times[_i].status;
	fd = dial_qmp(vm.path);
	snprintf(text, sizeof(text), "{\"execute\":\"%s\"}", wrong_times[_i].command);
	say(fd, text);
	answer = hear(fd);
	desc = json_string_value(json_object_get(json_object_get(answer, "error"), "desc"));
	ck_assert_ptr_nonnull(desc);
	ck_assert_msg(strstr(desc, wrong_times[_i].says), "%s", desc);
	json_decref(answer);
	close(fd);
	fake_stop(&vm);
	ck_assert_int_eq(vm.machine.status, wrong_times[_i].status);
	ck_assert_uint_eq(vm.machine.parks + vm.machine.resumes + vm.machine.buttons +
				  vm.machine.requests[REQUEST_HOST_RESET],
			  0);
}
END_TEST

static int not_free(void *arg, struct err *e)
{
	(void)arg;
	return err_set(e, "a migration of this VM is under way already");
}

START_TEST(disk_is_not_resized_while_the_machine_is_told_to_another_host)
{
	static const char resize[] =
		"{\"execute\":\"block_resize\",\"arguments\":{\"device\":\"disk0\"}}";
	int fd;

	fake_start(&vm);
	fd = dial_qmp(vm.path);
	vm.machine.status = MACHINE_FINISH_MIGRATE;
	expect(fd, resize,
	       ERR("cannot resize a disk of 'fake': its guest is being saved or handed over "
		   "(finish-migrate)"));
	vm.machine.status = MACHINE_RUNNING;
	vm.context.check_free = not_free;
	expect(fd, resize, ERR("a migration of this VM is under way already"));
	ck_assert_uint_eq(vm.machine.resizes, 0);
	vm.context.check_free = NULL;
	expect(fd, resize, "{\"return\":{}}");
	ck_assert_uint_eq(vm.machine.resizes, 1);
	close(fd);
	fake_stop(&vm);
}
END_TEST

/* Clients that behave badly. */

START_TEST(stop_and_cont_before_the_guest_is_here_count_when_it_comes)
{
	int fd;

	fake_start(&vm);
	vm.machine.status = MACHINE_INMIGRATE;
	fd = dial_qmp(vm.path);
	ck_assert_int_eq(vm.machine.arrival, ARRIVAL_AS_IT_WAS);
	expect(fd, "{'execute':'cont'}", "{\"return\":{}}");
	ck_assert_int_eq(vm.machine.arrival, ARRIVAL_RUNNING);
	expect(fd, "{'execute':'stop'}", "{\"return\":{}}");
	ck_assert_int_eq(vm.machine.arrival, ARRIVAL_PAUSED);
	/* There may be no machine at all yet. */
	vm.context.machine = NULL;
	expect(fd, "{'execute':'cont'}", "{\"return\":{}}");
	ck_assert_int_eq(vm.context.arrival, ARRIVAL_RUNNING);
	expect(fd, "{'execute':'query-status'}",
	       "{\"return\":{\"status\":\"inmigrate\",\"singlestep\":false,\"running\":false}}");
	close(fd);
	fake_stop(&vm);
	ck_assert_uint_eq(vm.machine.parks + vm.machine.resumes, 0);
}
END_TEST

START_TEST(answers_wait_for_a_slow_reader_in_order)
{
	enum { N = 20000 };
	char text[64];
	json_t *o;
	int fd;

	fake_start(&vm);
	fd = dial_qmp(vm.path);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	/* More answers than sockets and buffers hold; the server must stop reading, not grow. */
	for (int sent = 0, heard = 0; heard < N;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int n = snprintf(text, sizeof(text), "{\"execute\":\"query-name\",\"id\":%d}",
				 sent);

		if (sent < N) {
			ssize_t rc = send(fd, text, (size_t)n, MSG_NOSIGNAL);

			if (rc > 0) {
				ck_assert_int_eq(rc, n);
				sent++;
				continue;
			}
			ck_assert_int_eq(errno, EAGAIN);
		}
		ck_assert_int_eq(poll(&p, 1, 10000), 1);
		fcntl(fd, F_SETFL, 0);
		o = hear(fd);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		ck_assert_int_eq(json_integer_value(json_object_get(o, "id")), heard);
		heard++;
		json_decref(o);
	}
	close(fd);
	fake_stop(&vm);
}
END_TEST

START_TEST(client_that_never_reads_is_dropped_and_others_live_on)
{
	char buf[65536], *big = calloc(1, 60001);
	size_t total = 0;
	int deaf, fd;
	ssize_t n;

	fake_start(&vm);
	deaf = dial_qmp(vm.path);
	fd = dial_qmp(vm.path);
	memset(big, 'x', 60000);
	for (int i = 0; i < 100; i++) {
		control_event(vm.control, "GODWIT_DECISION", json_pack("{s:s}", "reason", big));
		json_decref(hear(fd));
	}
	expect(fd, "{\"execute\":\"query-name\"}", "{\"return\":{\"name\":\"fake\"}}");
	while ((n = read(deaf, buf, sizeof(buf))) > 0)
		total += (size_t)n;
	ck_assert_int_eq(n, 0);
	ck_assert_uint_lt(total, 5u << 20);
	free(big);
	close(deaf);
	close(fd);
	fake_stop(&vm);
}
END_TEST

START_TEST(half_closed_client_gets_all_its_answers)
{
	enum { N = 100, BIG = 4000 };
	char text[BIG + 128], big[BIG + 1];
	int fd;

	fake_start(&vm);
	fd = dial_qmp(vm.path);
	memset(big, 'x', BIG);
	big[BIG] = '\0';
	/* Together more than the server answers at once. */
	for (int i = 0; i < N; i++) {
		snprintf(text, sizeof(text),
			 "{\"execute\":\"echo\",\"arguments\":{\"text\":\"%s\"},\"id\":%d}", big,
			 i);
		say(fd, text);
	}
	shutdown(fd, SHUT_WR);
	for (int i = 0; i < N; i++) {
		json_t *o = hear(fd);

		ck_assert_int_eq(json_integer_value(json_object_get(o, "id")), i);
		json_decref(o);
	}
	ck_assert_ptr_null(hear(fd));
	close(fd);
	fake_stop(&vm);
}
END_TEST

START_TEST(last_words_of_a_client_that_has_gone_are_obeyed)
{
	int fd;

	fake_start(&vm);
	fd = dial(vm.path);
	say(fd, "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}");
	close(fd);
	/* The fake VM ends on quit: a new client is turned away by then, or soon. */
	for (int i = 0; i < 1000 && access(vm.path, F_OK) == 0; i++)
		poll(NULL, 0, 5);
	ck_assert_int_ne(access(vm.path, F_OK), 0);
	fake_stop(&vm);
	ck_assert_uint_eq(vm.machine.requests[REQUEST_QUIT], 1);
}
END_TEST

START_TEST(number_of_clients_is_bounded)
{
	int fds[17];
	json_t *o;

	fake_start(&vm);
	for (int i = 0; i < 16; i++)
		fds[i] = dial_qmp(vm.path);
	fds[16] = dial(vm.path);
	o = hear(fds[16]);
	ck_assert_ptr_nonnull(json_object_get(o, "error"));
	json_decref(o);
	ck_assert_ptr_null(hear(fds[16]));
	close(fds[16]);
	/* One goes, another may come; only once the server has seen it go. */
	close(fds[3]);
	for (int tries = 0;; tries++) {
		ck_assert_int_lt(tries, 1000);
		fds[3] = dial(vm.path);
		o = hear(fds[3]);
		if (o && json_object_get(o, "QMP"))
			break;
		json_decref(o);
		close(fds[3]);
	}
	json_decref(o);
	for (int i = 0; i < 16; i++)
		close(fds[i]);
	fake_stop(&vm);
}
END_TEST

#define EVENTS_EACH 100

static void *send_events(void *arg)
{
	for (int i = 0; i < EVENTS_EACH; i++)
		control_event(vm.control, arg, json_pack("{s:i}", "i", i));
	return NULL;
}

START_TEST(events_of_all_threads_arrive_whole_and_in_order)
{
	static char names[4][2] = { "A", "B", "C", "D" };
	int next[4] = { 0 }, fd, quiet;
	pthread_t threads[4];

	fake_start(&vm);
	quiet = dial(vm.path); /* has not negotiated: hears no events */
	json_decref(hear(quiet));
	fd = dial_qmp(vm.path);
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, send_events, names[i]);
	for (int i = 0; i < 4 * EVENTS_EACH; i++) {
		json_t *o = hear(fd);
		int who = json_string_value(json_object_get(o, "event"))[0] - 'A';

		ck_assert_int_eq(
			json_integer_value(json_object_get(json_object_get(o, "data"), "i")),
			next[who]++);
		json_decref(o);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	expect(quiet, "{\"execute\":\"qmp_capabilities\"}", "{\"return\":{}}");
	close(quiet);
	close(fd);
	fake_stop(&vm);
}
END_TEST

START_TEST(events_that_wait_are_sent_before_the_end)
{
	json_t *o;
	int fd;

	fake_start(&vm);
	fd = dial_qmp(vm.path);
	control_event(vm.control, "SHUTDOWN", NULL);
	fake_stop(&vm);
	o = hear(fd);
	ck_assert_ptr_nonnull(o);
	ck_assert_str_eq(json_string_value(json_object_get(o, "event")), "SHUTDOWN");
	json_decref(o);
	ck_assert_ptr_null(hear(fd));
	close(fd);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *s = suite_create("control");
	TCase *cases = tcase_create("control");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(cases, 60);
	tcase_add_test(cases, greeting_is_what_qmp_clients_expect);
	tcase_add_test(cases, nothing_is_executed_before_negotiation);
	tcase_add_test(cases, requests_are_answered_and_the_connection_stays);
	tcase_add_test(cases, query_commands_lists_every_table);
	tcase_add_test(cases, stop_and_cont_are_idempotent_and_tell_their_events_first);
	tcase_add_loop_test(cases, commands_at_the_wrong_time_touch_nothing, 0, COUNT(wrong_times));
	tcase_add_test(cases, stop_and_cont_before_the_guest_is_here_count_when_it_comes);
	tcase_add_test(cases, disk_is_not_resized_while_the_machine_is_told_to_another_host);
	tcase_add_test(cases, answers_wait_for_a_slow_reader_in_order);
	tcase_add_test(cases, client_that_never_reads_is_dropped_and_others_live_on);
	tcase_add_test(cases, half_closed_client_gets_all_its_answers);
	tcase_add_test(cases, last_words_of_a_client_that_has_gone_are_obeyed);
	tcase_add_test(cases, number_of_clients_is_bounded);
	tcase_add_test(cases, events_of_all_threads_arrive_whole_and_in_order);
	tcase_add_test(cases, events_that_wait_are_sent_before_the_end);
	suite_add_tcase(s, cases);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
