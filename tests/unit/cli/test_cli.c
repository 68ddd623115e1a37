/*
 * The client verbs against a fake VM with the real control socket: what they wait for, what they
 * say, how they exit.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/lib/fake_vm.h"
#include "tests/unit/lib/verb_output.h"
#include "vmm/cli/client.h"

static struct fake_vm vm; /* of the one test that runs in this process */

/* Runs a verb with up to three words. */
static int verb(const char *name, const char *a, const char *b, const char *c)
{
	char *argv[] = { (char *)a, (char *)b, (char *)c };

	return run_verb(name, !a ? 0 : !b ? 1 : !c ? 2 : 3, argv);
}

static void start(void)
{
	fake_start(&vm);
	setenv("GODWIT_RUNTIME_DIR", vm.dir, 1);
}

START_TEST(pause_and_resume_return_when_it_is_true)
{
	start();
	ck_assert_int_eq(verb("pause", "fake", NULL, NULL), VERB_DONE);
	ck_assert_int_eq(vm.machine.status, MACHINE_PAUSED);
	ck_assert_int_eq(verb("resume", vm.path, NULL, NULL), VERB_DONE);
	ck_assert_int_eq(vm.machine.status, MACHINE_RUNNING);
	ck_assert_str_eq(out, "");
	ck_assert_str_eq(err, "");
	fake_stop(&vm);
}
END_TEST

START_TEST(resize_says_which_disk_and_how_large)
{
	start();
	ck_assert_int_eq(verb("resize", "fake", "disk0", "3G"), VERB_DONE);
	ck_assert_uint_eq(vm.machine.disk_bytes, 3ull << 30);
	ck_assert_int_eq(verb("resize", "fake", "disk0", NULL), VERB_DONE);
	ck_assert_uint_eq(vm.machine.disk_bytes, 0);
	ck_assert_str_eq(out, "");
	ck_assert_int_eq(verb("resize", "fake", "disk1", NULL), VERB_FAILED);
	ck_assert_str_eq(err, "godwit: there is no disk 'disk1' (the VM has disk0)\n");
	ck_assert_int_eq(verb("resize", "fake", NULL, NULL), VERB_USAGE);
	ck_assert_ptr_nonnull(strstr(err, "the disk's id is missing"));
	ck_assert_int_eq(verb("resize", "fake", "disk0", "large"), VERB_USAGE);
	ck_assert_uint_eq(vm.machine.resizes, 2);
	fake_stop(&vm);
}
END_TEST

START_TEST(forced_resume_without_undecided_migration_says_so)
{
	start();
	ck_assert_int_eq(verb("resume", "fake", "--force", NULL), VERB_FAILED);
	ck_assert_ptr_nonnull(strstr(err, "godwit: there is nothing to force"));
	ck_assert_uint_eq(vm.machine.resumes, 0);
	fake_stop(&vm);
}
END_TEST

START_TEST(forced_resume_of_an_undecided_guest_makes_it_run)
{
	start();
	vm.machine.status = MACHINE_FINISH_MIGRATE;
	vm.migrate_status = "x-godwit-undecided";
	ck_assert_int_eq(verb("resume", "fake", "--force", NULL), VERB_DONE);
	ck_assert_int_eq(vm.machine.status, MACHINE_RUNNING);
	fake_stop(&vm);
}
END_TEST

START_TEST(forced_resume_of_a_guest_that_was_paused_says_so)
{
	start();
	vm.machine.status = MACHINE_FINISH_MIGRATE;
	vm.migrate_status = "x-godwit-undecided";
	vm.was_paused = true;
	ck_assert_int_eq(verb("resume", "fake", "--force", NULL), VERB_DONE);
	ck_assert_ptr_nonnull(strstr(out, "'fake' is here again, and paused as it was before"));
	ck_assert_str_eq(err, "");
	ck_assert_int_eq(verb("resume", "fake", NULL, NULL), VERB_DONE);
	ck_assert_int_eq(vm.machine.status, MACHINE_RUNNING);
	fake_stop(&vm);
}
END_TEST

START_TEST(resume_of_a_guest_that_has_not_set_out_says_what_will_be)
{
	start();
	vm.machine.status = MACHINE_INMIGRATE;
	ck_assert_int_eq(verb("resume", "fake", NULL, NULL), VERB_DONE);
	ck_assert_ptr_nonnull(strstr(out, "will run as soon as its guest is here"));
	ck_assert_int_eq(vm.machine.arrival, ARRIVAL_RUNNING);
	ck_assert_int_eq(verb("pause", "fake", NULL, NULL), VERB_DONE);
	ck_assert_int_eq(vm.machine.arrival, ARRIVAL_PAUSED);
	fake_stop(&vm);
}
END_TEST

START_TEST(resume_of_a_guest_that_is_elsewhere_fails)
{
	start();
	vm.machine.status = MACHINE_POSTMIGRATE;
	ck_assert_int_eq(verb("resume", "fake", NULL, NULL), VERB_FAILED);
	ck_assert_ptr_nonnull(strstr(err, "postmigrate"));
	fake_stop(&vm);
}
END_TEST

START_TEST(reset_waits_for_the_event)
{
	start();
	ck_assert_int_eq(verb("reset", "fake", NULL, NULL), VERB_DONE);
	ck_assert_uint_eq(vm.machine.requests[REQUEST_HOST_RESET], 1);
	fake_stop(&vm);
}
END_TEST

START_TEST(shutdown_and_quit_wait_for_the_end)
{
	const char *name = _i ? "quit" : "shutdown";

	start();
	ck_assert_msg(verb(name, "fake", NULL, NULL) == VERB_DONE, "%s", err);
	ck_assert_int_ne(access(vm.path, F_OK), 0);
	ck_assert_uint_eq(vm.machine.buttons, _i ? 0 : 1);
	fake_stop(&vm);
}
END_TEST

START_TEST(shutdown_of_a_paused_guest_is_refused)
{
	start();
	vm.machine.status = MACHINE_PAUSED;
	ck_assert_int_eq(verb("shutdown", "fake", NULL, NULL), VERB_FAILED);
	ck_assert_ptr_nonnull(strstr(err, "its status is paused"));
	ck_assert_uint_eq(vm.machine.buttons, 0);
	fake_stop(&vm);
}
END_TEST

START_TEST(status_tells_what_the_vm_says)
{
	json_t *o;

	start();
	ck_assert_int_eq(verb("status", "fake", NULL, NULL), VERB_DONE);
	ck_assert_ptr_nonnull(strstr(out, "name:    fake\nstatus:  running\ncpus:    2\n"));
	ck_assert_int_eq(verb("status", "--json", "fake", NULL), VERB_DONE);
	o = json_loads(out, 0, NULL);
	ck_assert_str_eq(json_string_value(json_object_get(o, "status")), "running");
	ck_assert_int_eq(json_integer_value(json_object_get(o, "pid")), getpid());
	ck_assert_int_eq(json_integer_value(json_object_get(o, "cpus")), 2);
	json_decref(o);
	fake_stop(&vm);
}
END_TEST

/* A socket that its owner has left behind, or a file. */
static void leave(const char *name, bool is_socket)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/%s", vm.dir, name);
	if (is_socket) {
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	} else {
		fd = open(sa.sun_path, O_CREAT | O_WRONLY, 0600);
	}
	close(fd);
}

static int is_left(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", vm.dir, name);
	return access(path, F_OK) == 0;
}

static void take_away(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", vm.dir, name);
	ck_assert_int_eq(unlink(path), 0);
}

START_TEST(list_shows_the_living_and_removes_the_stale)
{
	json_t *list;

	start();
	leave("dead.sock", true);
	leave("file.sock", false);
	leave("other", true);
	ck_assert_int_eq(verb("list", NULL, NULL, NULL), VERB_DONE);
	ck_assert_ptr_nonnull(strstr(out, "NAME"));
	ck_assert_ptr_nonnull(strstr(out, "\nfake "));
	ck_assert_ptr_null(strstr(out, "dead"));
	ck_assert_ptr_null(strstr(out, "file"));
	ck_assert(!is_left("dead.sock"));
	ck_assert(is_left("file.sock") && is_left("other"));
	ck_assert_int_eq(verb("list", "--json", NULL, NULL), VERB_DONE);
	list = json_loads(out, 0, NULL);
	ck_assert_uint_eq(json_array_size(list), 1);
	json_decref(list);
	take_away("file.sock");
	take_away("other");
	fake_stop(&vm);
}
END_TEST

START_TEST(list_without_a_runtime_directory_is_empty)
{
	setenv("GODWIT_RUNTIME_DIR", "/tmp/godwit-unit-nonexistent", 1);
	ck_assert_int_eq(verb("list", "--json", NULL, NULL), VERB_DONE);
	ck_assert_str_eq(out, "[]\n");
}
END_TEST

START_TEST(vm_that_is_not_there_is_said_with_where_it_was_looked_for)
{
	char want[256];

	start();
	ck_assert_int_eq(verb("pause", "x", NULL, NULL), VERB_FAILED);
	snprintf(want, sizeof(want), "godwit: no VM named 'x' (looked for %s/x.sock)\n", vm.dir);
	ck_assert_str_eq(err, want);
	ck_assert_int_eq(verb("status", "/tmp/no\nsuch.sock", NULL, NULL), VERB_FAILED);
	ck_assert_str_eq(err, "godwit: no control socket at /tmp/no?such.sock\n");
	leave("dead.sock", true);
	ck_assert_int_eq(verb("quit", "dead", NULL, NULL), VERB_FAILED);
	ck_assert_ptr_nonnull(strstr(err, "the socket is stale"));
	take_away("dead.sock");
	leave("file.sock", false);
	ck_assert_int_eq(verb("reset", "file", NULL, NULL), VERB_FAILED);
	ck_assert_ptr_nonnull(strstr(err, "is not a control socket"));
	take_away("file.sock");
	fake_stop(&vm);
}
END_TEST

static const struct {
	const char *verb, *a, *b, *c, *says;
} misused[] = {
	{ "pause", NULL, NULL, NULL, "pause: the VM's name is missing" },
	{ "pause", "a", "b", NULL, "pause: unexpected 'b'" },
	{ "save", "a", NULL, NULL, "save: the file's name is missing" },
	{ "list", "a", NULL, NULL, "list: unexpected 'a'" },
	{ "list", "--jsno", NULL, NULL, "unknown option '--jsno' (did you mean --json?)" },
	{ "status", "a", "--force", NULL, "unknown option '--force'" },
	{ "shutdown", "a", "--timeout", "soon", "--timeout: 'soon' is not a number" },
	{ "shutdown", "a", "--timeout", NULL, "'--timeout' needs a value" },
};

START_TEST(misuse_is_a_sentence_and_2)
{
	ck_assert_int_eq(verb(misused[_i].verb, misused[_i].a, misused[_i].b, misused[_i].c),
			 VERB_USAGE);
	ck_assert_msg(strstr(err, misused[_i].says), "%s", err);
	ck_assert(!strncmp(err, "godwit: ", 8));
}
END_TEST

START_TEST(every_client_verb_has_help)
{
	const char *name = cli_verbs[_i].name;

	ck_assert_int_eq(verb(name, "--help", NULL, NULL), VERB_DONE);
	ck_assert(!strncmp(out, "usage: godwit ", 14));
	ck_assert(!strncmp(out + 14, name, strlen(name)));
}
END_TEST

/* Saving. */

static int save(const char *ends, int raise_signal)
{
	sigset_t set;

	/* Before the loop's thread is there: as in a process of its own, nobody else takes it. */
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	start();
	vm.migrate_ends = ends;
	vm.raise_signal = raise_signal;
	return verb("save", "fake", "/tmp/godwit-unit-saved", NULL);
}

START_TEST(save_returns_when_the_vm_has_ended)
{
	ck_assert_msg(save("completed", 0) == VERB_DONE, "%s", err);
	ck_assert_ptr_nonnull(strstr(out, "saved 'fake' to /tmp/godwit-unit-saved"));
	ck_assert_int_ne(access(vm.path, F_OK), 0);
	fake_stop(&vm);
}
END_TEST

START_TEST(save_that_fails_tells_why)
{
	ck_assert_int_eq(save("failed", 0), VERB_FAILED);
	ck_assert_str_eq(err, "godwit: no space left\n");
	fake_stop(&vm);
}
END_TEST

START_TEST(interrupted_save_is_cancelled)
{
	ck_assert_int_eq(save(NULL, SIGINT), VERB_CANCELLED);
	ck_assert_ptr_nonnull(strstr(err, "the guest runs on"));
	ck_assert_str_eq(vm.migrate_status, "cancelled");
	fake_stop(&vm);
}
END_TEST

/* A VM that is no good. */

static int bad_listener(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(sa.sun_path, path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(listen(fd, 4), 0);
	return fd;
}

struct bad_vm {
	int fd;
	const char *says;
};

static void *speak(void *arg)
{
	struct bad_vm *b = arg;
	int fd = accept(b->fd, NULL, NULL);
	char c;

	(void)!write(fd, b->says, strlen(b->says));
	/* Until the client has gone. */
	while (b->says[0] && read(fd, &c, 1) > 0)
		;
	close(fd);
	return NULL;
}

static const struct {
	const char *vm_says, *says;
} bad_vms[] = {
	{ "", "closed the connection without a greeting" },
	{ "hello\r\n", "not QMP" },
	{ "[]\r\n", "not QMP" },
	{ "{}\r\n", "its greeting is not that of QMP" },
	{ "{\"error\":{\"desc\":\"too many clients\"}}\r\n", "too many clients" },
	{ "{\"QMP\":", "does not answer (waited 300 ms)" },
	{ "{\"QMP\":{}}\r\n{\"event\":\"X\"}\r\n", "has not answered 'qmp_capabilities'" },
	{ "{\"QMP\":{}}\r\n{\"error\":{\"desc\":\"no\"}}\r\n", "no" },
	{ "{\"QMP\":{}}\r\n{\"error\":7}\r\n", "neither a result nor an error" },
};

START_TEST(vm_that_talks_nonsense_is_given_up_on)
{
	struct bad_vm bad = { .says = bad_vms[_i].vm_says };
	struct err e = { "" };
	pthread_t thread;
	struct client c;
	char path[64];

	snprintf(path, sizeof(path), "/tmp/godwit-unit-bad-%d", (int)getpid());
	unlink(path);
	bad.fd = bad_listener(path);
	pthread_create(&thread, NULL, speak, &bad);
	ck_assert_int_eq(client_open(&c, path, 300, &e), -1);
	ck_assert_msg(strstr(e.text, bad_vms[_i].says), "'%s'", e.text);
	client_close(&c);
	pthread_join(thread, NULL);
	close(bad.fd);
	unlink(path);
}
END_TEST

/* A VM in a process of its own, which is seen to end. */
START_TEST(end_is_waited_for_until_the_process_is_gone)
{
	pid_t child;
	int ready[2];
	char c;

	ck_assert_int_eq(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		start();
		(void)!write(ready[1], vm.dir, strlen(vm.dir) + 1);
		while (access(vm.path, F_OK) == 0)
			usleep(1000);
		usleep(200000); /* the socket is gone, the process not yet */
		fake_stop(&vm);
		_exit(0);
	}
	for (size_t n = 0; n < sizeof(vm.dir); n++) {
		ck_assert_int_eq(read(ready[0], &c, 1), 1);
		vm.dir[n] = c;
		if (!c)
			break;
	}
	setenv("GODWIT_RUNTIME_DIR", vm.dir, 1);
	ck_assert_msg(verb("quit", "fake", NULL, NULL) == VERB_DONE, "%s", err);
	ck_assert_int_eq(waitpid(child, NULL, WNOHANG), child);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *s = suite_create("cli");
	TCase *verbs = tcase_create("verbs");
	SRunner *runner = srunner_create(s);
	int failed, n_verbs = 0;

	while (cli_verbs[n_verbs].name)
		n_verbs++;
	tcase_set_timeout(verbs, 60);
	tcase_add_test(verbs, pause_and_resume_return_when_it_is_true);
	tcase_add_test(verbs, resize_says_which_disk_and_how_large);
	tcase_add_test(verbs, forced_resume_without_undecided_migration_says_so);
	tcase_add_test(verbs, forced_resume_of_an_undecided_guest_makes_it_run);
	tcase_add_test(verbs, forced_resume_of_a_guest_that_was_paused_says_so);
	tcase_add_test(verbs, resume_of_a_guest_that_has_not_set_out_says_what_will_be);
	tcase_add_test(verbs, resume_of_a_guest_that_is_elsewhere_fails);
	tcase_add_test(verbs, reset_waits_for_the_event);
	tcase_add_loop_test(verbs, shutdown_and_quit_wait_for_the_end, 0, 2);
	tcase_add_test(verbs, shutdown_of_a_paused_guest_is_refused);
	tcase_add_test(verbs, status_tells_what_the_vm_says);
	tcase_add_test(verbs, list_shows_the_living_and_removes_the_stale);
	tcase_add_test(verbs, list_without_a_runtime_directory_is_empty);
	tcase_add_test(verbs, vm_that_is_not_there_is_said_with_where_it_was_looked_for);
	tcase_add_loop_test(verbs, misuse_is_a_sentence_and_2, 0, COUNT(misused));
	tcase_add_loop_test(verbs, every_client_verb_has_help, 0, n_verbs);
	tcase_add_test(verbs, save_returns_when_the_vm_has_ended);
	tcase_add_test(verbs, save_that_fails_tells_why);
	tcase_add_test(verbs, interrupted_save_is_cancelled);
	tcase_add_loop_test(verbs, vm_that_talks_nonsense_is_given_up_on, 0, COUNT(bad_vms));
	tcase_add_test(verbs, end_is_waited_for_until_the_process_is_gone);
	suite_add_tcase(s, verbs);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
