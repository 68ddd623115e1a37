/*
 * The life of a control socket's file: claimed by one, replaced when stale, never taken from the
 * living, gone with its owner; and where it is.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/control/runtime.h"

static char dir[64];

static const char *in_dir(const char *name)
{
	static char path[256];

	if (!dir[0]) {
		strcpy(dir, "/tmp/godwit-unit-XXXXXX");
		ck_assert_ptr_nonnull(mkdtemp(dir));
	}
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void remove_dir(void)
{
	ck_assert_int_eq(rmdir(dir), 0);
}

static int listen_at(struct unix_socket *s, const char *path, const char *says)
{
	struct err e = { "" };
	int rc = unix_socket_listen(s, path, &e), why = errno;

	if (rc)
		ck_assert_msg(says && strstr(e.text, says), "'%s' does not say '%s'", e.text,
			      says ? says : "(nothing)");
	errno = why;
	return rc;
}

START_TEST(socket_is_the_owners_alone_and_goes_with_him)
{
	struct unix_socket s;
	struct stat st;

	umask(0);
	ck_assert_int_eq(listen_at(&s, in_dir("a"), NULL), 0);
	ck_assert_int_eq(stat(in_dir("a"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(unix_socket_probe(in_dir("a"), NULL), UNIX_SOCKET_ANSWERS);
	unix_socket_close(&s);
	ck_assert_int_eq(unix_socket_probe(in_dir("a"), NULL), UNIX_SOCKET_ABSENT);
	remove_dir();
}
END_TEST

START_TEST(socket_in_use_is_refused_and_lives_on)
{
	struct unix_socket s, t;

	ck_assert_int_eq(listen_at(&s, in_dir("a"), NULL), 0);
	ck_assert_int_eq(listen_at(&t, in_dir("a"), "is in use"), -1);
	ck_assert_int_eq(errno, EADDRINUSE);
	ck_assert_int_eq(t.fd, -1);
	ck_assert_int_eq(unix_socket_probe(in_dir("a"), NULL), UNIX_SOCKET_ANSWERS);
	unix_socket_close(&s);
	remove_dir();
}
END_TEST

START_TEST(stale_socket_is_replaced)
{
	struct unix_socket s;

	ck_assert_int_eq(listen_at(&s, in_dir("a"), NULL), 0);
	close(s.fd); /* as when the process was killed */
	ck_assert_int_eq(unix_socket_probe(in_dir("a"), NULL), UNIX_SOCKET_STALE);
	ck_assert_int_eq(listen_at(&s, in_dir("a"), NULL), 0);
	unix_socket_close(&s);
	remove_dir();
}
END_TEST

START_TEST(what_is_no_socket_is_left_alone)
{
	struct unix_socket s;
	int fd = open(in_dir("a"), O_CREAT | O_WRONLY, 0600);

	close(fd);
	ck_assert_int_eq(listen_at(&s, in_dir("a"), "is not a socket"), -1);
	ck_assert_int_ne(errno, EADDRINUSE);
	ck_assert_int_eq(unlink(in_dir("a")), 0);
	ck_assert_int_eq(symlink("/nowhere", in_dir("a")), 0);
	ck_assert_int_eq(listen_at(&s, in_dir("a"), "is not a socket"), -1);
	ck_assert_int_eq(unlink(in_dir("a")), 0);
	remove_dir();
}
END_TEST

START_TEST(socket_of_a_successor_is_not_removed)
{
	struct unix_socket s, t;

	ck_assert_int_eq(listen_at(&s, in_dir("a"), NULL), 0);
	ck_assert_int_eq(unlink(in_dir("a")), 0);
	ck_assert_int_eq(listen_at(&t, in_dir("a"), NULL), 0);
	unix_socket_close(&s);
	ck_assert_int_eq(unix_socket_probe(in_dir("a"), NULL), UNIX_SOCKET_ANSWERS);
	unix_socket_close(&t);
	remove_dir();
}
END_TEST

START_TEST(paths_that_cannot_be_are_refused_with_their_lengths)
{
	struct unix_socket s;
	char path[200] = "/";

	memset(path + 1, 'a', 149);
	ck_assert_int_eq(listen_at(&s, path, "has 150 characters; a socket's path may have 107"),
			 -1);
	ck_assert_int_eq(listen_at(&s, "", "is empty"), -1);
	ck_assert_int_eq(listen_at(&s, "/nonexistent/x.sock", "/nonexistent"), -1);
}
END_TEST

struct race {
	pthread_barrier_t start;
	const char *path;
};

struct racer {
	struct unix_socket socket;
	struct race *race;
};

static void *run_race(void *arg)
{
	struct racer *r = arg;

	pthread_barrier_wait(&r->race->start);
	(void)unix_socket_listen(&r->socket, r->race->path, NULL);
	return NULL;
}

START_TEST(of_many_who_want_a_stale_socket_one_gets_it)
{
	struct unix_socket stale;
	struct racer racers[4];
	pthread_t threads[4];
	struct race r;

	r.path = in_dir("a");
	pthread_barrier_init(&r.start, NULL, 4);
	for (int round = 0; round < 300; round++) {
		int winners = 0;

		ck_assert_int_eq(listen_at(&stale, r.path, NULL), 0);
		close(stale.fd);
		for (int i = 0; i < 4; i++) {
			racers[i].race = &r;
			pthread_create(&threads[i], NULL, run_race, &racers[i]);
		}
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		ck_assert_int_eq(unix_socket_probe(r.path, NULL), UNIX_SOCKET_ANSWERS);
		for (int i = 0; i < 4; i++) {
			winners += racers[i].socket.fd >= 0;
			unix_socket_close(&racers[i].socket);
		}
		ck_assert_int_eq(winners, 1);
	}
	pthread_barrier_destroy(&r.start);
	remove_dir();
}
END_TEST

START_TEST(names_become_paths_in_the_runtime_directory)
{
	char path[RUNTIME_PATH_MAX], want[200], longest[120];
	struct err e = { "" };
	struct stat st;

	snprintf(want, sizeof(want), "%s", in_dir("run"));
	setenv("GODWIT_RUNTIME_DIR", want, 1);
	ck_assert_int_eq(runtime_name_path("web", false, path, &e), 0);
	ck_assert_int_ne(stat(in_dir("run"), &st), 0);
	ck_assert_int_eq(runtime_name_path("web", true, path, &e), 0);
	ck_assert_int_eq(stat(in_dir("run"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0700);
	ck_assert_str_eq(path, in_dir("run/web.sock"));
	ck_assert_int_eq(runtime_vm_path("/x/y", path, &e), 0);
	ck_assert_str_eq(path, "/x/y");
	ck_assert_int_eq(runtime_vm_path("..", path, &e), -1);
	ck_assert_int_eq(runtime_vm_path("", path, &e), -1);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	setenv("GODWIT_RUNTIME_DIR", longest, 1);
	ck_assert_int_eq(runtime_name_path("web", false, path, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "has 119 characters"));
	ck_assert_int_eq(rmdir(in_dir("run")), 0);
	remove_dir();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("runtime");
	TCase *cases = tcase_create("runtime");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(cases, 60);
	tcase_add_test(cases, socket_is_the_owners_alone_and_goes_with_him);
	tcase_add_test(cases, socket_in_use_is_refused_and_lives_on);
	tcase_add_test(cases, stale_socket_is_replaced);
	tcase_add_test(cases, what_is_no_socket_is_left_alone);
	tcase_add_test(cases, socket_of_a_successor_is_not_removed);
	tcase_add_test(cases, paths_that_cannot_be_are_refused_with_their_lengths);
	tcase_add_test(cases, of_many_who_want_a_stale_socket_one_gets_it);
	tcase_add_test(cases, names_become_paths_in_the_runtime_directory);
	suite_add_tcase(s, cases);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
