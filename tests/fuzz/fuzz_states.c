/*
 * Fuzzing the states of a machine, from behind the checksum of their record (damage.h): they are
 * refused with a sentence, or the devices take them, go on with them and are quiet again, all
 * within their memory. Of devices that need more of a host than a file, only the state is read.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/models.h"
#include "tests/fuzz/damage.h"
#include "tests/unit/lib/vring.h"
#include "vmm/arch.h"
#include "vmm/states.h"

#define DISK_BYTES (1 << 20)
#define VCPUS	   2u
#define THINGS_MAX 32

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len);

struct scene {
	struct state_thing things[THINGS_MAX];
	const struct device_model *models[THINGS_MAX]; /* NULL: the VM, a vCPU */
	unsigned int n;
	int disk;
	struct tree good;
};

static void add(struct scene *s, const char *path, const struct state_desc *desc,
		const struct device_model *model)
{
	struct state_thing *t = &s->things[s->n];

	snprintf(t->path, sizeof(t->path), "%s", path);
	t->desc = desc;
	t->st = calloc(1, desc->size);
	s->models[s->n++] = model;
	if (!t->st)
		abort();
}

/* A device of that model on a bench of its own; false: it cannot be made here. */
static bool make_device(const struct scene *s, struct bench *b, const struct device_model *m)
{
	char image[64];
	struct err e;

	if (m == &virtio_net_model || m == &virtio_console_model)
		return false;
	snprintf(image, sizeof(image), "/proc/self/fd/%d", s->disk);
	if (bench_init(b, m->name, "d0", &e) ||
	    tree_set_u32_pair(&b->tree, BENCH_PATH, "port",
			      m == &serial_model  ? 0x3f8
			      : m == &power_model ? 0x600
						  : 0x60,
			      m == &i8042_model ? 5 : 8, &e) ||
	    tree_set_str(&b->tree, "/host/d0", "console", "null", &e) ||
	    tree_set_str(&b->tree, "/host/d0", "path", image, &e) || bench_create(b, m, &e))
		abort();
	return true;
}

static void make(struct scene *s)
{
	char path[TREE_PATH_MAX];
	struct bench b;
	struct err e;
	unsigned int i;

	s->disk = memfd_create("disk", MFD_CLOEXEC);
	if (s->disk < 0 || ftruncate(s->disk, DISK_BYTES))
		abort();
	add(s, "/vm", &arch_vm_state, NULL);
	for (i = 0; i < VCPUS; i++) {
		snprintf(path, sizeof(path), "/cpus/cpu@%u", i);
		add(s, path, &arch_vcpu_state, NULL);
	}
	for (i = 0; device_models[i]; i++) {
		const struct device_model *m = device_models[i];

		if (!m->state)
			continue;
		snprintf(path, sizeof(path), "/devices/%s", m->name);
		add(s, path, m->state, m);
		if (!make_device(s, &b, m))
			continue;
		m->save(b.device, s->things[s->n - 1].st);
		bench_free(&b);
	}
	if (states_write(s->things, s->n, 0, &s->good, &e))
		abort();
	tree_pack(&s->good);
}

static void go_on(const struct scene *s, unsigned int i)
{
	const struct device_model *m = s->models[i];
	struct bench b;
	struct err e = { "" };

	if (!m || !make_device(s, &b, m))
		return;
	if (m->fits && m->fits(b.device, s->things[i].st, &e)) {
		if (!e.text[0])
			abort();
	} else {
		m->load(b.device, s->things[i].st);
		if (m->activate(b.device, &e) == 0)
			m->quiesce(b.device);
		m->save(b.device, s->things[i].st);
	}
	bench_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
	static struct scene s;
	struct err e = { "" };
	uint8_t *bytes;
	struct tree t;
	unsigned int i;
	size_t n;

	if (!len)
		return 0;
	if (!s.n)
		make(&s);
	bytes = damaged(&s.good, in, len, &n);
	if (tree_copy(&t, bytes, n, &e) == 0) {
		/* Each by itself, so that one that is refused hides no other. */
		for (i = 0; i < s.n; i++)
			if (state_load(&t, s.things[i].path, s.things[i].desc, s.things[i].st,
				       &e) == 0)
				go_on(&s, i);
		states_read(&t, s.things, s.n, NULL, &e);
		tree_free(&t);
	}
	if (!e.text[0] && in[0] == 0)
		abort();
	free(bytes);
	return 0;
}
