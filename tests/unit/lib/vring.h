/*
 * The driver's side of a split virtqueue and of the virtio-mmio window, for tests of devices: a
 * little guest memory, rings in it that may be made as wrong as a test likes, and an I/O thread.
 * Used by one test thread.
 */
#ifndef GODWIT_TESTS_VRING_H
#define GODWIT_TESTS_VRING_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/virtio/device.h"
#include "vmm/base/err.h"
#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/loop.h"
#include "vmm/memory.h"
#include "vmm/tree.h"

/* Two blocks that touch each other, at 0 and at GUEST_BLOCK. */
#define GUEST_BLOCK (1u << 20)
#define GUEST_BYTES (2u * GUEST_BLOCK)

int guest_memory(struct memory *m, struct err *e);

#define VRING_NEXT     1
#define VRING_WRITE    2
#define VRING_INDIRECT 4

struct vring {
	struct memory *m;
	uint64_t desc, avail, used;
	uint16_t size, next_desc, avail_idx, used_seen;
};

/* Zeroed rings of `size` (a power of two) from `gpa` on, less than 8 KiB for 256. */
void vring_init(struct vring *r, struct memory *m, uint64_t gpa, uint16_t size);

void vring_desc_at(struct memory *m, uint64_t table, unsigned int i, uint64_t gpa, uint32_t len,
		   uint16_t flags, uint16_t next);
void vring_desc(struct vring *r, unsigned int i, uint64_t gpa, uint32_t len, uint16_t flags,
		uint16_t next);
void vring_offer(struct vring *r, uint16_t head);
void vring_set_avail_idx(struct vring *r, uint16_t idx);
void vring_set_avail_flags(struct vring *r, uint16_t flags);
void vring_set_used_event(struct vring *r, uint16_t event);
uint16_t vring_avail_event(const struct vring *r);
uint16_t vring_used_idx(const struct vring *r);
uint16_t vring_used_flags(const struct vring *r);

struct vring_buffer {
	uint64_t gpa;
	uint32_t len;
	bool write;
};

/* Offers a chain of the next `n` descriptors; its head. */
uint16_t vring_add(struct vring *r, const struct vring_buffer *b, unsigned int n);

/* The next used entry, when there is one. */
bool vring_used(struct vring *r, uint32_t *head, uint32_t *written);

/* A device on its bus, with a running I/O thread. */
struct bench {
	struct memory memory;
	struct loop io;
	struct bus ports, mmio;
	struct device_env env;
	struct tree tree;
	struct device *device;
};

#define BENCH_GPA  0xd0000000ull
#define BENCH_PATH "/devices/d"

/* Memory, loop and a tree with the node's common properties. The caller adds the others. */
int bench_init(struct bench *b, const char *model, const char *id, struct err *e);
/* Creates the device from the tree, as the machine does. */
int bench_create(struct bench *b, const struct device_model *model, struct err *e);
/* Starts the I/O thread and activates; and the other way round. */
int bench_run(struct bench *b, struct err *e);
void bench_park(struct bench *b);
void bench_free(struct bench *b);

uint32_t bench_read(struct bench *b, uint64_t offset);
void bench_write(struct bench *b, uint64_t offset, uint32_t value);

/* Negotiates `features` of what is offered; the status as read back. */
uint32_t bench_negotiate(struct bench *b, uint64_t features);
void bench_queue(struct bench *b, unsigned int q, const struct vring *r);
void bench_driver_ok(struct bench *b);
void bench_ring(struct bench *b, unsigned int q);

/* Waits (10 s at most) until the ring has a used entry, and takes it. */
bool bench_wait_used(struct bench *b, struct vring *r, uint32_t *head, uint32_t *written);
/* Waits until the device asks for a reset. */
bool bench_wait_needs_reset(struct bench *b);

#endif
