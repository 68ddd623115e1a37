/*
 * A disk's operations behind the block device, on a file and on an image in memory that fails on
 * demand: the guest gets what it asked for or an error, and the watcher sees all that may have
 * changed.
 */
#include <errno.h>

#include "tests/unit/lib/blk_bench.h"
#include "tests/unit/lib/memory_image.h"

#define RANGES (PLAIN | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES))
#define NO_FLUSH                                                             \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | \
	 VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES))

static struct memory_image memory;
static bool in_memory;
static unsigned int n_stops;				      /* atomic */
static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows */
static bool seen[SECTORS];

static struct blk *blk(void)
{
	return (struct blk *)bench.device;
}

static void on_written(void *arg, uint64_t offset, uint64_t bytes)
{
	ck_assert_ptr_eq(arg, &bench);
	pthread_mutex_lock(&seen_lock);
	/* After a short write the next step begins within a sector. */
	for (uint64_t i = offset / DISK_SECTOR; i * DISK_SECTOR < offset + bytes; i++)
		seen[i] = true;
	pthread_mutex_unlock(&seen_lock);
}

/* Whether the watcher was told of these sectors and no others since it was last asked. */
static bool saw(uint64_t sector, uint64_t sectors)
{
	bool right = true;

	pthread_mutex_lock(&seen_lock);
	for (uint64_t i = 0; i < SECTORS; i++) {
		right &= seen[i] == (i >= sector && i < sector + sectors);
		seen[i] = false;
	}
	pthread_mutex_unlock(&seen_lock);
	return right;
}

static void watch(disk_watch_fn *fn)
{
	pthread_mutex_lock(&blk()->v.lock);
	disk_watch(&blk()->disk, fn, &bench);
	pthread_mutex_unlock(&blk()->v.lock);
}

static void on_io_error(void *machine, const struct device *d, const struct device_io_error *x)
{
	(void)machine;
	(void)d;
	__atomic_fetch_add(&n_stops, x->stop, __ATOMIC_SEQ_CST);
}

static void run_in_memory(uint64_t features)
{
	run(false, features);
	bench.env.io_error = on_io_error;
	pthread_mutex_lock(&blk()->v.lock);
	memory_image_attach(&memory, &blk()->disk);
	pthread_mutex_unlock(&blk()->v.lock);
	in_memory = true;
	watch(on_written);
}

/* 0: on the file, 1: in memory. */
static void run_on(int which, uint64_t features)
{
	if (which) {
		run_in_memory(features);
	} else {
		run(false, features);
		watch(on_written);
	}
}

static bool disk_has(uint64_t sector, unsigned int n, int byte)
{
	return in_memory ? memory_image_has(&memory, sector, n, byte) : image_has(sector, n, byte);
}

static void end(void)
{
	teardown();
	if (in_memory)
		memory_image_free(&memory);
}

static uint8_t write_byte(uint64_t sector, uint32_t bytes, int byte)
{
	uint32_t written;

	memset(memory_host(&bench.memory, AREA, bytes), byte, bytes);
	return request(VIRTIO_BLK_T_OUT, sector, AREA, bytes, &written);
}

static uint8_t range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes seg = { .sector = sector,
						       .num_sectors = sectors,
						       .flags = flags };
	uint32_t written;

	memcpy(memory_host(&bench.memory, AREA, sizeof(seg)), &seg, sizeof(seg));
	return request(type, 0, AREA, sizeof(seg), &written);
}

static uint8_t flush(void)
{
	uint32_t written;

	return request(VIRTIO_BLK_T_FLUSH, 0, AREA, 0, &written);
}

/* -- the watcher -- */

START_TEST(watcher_sees_each_range_that_is_written)
{
	uint32_t written;

	run_on(_i, RANGES);
	ck_assert_uint_eq(write_byte(100, 1024, 0xaa), VIRTIO_BLK_S_OK);
	ck_assert(saw(100, 2));
	ck_assert(disk_has(100, 2, 0xaa));
	ck_assert_uint_eq(write_byte(SECTORS - 1, 512, 0xab), VIRTIO_BLK_S_OK);
	ck_assert(saw(SECTORS - 1, 1));
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 200, 17, 0), VIRTIO_BLK_S_OK);
	ck_assert(saw(200, 17));
	ck_assert(disk_has(200, 17, 0));
	ck_assert_uint_eq(
		range(VIRTIO_BLK_T_WRITE_ZEROES, 300, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP),
		VIRTIO_BLK_S_OK);
	ck_assert(saw(300, 8));
	ck_assert(disk_has(300, 8, 0));
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, 400, 4000, 0), VIRTIO_BLK_S_OK);
	ck_assert(saw(400, 4000));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 100, AREA, 1024, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_OK);
	ck_assert(saw(0, 0));
}
END_TEST

START_TEST(watcher_sees_zeroes_that_are_written_in_steps)
{
	run_on(_i, NO_FLUSH);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 3, 4097, 0), VIRTIO_BLK_S_OK);
	ck_assert(saw(3, 4097));
	ck_assert(disk_has(3, 4097, 0));
	ck_assert(disk_has(2, 1, 2));
	ck_assert(disk_has(4100, 1, 4100 % 251));
}
END_TEST

START_TEST(watcher_that_is_taken_away_sees_nothing_more)
{
	run_on(_i, RANGES);
	watch(NULL);
	ck_assert_uint_eq(write_byte(7, 512, 1), VIRTIO_BLK_S_OK);
	ck_assert(saw(0, 0));
	watch(on_written);
	ck_assert_uint_eq(write_byte(8, 512, 1), VIRTIO_BLK_S_OK);
	ck_assert(saw(8, 1));
}
END_TEST

START_TEST(watcher_sees_what_a_failed_write_has_changed)
{
	run_in_memory(RANGES);
	memory_image_fail(&memory, DISK_WRITE, 1, EIO, 512);
	ck_assert_uint_eq(write_byte(50, 2048, 0x5a), VIRTIO_BLK_S_IOERR);
	ck_assert(disk_has(50, 1, 0x5a));
	ck_assert(disk_has(51, 1, 51));
	ck_assert(saw(50, 4));
	memory_image_fail(&memory, DISK_ZERO, 1, EIO, 1024);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 60, 4, 0), VIRTIO_BLK_S_IOERR);
	ck_assert(disk_has(60, 2, 0));
	ck_assert(saw(60, 4));
	memory_image_fail(&memory, DISK_PUNCH, 1, EIO, 0);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, 70, 4, 0), VIRTIO_BLK_S_IOERR);
	ck_assert(saw(70, 4));
}
END_TEST

/* -- errors -- */

START_TEST(failed_operation_is_an_error_once)
{
	static const struct {
		enum disk_op op;
		uint32_t type;
		int errnum;
	} rows[] = {
		{ DISK_READ, VIRTIO_BLK_T_IN, EIO },
		{ DISK_READ, VIRTIO_BLK_T_IN, 0 }, /* not a byte: the image ends there */
		{ DISK_WRITE, VIRTIO_BLK_T_OUT, EIO },
		{ DISK_WRITE, VIRTIO_BLK_T_OUT, 0 },
		{ DISK_FLUSH, VIRTIO_BLK_T_FLUSH, EIO },
		{ DISK_FLUSH, VIRTIO_BLK_T_FLUSH, ENOSPC },
	};
	uint32_t type = rows[_i].type, written;
	uint32_t bytes = type == VIRTIO_BLK_T_FLUSH ? 0 : 512;

	run_in_memory(RANGES);
	memory_image_fail(&memory, rows[_i].op, 1, rows[_i].errnum, 0);
	ck_assert_uint_eq(request(type, 9, AREA, bytes, &written), VIRTIO_BLK_S_IOERR);
	ck_assert(disk_has(9, 1, 9));
	ck_assert_uint_eq(request(type, 9, AREA, bytes, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(__atomic_load_n(&n_stops, __ATOMIC_SEQ_CST), 0);
}
END_TEST

START_TEST(short_transfers_are_gone_on_with)
{
	uint32_t written;

	run_in_memory(RANGES);
	memory_image_fail(&memory, DISK_WRITE, 3, 0, 700);
	ck_assert_uint_eq(write_byte(20, 4096, 0x77), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(memory_image_asked(&memory, DISK_WRITE), 4);
	ck_assert(disk_has(20, 8, 0x77));
	ck_assert(disk_has(28, 1, 28));
	ck_assert(saw(20, 8));
	memory_image_fail(&memory, DISK_READ, 2, 0, 1);
	memset(memory_host(&bench.memory, AREA, 4096), 0, 4096);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 20, AREA, 4096, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, 4097);
	ck_assert_uint_eq(memory_image_asked(&memory, DISK_READ), 3);
	for (unsigned int i = 0; i < 4096; i++)
		ck_assert_uint_eq(((uint8_t *)memory_host(&bench.memory, AREA, 4096))[i], 0x77);
}
END_TEST

START_TEST(interrupted_operation_is_tried_again)
{
	uint32_t written;

	run_in_memory(RANGES);
	memory_image_fail(&memory, DISK_READ, 5, _i ? EINTR : EAGAIN, 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 20, AREA, 512, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(memory_image_asked(&memory, DISK_READ), 6);
	/* But not for ever. */
	memory_image_fail(&memory, DISK_READ, 1000, _i ? EINTR : EAGAIN, 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 20, AREA, 512, &written), VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(image_without_room_stops_the_guest_until_there_is_some)
{
	struct vring_buffer b[] = { { HEADER, 16, false },
				    { AREA, 1024, false },
				    { STATUS, 1, true } };
	uint32_t head, written;

	run_in_memory(RANGES);
	memory_image_fail(&memory, DISK_WRITE, UINT32_MAX, ENOSPC, 512);
	put_header(HEADER, VIRTIO_BLK_T_OUT, 30);
	memset(memory_host(&bench.memory, AREA, 1024), 0x33, 1024);
	vring_add(&vring, b, 3);
	bench_ring(&bench, 0);
	for (unsigned int ms = 0; ms < 10000 && !__atomic_load_n(&n_stops, __ATOMIC_SEQ_CST); ms++)
		usleep(1000);
	ck_assert_uint_eq(__atomic_load_n(&n_stops, __ATOMIC_SEQ_CST), 1);
	bench_park(&bench);
	ck_assert_uint_eq(vring_used_idx(&vring), 0);
	memory_image_fail(&memory, DISK_WRITE, 0, 0, 0);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	ck_assert(bench_wait_used(&bench, &vring, &head, &written));
	ck_assert_uint_eq(status_at(STATUS), VIRTIO_BLK_S_OK);
	ck_assert(disk_has(30, 2, 0x33));
	ck_assert(saw(30, 2));
}
END_TEST

START_TEST(image_that_cannot_punch_or_zero_is_written_to)
{
	run_in_memory(RANGES);
	memory_image_fail(&memory, DISK_PUNCH, UINT32_MAX, EOPNOTSUPP, 0);
	ck_assert_uint_eq(
		range(VIRTIO_BLK_T_WRITE_ZEROES, 40, 4, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP),
		VIRTIO_BLK_S_OK);
	ck_assert(disk_has(40, 4, 0));
	ck_assert_uint_eq(memory_image_asked(&memory, DISK_ZERO), 1);
	memory_image_fail(&memory, DISK_ZERO, UINT32_MAX, EOPNOTSUPP, 0);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 50, 4, 0), VIRTIO_BLK_S_OK);
	ck_assert(disk_has(50, 4, 0));
	ck_assert_uint_eq(memory_image_asked(&memory, DISK_WRITE), 1);
	/* A discard is a hint; what the image cannot do is not asked for again. */
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, 60, 4, 0), VIRTIO_BLK_S_OK);
	ck_assert(disk_has(60, 1, 60));
	ck_assert_uint_eq(memory_image_asked(&memory, DISK_PUNCH), 1);
}
END_TEST

START_TEST(writes_are_durable_for_a_driver_that_knows_no_flush)
{
	run_in_memory(_i ? RANGES : NO_FLUSH);
	ck_assert_uint_eq(write_byte(5, 512, 1), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 6, 1, 0), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(memory_image_durable(&memory), _i ? 0 : 2);
}
END_TEST

static void sync_begin(void *arg)
{
	virtio_blk_model.handover->sync_begin(arg);
}

START_TEST(write_back_that_fails_unasked_fails_the_hand_over_and_the_next_flush)
{
	int rc = 0;

	run_in_memory(RANGES);
	ck_assert_uint_eq(write_byte(5, 512, 1), VIRTIO_BLK_S_OK);
	/* Two at once: the first one fails, the second one does not hide that. */
	memory_image_fail(&memory, DISK_FLUSH, 1, EIO, 0);
	bench_park(&bench);
	sync_begin(bench.device);
	sync_begin(bench.device);
	sync_begin(bench.device);
	while (rc == 0)
		rc = virtio_blk_model.handover->sync_done(bench.device, &e);
	ck_assert_int_eq(rc, -1);
	ck_assert_ptr_nonnull(strstr(e.text, "what the guest wrote does not get onto"));
	ck_assert_uint_ge(memory_image_asked(&memory, DISK_FLUSH), 3);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_OK);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("disk I/O");
	TCase *t = tcase_create("disk I/O");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, end);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, watcher_sees_each_range_that_is_written, 0, 2);
	tcase_add_loop_test(t, watcher_sees_zeroes_that_are_written_in_steps, 0, 2);
	tcase_add_loop_test(t, watcher_that_is_taken_away_sees_nothing_more, 0, 2);
	tcase_add_test(t, watcher_sees_what_a_failed_write_has_changed);
	tcase_add_loop_test(t, failed_operation_is_an_error_once, 0, 6);
	tcase_add_test(t, short_transfers_are_gone_on_with);
	tcase_add_loop_test(t, interrupted_operation_is_tried_again, 0, 2);
	tcase_add_test(t, image_without_room_stops_the_guest_until_there_is_some);
	tcase_add_test(t, image_that_cannot_punch_or_zero_is_written_to);
	tcase_add_loop_test(t, writes_are_durable_for_a_driver_that_knows_no_flush, 0, 2);
	tcase_add_test(t, write_back_that_fails_unasked_fails_the_hand_over_and_the_next_flush);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
