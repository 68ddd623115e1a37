/*
 * What every device promises, for each model in the table: created from a node, its state can be
 * saved and loaded into another one, and a state that was damaged in any way is refused before
 * the device hears of it. A device without state says why. No KVM.
 */
#include <check.h>
#include <fcntl.h>
#include <libfdt.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "devices/models.h"
#include "tests/unit/lib/vring.h"
#include "tests/unit/lib/one_state.h"

static struct bench b;
static struct err e;
static char dir[] = "/tmp/devices-XXXXXX";
static char disk[64], channel[64];

/* What a node of each model needs beside the common properties; and its host's side. */
static bool prepare_serial(void)
{
	tree_set_u32_pair(&b.tree, BENCH_PATH, "port", 0x3f8, 8, &e);
	tree_set_str(&b.tree, "/host/d0", "console", "null", &e);
	return true;
}

static bool prepare_power(void)
{
	tree_set_u32_pair(&b.tree, BENCH_PATH, "port", 0x600, 8, &e);
	return true;
}

static bool prepare_i8042(void)
{
	tree_set_u32_pair(&b.tree, BENCH_PATH, "port", 0x60, 5, &e);
	return true;
}

static bool prepare_disk(void)
{
	int fd = open(disk, O_RDWR | O_CREAT, 0600);

	ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
	close(fd);
	tree_set_str(&b.tree, "/host/d0", "path", disk, &e);
	return true;
}

static bool prepare_net(void)
{
	struct ifreq ifr = { .ifr_name = "tap0", .ifr_flags = IFF_TAP | IFF_NO_PI };
	static const uint8_t mac[6] = { 0x52, 0x54, 0, 0, 0, 1 };
	int fd = unshare(CLONE_NEWNET) ? -1 : open("/dev/net/tun", O_RDWR);

	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) || ioctl(fd, TUNSETPERSIST, 1)) {
		printf("skipped: virtio-net: no right to make a tap interface\n");
		return false;
	}
	close(fd);
	tree_set_bytes(&b.tree, BENCH_PATH, "mac", mac, sizeof(mac), &e);
	tree_set_str(&b.tree, "/host/d0", "tap", "tap0", &e);
	return true;
}

static bool prepare_console(void)
{
	tree_set_str(&b.tree, BENCH_PATH "/port@1", "label", "one", &e);
	tree_set_str(&b.tree, BENCH_PATH "/port@2", "label", "two", &e);
	tree_set_str(&b.tree, "/host/d0", "socket-1", channel, &e);
	strcat(channel, "2");
	tree_set_str(&b.tree, "/host/d0", "socket-2", channel, &e);
	return true;
}

static bool prepare_nothing(void)
{
	return true;
}

static const struct {
	const char *model;
	bool (*prepare)(void);
} models[] = {
	{ "serial-8250", prepare_serial }, { "power", prepare_power },
	{ "i8042", prepare_i8042 },	   { "virtio-blk", prepare_disk },
	{ "virtio-net", prepare_net },	   { "virtio-console", prepare_console },
	{ "virtio-rng", prepare_nothing }, { "virtio-balloon", prepare_nothing },
};

#define N_MODELS ((int)(sizeof(models) / sizeof(models[0])))

static void create(const struct device_model *m)
{
	memset(&b.ports, 0, sizeof(b.ports));
	ck_assert_msg(!bench_create(&b, m, &e), "%s: %s", m->name, e.text);
}

/* Gives the device a life worth saving: registers written, queues set up. */
static void use(const struct device_model *m)
{
	static struct vring r;
	uint8_t v = 0x5a;
	unsigned int port;

	for (port = 0x3f8; port < 0x400; port++)
		bus_access(&b.ports, port, &v, 1, true);
	if (m->press_power_button)
		m->press_power_button(b.device);
	if (b.mmio.n_ranges) {
		bench_negotiate(&b,
				VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX));
		vring_init(&r, &b.memory, 0x4000, 8);
		bench_queue(&b, 0, &r);
		bench_driver_ok(&b);
	}
}

static void *save(const struct device_model *m)
{
	void *st = calloc(1, m->state->size);

	m->save(b.device, st);
	return st;
}

/* Whether two states say the same: buffers may hold old bytes behind their ends. */
static bool same(const struct device_model *m, const void *one, const void *other)
{
	struct tree a, c;
	bool equal;

	ck_assert_msg(!save_one(&a, BENCH_PATH, m->state, one, &e), "%s", e.text);
	ck_assert_msg(!save_one(&c, BENCH_PATH, m->state, other, &e), "%s", e.text);
	tree_pack(&a);
	tree_pack(&c);
	equal = tree_bytes_used(&a) == tree_bytes_used(&c) &&
		!memcmp(a.fdt, c.fdt, tree_bytes_used(&a));
	tree_free(&a);
	tree_free(&c);
	return equal;
}

/* The model number `i`, its device created and used; false: cannot be made here. */
static const struct device_model *make(int i)
{
	const struct device_model *m = device_models[i];

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(disk, sizeof(disk), "%s/disk", dir);
	snprintf(channel, sizeof(channel), "%s/channel", dir);
	ck_assert_str_eq(models[i].model, m->name);
	ck_assert_int_eq(bench_init(&b, m->name, "d0", &e), 0);
	if (!models[i].prepare())
		return NULL;
	create(m);
	ck_assert_int_eq(m->activate(b.device, &e), 0);
	use(m);
	m->quiesce(b.device);
	return m;
}

static void unmake(void)
{
	bench_free(&b);
	unlink(disk);
	rmdir(dir);
}

START_TEST(state_that_was_loaded_is_the_state_that_was_saved)
{
	const struct device_model *m = make(_i);
	struct tree states;
	void *first, *loaded, *second, *fresh;

	if (m && !m->state)
		ck_assert_msg(m->stateless && *m->stateless, "%s does not say why", m->name);
	if (m && m->state) {
		first = save(m);
		loaded = calloc(1, m->state->size);
		ck_assert_msg(!save_one(&states, BENCH_PATH, m->state, first, &e), "%s", e.text);
		m->destroy(b.device);
		create(m);
		fresh = save(m);
		ck_assert_msg(!same(m, fresh, first), "%s: use changed nothing", m->name);
		ck_assert_msg(!state_load(&states, BENCH_PATH, m->state, loaded, &e), "%s", e.text);
		ck_assert_msg(same(m, first, loaded), "%s", m->name);
		ck_assert_msg(!m->fits || !m->fits(b.device, loaded, &e), "%s", e.text);
		m->load(b.device, loaded);
		second = save(m);
		ck_assert_msg(same(m, first, second), "%s", m->name);
		/* It runs with it, and can be set back to how it was created, which is a reset. */
		ck_assert_msg(!m->activate(b.device, &e), "%s", e.text);
		m->quiesce(b.device);
		m->load(b.device, fresh);
		free(second);
		second = save(m);
		ck_assert_msg(same(m, fresh, second), "%s", m->name);
		tree_free(&states);
		free(first);
		free(second);
		free(loaded);
		free(fresh);
	}
	unmake();
}
END_TEST

/* Whether the damaged tree is refused with a sentence that names the node. */
static void refused(const struct device_model *m, const struct tree *states, const char *what,
		    const char *field)
{
	void *st = calloc(1, m->state->size);

	ck_assert_msg(state_load(states, BENCH_PATH, m->state, st, &e) == -1,
		      "%s: '%s' %s, and it was loaded", m->name, field, what);
	ck_assert_msg(strstr(e.text, BENCH_PATH), "%s: %s", m->name, e.text);
	free(st);
}

static void copy(struct tree *to, const struct tree *from)
{
	ck_assert_msg(!tree_copy(to, from->fdt, tree_bytes_used(from), &e), "%s", e.text);
}

/* Buffers may have another length; then what they hold is for `check` and need not be refused. */
static bool may_vary(const char *field)
{
	return !strcmp(field, "rx") || !strcmp(field, "tx");
}

/* Fields that came later: a state from before them is as good. */
static bool may_be_missing(const char *field)
{
	return !strcmp(field, "link-up");
}

/* Every property of `node` and below: removed, cut, lengthened; and one that nobody knows. */
static void damage(const struct device_model *m, const struct tree *states, const char *path)
{
	int node = fdt_path_offset(states->fdt, path), prop;
	char child[TREE_PATH_MAX];
	unsigned int it = 0;
	struct tree t;

	ck_assert_int_ge(node, 0);
	fdt_for_each_property_offset(prop, states->fdt, node)
	{
		const char *name;
		int len, cut;
		const uint8_t *value = fdt_getprop_by_offset(states->fdt, prop, &name, &len);
		uint8_t *longer = calloc(1, (size_t)len + 4096);

		memcpy(longer, value, (size_t)len);
		copy(&t, states);
		ck_assert_int_eq(fdt_delprop(t.fdt, fdt_path_offset(t.fdt, path), name), 0);
		if (!may_be_missing(name))
			refused(m, &t, "was missing", name);
		tree_free(&t);
		for (cut = 0; cut < len && !may_vary(name); cut++) {
			copy(&t, states);
			tree_set_bytes(&t, path, name, value, (size_t)cut, &e);
			refused(m, &t, "was cut", name);
			tree_free(&t);
		}
		copy(&t, states);
		if (!may_vary(name)) {
			tree_set_bytes(&t, path, name, longer, (size_t)len + 1, &e);
			refused(m, &t, "was longer", name);
		}
		tree_set_bytes(&t, path, name, longer, (size_t)len + 4096, &e);
		refused(m, &t, "was much longer", name);
		tree_free(&t);
		free(longer);
	}
	copy(&t, states);
	tree_set_u32(&t, path, "nobody-knows", 1, &e);
	refused(m, &t, "was added", "nobody-knows");
	tree_free(&t);
	copy(&t, states);
	snprintf(child, sizeof(child), "%s/nobody@0", path);
	tree_set_u32(&t, child, "knows", 1, &e);
	refused(m, &t, "was added", "nobody@0");
	tree_free(&t);
	while (tree_next_child(states, path, &it, child)) {
		copy(&t, states);
		ck_assert_int_eq(fdt_del_node(t.fdt, fdt_path_offset(t.fdt, child)), 0);
		refused(m, &t, "was missing", child);
		tree_free(&t);
		damage(m, states, child);
	}
}

START_TEST(damaged_state_is_refused_and_changes_nothing)
{
	const struct device_model *m = make(_i);
	struct tree states, empty;
	void *before, *after;

	if (m && m->state) {
		before = save(m);
		ck_assert_int_eq(tree_init(&empty, &e), 0);
		ck_assert_msg(!save_one(&states, BENCH_PATH, m->state, before, &e), "%s", e.text);
		tree_pack(&states);
		refused(m, &empty, "was missing", "the node");
		damage(m, &states, BENCH_PATH);
		after = save(m);
		ck_assert_msg(same(m, before, after), "%s", m->name);
		tree_free(&states);
		tree_free(&empty);
		free(before);
		free(after);
	}
	unmake();
}
END_TEST

START_TEST(every_truncation_of_the_blob_is_refused)
{
	const struct device_model *m = make(_i);
	struct tree states, t;
	void *st, *scratch;
	size_t len, n;

	if (m && m->state) {
		st = save(m);
		scratch = calloc(1, m->state->size);
		ck_assert_int_eq(save_one(&states, BENCH_PATH, m->state, st, &e), 0);
		tree_pack(&states);
		len = tree_bytes_used(&states);
		for (n = 0; n < len; n++)
			ck_assert_msg(tree_copy(&t, states.fdt, n, &e) == -1,
				      "%s: %zu of %zu bytes were taken", m->name, n, len);
		tree_free(&states);
		free(st);
		free(scratch);
	}
	unmake();
}
END_TEST

START_TEST(nodes_that_lack_a_property_are_refused)
{
	const struct device_model *m = device_models[_i];
	/* One that has no interrupt needs no number for it. */
	const char *const common[] = { "id", m == &i8042_model ? "port" : "interrupts" };
	struct tree whole;
	struct device *none;
	size_t i;

	if (make(_i)) {
		m->destroy(b.device);
		b.device = NULL;
		copy(&whole, &b.tree);
		for (i = 0; i < sizeof(common) / sizeof(common[0]); i++) {
			struct tree t;

			copy(&t, &whole);
			fdt_delprop(t.fdt, fdt_path_offset(t.fdt, BENCH_PATH), common[i]);
			memset(&b.ports, 0, sizeof(b.ports));
			memset(&b.mmio, 0, sizeof(b.mmio));
			ck_assert_msg(m->create(&b.env, &t, BENCH_PATH, &none, &e) == -1,
				      "%s without '%s'", m->name, common[i]);
			ck_assert_msg(strstr(e.text, common[i]), "%s", e.text);
			tree_free(&t);
		}
		tree_free(&whole);
	}
	unmake();
}
END_TEST

START_TEST(every_model_is_tested_here)
{
	int n = 0;

	while (device_models[n])
		n++;
	ck_assert_int_eq(n, N_MODELS);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("devices");
	TCase *t = tcase_create("devices");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_test(t, every_model_is_tested_here);
	tcase_add_loop_test(t, state_that_was_loaded_is_the_state_that_was_saved, 0, N_MODELS);
	tcase_add_loop_test(t, damaged_state_is_refused_and_changes_nothing, 0, N_MODELS);
	tcase_add_loop_test(t, every_truncation_of_the_blob_is_refused, 0, N_MODELS);
	tcase_add_loop_test(t, nodes_that_lack_a_property_are_refused, 0, N_MODELS);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
