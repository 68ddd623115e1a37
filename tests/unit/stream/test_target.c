/*
 * The file that a save writes: it takes the place of nothing but an older saved machine that nobody
 * uses, and what a killed save has left is in nobody's way. No KVM.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "migrate/stream/hello.h"
#include "vmm/base/err.h"

static char dir[] = "/tmp/godwit-test-XXXXXX";
static char path[64];

/* What a saved machine begins with. */
static const uint8_t older[RECORD_HEAD_BYTES + HELLO_BYTES] = {
	[0] = RECORD_HELLO, [RECORD_HEAD_BYTES] = 'G', 'O', 'D', 'W', 'I', 'T', '\r', '\n'
};

static unsigned int files_in_dir(void)
{
	DIR *d = opendir(dir);
	unsigned int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void set_contents(const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_eq(write(fd, bytes, len), len);
	close(fd);
}

static size_t contents(uint8_t out[4096])
{
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, out, 4096);

	ck_assert_int_ge(n, 0);
	close(fd);
	return (size_t)n;
}

static void setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/saved", dir);
}

static void teardown(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

/* Why the file may not be replaced; and that it was not. */
static void is_kept(const char *why)
{
	struct channel *ch;
	uint8_t before[4096], after[4096];
	size_t n = contents(before);
	struct err e;

	ck_assert_int_eq(file_channel_create(&ch, path, &e), -1);
	ck_assert_msg(strstr(e.text, path) == e.text && strstr(e.text, why), "%s", e.text);
	ck_assert(contents(after) == n && !memcmp(before, after, n));
	ck_assert_uint_eq(files_in_dir(), 1);
}

START_TEST(only_a_saved_machine_that_nobody_uses_is_replaced)
{
	struct flock all = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	struct channel *ch;
	struct err e;
	int fd, status;

	set_contents("an image, or a letter", 21);
	is_kept("exists and is no saved machine");
	set_contents(older, RECORD_HEAD_BYTES);
	is_kept("exists and is no saved machine");
	set_contents(older, sizeof(older));
	fd = open(path, O_RDONLY);
	is_kept("this VM uses this file itself");
	ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &all), 0);
	if (fork() == 0) {
		close(fd);
		is_kept("in use by another process (locked)");
		_exit(0);
	}
	ck_assert(wait(&status) > 0 && status == 0);
	close(fd);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(file_channel_create(&ch, path, &e), -1);
	ck_assert_msg(strstr(e.text, "is a FIFO, not a regular file"), "%s", e.text);
	ck_assert_int_eq(unlink(path), 0);

	/* Nothing, or nothing of worth, may become one while it is written, too. */
	ck_assert_msg(file_channel_create(&ch, path, &e) == 0, "%s", e.text);
	set_contents("new", 3);
	ck_assert_int_eq(channel_finish(ch, &e), -1);
	ck_assert_msg(strstr(e.text, "exists and is no saved machine"), "%s", e.text);
	channel_close(ch);
	ck_assert_uint_eq(files_in_dir(), 1);
	set_contents("", 0);
	ck_assert_msg(file_channel_create(&ch, path, &e) == 0, "%s", e.text);
	ck_assert_msg(channel_finish(ch, &e) == 0, "%s", e.text);
	channel_close(ch);
}
END_TEST

/* As on NFS: files without a name cannot be made. */
static void forget_unnamed_files(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_openat, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
	ck_assert_int_eq(open(dir, O_TMPFILE | O_RDWR, 0600), -1);
}

START_TEST(what_a_killed_save_has_left_is_in_nobodys_way)
{
	char left[128], foreign[128], second[128];
	struct channel *ch, *other;
	struct err e;

	if (_i)
		forget_unnamed_files();
	snprintf(left, sizeof(left), "%s/.godwit-save-0123456789abcdef", dir);
	snprintf(foreign, sizeof(foreign), "%s/.godwit-save-0123456789abcdef.txt", dir);
	close(open(foreign, O_WRONLY | O_CREAT, 0600));
	close(open(left, O_WRONLY | O_CREAT, 0600));
	/* Two at once, in one process: neither cleans the other away. */
	ck_assert_msg(file_channel_create(&ch, path, &e) == 0, "%s", e.text);
	ck_assert_int_eq(access(left, F_OK), -1);
	snprintf(second, sizeof(second), "%s/second", dir);
	ck_assert_msg(file_channel_create(&other, second, &e) == 0, "%s", e.text);
	ck_assert_msg(channel_finish(ch, &e) == 0, "%s", e.text);
	ck_assert_msg(channel_finish(other, &e) == 0, "%s", e.text);
	channel_close(ch);
	channel_close(other);
	ck_assert_uint_eq(files_in_dir(), 3);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("target");
	TCase *c = tcase_create("target");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, only_a_saved_machine_that_nobody_uses_is_replaced);
	tcase_add_loop_test(c, what_a_killed_save_has_left_is_in_nobodys_way, 0, 2);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
