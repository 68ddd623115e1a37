/*
 * What all virtio devices share: the registers of virtio-mmio, the status, doorbells, and the
 * state, with a device that does next to nothing. And the entropy device, which does little more.
 */
#include "devices/virtio/device.h"

#include <check.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/models.h"
#include "tests/unit/lib/vring.h"
#include "tests/unit/lib/one_state.h"

#define FEATURES                                                           \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) | \
	 VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(5))
#define PLAIN  VIRTIO_BIT(VIRTIO_F_VERSION_1)
#define QUEUES 3

#define DRIVER_OK_STATUS 0xf

/* A device that gives every chain back at once. */
struct fake {
	struct virtio_device v;
	uint8_t config[10];
	int starts, stops, resets, activates, quiesces;
	bool start_fails;
	int rings; /* atomic */
	struct queue_chain chain;
};

static struct bench bench;
static struct vring vring;
static struct err e;

static struct fake *fake(void)
{
	return (struct fake *)bench.device;
}

static void fake_config_write(struct virtio_device *v, uint32_t offset, const void *value,
			      uint32_t len)
{
	memcpy(((struct fake *)v)->config + offset, value, len);
}

static int fake_activate(struct virtio_device *v, struct err *error)
{
	(void)error;
	((struct fake *)v)->activates++;
	return 0;
}

static void fake_quiesce(struct virtio_device *v)
{
	ck_assert(!v->started);
	((struct fake *)v)->quiesces++;
}

static int fake_start(struct virtio_device *v, struct err *error)
{
	((struct fake *)v)->starts++;
	return ((struct fake *)v)->start_fails ? err_set(error, "cannot start") : 0;
}

static void fake_stop(struct virtio_device *v)
{
	((struct fake *)v)->stops++;
}

static void fake_reset(struct virtio_device *v)
{
	((struct fake *)v)->resets++;
}

static void fake_ring(struct virtio_device *v, unsigned int q)
{
	struct fake *f = (struct fake *)v;
	struct err error;
	int rc;

	__atomic_fetch_add(&f->rings, 1, __ATOMIC_SEQ_CST);
	do {
		queue_ask_rings(&v->queues[q], false);
		while ((rc = queue_pop(&v->queues[q], &f->chain, &error)) > 0)
			queue_push(&v->queues[q], f->chain.head, (uint32_t)f->chain.in_bytes,
				   &error);
		if (rc < 0) {
			virtio_fail(v, "%s", error.text);
			return;
		}
		virtio_interrupt(v, q);
	} while (queue_ask_rings(&v->queues[q], true));
}

static const struct virtio_ops fake_ops = {
	.device_id = 42,
	.known_features = FEATURES,
	.queue_size = 128,
	.config_write = fake_config_write,
	.activate = fake_activate,
	.quiesce = fake_quiesce,
	.start = fake_start,
	.stop = fake_stop,
	.reset = fake_reset,
	.ring = fake_ring,
};

static const struct device_model fake_model;

static int fake_create(const struct device_env *env, const struct tree *t, const char *path,
		       struct device **out, struct err *error)
{
	struct fake *f = calloc(1, sizeof(*f));

	if (virtio_init(&f->v, &fake_model, &fake_ops, QUEUES, env, t, path, error) < 0) {
		free(f);
		return -1;
	}
	memcpy(f->config, "0123456789", 10);
	f->v.config = f->config;
	f->v.config_size = sizeof(f->config);
	*out = &f->v.dev;
	return 0;
}

static void fake_destroy(struct device *d)
{
	virtio_destroy((struct virtio_device *)d);
	free(d);
}

static void fake_fields(struct state *s, void *st)
{
	virtio_fields(s, st);
}

static int fake_check(const void *st, struct err *error)
{
	return virtio_state_check(st, error);
}

static const struct state_desc fake_state = {
	.size = sizeof(struct virtio_state),
	.fields = fake_fields,
	.check = fake_check,
};

static const struct device_model fake_model = {
	.name = "fake",
	.state = &fake_state,
	.create = fake_create,
	.destroy = fake_destroy,
	.activate = virtio_activate,
	.quiesce = virtio_quiesce,
};

static void setup(void)
{
	ck_assert_msg(bench_init(&bench, "fake", "fake0", &e) == 0, "%s", e.text);
	ck_assert(!tree_set_u64(&bench.tree, BENCH_PATH, "features", FEATURES, &e));
	ck_assert_msg(bench_create(&bench, &fake_model, &e) == 0, "%s", e.text);
	ck_assert_msg(bench_run(&bench, &e) == 0, "%s", e.text);
	vring_init(&vring, &bench.memory, 0x1000, 64);
}

static void teardown(void)
{
	if (bench.device)
		bench_park(&bench);
	bench_free(&bench);
}

static void start_driver(uint64_t features)
{
	ck_assert_uint_eq(bench_negotiate(&bench, features), 0xb);
	bench_queue(&bench, 0, &vring);
	bench_driver_ok(&bench);
	ck_assert_uint_eq(bench_read(&bench, 0x70), DRIVER_OK_STATUS);
}

START_TEST(registers_say_what_the_device_is)
{
	ck_assert_uint_eq(bench_read(&bench, 0x0), 0x74726976);
	ck_assert_uint_eq(bench_read(&bench, 0x4), 2);
	ck_assert_uint_eq(bench_read(&bench, 0x8), 42);
	bench_write(&bench, 0x14, 0);
	ck_assert_uint_eq(bench_read(&bench, 0x10), (uint32_t)FEATURES);
	bench_write(&bench, 0x14, 1);
	ck_assert_uint_eq(bench_read(&bench, 0x10), (uint32_t)(FEATURES >> 32));
	bench_write(&bench, 0x14, 2);
	ck_assert_uint_eq(bench_read(&bench, 0x10), 0);
	for (uint32_t q = 0; q < 5; q++) {
		bench_write(&bench, 0x30, q);
		ck_assert_uint_eq(bench_read(&bench, 0x34), q < QUEUES ? 128 : 0);
		ck_assert_uint_eq(bench_read(&bench, 0x44), 0);
	}
	ck_assert_uint_eq(bench_read(&bench, 0xb0), UINT32_MAX);
	ck_assert_uint_eq(bench_read(&bench, 0xb4), UINT32_MAX);
	/* A write to what is read-only and to what is reserved changes nothing. */
	bench_write(&bench, 0x0, 1);
	bench_write(&bench, 0x8, 1);
	bench_write(&bench, 0x3c, 1);
	bench_write(&bench, 0xfc, 1);
	ck_assert_uint_eq(bench_read(&bench, 0x0), 0x74726976);
	ck_assert_uint_eq(bench_read(&bench, 0x8), 42);
	ck_assert_uint_eq(bench_read(&bench, 0x3c), 0);
	ck_assert_uint_eq(bench_read(&bench, 0xfc), 0);
}
END_TEST

START_TEST(registers_of_other_widths_are_ignored)
{
	uint64_t v;

	/* Every offset, width and direction: nothing but config may answer, nothing may break. */
	for (uint64_t offset = 0; offset < VIRTIO_MMIO_WINDOW; offset++) {
		for (unsigned int len = 1; len <= 8; len *= 2) {
			if (offset + len > VIRTIO_MMIO_WINDOW)
				continue;
			v = UINT64_MAX;
			bus_access(&bench.mmio, BENCH_GPA + offset, &v, len, false);
			if (offset < 0x100 && (len != 4 || offset % 4))
				ck_assert_uint_eq(v << (64 - 8 * len), 0);
			if (len == 4 && offset % 4 == 0 && offset < 0x100)
				continue;
			v = UINT64_MAX;
			bus_access(&bench.mmio, BENCH_GPA + offset, &v, len, true);
		}
	}
	ck_assert_uint_eq(bench_read(&bench, 0x70), 0);
	ck_assert_int_eq(fake()->starts, 0);
}
END_TEST

START_TEST(config_is_read_and_written_in_any_width)
{
	uint64_t v = UINT64_MAX;

	bus_access(&bench.mmio, BENCH_GPA + 0x101, &v, 2, false);
	ck_assert_mem_eq(&v, "12\xff", 3);
	v = UINT64_MAX;
	bus_access(&bench.mmio, BENCH_GPA + 0x104, &v, 8, false);
	ck_assert_mem_eq(&v, "456789\0\0", 8);
	v = UINT64_MAX;
	bus_access(&bench.mmio, BENCH_GPA + 0xff8, &v, 8, false);
	ck_assert_uint_eq(v, 0);
	memcpy(&v, "xy", 2);
	bus_access(&bench.mmio, BENCH_GPA + 0x108, &v, 2, true);
	ck_assert_mem_eq(fake()->config, "01234567xy", 10);
	/* One byte too far. */
	memcpy(&v, "PQ", 2);
	bus_access(&bench.mmio, BENCH_GPA + 0x109, &v, 2, true);
	ck_assert_mem_eq(fake()->config, "01234567xy", 10);
	pthread_mutex_lock(&fake()->v.lock);
	virtio_config_changed(&fake()->v);
	pthread_mutex_unlock(&fake()->v.lock);
	ck_assert_uint_eq(bench_read(&bench, 0xfc), 1);
	ck_assert_uint_eq(bench_read(&bench, 0x60), 0); /* nobody is there to be told */
}
END_TEST

START_TEST(features_that_are_not_offered_are_refused)
{
	ck_assert_uint_eq(bench_negotiate(&bench, PLAIN), 0xb);
	ck_assert_uint_eq(bench_negotiate(&bench, PLAIN | VIRTIO_BIT(6)), 0x3);
	ck_assert_uint_eq(bench_negotiate(&bench, PLAIN | VIRTIO_BIT(40)), 0x3);
	ck_assert_uint_eq(bench_negotiate(&bench, VIRTIO_BIT(5)), 0x3);
	/* A running driver without agreed features there is none. */
	bench_driver_ok(&bench);
	ck_assert_uint_eq(bench_read(&bench, 0x70), 0x3);
	ck_assert_int_eq(fake()->starts, 0);
	/* Once agreed, they stay. */
	ck_assert_uint_eq(bench_negotiate(&bench, PLAIN), 0xb);
	bench_write(&bench, 0x24, 0);
	bench_write(&bench, 0x20, 1u << 5);
	ck_assert(!virtio_has(&fake()->v, 5));
}
END_TEST

START_TEST(driver_ok_starts_and_zero_resets)
{
	start_driver(PLAIN);
	ck_assert_int_eq(fake()->starts, 1);
	bench_write(&bench, 0x70, DRIVER_OK_STATUS);
	bench_write(&bench, 0x70, 1); /* bits are never taken back */
	ck_assert_uint_eq(bench_read(&bench, 0x70), DRIVER_OK_STATUS);
	ck_assert_int_eq(fake()->starts, 1);
	bench_write(&bench, 0x30, 0);
	ck_assert_uint_eq(bench_read(&bench, 0x44), 1);
	bench_write(&bench, 0x70, 0);
	ck_assert_uint_eq(bench_read(&bench, 0x70), 0);
	ck_assert_uint_eq(bench_read(&bench, 0x44), 0);
	ck_assert_int_eq(fake()->stops, 1);
	ck_assert_int_eq(fake()->resets, 2); /* negotiating begins with one */
	start_driver(FEATURES);
	ck_assert_int_eq(fake()->starts, 2);
}
END_TEST

START_TEST(start_that_fails_asks_for_a_reset)
{
	fake()->start_fails = true;
	ck_assert_uint_eq(bench_negotiate(&bench, PLAIN), 0xb);
	bench_driver_ok(&bench);
	ck_assert_uint_eq(bench_read(&bench, 0x70), 0x4f);
	ck_assert_uint_eq(bench_read(&bench, 0x60), 2);
	/* The driver cannot take the bit away but by a reset. */
	bench_write(&bench, 0x70, DRIVER_OK_STATUS);
	ck_assert_uint_eq(bench_read(&bench, 0x70), 0x4f);
	fake()->start_fails = false;
	start_driver(PLAIN);
	ck_assert_int_eq(fake()->stops, 0);
}
END_TEST

START_TEST(queues_are_set_up_in_order_only)
{
	/* Before FEATURES_OK. */
	bench_queue(&bench, 0, &vring);
	ck_assert_uint_eq(bench_read(&bench, 0x44), 0);
	ck_assert_uint_eq(bench_negotiate(&bench, PLAIN), 0xb);
	/* A queue that does not exist. */
	bench_queue(&bench, QUEUES, &vring);
	bench_queue(&bench, UINT32_MAX, &vring);
	bench_queue(&bench, 1, &vring);
	ck_assert_uint_eq(bench_read(&bench, 0x44), 1);
	/* Ready: its registers are shut. */
	bench_write(&bench, 0x38, 8);
	bench_write(&bench, 0x80, 0x8000);
	ck_assert_uint_eq(fake()->v.queues[1].st.size, 64);
	ck_assert_uint_eq(fake()->v.queues[1].st.desc_gpa, 0x1000);
	bench_write(&bench, 0x44, 0);
	ck_assert_uint_eq(bench_read(&bench, 0x44), 0);
	ck_assert_uint_eq(bench_read(&bench, 0x70), 0xb);
}
END_TEST

START_TEST(queues_that_cannot_be_ask_for_a_reset)
{
	static const uint32_t bad_sizes[] = { 0, 3, 100, 256, 65536, UINT32_MAX };
	struct vring outside = vring;

	for (unsigned int i = 0; i < sizeof(bad_sizes) / sizeof(bad_sizes[0]); i++) {
		ck_assert_uint_eq(bench_negotiate(&bench, PLAIN), 0xb);
		bench_write(&bench, 0x30, 0);
		bench_write(&bench, 0x38, bad_sizes[i]);
		ck_assert_uint_eq(bench_read(&bench, 0x70), 0x4b);
	}
	outside.used = UINT64_MAX - 3;
	ck_assert_uint_eq(bench_negotiate(&bench, PLAIN), 0xb);
	bench_queue(&bench, 0, &outside);
	ck_assert_uint_eq(bench_read(&bench, 0x44), 0);
	ck_assert_uint_eq(bench_read(&bench, 0x70), 0x4b);
	/* Without a size. */
	ck_assert_uint_eq(bench_negotiate(&bench, PLAIN), 0xb);
	bench_write(&bench, 0x44, 1);
	ck_assert_uint_eq(bench_read(&bench, 0x70), 0x4b);
}
END_TEST

static void round_trip(uint64_t features, unsigned int times)
{
	struct vring_buffer b = { 0x8000, 16, true };
	uint32_t head, written;

	start_driver(features);
	for (unsigned int i = 0; i < times; i++) {
		vring_set_used_event(&vring, vring.used_seen);
		vring_add(&vring, &b, 1);
		bench_ring(&bench, 0);
		ck_assert(bench_wait_used(&bench, &vring, &head, &written));
		ck_assert_uint_eq(written, 16);
	}
	ck_assert_uint_eq(bench_read(&bench, 0x60), 1);
	bench_write(&bench, 0x64, 2);
	ck_assert_uint_eq(bench_read(&bench, 0x60), 1);
	bench_write(&bench, 0x64, 1);
	ck_assert_uint_eq(bench_read(&bench, 0x60), 0);
}

START_TEST(ring_reaches_the_device_and_interrupts_come_back)
{
	round_trip(PLAIN, 200);
	bench_write(&bench, 0x70, 0);
	vring_init(&vring, &bench.memory, 0x1000, 64);
	round_trip(FEATURES, 200);
}
END_TEST

START_TEST(rings_of_any_width_and_any_value_are_taken)
{
	struct vring_buffer b = { 0x8000, 16, true };
	uint32_t head, written;
	uint16_t q = 0;

	start_driver(PLAIN);
	bench_ring(&bench, QUEUES);
	bench_ring(&bench, UINT32_MAX);
	bench_ring(&bench, 1); /* not ready */
	vring_add(&vring, &b, 1);
	bus_access(&bench.mmio, BENCH_GPA + 0x50, &q, 2, true);
	ck_assert(bench_wait_used(&bench, &vring, &head, &written));
}
END_TEST

START_TEST(broken_ring_asks_for_a_reset_and_a_reset_mends_it)
{
	struct vring_buffer b = { 0x8000, 16, true };
	uint32_t head, written;
	int rings;

	start_driver(PLAIN);
	vring_offer(&vring, 64);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_needs_reset(&bench));
	ck_assert_uint_eq(bench_read(&bench, 0x60), 2);
	/* No more work. */
	rings = __atomic_load_n(&fake()->rings, __ATOMIC_SEQ_CST);
	bench_ring(&bench, 0);
	usleep(20000);
	ck_assert_int_eq(__atomic_load_n(&fake()->rings, __ATOMIC_SEQ_CST), rings);
	bench_write(&bench, 0x70, 0);
	vring_init(&vring, &bench.memory, 0x1000, 64);
	start_driver(PLAIN);
	ck_assert_uint_eq(bench_read(&bench, 0x60), 0);
	vring_add(&vring, &b, 1);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_used(&bench, &vring, &head, &written));
}
END_TEST

START_TEST(queue_taken_back_while_running_stops_first)
{
	start_driver(PLAIN);
	bench_write(&bench, 0x30, 0);
	bench_write(&bench, 0x44, 0);
	ck_assert_uint_eq(bench_read(&bench, 0x44), 0);
	ck_assert_int_eq(fake()->stops, 1);
	ck_assert_int_eq(fake()->starts, 2);
}
END_TEST

/* The state of the device in the middle of its work, as a tree. */
static void save(struct virtio_state *st, struct tree *states)
{
	memset(st, 0, sizeof(*st));
	virtio_save(&fake()->v, st);
	ck_assert_msg(save_one(states, "/devices/fake0", &fake_state, st, &e) == 0, "%s", e.text);
}

START_TEST(state_goes_on_where_it_was)
{
	struct vring_buffer b = { 0x8000, 16, true };
	struct virtio_state st, loaded;
	uint32_t head, written;
	struct tree states;

	round_trip(FEATURES, 5);
	bench_park(&bench);
	/* Rung while nobody looks. */
	vring_set_used_event(&vring, vring.used_seen);
	vring_add(&vring, &b, 1);
	bench_ring(&bench, 0);
	__atomic_store_n(&fake()->v.interrupt_status, 1, __ATOMIC_SEQ_CST);
	save(&st, &states);
	ck_assert_int_eq(fake()->quiesces, 1);

	/* A new device of the same machine. */
	bench.device->model->destroy(bench.device);
	ck_assert_msg(bench_create(&bench, &fake_model, &e) == 0, "%s", e.text);
	ck_assert_msg(state_load(&states, "/devices/fake0", &fake_state, &loaded, &e) == 0, "%s",
		      e.text);
	ck_assert_mem_eq(&loaded, &st, sizeof(st));
	ck_assert_msg(virtio_fits(&fake()->v, &loaded, &e) == 0, "%s", e.text);
	virtio_load(&fake()->v, &loaded);
	ck_assert_int_eq(fake()->starts, 0);
	ck_assert_msg(bench_run(&bench, &e) == 0, "%s", e.text);
	ck_assert_int_eq(fake()->starts, 1);
	ck_assert_int_eq(fake()->activates, 1);
	ck_assert(bench_wait_used(&bench, &vring, &head, &written));
	ck_assert_uint_eq(bench_read(&bench, 0x60), 1);
	ck_assert(virtio_has(&fake()->v, VIRTIO_F_EVENT_IDX));
	ck_assert(fake()->v.queues[0].event_idx);
	tree_free(&states);
}
END_TEST

START_TEST(load_into_a_used_device_is_a_reset)
{
	struct virtio_state fresh;

	memset(&fresh, 0, sizeof(fresh));
	virtio_save(&fake()->v, &fresh);
	start_driver(PLAIN);
	bench_park(&bench);
	virtio_load(&fake()->v, &fresh);
	ck_assert_msg(bench_run(&bench, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(bench_read(&bench, 0x70), 0);
	ck_assert_int_eq(fake()->starts, 1);
	ck_assert_int_eq(fake()->resets, 1 + 1); /* start_driver's and the load's */
	bench_write(&bench, 0x70, 0);
	vring_init(&vring, &bench.memory, 0x1000, 64);
	round_trip(PLAIN, 3);
}
END_TEST

/* Takes property `i` out of the tree of states, counted over all nodes; false: there is none. */
static bool drop_property(void *fdt, int i)
{
	for (int node = 0; node >= 0; node = fdt_next_node(fdt, node, NULL)) {
		int prop;

		fdt_for_each_property_offset(prop, fdt, node)
		{
			const char *name;

			if (i--)
				continue;
			fdt_getprop_by_offset(fdt, prop, &name, NULL);
			ck_assert_int_eq(fdt_delprop(fdt, node, name), 0);
			return true;
		}
	}
	return false;
}

START_TEST(every_truncation_of_a_state_is_refused)
{
	struct virtio_state st, loaded;
	struct tree states, copy;
	size_t bytes;
	int i = 0;

	start_driver(PLAIN);
	save(&st, &states);
	tree_pack(&states);
	bytes = tree_bytes_used(&states);
	for (size_t n = 0; n < bytes; n++)
		ck_assert_int_eq(tree_copy(&copy, states.fdt, n, &e), -1);
	for (;; i++) {
		ck_assert_int_eq(tree_copy(&copy, states.fdt, bytes, &e), 0);
		if (!drop_property(copy.fdt, i))
			break;
		ck_assert_int_eq(state_load(&copy, "/devices/fake0", &fake_state, &loaded, &e), -1);
		tree_free(&copy);
	}
	/* 8 of the device, 9 of each queue. */
	ck_assert_int_eq(i, 8 + 9 * QUEUES);
	ck_assert_int_eq(state_load(&copy, "/devices/fake0", &fake_state, &loaded, &e), 0);
	ck_assert_int_eq(tree_set_u32(&copy, "/devices/fake0", "newer", 1, &e), 0);
	ck_assert_int_eq(state_load(&copy, "/devices/fake0", &fake_state, &loaded, &e), -1);
	tree_free(&copy);
	tree_free(&states);
}
END_TEST

START_TEST(states_that_cannot_be_are_refused)
{
	struct virtio_state good, st;

	start_driver(PLAIN);
	virtio_save(&fake()->v, &good);
	ck_assert_int_eq(virtio_state_check(&good, &e), 0);
	ck_assert_int_eq(virtio_fits(&fake()->v, &good, &e), 0);
#define bad(check, change)                   \
	do {                                 \
		st = good;                   \
		change;                      \
		ck_assert_int_eq(check, -1); \
	} while (0)
#define bad_state(change) bad(virtio_state_check(&st, &e), change)
#define bad_fit(change)	  bad(virtio_fits(&fake()->v, &st, &e), change)
	bad_state(st.status = 0x10f);
	bad_state(st.n_queues = VIRTIO_QUEUES_MAX + 1);
	bad_state(st.n_queues = UINT32_MAX);
	bad_state(st.interrupt_status = 4);
	bad_state(st.driver_features = 0);
	bad_state(st.status = VIRTIO_STATUS_DRIVER_OK);
	bad_state(st.status = 0);
	bad_state(st.queues[0].size = 24);
	bad_state(st.queues[0].size = 0);
	bad_state(st.queues[0].size = 512);
	bad_state(st.queues[0].desc_gpa++);
	bad_fit(st.n_queues = 1);
	bad_fit(st.driver_features |= VIRTIO_BIT(7));
	bad_fit(st.queues[0].used_gpa = 0xd0000000);
	bad_fit(st.queues[1].size = 256);
}
END_TEST

START_TEST(nodes_that_cannot_be_are_refused)
{
	struct tree *t = &bench.tree;
	struct device *d = NULL;

	bench_park(&bench);
	bench.device->model->destroy(bench.device);
	bench.device = NULL;
	memset(&bench.mmio, 0, sizeof(bench.mmio));
	ck_assert(!tree_set_u64(t, BENCH_PATH, "features", FEATURES | VIRTIO_BIT(9), &e));
	ck_assert_int_eq(fake_create(&bench.env, t, BENCH_PATH, &d, &e), -1);
	ck_assert_str_eq(e.text, BENCH_PATH ": features 0x200 are not known to this version");
	ck_assert(!tree_set_u64(t, BENCH_PATH, "features", VIRTIO_BIT(5), &e));
	ck_assert_int_eq(fake_create(&bench.env, t, BENCH_PATH, &d, &e), -1);
	ck_assert(!tree_set_u64(t, BENCH_PATH, "features", FEATURES, &e));
	ck_assert(!tree_set_u64_pair(t, BENCH_PATH, "reg", BENCH_GPA, 0x200, &e));
	ck_assert_int_eq(fake_create(&bench.env, t, BENCH_PATH, &d, &e), -1);
	ck_assert_uint_eq(bench.mmio.n_ranges, 0);
}
END_TEST

START_TEST(entropy_fills_what_is_asked_and_no_more_a_turn)
{
	struct vring_buffer small = { 0x8000, 64, true }, large = { 0x20000, 0x40000, true };
	struct vring_buffer readable = { 0x8000, 64, false };
	uint8_t zeroes[64] = { 0 };
	uint32_t head, written;

	teardown();
	ck_assert_msg(bench_init(&bench, "virtio-rng", "rng0", &e) == 0, "%s", e.text);
	ck_assert_msg(bench_create(&bench, &virtio_rng_model, &e) == 0, "%s", e.text);
	ck_assert_msg(bench_run(&bench, &e) == 0, "%s", e.text);
	bench.memory.marking = true;
	bench_write(&bench, 0x70, 0);
	vring_init(&vring, &bench.memory, 0x1000, 64);
	start_driver(PLAIN);
	vring_add(&vring, &small, 1);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_used(&bench, &vring, &head, &written));
	ck_assert_uint_eq(written, 64);
	ck_assert_mem_ne(memory_host(&bench.memory, 0x8000, 64), zeroes, 64);
	ck_assert(__atomic_load_n(&bench.memory.blocks[0].dirty[0], __ATOMIC_ACQUIRE) & (1u << 8));
	vring_add(&vring, &large, 1);
	for (unsigned int i = 0; i < 60; i++)
		vring_add(&vring, &small, 1);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_used(&bench, &vring, &head, &written));
	ck_assert_uint_gt(written, 0);
	ck_assert_uint_le(written, 64 << 10);
	for (unsigned int i = 0; i < 60; i++)
		ck_assert(bench_wait_used(&bench, &vring, &head, &written));
	vring_add(&vring, &readable, 1);
	bench_ring(&bench, 0);
	ck_assert(bench_wait_needs_reset(&bench));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio");
	TCase *t = tcase_create("virtio");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, registers_say_what_the_device_is);
	tcase_add_test(t, registers_of_other_widths_are_ignored);
	tcase_add_test(t, config_is_read_and_written_in_any_width);
	tcase_add_test(t, features_that_are_not_offered_are_refused);
	tcase_add_test(t, driver_ok_starts_and_zero_resets);
	tcase_add_test(t, start_that_fails_asks_for_a_reset);
	tcase_add_test(t, queues_are_set_up_in_order_only);
	tcase_add_test(t, queues_that_cannot_be_ask_for_a_reset);
	tcase_add_test(t, ring_reaches_the_device_and_interrupts_come_back);
	tcase_add_test(t, rings_of_any_width_and_any_value_are_taken);
	tcase_add_test(t, broken_ring_asks_for_a_reset_and_a_reset_mends_it);
	tcase_add_test(t, queue_taken_back_while_running_stops_first);
	tcase_add_test(t, state_goes_on_where_it_was);
	tcase_add_test(t, load_into_a_used_device_is_a_reset);
	tcase_add_test(t, every_truncation_of_a_state_is_refused);
	tcase_add_test(t, states_that_cannot_be_are_refused);
	tcase_add_test(t, nodes_that_cannot_be_are_refused);
	tcase_add_test(t, entropy_fills_what_is_asked_and_no_more_a_turn);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
