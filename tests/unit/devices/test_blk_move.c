/*
 * How the image of a disk goes to another host with its guest: who holds it when, what of it must
 * be on the disk before, and what a failed write forbids.
 */
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include "tests/unit/lib/blk_bench.h"

#define model virtio_blk_model

/* The same disk in another machine, which waits for its guest. */
static struct bench arriving;

static int create_arriving(void)
{
	if (!arriving.env.io) {
		ck_assert_int_eq(bench_init(&arriving, "virtio-blk", "disk0", &e), 0);
		ck_assert(!tree_set_str(&arriving.tree, "/host/disk0", "path", path, &e));
		arriving.env.incoming = true;
	}
	return bench_create(&arriving, &model, &e);
}

static void arriving_ends(void)
{
	model.destroy(arriving.device);
	arriving.device = NULL;
}

static struct disk *disk_of(struct bench *b)
{
	return &((struct blk *)b->device)->disk;
}

static bool third_one_can_have_it(void)
{
	struct disk d;
	bool can;

	ck_assert_int_eq(disk_open(&d, "disk0", path, false, NULL), 0);
	can = disk_lock(&d, NULL) == 0;
	disk_close(&d);
	return can;
}

static void share_on(void *arg)
{
	model.handover->share(arg, true);
}

static void share_off(void *arg)
{
	model.handover->share(arg, false);
}

static void settle(void *arg)
{
	model.handover->settle(arg);
}

/* Made last, as a source does it: begun, then asked until it is known. */
static int sync_disk(struct err *why)
{
	int rc;

	model.handover->sync_begin(bench.device);
	while ((rc = model.handover->sync_done(bench.device, why)) == 0)
		usleep(1000);
	return rc < 0 ? -1 : 0;
}

static enum disk_held seen;

static void look(void *arg)
{
	seen = ((struct blk *)arg)->disk.held;
}

/* What the running device holds of its image. */
static enum disk_held held_now(void)
{
	on_io(look);
	return seen;
}

/* Up to where GO would be sent. */
static void hand_over(void)
{
	ck_assert_int_eq(create_arriving(), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "already another disk of this VM (locked)"));
	on_io(share_on);
	ck_assert_msg(create_arriving() == 0, "%s", e.text);
	ck_assert(!third_one_can_have_it());
	ck_assert_int_eq(model.activate(arriving.device, &e), -1);
	ck_assert_int_eq(model.handover->acquire(arriving.device, &e), -1);
	bench_park(&bench);
	ck_assert_int_eq(sync_disk(&e), 0);
	model.handover->release(bench.device);
	ck_assert_int_eq(disk_of(&bench)->held, DISK_NOTHING);
	ck_assert(!third_one_can_have_it());
}

START_TEST(image_goes_with_its_guest)
{
	run(false, PLAIN);
	hand_over();
	ck_assert_int_eq(model.handover->acquire(arriving.device, &e), 0);
	ck_assert_int_eq(disk_of(&arriving)->held, DISK_ALL);
	ck_assert_int_eq(bench_run(&arriving, &e), 0);
	ck_assert(!third_one_can_have_it());
	ck_assert_int_eq(model.activate(bench.device, &e), -1);
	/* And back, to a machine that was made there anew. */
	model.destroy(bench.device);
	bench.device = NULL;
	ck_assert(!third_one_can_have_it());
	bench_park(&arriving);
	arriving_ends();
	bench_free(&arriving);
	ck_assert(third_one_can_have_it());
}
END_TEST

START_TEST(paused_and_resumed_while_it_is_moved_the_image_stays_shared)
{
	run(false, PLAIN);
	on_io(share_on);
	bench_park(&bench);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	ck_assert_int_eq(create_arriving(), 0);
	arriving_ends();
	bench_free(&arriving);
	on_io(share_off);
	ck_assert_int_eq(disk_of(&bench)->held, DISK_ALL);
}
END_TEST

START_TEST(source_works_on_at_once_and_gets_all_of_its_lock_back)
{
	uint32_t written;

	run(false, PLAIN);
	for (unsigned int i = 0; i < 2; i++) {
		hand_over();
		ck_assert_int_eq(model.handover->acquire(bench.device, &e), 0);
		ck_assert_int_eq(bench_run(&bench, &e), 0);
		on_io(share_off);
		/* The destination is slow to end. */
		ck_assert_int_eq(held_now(), DISK_KEEP);
		ck_assert(!third_one_can_have_it());
		ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 1, AREA, 512, &written),
				  VIRTIO_BLK_S_OK);
		arriving_ends();
		for (unsigned int ms = 0; ms < 5000 && held_now() != DISK_ALL; ms++)
			usleep(1000);
		ck_assert_int_eq(held_now(), DISK_ALL);
		ck_assert_int_eq(((struct blk *)bench.device)->retake.fd, -1);
	}
	bench_free(&arriving);
}
END_TEST

START_TEST(destination_that_cannot_start_gives_the_image_back)
{
	run(false, PLAIN);
	hand_over();
	ck_assert_int_eq(model.handover->acquire(arriving.device, &e), 0);
	model.handover->release(arriving.device);
	ck_assert_int_eq(model.handover->acquire(bench.device, &e), 0);
	ck_assert_int_eq(disk_of(&bench)->held, DISK_ALL);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	arriving_ends();
	bench_free(&arriving);
}
END_TEST

START_TEST(readonly_disk_is_open_at_both_ends)
{
	run(true, PLAIN | VIRTIO_BIT(VIRTIO_BLK_F_RO));
	ck_assert(!bench_init(&arriving, "virtio-blk", "disk0", &e));
	ck_assert(!tree_set_str(&arriving.tree, "/host/disk0", "path", path, &e));
	ck_assert(!tree_set_bytes(&arriving.tree, BENCH_PATH, "readonly", "", 0, &e));
	arriving.env.incoming = true;
	ck_assert_int_eq(create_arriving(), 0);
	ck_assert_int_eq(bench_run(&arriving, &e), 0);
	bench_park(&bench);
	ck_assert_int_eq(sync_disk(&e), 0);
	model.handover->release(bench.device);
	ck_assert(!third_one_can_have_it());
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	bench_park(&arriving);
	bench_free(&arriving);
}
END_TEST

START_TEST(requests_go_on_while_the_disk_settles)
{
	uint32_t head, written;

	run(false, PLAIN);
	for (unsigned int round = 0; round < 50; round++) {
		offer_reads(85);
		bench_ring(&bench, 0);
		on_io(settle);
		if (round % 3 == 0) {
			bench_park(&bench);
			if (round % 2)
				ck_assert_int_eq(sync_disk(&e), 0);
			ck_assert_int_eq(bench_run(&bench, &e), 0);
		}
		for (unsigned int i = 0; i < 85; i++)
			ck_assert(bench_wait_used(&bench, &vring, &head, &written));
		for (unsigned int i = 0; i < 85; i++)
			ck_assert_uint_eq(status_at(0xa000 + i), VIRTIO_BLK_S_OK);
	}
	ck_assert(!vring_used(&vring, &head, &written));
	on_io(settle);
}
END_TEST

START_TEST(lost_writes_forbid_the_move_and_are_told_to_the_guest)
{
	int fds[2], fd, saved;
	uint32_t written;

	run(false, PLAIN);
	fd = disk_of(&bench)->fd;
	saved = dup(fd);
	ck_assert_int_eq(pipe(fds), 0);
	for (unsigned int i = 0; i < 2; i++) {
		/* A pipe cannot be synced. */
		ck_assert_int_ge(dup2(fds[1], fd), 0);
		if (i == 1) {
			on_io(settle);
			usleep(100000);
		}
		bench_park(&bench);
		if (i == 0)
			ck_assert_int_eq(sync_disk(&e), -1);
		ck_assert_int_ge(dup2(saved, fd), 0);
		/* That the kernel says nothing now is not to be believed. */
		ck_assert_int_eq(sync_disk(&e), -1);
		ck_assert_ptr_nonnull(strstr(e.text, "disk0: what the guest wrote does not get "
						     "onto /tmp/godwit-blk-"));
		ck_assert_int_eq(disk_of(&bench)->held, DISK_ALL);
		ck_assert_int_eq(bench_run(&bench, &e), 0);
		ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, AREA, 0, &written),
				  VIRTIO_BLK_S_IOERR);
		ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, AREA, 0, &written),
				  VIRTIO_BLK_S_OK);
	}
	bench_park(&bench);
	ck_assert_int_eq(sync_disk(&e), 0);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	close(saved);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

static int bad_fd; /* of a pipe, which cannot be synced */

/*
 * A settle that fails (as blk_settle begins it, but for its fd), and while it is with the kernel a
 * flush that does not: the error is one of writes that were made before either, and the kernel
 * tells only one of them.
 */
static void fail_settle_beside_flush(void *arg)
{
	struct virtio_device *v = arg;
	struct blk *b = arg;
	struct io_uring_sqe *sqe;

	pthread_mutex_lock(&v->lock);
	sqe = io_uring_get_sqe(&b->uring);
	io_uring_prep_fsync(sqe, bad_fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data64(sqe, UINT64_MAX);
	b->settling++;
	v->ops->ring(v, 0);
	pthread_mutex_unlock(&v->lock);
}

START_TEST(flush_beside_a_failing_settle_fails_too)
{
	struct vring_buffer b[] = { { HEADER, 16, false }, { STATUS, 1, true } };
	uint32_t head, written;
	int fds[2];

	run(false, PLAIN);
	ck_assert_int_eq(pipe(fds), 0);
	bad_fd = fds[1];
	/* Either of them may be over first. */
	for (unsigned int i = 0; i < 100; i++) {
		put_header(HEADER, VIRTIO_BLK_T_FLUSH, 0);
		*(uint8_t *)memory_host(&bench.memory, STATUS, 1) = 0xee;
		vring_add(&vring, b, 2);
		on_io(fail_settle_beside_flush);
		ck_assert(bench_wait_used(&bench, &vring, &head, &written));
		ck_assert_uint_eq(status_at(STATUS), VIRTIO_BLK_S_IOERR);
		ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, AREA, 0, &written),
				  VIRTIO_BLK_S_OK);
	}
	close(fds[0]);
	close(fds[1]);
}
END_TEST

static unsigned int cached_pages(void)
{
	unsigned char there[SECTORS * 512 / PAGE_SIZE];
	void *map = mmap(NULL, SECTORS * 512, PROT_READ, MAP_SHARED, image, 0);
	unsigned int i, n = 0;

	ck_assert_ptr_ne(map, MAP_FAILED);
	ck_assert_int_eq(mincore(map, SECTORS * 512, there), 0);
	munmap(map, SECTORS * 512);
	for (i = 0; i < sizeof(there); i++)
		n += there[i] & 1;
	return n;
}

/* The image as a block device; false where there is none to be had. */
static bool make_loop(void)
{
	const struct loop_info64 end = { .lo_flags = LO_FLAGS_AUTOCLEAR };
	int control = open("/dev/loop-control", O_RDWR), n = -1, fd = -1;

	if (control >= 0)
		n = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	if (n >= 0) {
		unlink(path);
		snprintf(path, sizeof(path), "/dev/loop%d", n);
		fd = open(path, O_RDWR);
	}
	if (fd < 0 || ioctl(fd, LOOP_SET_FD, image) < 0 || ioctl(fd, LOOP_SET_STATUS64, &end) < 0) {
		close(fd);
		return false;
	}
	close(image);
	image = fd;
	return true;
}

START_TEST(destination_reads_nothing_that_was_cached_before)
{
	if (!make_loop()) {
		printf("skipped: the cache of a block device: no loop device to be had\n");
		strcpy(path, "/nowhere");
		return;
	}
	run(false, PLAIN);
	hand_over();
	for (unsigned int i = 0; i < SECTORS; i++)
		image_has(i, 1, 0);
	ck_assert_uint_eq(cached_pages(), SECTORS * 512 / PAGE_SIZE);
	ck_assert_int_eq(model.handover->acquire(arriving.device, &e), 0);
	ck_assert_uint_eq(cached_pages(), 0);
	arriving_ends();
	bench_free(&arriving);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	bench_park(&bench);
	bench_free(&bench);
	memset(&bench, 0, sizeof(bench));
	strcpy(path, "/nowhere"); /* not to be unlinked */
}
END_TEST

START_TEST(cache_of_a_local_file_is_kept)
{
	struct statfs fs;

	run(false, PLAIN);
	ck_assert_int_eq(fstatfs(image, &fs), 0);
	if (fs.f_type != EXT4_SUPER_MAGIC && fs.f_type != XFS_SUPER_MAGIC) {
		printf("skipped: the cache of a local file: /tmp is not ext4 or XFS\n");
		return;
	}
	hand_over();
	for (unsigned int i = 0; i < SECTORS; i++)
		image_has(i, 1, 0);
	ck_assert_int_eq(model.handover->acquire(arriving.device, &e), 0);
	ck_assert_uint_eq(cached_pages(), SECTORS * 512 / PAGE_SIZE);
	arriving_ends();
	bench_free(&arriving);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blk, move");
	TCase *t = tcase_create("blk, move");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, image_goes_with_its_guest);
	tcase_add_test(t, paused_and_resumed_while_it_is_moved_the_image_stays_shared);
	tcase_add_test(t, source_works_on_at_once_and_gets_all_of_its_lock_back);
	tcase_add_test(t, destination_that_cannot_start_gives_the_image_back);
	tcase_add_test(t, readonly_disk_is_open_at_both_ends);
	tcase_add_test(t, requests_go_on_while_the_disk_settles);
	tcase_add_test(t, lost_writes_forbid_the_move_and_are_told_to_the_guest);
	tcase_add_test(t, flush_beside_a_failing_settle_fails_too);
	tcase_add_test(t, destination_reads_nothing_that_was_cached_before);
	tcase_add_test(t, cache_of_a_local_file_is_kept);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
