/*
 * The slots of the migrations that leave a host: VMs are processes here, in a directory of the
 * test's own. No clock: a child says by a pipe that it has done what it was to do.
 */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate/slots.h"
#include "vmm/base/err.h"

static char dir[32], path[64], names[512];
static struct err e;

static void set_up(void)
{
	snprintf(dir, sizeof(dir), "/tmp/godwit-unit-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/migrations", dir);
}

static void tear_down(void)
{
	unlink(path);
	rmdir(dir);
}

static struct slots opened(const char *vm)
{
	struct slots s;

	ck_assert_msg(slots_open(&s, dir, vm, &e) == 0, "%s", e.text);
	return s;
}

static int take(struct slots *s, unsigned int max)
{
	return slots_take(s, max, names, sizeof(names), &e);
}

/* A VM in a process of its own, with a slot, until it is told to end. */
struct vm {
	pid_t pid;
	int tell; /* a byte: end in good order */
};

static struct vm start(const char *name)
{
	int up[2], down[2];
	struct vm vm;
	char c = 0;

	ck_assert_int_eq(pipe(up) | pipe(down), 0);
	vm.pid = fork();
	if (vm.pid == 0) {
		struct slots s;

		close(down[1]);
		c = slots_open(&s, dir, name, &e) == 0 && take(&s, 0) == 1;
		if (write(up[1], &c, 1) == 1 && read(down[0], &c, 1) == 1)
			slots_close(&s);
		_exit(0);
	}
	close(up[1]);
	close(down[0]);
	vm.tell = down[1];
	ck_assert_int_eq(read(up[0], &c, 1), 1);
	ck_assert_int_eq(c, 1);
	close(up[0]);
	return vm;
}

static void end(struct vm *vm, int sig)
{
	if (sig)
		kill(vm->pid, sig);
	else
		ck_assert_int_eq(write(vm->tell, "q", 1), 1);
	close(vm->tell);
	waitpid(vm->pid, NULL, 0);
}

static bool is_there(void)
{
	return access(path, F_OK) == 0;
}

START_TEST(no_more_than_the_bound_and_the_others_are_named)
{
	struct vm web = start("web"), db = start("db");
	struct slots s = opened("mail");

	ck_assert_int_eq(take(&s, 1), 0);
	ck_assert_int_eq(take(&s, 2), 0);
	ck_assert_str_eq(names, "web, db");
	ck_assert_int_eq(take(&s, 3), 1);
	ck_assert_int_eq(take(&s, 1), 1); /* it has it */
	slots_release(&s);
	slots_release(&s);
	ck_assert_int_eq(take(&s, 2), 0);
	end(&web, 0);
	ck_assert_int_eq(take(&s, 1), 0);
	ck_assert_str_eq(names, "db");
	ck_assert_int_eq(take(&s, 2), 1);
	end(&db, 0);
	slots_close(&s);
	slots_close(&s);
	ck_assert(!is_there());
}
END_TEST

START_TEST(slot_of_a_process_that_was_killed_is_free)
{
	struct vm web = start("web");
	struct slots s = opened("mail");

	ck_assert_int_eq(take(&s, 1), 0);
	end(&web, SIGKILL);
	ck_assert_int_eq(take(&s, 1), 1);
	slots_close(&s);
	ck_assert(!is_there());
}
END_TEST

START_TEST(several_of_one_process_count_too)
{
	struct slots a = opened("a"), b = opened("b");

	ck_assert_int_eq(take(&a, 1), 1);
	ck_assert_int_eq(take(&b, 1), 0);
	ck_assert_str_eq(names, "a");
	slots_close(&a);
	ck_assert(is_there());
	ck_assert_int_eq(take(&b, 1), 1);
	slots_close(&b);
}
END_TEST

START_TEST(without_a_bound_nobody_waits)
{
	struct slots all[SLOTS_MAX + 2];

	for (int i = 0; i < SLOTS_MAX + 1; i++) {
		all[i] = opened("one-of-many");
		ck_assert_int_eq(take(&all[i], 0), 1);
	}
	ck_assert_int_eq(all[SLOTS_MAX].held, -1);
	all[SLOTS_MAX + 1] = opened("x");
	ck_assert_int_eq(take(&all[SLOTS_MAX + 1], SLOTS_MAX), 0);
	ck_assert_uint_lt(strlen(names), sizeof(names));
	for (int i = 0; i < SLOTS_MAX + 2; i++)
		slots_close(&all[i]);
	ck_assert(!is_there());
}
END_TEST

#define BOUND  2
#define RACERS 8

/* One of many; `have` counts those that have a slot, `most` is how many there were at once. */
static void race(int start_fd, unsigned int *have, unsigned int *most)
{
	struct slots s = opened("racer");
	char c;

	while (read(start_fd, &c, 1) > 0) /* all at once, when it is closed */
		;
	for (int had = 0; had < 60;) {
		if (take(&s, BOUND) <= 0)
			continue;
		unsigned int n = __atomic_add_fetch(have, 1, __ATOMIC_SEQ_CST);

		if (n > __atomic_load_n(most, __ATOMIC_SEQ_CST))
			__atomic_store_n(most, n, __ATOMIC_SEQ_CST);
		__atomic_sub_fetch(have, 1, __ATOMIC_SEQ_CST);
		slots_release(&s);
		/* The file comes and goes, too. */
		if (++had % 10 == 0) {
			slots_close(&s);
			s = opened("racer");
		}
	}
	slots_close(&s);
}

START_TEST(bound_holds_when_many_take_at_once)
{
	unsigned int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				    -1, 0);
	pid_t pids[RACERS];
	int fds[2], status;

	ck_assert_int_eq(pipe(fds), 0);
	for (int i = 0; i < RACERS; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			close(fds[1]);
			race(fds[0], &shared[0], &shared[1]);
			_exit(0);
		}
	}
	close(fds[0]);
	close(fds[1]);
	for (int i = 0; i < RACERS; i++) {
		waitpid(pids[i], &status, 0);
		ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	ck_assert_uint_ge(shared[1], 1);
	ck_assert_uint_le(shared[1], BOUND);
	ck_assert(!is_there());
	munmap(shared, 4096);
}
END_TEST

START_TEST(file_is_private_and_removed_by_the_last)
{
	struct slots a = opened("a"), b = opened("b");
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	slots_remove_unused(dir);
	ck_assert(is_there());
	slots_close(&a);
	ck_assert(is_there());
	slots_close(&b);
	ck_assert(!is_there());
	slots_remove_unused(dir);
	slots_remove_unused("/nonexistent");
	/* One that a killed VM has left. */
	close(open(path, O_WRONLY | O_CREAT, 0600));
	slots_remove_unused(dir);
	ck_assert(!is_there());
}
END_TEST

#define PARTINGS 200

/* Until both are here; without sleep, so that both go on in the same instant. */
static void meet(unsigned int *arrived, unsigned int *meetings)
{
	__atomic_add_fetch(arrived, 1, __ATOMIC_SEQ_CST);
	++*meetings;
	while (__atomic_load_n(arrived, __ATOMIC_SEQ_CST) < 2 * *meetings)
		;
}

/* How often the file was there after both had closed it. */
static unsigned int leave(unsigned int *arrived)
{
	unsigned int meetings = 0, found = 0;

	for (int i = 0; i < PARTINGS; i++) {
		struct slots s = opened("leaver");

		meet(arrived, &meetings);
		slots_close(&s);
		meet(arrived, &meetings);
		found += is_there();
		meet(arrived, &meetings);
	}
	return found;
}

START_TEST(of_two_who_leave_at_once_one_removes_the_file)
{
	unsigned int *arrived = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				     -1, 0);
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(leave(arrived) != 0);
	ck_assert_uint_eq(leave(arrived), 0);
	waitpid(pid, &status, 0);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	munmap(arrived, 4096);
}
END_TEST

START_TEST(what_others_write_there_harms_nobody)
{
	struct vm web = start("web");
	struct slots s = opened("mail");
	char junk[300];
	int fd = open(path, O_RDWR);

	memset(junk, '\x1b', sizeof(junk));
	ck_assert_int_eq(pwrite(fd, junk, sizeof(junk), 0), sizeof(junk));
	ck_assert_int_eq(take(&s, 1), 0);
	ck_assert_uint_eq(strlen(names), SLOTS_VM_BYTES - 1);
	ck_assert_ptr_null(strchr(names, '\x1b'));
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	close(fd);
	ck_assert_int_eq(take(&s, 1), 0);
	ck_assert_str_eq(names, "another VM");
	end(&web, 0);
	slots_close(&s);
}
END_TEST

START_TEST(place_that_cannot_be_used_is_a_sentence)
{
	struct slots s;

	ck_assert_int_eq(slots_open(&s, "/nonexistent", "a", &e), -1);
	ck_assert_ptr_nonnull(
		strstr(e.text, "cannot use the file /nonexistent/migrations: No such"));
	ck_assert_int_eq(s.fd, -1);
	slots_close(&s);
	ck_assert_int_eq(symlink("/dev/null", path), 0);
	ck_assert_int_eq(slots_open(&s, dir, "a", &e), -1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("slots");
	TCase *c = tcase_create("slots");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, set_up, tear_down);
	tcase_add_test(c, no_more_than_the_bound_and_the_others_are_named);
	tcase_add_test(c, slot_of_a_process_that_was_killed_is_free);
	tcase_add_test(c, several_of_one_process_count_too);
	tcase_add_test(c, without_a_bound_nobody_waits);
	tcase_add_test(c, bound_holds_when_many_take_at_once);
	tcase_add_test(c, file_is_private_and_removed_by_the_last);
	tcase_add_test(c, of_two_who_leave_at_once_one_removes_the_file);
	tcase_add_test(c, what_others_write_there_harms_nobody);
	tcase_add_test(c, place_that_cannot_be_used_is_a_sentence);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
