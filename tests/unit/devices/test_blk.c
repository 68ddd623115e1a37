/*
 * The block device, from the driver's ring to an image file: every kind of request, in any layout
 * of buffers, and every request that cannot be. How its image goes to another host:
 * test_blk_move.c.
 */
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

#include "tests/unit/lib/blk_bench.h"

#define RANGES (PLAIN | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES))

static uint8_t range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes seg = { .sector = sector,
						       .num_sectors = sectors,
						       .flags = flags };
	uint32_t written;

	memcpy(memory_host(&bench.memory, AREA, sizeof(seg)), &seg, sizeof(seg));
	return request(type, 0, AREA, sizeof(seg), &written);
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

START_TEST(ranges_are_no_longer_than_the_driver_was_told)
{
	uint32_t discard, zeroes;

	ck_assert_int_eq(ftruncate(image, 3ll << 30), 0); /* sparse */
	run(false, RANGES);
	bus_access(&bench.mmio,
		   BENCH_GPA + 0x100 + offsetof(struct virtio_blk_config, max_discard_sectors),
		   &discard, 4, false);
	bus_access(&bench.mmio,
		   BENCH_GPA + 0x100 + offsetof(struct virtio_blk_config, max_write_zeroes_sectors),
		   &zeroes, 4, false);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, SECTORS, discard, 0), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(range(VIRTIO_BLK_T_DISCARD, SECTORS, discard + 1, 0), VIRTIO_BLK_S_IOERR);
	for (unsigned int unmap = 0; unmap < 2; unmap++) {
		ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, SECTORS, zeroes, unmap),
				  VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(range(VIRTIO_BLK_T_WRITE_ZEROES, SECTORS, zeroes + 1, unmap),
				  VIRTIO_BLK_S_IOERR);
	}
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

START_TEST(full_host_disk_is_an_error_of_the_guest_if_so_wished)
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
	on_error = "report";
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
	snprintf(text, sizeof(text), "disk0: %s has 2 sectors, the machine has 8192", path);
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
	tcase_add_test(t, ranges_are_no_longer_than_the_driver_was_told);
	tcase_add_test(t, ranges_that_were_not_negotiated_are_unsupported);
	tcase_add_test(t, readonly_disk_is_never_written);
	tcase_add_test(t, request_without_header_or_status_asks_for_a_reset);
	tcase_add_test(t, many_requests_at_once_are_all_done);
	tcase_add_test(t, park_and_reset_finish_what_is_in_flight);
	tcase_add_test(t, image_that_shrinks_is_an_error_of_the_guest_only);
	tcase_add_test(t, full_host_disk_is_an_error_of_the_guest_if_so_wished);
	tcase_add_test(t, disks_that_do_not_fit_the_machine_are_refused);
	tcase_add_test(t, so_much_is_in_flight_and_no_more);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
