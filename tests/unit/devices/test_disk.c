/*
 * Disk images: what is no disk is refused with a sentence, two writers never meet, and while the
 * lock goes from one VM to another no third one gets in between.
 */
#include "devices/backend/disk.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/err.h"

static char dir[64], path[96];
static struct err e;
static struct disk disk;

static void make_image(off_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, bytes), 0);
	close(fd);
}

static void setup(void)
{
	strcpy(dir, "/tmp/godwit-disk-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a.raw", dir);
	make_image(1 << 20);
}

static void teardown(void)
{
	unlink(path);
	rmdir(dir);
}

#define ck_refused(p, readonly, words)                                                     \
	do {                                                                               \
		ck_assert_int_eq(disk_open(&disk, "disk0", p, readonly, &e), -1);          \
		ck_assert_msg(strncmp(e.text, "disk0: ", 7) == 0 && strstr(e.text, words), \
			      "'%s' does not say '%s'", e.text, words);                    \
		ck_assert_int_eq(disk.fd, -1);                                             \
	} while (0)

START_TEST(image_says_its_size)
{
	ck_assert_msg(disk_open(&disk, "disk0", path, false, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(disk.sectors, 2048);
	ck_assert_uint_eq(disk.block_bytes, 512);
	ck_assert_int_eq(fcntl(disk.fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR);
	ck_assert_int_eq(fcntl(disk.fd, F_GETFD), FD_CLOEXEC);
	disk_close(&disk);
	ck_assert_msg(disk_open(&disk, "disk0", path, true, &e) == 0, "%s", e.text);
	ck_assert_int_eq(fcntl(disk.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	disk_close(&disk);
}
END_TEST

START_TEST(what_is_no_disk_is_refused)
{
	static char long_path[1000];

	ck_refused("a.raw", false, "'a.raw' is not an absolute path");
	ck_refused("/nowhere/a.raw", false, "cannot open /nowhere/a.raw");
	ck_refused("/nowhere/a.raw", false, "No such file");
	ck_refused(dir, false, "is a directory");
	ck_refused(dir, true, "is a directory");
	ck_refused("/dev/null", false, "neither a file nor a block device");
	memset(long_path, 'a', sizeof(long_path) - 1);
	long_path[0] = '/';
	ck_refused(long_path, false, "longer than");
	make_image(0);
	ck_refused(path, false, "is empty");
	make_image(1000);
	ck_refused(path, false, "has 1000 bytes, which is no multiple of 512");
	unlink(path);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_refused(path, true, "neither a file nor a block device");
	ck_refused(path, false, "neither a file nor a block device");
}
END_TEST

/* Whether another process can open and lock the image; its sentence is in e.text. */
static bool other_process_can(bool readonly)
{
	int fds[2], status;
	struct disk other;
	pid_t pid;

	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		bool ok = true;

		/* It must not have inherited our own. */
		close(disk.fd);
		if (disk_open(&other, "disk0", path, readonly, &e) < 0 || disk_lock(&other, &e) < 0)
			ok = write(fds[1], e.text, sizeof(e.text)) < 0;
		_exit(ok ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (status && read(fds[0], e.text, sizeof(e.text)) < 0)
		ck_abort_msg("no sentence");
	close(fds[0]);
	close(fds[1]);
	return status == 0;
}

START_TEST(two_writers_are_refused)
{
	char text[200];

	ck_assert_int_eq(disk_open(&disk, "disk0", path, false, &e), 0);
	ck_assert(other_process_can(false));
	ck_assert_int_eq(disk_lock(&disk, &e), 0);
	ck_assert(!other_process_can(false));
	snprintf(text, sizeof(text),
		 "disk0: %s is in use by another process (locked); stop that VM", path);
	ck_assert_str_eq(e.text, text);
	ck_assert(!other_process_can(true));
	ck_assert_ptr_nonnull(strstr(e.text, "is being written by another process"));
	disk_unlock(&disk);
	ck_assert(other_process_can(false));
	ck_assert_int_eq(disk_lock(&disk, &e), 0);
	disk_close(&disk);
	ck_assert(other_process_can(false));
}
END_TEST

START_TEST(readers_share_and_keep_writers_out)
{
	ck_assert_int_eq(disk_open(&disk, "disk0", path, true, &e), 0);
	ck_assert_int_eq(disk_lock(&disk, &e), 0);
	ck_assert(other_process_can(true));
	ck_assert(!other_process_can(false));
	/* Here it would help, unlike beside a writer. */
	ck_assert_ptr_nonnull(strstr(e.text, "stop that VM, or open it with readonly"));
	disk_close(&disk);
}
END_TEST

START_TEST(one_image_for_two_disks_of_a_vm_is_said_so)
{
	struct disk other;

	ck_assert_int_eq(disk_open(&disk, "disk0", path, false, &e), 0);
	ck_assert_int_eq(disk_lock(&disk, &e), 0);
	ck_assert_int_eq(disk_open(&other, "disk1", path, false, &e), 0);
	ck_assert_int_eq(disk_lock(&other, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "already another disk of this VM"));
	disk_close(&other);
	/* Closing the second one did not take the first one's lock away. */
	ck_assert(!other_process_can(false));
	disk_close(&disk);
}
END_TEST

/*
 * A third party that wants to write: another VM, one that waits for a guest, and QEMU, which has
 * read locks on bytes from 100 and from 200 on, and looks whether others have locks there.
 */
static bool qemu_can(bool writes)
{
	static const struct {
		off_t lock, test;
	} bytes[] = { { 100, 200 }, { 101, 201 }, { 103, 203 }, { 201, 101 }, { 203, 103 } };
	int fd = open(path, writes ? O_RDWR : O_RDONLY);
	bool can = true;

	for (unsigned int i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
		struct flock lock = { .l_type = F_RDLCK, .l_start = bytes[i].lock, .l_len = 1 };
		struct flock test = { .l_type = F_WRLCK, .l_start = bytes[i].test, .l_len = 1 };

		/* A reader wants to read what nobody writes. */
		if (!writes && i != 0 && i != 3)
			continue;
		can &= fcntl(fd, F_OFD_SETLK, &lock) == 0;
		can &= fcntl(fd, F_OFD_GETLK, &test) == 0 && test.l_type == F_UNLCK;
	}
	close(fd);
	return can;
}

static bool another_can_reserve(void)
{
	struct disk other;
	bool can;

	ck_assert_int_eq(disk_open(&other, "disk0", path, false, NULL), 0);
	can = disk_reserve(&other, NULL) == 0;
	disk_close(&other);
	return can;
}

static bool others_are_kept_out(void)
{
	return !other_process_can(false) && !other_process_can(true) && !qemu_can(true) &&
	       !qemu_can(false);
}

/* The two VMs of a migration; they see nothing of each other but the locks. */
static struct disk source, arriving;

static void begin_move(void)
{
	ck_assert_int_eq(disk_open(&source, "disk0", path, false, &e), 0);
	ck_assert_int_eq(disk_open(&arriving, "disk0", path, false, &e), 0);
	ck_assert(qemu_can(true) && qemu_can(false));
	ck_assert_int_eq(disk_lock(&source, &e), 0);
	/* Not while nobody is being moved. */
	ck_assert_int_eq(disk_reserve(&arriving, &e), -1);
	ck_assert(others_are_kept_out());
	disk_share(&source);
	ck_assert(others_are_kept_out());
	ck_assert(another_can_reserve());
	ck_assert_msg(disk_reserve(&arriving, &e) == 0, "%s", e.text);
	ck_assert(others_are_kept_out());
	/* One guest arrives, not two; and not before it was let go. */
	ck_assert(!another_can_reserve());
	ck_assert_int_eq(disk_lock(&arriving, &e), -1);
	ck_assert_int_eq(arriving.held, DISK_RESERVE);
}

START_TEST(lock_moves_and_no_third_one_gets_in)
{
	begin_move();
	disk_release(&source);
	ck_assert_int_eq(source.held, DISK_NOTHING);
	ck_assert(others_are_kept_out());
	ck_assert(!another_can_reserve());
	ck_assert_int_eq(disk_lock(&arriving, &e), 0);
	ck_assert_int_eq(arriving.held, DISK_ALL);
	ck_assert(others_are_kept_out());
	ck_assert(!another_can_reserve());
	/* The source has nothing that its end could take away, and cannot come back. */
	ck_assert_int_eq(disk_retake(&source, &e), -1);
	disk_close(&source);
	ck_assert(others_are_kept_out());
	disk_close(&arriving);
	ck_assert(other_process_can(false));
}
END_TEST

START_TEST(source_takes_its_lock_back)
{
	/* Before and after it let go; the destination ends before it does, or after. */
	for (unsigned int i = 0; i < 4; i++) {
		begin_move();
		if (i & 1)
			disk_release(&source);
		if (i & 2)
			disk_close(&arriving);
		ck_assert_msg(disk_retake(&source, &e) == 0, "%s", e.text);
		ck_assert_int_eq(source.held, i & 2 ? DISK_ALL : DISK_KEEP);
		ck_assert(others_are_kept_out());
		ck_assert(i & 2 || disk_lock(&arriving, &e) == -1);
		disk_close(&arriving);
		ck_assert(others_are_kept_out());
		ck_assert_int_eq(disk_retake(&source, &e), 0);
		ck_assert_int_eq(source.held, DISK_ALL);
		ck_assert(!another_can_reserve());
		ck_assert(others_are_kept_out());
		disk_close(&source);
	}
}
END_TEST

START_TEST(destination_that_fails_after_all_gives_back)
{
	begin_move();
	disk_release(&source);
	ck_assert_int_eq(disk_lock(&arriving, &e), 0);
	disk_release(&arriving);
	ck_assert_int_eq(disk_retake(&source, &e), 0);
	ck_assert_int_eq(source.held, DISK_ALL);
	ck_assert(others_are_kept_out());
	disk_close(&arriving);
	disk_close(&source);
}
END_TEST

START_TEST(image_that_does_not_move_stays_locked)
{
	/* The destination has a copy. */
	ck_assert_int_eq(disk_open(&source, "disk0", path, false, &e), 0);
	ck_assert_int_eq(disk_lock(&source, &e), 0);
	disk_share(&source);
	disk_release(&source);
	ck_assert_int_eq(source.held, DISK_ALL);
	ck_assert(others_are_kept_out());
	ck_assert_int_eq(disk_retake(&source, &e), 0);
	disk_close(&source);
	ck_assert(other_process_can(false));
}
END_TEST

START_TEST(readers_need_no_hand_over)
{
	ck_assert_int_eq(disk_open(&source, "disk0", path, true, &e), 0);
	ck_assert_int_eq(disk_open(&arriving, "disk0", path, true, &e), 0);
	ck_assert_int_eq(disk_lock(&source, &e), 0);
	disk_share(&source);
	ck_assert(!other_process_can(false));
	ck_assert_int_eq(disk_reserve(&arriving, &e), 0);
	ck_assert(other_process_can(true));
	disk_release(&source);
	ck_assert(!other_process_can(false));
	ck_assert_int_eq(disk_lock(&arriving, &e), 0);
	ck_assert_int_eq(disk_retake(&source, &e), 0);
	disk_close(&source);
	ck_assert(!other_process_can(false));
	disk_close(&arriving);
	ck_assert(other_process_can(false));
}
END_TEST

START_TEST(nobody_waits_for_a_guest_on_an_image_in_use)
{
	int fd = open(path, O_RDWR);
	struct flock qemu = { .l_type = F_RDLCK, .l_start = 201, .l_len = 1 };

	ck_assert_int_eq(disk_open(&disk, "disk0", path, true, &e), 0);
	ck_assert_int_eq(disk_lock(&disk, &e), 0);
	ck_assert(!another_can_reserve());
	disk_close(&disk);
	ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &qemu), 0);
	ck_assert(!another_can_reserve());
	close(fd);
	ck_assert(another_can_reserve());
}
END_TEST

/* How often it was said so far. */
static size_t warned(int said)
{
	char text[1000];
	ssize_t n = pread(said, text, sizeof(text) - 1, 0);
	size_t lines = 0;

	ck_assert_int_ge(n, 0);
	text[n] = '\0';
	for (char *at = text; (at = strstr(at, "cannot be locked (")); at++)
		lines++;
	return lines;
}

START_TEST(want_of_locks_is_told_once_and_not_before_the_guest_is_here)
{
	char into[] = "/tmp/godwit-said-XXXXXX";
	int said = mkstemp(into), fd, usual = dup(STDERR_FILENO);
	bool readonly = _i;

	unlink(into);
	dup2(said, STDERR_FILENO);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(disk_open(&disk, "disk0", path, readonly, &e), 0);
		/* This descriptor may not lock: EBADF, as other errors where there are no locks. */
		fd = open(path, readonly ? O_WRONLY : O_RDONLY);
		dup2(fd, disk.fd);
		close(fd);
		ck_assert_int_eq(disk_reserve(&disk, &e), 0);
		if (i < 2)
			disk_close(&disk);
	}
	ck_assert_uint_eq(warned(said), 0);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(disk_lock(&disk, &e), 0);
		disk_release(&disk);
		ck_assert_int_eq(disk_retake(&disk, &e), 0);
	}
	ck_assert_uint_eq(warned(said), 1);
	disk_close(&disk);
	dup2(usual, STDERR_FILENO);
	close(usual);
	close(said);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("disk");
	TCase *t = tcase_create("disk");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, image_says_its_size);
	tcase_add_test(t, what_is_no_disk_is_refused);
	tcase_add_test(t, two_writers_are_refused);
	tcase_add_test(t, readers_share_and_keep_writers_out);
	tcase_add_test(t, one_image_for_two_disks_of_a_vm_is_said_so);
	tcase_add_test(t, lock_moves_and_no_third_one_gets_in);
	tcase_add_test(t, source_takes_its_lock_back);
	tcase_add_test(t, destination_that_fails_after_all_gives_back);
	tcase_add_test(t, image_that_does_not_move_stays_locked);
	tcase_add_test(t, readers_need_no_hand_over);
	tcase_add_test(t, nobody_waits_for_a_guest_on_an_image_in_use);
	tcase_add_loop_test(t, want_of_locks_is_told_once_and_not_before_the_guest_is_here, 0, 2);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
