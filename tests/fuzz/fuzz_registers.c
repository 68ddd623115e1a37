/*
 * Fuzzing the registers of devices as a hostile driver uses them: reads and writes of any size at
 * any offset, in any order, doorbells, and rings that the driver changes meanwhile. A device stays
 * within its memory, ends every turn, and can be parked, saved and loaded whatever was done to it.
 *
 * Byte 0 of the input chooses the device. The rest are steps of 8 bytes: what, how, u16 where,
 * u32 value.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/models.h"
#include "tests/unit/lib/vring.h"

#define DISK_BYTES (1 << 20)
#define RING_GPA   0x10000u
#define WINDOW	   0x200u
#define STEP_BYTES 8
#define STEPS_MAX  64

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len);

enum step {
	STEP_WRITE,
	STEP_READ,
	STEP_REGISTER,
	STEP_MEMORY,
	STEP_BRING_UP,
	STEP_OFFER,
	STEP_PARK,
	N_STEPS
};

static const struct {
	const struct device_model *model;
	uint64_t port; /* 0: virtio-mmio */
} devices[] = {
	{ &virtio_blk_model, 0 }, { &virtio_rng_model, 0 }, { &virtio_balloon_model, 0 },
	{ &serial_model, 0x3f8 }, { &i8042_model, 0x60 },
};

/* Virtio 1.2, 4.2.2: those that a driver writes. */
static const uint16_t registers[] = { 0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64,
				      0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0x100 };

static void make(struct bench *b, int disk, unsigned int which)
{
	const struct device_model *m = devices[which].model;
	char image[64];
	struct err e;

	snprintf(image, sizeof(image), "/proc/self/fd/%d", disk);
	if (bench_init(b, m->name, "d0", &e) ||
	    tree_set_u32_pair(&b->tree, BENCH_PATH, "port", (uint32_t)devices[which].port,
			      m == &i8042_model ? 5 : 8, &e) ||
	    tree_set_str(&b->tree, "/host/d0", "console", "null", &e) ||
	    tree_set_str(&b->tree, "/host/d0", "path", image, &e) || bench_create(b, m, &e) ||
	    bench_run(b, &e))
		abort();
}

static void reach(struct bench *b, unsigned int which, uint64_t offset, uint32_t value,
		  unsigned int len, bool is_write)
{
	uint64_t v = value * 0x100000001ull;

	if (devices[which].port)
		bus_access(&b->ports, devices[which].port + offset % 8, &v, len > 4 ? 4 : len,
			   is_write);
	else
		bus_access(&b->mmio, BENCH_GPA + offset, &v, len, is_write);
}

/* A parked device is saved, and goes on from what was saved. */
static void park(struct bench *b, unsigned int which)
{
	const struct device_model *m = devices[which].model;
	void *state = m->state ? calloc(1, m->state->size) : NULL;
	struct err e;

	if (m->state && !state)
		abort();
	bench_park(b);
	if (state) {
		m->save(b->device, state);
		if (!m->fits || m->fits(b->device, state, &e) == 0)
			m->load(b->device, state);
	}
	free(state);
	if (bench_run(b, &e))
		abort();
}

static void take(struct bench *b, unsigned int which, struct vring *r, const uint8_t *in)
{
	unsigned int len = 1u << (in[1] & 3);
	uint16_t where;
	uint32_t value;

	memcpy(&where, in + 2, 2);
	memcpy(&value, in + 4, 4);
	switch ((enum step)(in[0] % N_STEPS)) {
	case STEP_WRITE:
	case STEP_READ:
		reach(b, which, where % WINDOW, value, len, in[0] % N_STEPS == STEP_WRITE);
		break;
	case STEP_REGISTER:
		reach(b, which, registers[in[1] % 16], value, 4, true);
		break;
	case STEP_MEMORY:
		memcpy(b->memory.blocks[0].host + RING_GPA + where % 0x4000, in + 4, 4);
		break;
	case STEP_BRING_UP:
		if (devices[which].port)
			break;
		bench_negotiate(b, VIRTIO_BIT(VIRTIO_F_VERSION_1) | value);
		vring_init(r, &b->memory, RING_GPA, 16);
		bench_queue(b, in[1] % 2, r);
		bench_driver_ok(b);
		break;
	case STEP_OFFER:
		if (devices[which].port || !r->size)
			break;
		vring_desc(r, in[1] % 16, RING_GPA + where, value & 0xffff, in[1] >> 4, in[2] % 16);
		vring_offer(r, in[1] % 16);
		bench_ring(b, in[3] % 2);
		break;
	case STEP_PARK:
		park(b, which);
		break;
	case N_STEPS:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
	static int disk = -1;
	struct vring r = { .size = 0 };
	struct bench b;
	unsigned int which, steps;

	if (!len)
		return 0;
	if (disk < 0) {
		disk = memfd_create("disk", MFD_CLOEXEC);
		if (disk < 0 || ftruncate(disk, DISK_BYTES))
			abort();
	}
	which = in[0] % (sizeof(devices) / sizeof(devices[0]));
	make(&b, disk, which);
	for (steps = 0; steps < STEPS_MAX && 1 + (steps + 1) * STEP_BYTES <= len; steps++)
		take(&b, which, &r, in + 1 + steps * STEP_BYTES);
	bench_park(&b);
	bench_free(&b);
	return 0;
}
