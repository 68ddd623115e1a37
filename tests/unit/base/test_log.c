/*
 * The log and the descriptors it begins from: whoever logs never waits for who reads stderr, and
 * what a reader that reads gets is whole, in order, and says what is missing. Each test has its own
 * stderr.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/base/output.h"
#include "vmm/loop.h"
#include "vmm/process.h"

static int reader = -1, saved = -1, told;
static char got[4 << 20];

/* What is written to `fd` from now on is stderr. */
static void be_stderr(int fd)
{
	saved = dup(STDERR_FILENO);
	dup2(fd, STDERR_FILENO);
	close(fd);
}

static void open_pipe(void)
{
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_ge(fcntl(ends[1], F_SETPIPE_SZ, 4096), 0);
	reader = ends[0];
	be_stderr(ends[1]);
}

static void teardown(void)
{
	log_set_backlogged(NULL, NULL);
	if (saved >= 0)
		dup2(saved, STDERR_FILENO);
	if (reader >= 0)
		close(reader);
}

/* Adds to `got` what is there. */
static void take(size_t *n)
{
	struct pollfd p = { .fd = reader, .events = POLLIN };

	while (poll(&p, 1, 0) > 0 && p.revents & POLLIN) {
		ssize_t r = read(reader, got + *n, sizeof(got) - 1 - *n);

		if (r <= 0)
			break;
		*n += (size_t)r;
	}
	got[*n] = '\0';
}

static void backlogged(void *arg)
{
	(void)arg;
	told++;
}

/* Every line of `total` is there in order, or counted as missing. */
static void check_account(unsigned int total)
{
	unsigned int next = 0, number;
	char *line, *rest = got;

	while ((line = strsep(&rest, "\n")) && *line) {
		if (sscanf(line, "godwit: line %u ", &number) == 1)
			ck_assert_uint_eq(number, next++);
		else if (sscanf(line, "godwit: %u lines are missing", &number) == 1)
			next += number;
		else
			ck_abort_msg("no whole line: '%s'", line);
	}
	ck_assert_uint_eq(next, total);
}

static void log_into_what_is_full(void)
{
	unsigned int i, n_lines = 3000;
	size_t n = 0;

	log_set_backlogged(backlogged, NULL);
	log_open();
	for (i = 0; i < n_lines; i++)
		log_warn("line %u of some length, so that it is soon full", i);
	ck_assert_int_eq(told, 1);
	/* Its reader reads again: what waited, what is missing, and what is said later. */
	while (!log_flush())
		take(&n);
	log_warn("line %u after it", n_lines++);
	take(&n);
	log_close();
	take(&n);
	ck_assert_ptr_nonnull(strstr(got, "lines are missing"));
	ck_assert_ptr_nonnull(strstr(got, "after it"));
	check_account(n_lines);
}

START_TEST(who_logs_never_waits_for_the_reader_and_lost_lines_are_counted)
{
	int flags;

	open_pipe();
	flags = fcntl(STDERR_FILENO, F_GETFL);
	log_into_what_is_full();
	ck_assert_int_eq(fcntl(STDERR_FILENO, F_GETFL), flags); /* others share it */
}
END_TEST

START_TEST(a_socket_may_be_stderr)
{
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	reader = ends[0];
	be_stderr(ends[1]);
	log_into_what_is_full();
}
END_TEST

START_TEST(a_stopped_terminal_holds_nobody_up)
{
	char bytes[300] = { 0 };
	int slave, i;

	ck_assert_int_eq(openpty(&reader, &slave, NULL, NULL, NULL), 0);
	ck_assert_int_eq(tcflow(slave, TCOOFF), 0);
	be_stderr(slave);
	log_open();
	for (i = 0; i < 3000; i++)
		log_warn("line %d", i);
	log_close();
	/* Nor where it cannot be opened anew. */
	for (i = 0; i < 300; i++)
		(void)!output_write(STDERR_FILENO, OUTPUT_POLLED, bytes, sizeof(bytes));
	ck_assert_int_eq(tcflow(STDERR_FILENO, TCOON), 0);
}
END_TEST

START_TEST(a_pipe_that_cannot_be_opened_anew_is_never_waited_for)
{
	char bytes[8192] = { 0 };
	ssize_t n;

	open_pipe();
	/* As if others filled it between poll and write. */
	while ((n = output_write(STDERR_FILENO, OUTPUT_POLLED, bytes, sizeof(bytes))) > 0)
		;
	ck_assert_int_eq(errno, EAGAIN);
}
END_TEST

START_TEST(the_end_waits_a_bounded_moment_for_the_reader)
{
	uint64_t begin;
	int i;

	open_pipe();
	log_open();
	for (i = 0; i < 1000; i++)
		log_warn("line %d", i);
	begin = clock_us();
	log_close();
	ck_assert_uint_lt(clock_us() - begin, 30000000);
}
END_TEST

START_TEST(a_reader_that_is_gone_is_no_harm)
{
	int i;

	open_pipe();
	log_open();
	close(reader);
	reader = -1;
	for (i = 0; i < 1000; i++)
		log_warn("line %d", i);
	ck_assert(log_flush());
	log_close();
}
END_TEST

START_TEST(before_and_after_it_is_open_lines_go_out_at_once_and_in_order)
{
	size_t n = 0;

	open_pipe();
	log_warn("line 0 before");
	log_open();
	log_warn("line 1 while it is");
	log_close();
	log_warn("line 2 after");
	take(&n);
	check_account(3);
}
END_TEST

START_TEST(no_control_character_reaches_the_log)
{
	size_t n = 0;

	open_pipe();
	log_warn("a name: %s", "x\033[2J\r\ny");
	take(&n);
	ck_assert_str_eq(got, "godwit: a name: x?[2J??y\n");
}
END_TEST

START_TEST(the_loop_writes_what_waited_when_the_reader_reads_again)
{
	struct process_log l;
	struct loop loop;
	size_t n = 0;
	int i;

	open_pipe();
	ck_assert_int_eq(loop_init(&loop, NULL), 0);
	log_open();
	process_log_begin(&l, &loop);
	ck_assert_int_eq(loop_start(&loop, "main", NULL), 0);
	for (i = 0; i < 300; i++)
		log_warn("line %d of some length, so that it is soon full", i);
	for (i = 0; i < 5000 && !strstr(got, "line 299"); i++) {
		take(&n);
		usleep(1000);
	}
	ck_assert_ptr_nonnull(strstr(got, "line 299"));
	loop_join(&loop);
	process_log_end(&l);
	log_close();
	loop_free(&loop);
	check_account(300);
}
END_TEST

START_TEST(missing_descriptors_become_dev_null)
{
	int missing, status, fd;
	pid_t child;

	for (missing = 0; missing < 8; missing++) {
		child = fork();
		if (child == 0) {
			for (fd = 0; fd < 3; fd++)
				if (missing & 1 << fd)
					close(fd);
			process_fill_descriptors();
			for (fd = 0; fd < 3; fd++)
				if (fcntl(fd, F_GETFD) < 0)
					_exit(1);
			if (missing & 1 && read(0, got, 1) != 0)
				_exit(2);
			if (missing & 2 && write(1, "x", 1) != 1)
				_exit(3);
			_exit(0);
		}
		ck_assert_int_eq(waitpid(child, &status, 0), child);
		ck_assert_msg(status == 0, "closed %d: status %x", missing, status);
	}
}
END_TEST

START_TEST(stray_signals_do_not_end_a_vm_and_others_end_it_in_order)
{
	static const int strays[] = { SIGPIPE,	 SIGUSR1, SIGUSR2,   SIGALRM, SIGPROF,
				      SIGVTALRM, SIGPOLL, SIGSTKFLT, SIGXFSZ };
	static const int endings[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU, SIGPWR };
	sigset_t set, pending;
	size_t i;

	ck_assert_int_eq(process_take_signals(&set, NULL), 0);
	for (i = 0; i < sizeof(strays) / sizeof(strays[0]); i++)
		raise(strays[i]);
	raise(SIGRTMIN);
	raise(SIGRTMAX);
	for (i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		ck_assert_int_eq(sigismember(&set, endings[i]), 1);
		raise(endings[i]);
	}
	sigpending(&pending);
	for (i = 0; i < sizeof(endings) / sizeof(endings[0]); i++)
		ck_assert_int_eq(sigismember(&pending, endings[i]), 1);
	signal(SIGQUIT, SIG_IGN); /* forget them: check ends the process by itself */
	while (sigtimedwait(&set, NULL, &(struct timespec){ 0 }) > 0)
		;
}
END_TEST

int main(void)
{
	Suite *s = suite_create("log");
	TCase *t = tcase_create("log");
	SRunner *r = srunner_create(s);
	int failed;

	signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(t, NULL, teardown);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_test(t, who_logs_never_waits_for_the_reader_and_lost_lines_are_counted);
	tcase_add_test(t, a_socket_may_be_stderr);
	tcase_add_test(t, a_stopped_terminal_holds_nobody_up);
	tcase_add_test(t, a_pipe_that_cannot_be_opened_anew_is_never_waited_for);
	tcase_add_test(t, the_end_waits_a_bounded_moment_for_the_reader);
	tcase_add_test(t, a_reader_that_is_gone_is_no_harm);
	tcase_add_test(t, before_and_after_it_is_open_lines_go_out_at_once_and_in_order);
	tcase_add_test(t, no_control_character_reaches_the_log);
	tcase_add_test(t, the_loop_writes_what_waited_when_the_reader_reads_again);
	tcase_add_test(t, missing_descriptors_become_dev_null);
	tcase_add_test(t, stray_signals_do_not_end_a_vm_and_others_end_it_in_order);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
