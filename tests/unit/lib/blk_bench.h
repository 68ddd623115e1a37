/*
 * A disk of SECTORS sectors on the device bench, each filled with its number modulo 251; and a
 * driver's requests to it. Included by one file of a test program.
 */
#ifndef GODWIT_TESTS_BLK_BENCH_H
#define GODWIT_TESTS_BLK_BENCH_H

#include <check.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/models.h"
#include "devices/virtio/blk.h"
#include "tests/unit/lib/vring.h"

#define PLAIN	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH))
#define SECTORS 8192u

#define HEADER 0x8000u
#define STATUS 0x9000u
#define AREA   0x20000u

static struct bench bench;
static struct vring vring;
static struct err e;
static char path[64];
static int image;
static const char *on_error; /* of the next disk; NULL: not said */

static void tree_of(bool readonly)
{
	ck_assert_msg(bench_init(&bench, "virtio-blk", "disk0", &e) == 0, "%s", e.text);
	ck_assert(!tree_set_str(&bench.tree, "/host/disk0", "path", path, &e));
	ck_assert(!tree_set_str(&bench.tree, BENCH_PATH, "serial", "SN-0123456789-ABCDEF", &e));
	if (on_error)
		ck_assert(!tree_set_str(&bench.tree, BENCH_PATH, "on-error", on_error, &e));
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

static inline void on_io(void (*fn)(void *arg))
{
	loop_call(&bench.io, fn, bench.device);
}

/* Offers `n` reads of one sector each, sector i to AREA + 512 * i. */
static inline void offer_reads(unsigned int n)
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

#endif
