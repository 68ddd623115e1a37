/*
 * The driver's side for tests of virtio devices: see vring.h. Test thread only.
 */
#include "tests/unit/lib/vring.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int guest_memory(struct memory *m, struct err *e)
{
	struct tree t;
	int rc;

	if (tree_init(&t, e) < 0)
		return -1;
	rc = tree_set_u64_pair(&t, "/memory@0", "reg", 0, GUEST_BLOCK, e);
	if (rc == 0)
		rc = tree_set_u64_pair(&t, "/memory@100000", "reg", GUEST_BLOCK, GUEST_BLOCK, e);
	if (rc == 0)
		rc = memory_init(m, &t, e);
	tree_free(&t);
	return rc;
}

static void put_u16(struct memory *m, uint64_t gpa, uint16_t v)
{
	uint16_t *p = memory_host(m, gpa, 2);

	__atomic_store_n(p, v, __ATOMIC_SEQ_CST);
}

static uint16_t get_u16(struct memory *m, uint64_t gpa)
{
	uint16_t *p = memory_host(m, gpa, 2);

	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

void vring_init(struct vring *r, struct memory *m, uint64_t gpa, uint16_t size)
{
	*r = (struct vring){ .m = m, .size = size, .desc = gpa };
	r->avail = r->desc + 16ull * size;
	r->used = (r->avail + 6 + 2ull * size + 3) & ~3ull;
	memset(memory_host(m, gpa, 8192), 0, 8192);
}

void vring_desc_at(struct memory *m, uint64_t table, unsigned int i, uint64_t gpa, uint32_t len,
		   uint16_t flags, uint16_t next)
{
	uint8_t d[16];

	memcpy(d, &gpa, 8);
	memcpy(d + 8, &len, 4);
	memcpy(d + 12, &flags, 2);
	memcpy(d + 14, &next, 2);
	memcpy(memory_host(m, table + 16ull * i, 16), d, 16);
}

void vring_desc(struct vring *r, unsigned int i, uint64_t gpa, uint32_t len, uint16_t flags,
		uint16_t next)
{
	vring_desc_at(r->m, r->desc, i, gpa, len, flags, next);
}

void vring_offer(struct vring *r, uint16_t head)
{
	put_u16(r->m, r->avail + 4 + 2ull * (r->avail_idx & (r->size - 1)), head);
	put_u16(r->m, r->avail + 2, ++r->avail_idx);
}

void vring_set_avail_idx(struct vring *r, uint16_t idx)
{
	r->avail_idx = idx;
	put_u16(r->m, r->avail + 2, idx);
}

void vring_set_avail_flags(struct vring *r, uint16_t flags)
{
	put_u16(r->m, r->avail, flags);
}

void vring_set_used_event(struct vring *r, uint16_t event)
{
	put_u16(r->m, r->avail + 4 + 2ull * r->size, event);
}

uint16_t vring_avail_event(const struct vring *r)
{
	return get_u16(r->m, r->used + 4 + 8ull * r->size);
}

uint16_t vring_used_idx(const struct vring *r)
{
	return get_u16(r->m, r->used + 2);
}

uint16_t vring_used_flags(const struct vring *r)
{
	return get_u16(r->m, r->used);
}

uint16_t vring_add(struct vring *r, const struct vring_buffer *b, unsigned int n)
{
	uint16_t head = r->next_desc & (r->size - 1);

	for (unsigned int i = 0; i < n; i++) {
		uint16_t at = r->next_desc++ & (r->size - 1), next = r->next_desc & (r->size - 1);

		vring_desc(r, at, b[i].gpa, b[i].len,
			   (b[i].write ? VRING_WRITE : 0) | (i + 1 < n ? VRING_NEXT : 0), next);
	}
	vring_offer(r, head);
	return head;
}

bool vring_used(struct vring *r, uint32_t *head, uint32_t *written)
{
	uint64_t entry = r->used + 4 + 8ull * (r->used_seen & (r->size - 1));

	if (vring_used_idx(r) == r->used_seen)
		return false;
	memory_read(r->m, entry, head, 4);
	memory_read(r->m, entry + 4, written, 4);
	r->used_seen++;
	return true;
}

static void request_nothing(void *machine, enum machine_request r)
{
	(void)machine;
	(void)r;
}

int bench_init(struct bench *b, const char *model, const char *id, struct err *e)
{
	memset(b, 0, sizeof(*b));
	if (guest_memory(&b->memory, e) < 0 || loop_init(&b->io, e) < 0 ||
	    tree_init(&b->tree, e) < 0)
		return -1;
	b->env = (struct device_env){
		.announce = ANNOUNCE_DEFAULT,
		.memory = &b->memory,
		.io = &b->io,
		.port_bus = &b->ports,
		.mmio_bus = &b->mmio,
		.request = request_nothing,
	};
	if (tree_set_str(&b->tree, BENCH_PATH, "model", model, e) < 0 ||
	    tree_set_str(&b->tree, BENCH_PATH, "id", id, e) < 0 ||
	    tree_set_u64_pair(&b->tree, BENCH_PATH, "reg", BENCH_GPA, VIRTIO_MMIO_WINDOW, e) < 0)
		return -1;
	return tree_set_u32(&b->tree, BENCH_PATH, "interrupts", 5, e);
}

int bench_create(struct bench *b, const struct device_model *model, struct err *e)
{
	if (model->probe && !tree_has(&b->tree, BENCH_PATH, "features") &&
	    model->probe(&b->tree, BENCH_PATH, e) < 0)
		return -1;
	memset(&b->mmio, 0, sizeof(b->mmio));
	return model->create(&b->env, &b->tree, BENCH_PATH, &b->device, e);
}

int bench_run(struct bench *b, struct err *e)
{
	if (b->device->model->activate(b->device, e) < 0)
		return -1;
	return loop_start(&b->io, "io", e);
}

static void quiesce(void *arg)
{
	struct device *d = arg;

	d->model->quiesce(d);
}

void bench_park(struct bench *b)
{
	loop_call(&b->io, quiesce, b->device);
	loop_join(&b->io);
}

void bench_free(struct bench *b)
{
	if (b->device)
		b->device->model->destroy(b->device);
	tree_free(&b->tree);
	loop_free(&b->io);
	memory_free(&b->memory);
}

uint32_t bench_read(struct bench *b, uint64_t offset)
{
	uint32_t v = UINT32_MAX;

	bus_access(&b->mmio, BENCH_GPA + offset, &v, 4, false);
	return v;
}

void bench_write(struct bench *b, uint64_t offset, uint32_t value)
{
	bus_access(&b->mmio, BENCH_GPA + offset, &value, 4, true);
}

uint32_t bench_negotiate(struct bench *b, uint64_t features)
{
	bench_write(b, 0x70, 0);
	bench_write(b, 0x70, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	bench_write(b, 0x24, 0);
	bench_write(b, 0x20, (uint32_t)features);
	bench_write(b, 0x24, 1);
	bench_write(b, 0x20, (uint32_t)(features >> 32));
	bench_write(b, 0x70,
		    VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK);
	return bench_read(b, 0x70);
}

void bench_queue(struct bench *b, unsigned int q, const struct vring *r)
{
	bench_write(b, 0x30, q);
	bench_write(b, 0x38, r->size);
	bench_write(b, 0x80, (uint32_t)r->desc);
	bench_write(b, 0x84, (uint32_t)(r->desc >> 32));
	bench_write(b, 0x90, (uint32_t)r->avail);
	bench_write(b, 0x94, (uint32_t)(r->avail >> 32));
	bench_write(b, 0xa0, (uint32_t)r->used);
	bench_write(b, 0xa4, (uint32_t)(r->used >> 32));
	bench_write(b, 0x44, 1);
}

void bench_driver_ok(struct bench *b)
{
	bench_write(b, 0x70,
		    VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
			    VIRTIO_STATUS_DRIVER_OK);
}

void bench_ring(struct bench *b, unsigned int q)
{
	bench_write(b, 0x50, q);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* An interrupt, or a short while: tests also run devices with interrupts switched off. */
static void wait_a_little(struct bench *b)
{
	struct virtio_device *v = (struct virtio_device *)b->device;
	struct pollfd p = { .fd = v->irq.fd, .events = POLLIN };
	uint64_t n;

	if (poll(&p, 1, 5) > 0 && read(v->irq.fd, &n, sizeof(n)) < 0)
		return;
}

bool bench_wait_used(struct bench *b, struct vring *r, uint32_t *head, uint32_t *written)
{
	uint64_t end = now_ms() + 10000;

	while (!vring_used(r, head, written)) {
		if (now_ms() > end)
			return false;
		wait_a_little(b);
	}
	return true;
}

bool bench_wait_needs_reset(struct bench *b)
{
	uint64_t end = now_ms() + 10000;

	while (!(bench_read(b, 0x70) & VIRTIO_STATUS_NEEDS_RESET)) {
		if (now_ms() > end)
			return false;
		wait_a_little(b);
	}
	return true;
}
