/*
 * The block device, from the driver's ring to an image file: every kind of request, in any layout
 * of buffers, and every request that cannot be; and how its image goes to another host.
 */
#include <check.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <linux/virtio_blk.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "devices/models.h"
#include "devices/virtio/blk.h"
#include "tests/unit/vring.h"

#define PLAIN	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH))
#define RANGES	(PLAIN | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES))
#define SECTORS 8192u

#define HEADER 0x8000u
#define STATUS 0x9000u
#define AREA   0x20000u

static struct bench bench;
static struct vring vring;
static struct err e;
static char path[64];
static int image;

static void tree_of(bool readonly)
{
	ck_assert_msg(bench_init(&bench, "virtio-blk", "disk0", &e) == 0, "%s", e.text);
	ck_assert(!tree_set_str(&bench.tree, "/host/disk0", "path", path, &e));
	ck_assert(!tree_set_str(&bench.tree, BENCH_PATH, "serial", "SN-0123456789-ABCDEF", &e));
	if (readonly)
		ck_assert(!tree_set_bytes(&bench.tree, BENCH_PATH, "readonly", "", 0, &e));
}

static void run(bool readonly, uint64_t features)
{
	tree_of(readonly);
	ck_assert_msg(bench_create(&bench, &virtio_blk_model, &e) == 0, "%s", e.text);
	ck_assert_msg(bench_run(&bench, &e) == 0, "%s", e.text);
	bench.memory.marking = true;
	bench_write(&bench, 0x70, 0);
	vring_init(&vring, &bench.memory, 0x1000, 256);
	ck_assert_uint_eq(bench_negotiate(&bench, features), 0xb);
	bench_queue(&bench, 0, &vring);
	bench_driver_ok(&bench);
}

static void setup(void)
{
	uint8_t sector[512];

	strcpy(path, "/tmp/godwit-blk-XXXXXX");
	image = mkstemp(path);
	ck_assert_int_ge(image, 0);
	for (unsigned int i = 0; i < SECTORS; i++) {
		memset(sector, (int)(i % 251), sizeof(sector));
		ck_assert_int_eq(write(image, sector, sizeof(sector)), sizeof(sector));
	}
}

static void teardown(void)
{
	if (bench.device)
		bench_park(&bench);
	bench_free(&bench);
	close(image);
	unlink(path);
}

static void put_header(uint64_t gpa, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr h = { .type = type, .sector = sector };

	memcpy(memory_host(&bench.memory, gpa, sizeof(h)), &h, sizeof(h));
}

static uint8_t status_at(uint64_t gpa)
{
	return *(uint8_t *)memory_host(&bench.memory, gpa, 1);
}

/* One request with `bytes` of data at `gpa`; its status. */
static uint8_t request(uint32_t type, uint64_t sector, uint64_t gpa, uint32_t bytes,
		       uint32_t *written)
{
	struct vring_buffer b[] = { { HEADER, 16, false },
				    { gpa, bytes,
				      type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID },
				    { STATUS, 1, true } };
	uint32_t head;

	put_header(HEADER, type, sector);
	*(uint8_t *)memory_host(&bench.memory, STATUS, 1) = 0xee;
	vring_add(&vring, b, 3);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_used(&bench, &vring, &head, written));
	return status_at(STATUS);
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

static bool image_has(uint64_t sector, unsigned int n, int byte)
{
	uint8_t at[512];

	for (unsigned int i = 0; i < n; i++) {
		ck_assert_int_eq(pread(image, at, 512, (off_t)((sector + i) * 512)), 512);
		for (unsigned int k = 0; k < 512; k++)
			if (at[k] != byte)
				return false;
	}
	return true;
}

static bool is_marked(uint64_t gpa)
{
	const uint64_t *map = bench.memory.blocks[0].dirty;
	uint64_t page = gpa / PAGE_SIZE;

	return __atomic_load_n(&map[page / 64], __ATOMIC_ACQUIRE) >> (page % 64) & 1;
}

static bool memory_has(uint64_t gpa, uint32_t bytes, int byte)
{
	const uint8_t *p = memory_host(&bench.memory, gpa, bytes);

	for (uint32_t i = 0; i < bytes; i++)
		if (p[i] != byte)
			return false;
	return true;
}

START_TEST(driver_sees_the_disk)
{
	uint64_t capacity;
	uint32_t written;

	run(false, RANGES);
	bus_access(&bench.mmio, BENCH_GPA + 0x100, &capacity, 8, false);
	ck_assert_uint_eq(capacity, SECTORS);
	ck_assert_uint_eq(bench_read(&bench, 0x10c), 254);
	ck_assert_uint_eq(bench_read(&bench, 0x114), 512);
	ck_assert_uint_eq(bench_read(&bench, 0x8), 2);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_GET_ID, 0, AREA, 20, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, 21);
	ck_assert_mem_eq(memory_host(&bench.memory, AREA, 20), "SN-0123456789-ABCDEF", 20);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_GET_ID, 0, AREA, 4, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, AREA, 0, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(99, 0, AREA, 0, &written), VIRTIO_BLK_S_UNSUPP);
}
END_TEST

START_TEST(sectors_are_read_and_written)
{
	uint32_t written;

	run(false, PLAIN);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 100, AREA, 1024, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, 1025);
	ck_assert(memory_has(AREA, 512, 100));
	ck_assert(memory_has(AREA + 512, 512, 101));
	ck_assert(is_marked(AREA));
	ck_assert(is_marked(STATUS));
	ck_assert(!is_marked(HEADER));
	memset(memory_host(&bench.memory, AREA, 1024), 0xaa, 1024);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, SECTORS - 2, AREA, 1024, &written),
			  VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, 1);
	ck_assert(image_has(SECTORS - 2, 2, 0xaa));
	ck_assert(image_has(SECTORS - 3, 1, (SECTORS - 3) % 251));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, AREA, 0, &written), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(writes_without_flush_are_written_too)
{
	uint32_t written;

	run(false, VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES));
	memset(memory_host(&bench.memory, AREA, 512), 0x55, 512);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 7, AREA, 512, &written), VIRTIO_BLK_S_OK);
	ck_assert(image_has(7, 1, 0x55));
	/* 2 MiB of zeroes that are written, in more than one step. */
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 3, 4097, 0), VIRTIO_BLK_S_OK);
	ck_assert(image_has(3, 4097, 0));
	ck_assert(image_has(2, 1, 2));
	ck_assert(image_has(4100, 1, 4100 % 251));
}
END_TEST

START_TEST(request_longer_than_a_step_is_whole)
{
	struct vring_buffer b[7];
	uint32_t head, written;

	/* 3 MiB: the same half MiB of memory six times over. */
	run(false, PLAIN);
	put_header(HEADER, VIRTIO_BLK_T_OUT, 1000);
	memset(memory_host(&bench.memory, 0x80000, 0x80000), 0x77, 0x80000);
	b[0] = (struct vring_buffer){ HEADER, 16, false };
	for (unsigned int i = 1; i < 6; i++)
		b[i] = (struct vring_buffer){ 0x80000, 0x80000, false };
	b[6] = (struct vring_buffer){ STATUS, 1, true };
	vring_add(&vring, b, 7);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_used(&bench, &vring, &head, &written));
	ck_assert_uint_eq(status_at(STATUS), VIRTIO_BLK_S_OK);
	ck_assert(image_has(1000, 5 * 1024, 0x77));
	ck_assert(image_has(999, 1, 999 % 251));
	ck_assert(image_has(1000 + 5 * 1024, 1, (1000 + 5 * 1024) % 251));
}
END_TEST

START_TEST(layout_of_buffers_does_not_matter)
{
	/* The header in three pieces, the last with data; the status with the data of a read. */
	struct vring_buffer out[] = { { HEADER, 7, false },
				      { HEADER + 7, 1, false },
				      { 0x20000 - 8, 8 + 512, false },
				      { STATUS, 1, true } };
	struct vring_buffer in[] = { { HEADER, 16, false },
				     { 0x30000, 1, true },
				     { 0x31001, 511 + 1, true } };
	uint8_t header[16];
	uint32_t head, written;

	run(false, PLAIN);
	put_header(HEADER, VIRTIO_BLK_T_OUT, 5);
	memcpy(header, memory_host(&bench.memory, HEADER, 16), 16);
	memcpy(memory_host(&bench.memory, 0x20000 - 8, 8), header + 8, 8);
	memset(memory_host(&bench.memory, HEADER + 8, 8), 0xff, 8);
	memset(memory_host(&bench.memory, 0x20000, 512), 0x33, 512);
	vring_add(&vring, out, 4);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_used(&bench, &vring, &head, &written));
	ck_assert_uint_eq(status_at(STATUS), VIRTIO_BLK_S_OK);
	ck_assert(image_has(5, 1, 0x33));
	ck_assert(image_has(6, 1, 6));

	put_header(HEADER, VIRTIO_BLK_T_IN, 9);
	*(uint8_t *)memory_host(&bench.memory, 0x31001 + 511, 1) = 0xee;
	vring_add(&vring, in, 3);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_used(&bench, &vring, &head, &written));
	ck_assert_uint_eq(written, 513);
	ck_assert(memory_has(0x30000, 1, 9));
	ck_assert(memory_has(0x31001, 511, 9));
	ck_assert_uint_eq(status_at(0x31001 + 511), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(sectors_outside_the_disk_are_refused)
{
	static const struct {
		uint64_t sector;
		uint32_t bytes;
	} bad[] = { { SECTORS, 512 },	 { SECTORS - 1, 1024 },
		    { UINT64_MAX, 512 }, { UINT64_MAX / 512, 512 },
		    { 0, 511 },		 { 0, 513 } };
	uint32_t written;

	run(false, RANGES);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_uint_eq(
			request(VIRTIO_BLK_T_IN, bad[i].sector, AREA, bad[i].bytes, &written),
			VIRTIO_BLK_S_IOERR);
		ck_assert_uint_eq(written, 1);
		ck_assert_uint_eq(
			request(VIRTIO_BLK_T_OUT, bad[i].sector, AREA, bad[i].bytes, &written),
			VIRTIO_BLK_S_IOERR);
	}
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, SECTORS, 1, 0), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, UINT64_MAX, 2, 0), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
	ck_assert(image_has(0, 1, 0));
	ck_assert(image_has(SECTORS - 1, 1, (SECTORS - 1) % 251));
}
END_TEST

START_TEST(discard_and_zeroes_do_what_they_say)
{
	uint32_t written;

	run(false, RANGES);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 10, 5, 0), VIRTIO_BLK_S_OK);
	ck_assert(image_has(10, 5, 0));
	ck_assert(image_has(9, 1, 9));
	ck_assert(image_has(15, 1, 15));
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 100, 1000, 1), VIRTIO_BLK_S_OK);
	ck_assert(image_has(100, 1000, 0));
	ck_assert(image_has(99, 1, 99));
	ck_assert(image_has(1100, 1, 1100 % 251));
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, 2000, 64, 0), VIRTIO_BLK_S_OK);
	ck_assert(image_has(1999, 1, 1999 % 251));
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, 2000, 0, 0), VIRTIO_BLK_S_OK);
	/* Flags that do not belong there, and other numbers of segments than one. */
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, 0, 1, 1), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_DISCARD, 0, AREA, 0, &written), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_DISCARD, 0, AREA, 15, &written), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_DISCARD, 0, AREA, 32, &written), VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(ranges_that_were_not_negotiated_are_unsupported)
{
	run(false, PLAIN);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, 0, 1, 0), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0), VIRTIO_BLK_S_UNSUPP);
	ck_assert(image_has(0, 1, 0));
}
END_TEST

START_TEST(readonly_disk_is_never_written)
{
	uint32_t written;

	run(true, PLAIN | VIRTIO_BIT(VIRTIO_BLK_F_RO));
	bench_write(&bench, 0x14, 0);
	ck_assert(bench_read(&bench, 0x10) & (1u << VIRTIO_BLK_F_RO));
	ck_assert(!(bench_read(&bench, 0x10) & (1u << VIRTIO_BLK_F_DISCARD)));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 3, AREA, 512, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 3, AREA, 512, &written), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, 3, 1, 0), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, AREA, 0, &written), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(request_without_header_or_status_asks_for_a_reset)
{
	struct vring_buffer no_status[] = { { HEADER, 16, false } };
	struct vring_buffer short_header[] = { { HEADER, 15, false }, { STATUS, 1, true } };

	run(false, PLAIN);
	vring_add(&vring, no_status, 1);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_needs_reset(&bench));
	bench_write(&bench, 0x70, 0);
	vring_init(&vring, &bench.memory, 0x1000, 256);
	bench_negotiate(&bench, PLAIN);
	bench_queue(&bench, 0, &vring);
	bench_driver_ok(&bench);
	vring_add(&vring, short_header, 2);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_needs_reset(&bench));
}
END_TEST

/* Offers `n` reads of one sector each, sector i to AREA + 512 * i. */
static void offer_reads(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		struct vring_buffer b[] = { { HEADER + 16 * i, 16, false },
					    { AREA + 512 * i, 512, true },
					    { 0xa000 + i, 1, true } };

		put_header(HEADER + 16 * i, VIRTIO_BLK_T_IN, i);
		*(uint8_t *)memory_host(&bench.memory, 0xa000 + i, 1) = 0xee;
		vring_add(&vring, b, 3);
	}
}

START_TEST(many_requests_at_once_are_all_done)
{
	uint32_t head, written;

	run(false, PLAIN);
	for (unsigned int round = 0; round < 20; round++) {
		offer_reads(85);
		bench_ring(&bench, 0);
		for (unsigned int i = 0; i < 85; i++)
			ck_assert(bench_wait_used(&bench, &vring, &head, &written));
		for (unsigned int i = 0; i < 85; i++) {
			ck_assert_uint_eq(status_at(0xa000 + i), VIRTIO_BLK_S_OK);
			ck_assert(memory_has(AREA + 512 * i, 512, (int)i));
		}
		memset(memory_host(&bench.memory, AREA, 85 * 512), 0, 85 * 512);
	}
	ck_assert(!vring_used(&vring, &head, &written));
}
END_TEST

START_TEST(park_and_reset_finish_what_is_in_flight)
{
	uint32_t head, written;
	struct virtio_device *v;
	uint16_t taken;

	run(false, PLAIN);
	v = (struct virtio_device *)bench.device;
	for (unsigned int round = 0; round < 30; round++) {
		offer_reads(85);
		bench_ring(&bench, 0);
		bench_park(&bench);
		/* Whatever was taken has been given back: there is no state but the queue's. */
		taken = v->queues[0].st.next_avail;
		ck_assert_uint_eq(v->queues[0].st.next_used, taken);
		ck_assert_uint_eq(vring_used_idx(&vring), taken);
		ck_assert_msg(bench_run(&bench, &e) == 0, "%s", e.text);
		for (unsigned int i = 0; i < 85; i++)
			ck_assert(bench_wait_used(&bench, &vring, &head, &written));
	}
	for (unsigned int round = 0; round < 30; round++) {
		offer_reads(85);
		bench_ring(&bench, 0);
		bench_write(&bench, 0x70, 0);
		vring_init(&vring, &bench.memory, 0x1000, 256);
		bench_negotiate(&bench, PLAIN);
		bench_queue(&bench, 0, &vring);
		bench_driver_ok(&bench);
		usleep(200);
		ck_assert_uint_eq(vring_used_idx(&vring), 0);
	}
	offer_reads(1);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_used(&bench, &vring, &head, &written));
}
END_TEST

START_TEST(image_that_shrinks_is_an_error_of_the_guest_only)
{
	uint32_t written;

	run(false, PLAIN);
	ck_assert_int_eq(ftruncate(image, 512), 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, AREA, 512, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, AREA, 1024, &written), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 5, AREA, 512, &written), VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(full_host_disk_is_an_error_of_the_guest_only)
{
	uint32_t written;

	/* A file system of 2 MiB that nobody else sees, with a sparse image of 4 MiB. */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", "/mnt", "tmpfs", 0, "size=2m") < 0) {
		fprintf(stderr, "skipped: only root may mount a small file system\n");
		tree_of(false);
		return;
	}
	close(image);
	unlink(path);
	snprintf(path, sizeof(path), "/mnt/a.raw");
	image = open(path, O_RDWR | O_CREAT, 0600);
	ck_assert_int_eq(ftruncate(image, SECTORS * 512), 0);
	run(false, RANGES);
	memset(memory_host(&bench.memory, GUEST_BLOCK, GUEST_BLOCK), 0x42, GUEST_BLOCK);
	for (unsigned int mib = 0; mib < 4; mib++)
		ck_assert_uint_eq(
			request(VIRTIO_BLK_T_OUT, 2048 * mib, GUEST_BLOCK, GUEST_BLOCK, &written),
			mib < 2 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
	ck_assert(image_has(0, 4096, 0x42));
	/* A discard really gives space back; zeroes are zeroes although tmpfs has no way for them.
	 */
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, 0, 2048, 0), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 4096, GUEST_BLOCK, GUEST_BLOCK / 2, &written),
			  VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, 2048, 2048, 0), VIRTIO_BLK_S_OK);
	ck_assert(image_has(2048, 2048, 0));
	ck_assert(image_has(4096, 1024, 0x42));
}
END_TEST

#define ck_create_refused(words)                                                               \
	do {                                                                                   \
		ck_assert_int_eq(bench_create(&bench, &virtio_blk_model, &e), -1);             \
		ck_assert_msg(strstr(e.text, words) != NULL, "'%s' does not say '%s'", e.text, \
			      words);                                                          \
		ck_assert_ptr_null(bench.device);                                              \
	} while (0)

START_TEST(disks_that_do_not_fit_the_machine_are_refused)
{
	char text[200];

	tree_of(false);
	ck_assert_int_eq(virtio_blk_model.probe(&bench.tree, BENCH_PATH, &e), 0);
	ck_assert_int_eq(ftruncate(image, 1024), 0);
	snprintf(text, sizeof(text), "disk0: %s has 2 sectors, the machine was made with 8192",
		 path);
	ck_create_refused(text);
	ck_assert_int_eq(ftruncate(image, SECTORS * 512), 0);
	ck_assert(!tree_set_str(&bench.tree, BENCH_PATH, "serial", "123456789012345678901", &e));
	ck_create_refused("longer than 20 characters");
	ck_assert(!tree_set_str(&bench.tree, BENCH_PATH, "serial", "", &e));
	ck_assert(!tree_set_u32(&bench.tree, BENCH_PATH, "block-size", 1000, &e));
	ck_create_refused("blocks of 1000 bytes");
	ck_assert(!tree_set_u32(&bench.tree, BENCH_PATH, "block-size", 512, &e));
	ck_assert(!tree_set_str(&bench.tree, "/host/disk0", "path", "/nowhere", &e));
	ck_create_refused("disk0: cannot open /nowhere");
	bench_free(&bench);
	tree_of(false);
	ck_assert(!tree_set_str(&bench.tree, BENCH_PATH, "id", "disk9", &e));
	ck_create_refused("disk9: no image is given");
}
END_TEST

/* -- the image goes to another host -- */

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
	model.share(arg, true);
}

static void share_off(void *arg)
{
	model.share(arg, false);
}

static void settle(void *arg)
{
	model.settle(arg);
}

static void on_io(void (*fn)(void *arg))
{
	loop_call(&bench.io, fn, bench.device);
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
	ck_assert_int_eq(model.acquire(arriving.device, &e), -1);
	bench_park(&bench);
	ck_assert_int_eq(model.sync(bench.device, &e), 0);
	model.release(bench.device);
	ck_assert_int_eq(disk_of(&bench)->held, DISK_NOTHING);
	ck_assert(!third_one_can_have_it());
}

START_TEST(image_goes_with_its_guest)
{
	run(false, PLAIN);
	hand_over();
	ck_assert_int_eq(model.acquire(arriving.device, &e), 0);
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
		ck_assert_int_eq(model.acquire(bench.device, &e), 0);
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
	ck_assert_int_eq(model.acquire(arriving.device, &e), 0);
	model.release(arriving.device);
	ck_assert_int_eq(model.acquire(bench.device, &e), 0);
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
	ck_assert_int_eq(model.sync(bench.device, &e), 0);
	model.release(bench.device);
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
				ck_assert_int_eq(model.sync(bench.device, &e), 0);
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
			ck_assert_int_eq(model.sync(bench.device, &e), -1);
		ck_assert_int_ge(dup2(saved, fd), 0);
		/* That the kernel says nothing now is not to be believed. */
		ck_assert_int_eq(model.sync(bench.device, &e), -1);
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
	ck_assert_int_eq(model.sync(bench.device, &e), 0);
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
	b->settling = true;
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

/* Reads of nearly 16 MiB each, all into the same 64 KiB, by tables of descriptors. */
#define LARGE_READS    8u
#define LARGE_SEGMENTS 254u
#define LARGE_TABLES   0x40000u

static void offer_large_read(unsigned int i)
{
	struct {
		uint64_t gpa;
		uint32_t len;
		uint16_t flags, next;
	} table[LARGE_SEGMENTS + 2];
	uint64_t gpa = LARGE_TABLES + i * sizeof(table);

	for (uint16_t k = 0; k < LARGE_SEGMENTS + 2; k++) {
		table[k].gpa = AREA;
		table[k].len = BLK_SEGMENT_BYTES;
		table[k].flags = 1 | 2; /* another one follows; written by the device */
		table[k].next = (uint16_t)(k + 1);
	}
	table[0].gpa = HEADER;
	table[0].len = 16;
	table[0].flags = 1;
	table[LARGE_SEGMENTS + 1].gpa = 0xa000 + i;
	table[LARGE_SEGMENTS + 1].len = 1;
	table[LARGE_SEGMENTS + 1].flags = 2;
	memcpy(memory_host(&bench.memory, gpa, sizeof(table)), table, sizeof(table));
	*(uint8_t *)memory_host(&bench.memory, 0xa000 + i, 1) = 0xee;
	vring_desc(&vring, i, gpa, sizeof(table), 4, 0);
	vring_offer(&vring, (uint16_t)i);
}

/* The first turn: the most that it may take, by its bytes in flight. */
static void first_turn(void *arg)
{
	const uint64_t bytes = LARGE_SEGMENTS * BLK_SEGMENT_BYTES;
	struct virtio_device *v = arg;
	struct blk *b = arg;

	pthread_mutex_lock(&v->lock);
	v->ops->ring(v, 0);
	ck_assert_uint_eq(v->queues[0].st.next_avail, BLK_FLIGHT_BYTES / bytes + 1);
	ck_assert_uint_eq(b->flight_bytes, (BLK_FLIGHT_BYTES / bytes + 1) * bytes);
	ck_assert(b->full);
	pthread_mutex_unlock(&v->lock);
}

START_TEST(so_much_is_in_flight_and_no_more)
{
	struct blk *b;
	uint32_t head, written;

	ck_assert_int_eq(ftruncate(image, 16 << 20), 0);
	run(false, PLAIN | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC));
	b = (struct blk *)bench.device;
	put_header(HEADER, VIRTIO_BLK_T_IN, 0);
	for (unsigned int i = 0; i < LARGE_READS; i++)
		offer_large_read(i);
	on_io(first_turn);
	/* The others are begun when there is room again, without another ring. */
	for (unsigned int i = 0; i < LARGE_READS; i++) {
		ck_assert(bench_wait_used(&bench, &vring, &head, &written));
		ck_assert_uint_eq(written, LARGE_SEGMENTS * BLK_SEGMENT_BYTES + 1);
		ck_assert_uint_eq(status_at(0xa000 + head), VIRTIO_BLK_S_OK);
	}
	bench_park(&bench);
	ck_assert_uint_eq(b->flight_bytes, 0);
	ck_assert(!b->full);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
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
	ck_assert_int_eq(model.acquire(arriving.device, &e), 0);
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
	ck_assert_int_eq(model.acquire(arriving.device, &e), 0);
	ck_assert_uint_eq(cached_pages(), SECTORS * 512 / PAGE_SIZE);
	arriving_ends();
	bench_free(&arriving);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blk");
	TCase *t = tcase_create("blk");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, driver_sees_the_disk);
	tcase_add_test(t, sectors_are_read_and_written);
	tcase_add_test(t, writes_without_flush_are_written_too);
	tcase_add_test(t, request_longer_than_a_step_is_whole);
	tcase_add_test(t, layout_of_buffers_does_not_matter);
	tcase_add_test(t, sectors_outside_the_disk_are_refused);
	tcase_add_test(t, discard_and_zeroes_do_what_they_say);
	tcase_add_test(t, ranges_that_were_not_negotiated_are_unsupported);
	tcase_add_test(t, readonly_disk_is_never_written);
	tcase_add_test(t, request_without_header_or_status_asks_for_a_reset);
	tcase_add_test(t, many_requests_at_once_are_all_done);
	tcase_add_test(t, park_and_reset_finish_what_is_in_flight);
	tcase_add_test(t, image_that_shrinks_is_an_error_of_the_guest_only);
	tcase_add_test(t, full_host_disk_is_an_error_of_the_guest_only);
	tcase_add_test(t, disks_that_do_not_fit_the_machine_are_refused);
	tcase_add_test(t, image_goes_with_its_guest);
	tcase_add_test(t, paused_and_resumed_while_it_is_moved_the_image_stays_shared);
	tcase_add_test(t, source_works_on_at_once_and_gets_all_of_its_lock_back);
	tcase_add_test(t, destination_that_cannot_start_gives_the_image_back);
	tcase_add_test(t, readonly_disk_is_open_at_both_ends);
	tcase_add_test(t, requests_go_on_while_the_disk_settles);
	tcase_add_test(t, lost_writes_forbid_the_move_and_are_told_to_the_guest);
	tcase_add_test(t, flush_beside_a_failing_settle_fails_too);
	tcase_add_test(t, so_much_is_in_flight_and_no_more);
	tcase_add_test(t, destination_reads_nothing_that_was_cached_before);
	tcase_add_test(t, cache_of_a_local_file_is_kept);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
