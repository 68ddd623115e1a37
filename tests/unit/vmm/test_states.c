/*
 * The tree of all states: as many vCPUs as there can be come back, each costs the same however many
 * there are, and what does not fit the machine is refused by its path.
 */
#include <check.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/state.h"
#include "vmm/states.h"
#include "vmm/tree_writer.h"

#define CPUS_MAX 254u
#define REGS	 40u
#define SEGMENTS 8u

struct segment {
	uint64_t base;
	uint16_t selector;
};

struct cpu {
	uint64_t regs[REGS];
	struct segment segments[SEGMENTS];
	uint8_t area[4096];
};

static void segment_fields(struct state *s, void *p)
{
	struct segment *g = p;

	state_u64(s, "base", &g->base);
	state_u16(s, "selector", &g->selector);
}

static void cpu_fields(struct state *s, void *p)
{
	struct cpu *c = p;
	unsigned int i;
	char name[16];

	for (i = 0; i < REGS / 2; i++) {
		snprintf(name, sizeof(name), "r%u", i);
		state_u64(s, name, &c->regs[i]);
	}
	state_list(s, "segment", c->segments, sizeof(c->segments[0]), SEGMENTS, segment_fields);
	for (; i < REGS; i++) {
		snprintf(name, sizeof(name), "r%u", i);
		state_u64(s, name, &c->regs[i]);
	}
	state_bytes(s, "area", c->area, sizeof(c->area));
}

static void vm_fields(struct state *s, void *p)
{
	state_u32(s, "value", p);
}

static const struct state_desc cpu_desc = { .size = sizeof(struct cpu), .fields = cpu_fields };
static const struct state_desc vm_desc = { .size = sizeof(uint32_t), .fields = vm_fields };

/* A machine of so many vCPUs and two devices, with something in each. */
struct rig {
	uint32_t vm, devices[2];
	struct cpu *cpus;
	struct state_thing *things;
	unsigned int n;
};

static struct rig rig_new(unsigned int n_cpus)
{
	struct rig r = { .vm = 7, .devices = { 8, 9 }, .n = 3 + n_cpus };
	uint8_t *bytes;
	size_t i;

	r.cpus = calloc(n_cpus ? n_cpus : 1, sizeof(r.cpus[0]));
	r.things = calloc(r.n, sizeof(r.things[0]));
	bytes = (uint8_t *)r.cpus;
	for (i = 0; i < n_cpus * sizeof(r.cpus[0]); i++)
		bytes[i] = (uint8_t)(i * 7 + i / 251);
	return r;
}

static struct state_thing *rig_things(struct rig *r)
{
	struct state_thing *t = r->things;
	unsigned int i;

	t[0] = (struct state_thing){ "/vm", &vm_desc, &r->vm, 0 };
	t[1] = (struct state_thing){ "/devices/one", &vm_desc, &r->devices[0], 0 };
	t[2] = (struct state_thing){ "/devices/two", &vm_desc, &r->devices[1], 0 };
	for (i = 3; i < r->n; i++) {
		t[i] = (struct state_thing){ "", &cpu_desc, &r->cpus[i - 3], 0 };
		snprintf(t[i].path, sizeof(t[i].path), "/cpus/cpu@%u", i - 3);
	}
	return t;
}

static void rig_free(struct rig *r)
{
	free(r->cpus);
	free(r->things);
}

static struct tree written(struct rig *r, size_t bytes)
{
	struct tree t;
	struct err e;

	ck_assert_msg(!states_write(rig_things(r), r->n, bytes, &t, &e), "%s", e.text);
	ck_assert_int_eq(fdt_check_full(t.fdt, tree_bytes_used(&t)), 0);
	return t;
}

static int read_back(const struct tree *t, unsigned int n_cpus, struct rig *r, uint64_t *steps,
		     struct err *e)
{
	*r = rig_new(n_cpus);
	memset(r->cpus, 0xff, n_cpus * sizeof(r->cpus[0]));
	r->vm = r->devices[0] = r->devices[1] = 0;
	return states_read(t, rig_things(r), r->n, steps, e);
}

static void check_same(const struct rig *a, const struct rig *b)
{
	unsigned int i, k;

	ck_assert(a->vm == b->vm && a->devices[0] == b->devices[0] &&
		  a->devices[1] == b->devices[1]);
	for (i = 0; i < a->n - 3; i++) {
		ck_assert_mem_eq(a->cpus[i].regs, b->cpus[i].regs, sizeof(a->cpus[i].regs));
		ck_assert_mem_eq(a->cpus[i].area, b->cpus[i].area, sizeof(a->cpus[i].area));
		for (k = 0; k < SEGMENTS; k++)
			ck_assert(a->cpus[i].segments[k].base == b->cpus[i].segments[k].base &&
				  a->cpus[i].segments[k].selector ==
					  b->cpus[i].segments[k].selector);
	}
}

/* A copy made by putting everything in front of what is there, as all trees once were: its nodes
 * and properties are in the opposite order. */
static void copy_below(const void *fdt, int node, const char *path, struct tree *out)
{
	char child_path[TREE_PATH_MAX];
	int at, len, child;
	const char *name;
	const void *v;

	fdt_for_each_property_offset(at, fdt, node)
	{
		v = fdt_getprop_by_offset(fdt, at, &name, &len);
		ck_assert_int_eq(tree_set_bytes(out, path, name, v, (size_t)len, NULL), 0);
	}
	fdt_for_each_subnode(child, fdt, node)
	{
		snprintf(child_path, sizeof(child_path), "%s/%s", path,
			 fdt_get_name(fdt, child, NULL));
		copy_below(fdt, child, child_path, out);
	}
}

static struct tree other_way_round(const struct tree *t)
{
	struct tree out;

	ck_assert_int_eq(tree_init(&out, NULL), 0);
	copy_below(t->fdt, 0, "", &out);
	tree_pack(&out);
	return out;
}

START_TEST(states_of_as_many_vcpus_as_there_can_be_come_back)
{
	static const unsigned int counts[] = { 0, 1, 2, 64, CPUS_MAX };
	struct rig a = rig_new(counts[_i]), b;
	struct tree t = written(&a, _i % 2 ? 0 : 8 << 20);
	struct err e;

	ck_assert_msg(!read_back(&t, counts[_i], &b, NULL, &e), "%s", e.text);
	check_same(&a, &b);
	tree_free(&t);
	rig_free(&a);
	rig_free(&b);
}
END_TEST

START_TEST(states_in_the_opposite_order_come_back)
{
	struct rig a = rig_new(9), b;
	struct tree t = written(&a, 0), old = other_way_round(&t);
	struct err e;

	ck_assert(strcmp(fdt_get_name(t.fdt, fdt_first_subnode(t.fdt, 0), NULL),
			 fdt_get_name(old.fdt, fdt_first_subnode(old.fdt, 0), NULL)) != 0);
	ck_assert_msg(!read_back(&old, 9, &b, NULL, &e), "%s", e.text);
	check_same(&a, &b);
	tree_free(&t);
	tree_free(&old);
	rig_free(&a);
	rig_free(&b);
}
END_TEST

static uint64_t steps_to_read(unsigned int n_cpus, bool turned)
{
	struct rig a = rig_new(n_cpus), b;
	struct tree t = written(&a, 0), old;
	uint64_t steps = 0;
	struct err e;

	if (turned) {
		old = other_way_round(&t);
		tree_free(&t);
		t = old;
	}
	ck_assert_msg(!read_back(&t, n_cpus, &b, &steps, &e), "%s", e.text);
	tree_free(&t);
	rig_free(&a);
	rig_free(&b);
	return steps;
}

/* Counted are the tags of the tree and the names that are looked at, not seconds. */
START_TEST(a_vcpu_costs_the_same_however_many_there_are)
{
	bool turned = _i;
	unsigned int few = turned ? 8 : 64, many = turned ? 32 : CPUS_MAX;
	uint64_t none = steps_to_read(0, turned);
	uint64_t a = steps_to_read(few, turned) - none, b = steps_to_read(many, turned) - none;

	ck_assert_msg(b * few <= a * many + a, "%lu steps for %u, %lu for %u", a, few, b, many);
	/* Each field about twice: when the node is gone through, and when it is asked for. */
	ck_assert_msg(b / many <= 4 * (REGS + 1 + 4 * SEGMENTS), "%lu steps each", b / many);
}
END_TEST

START_TEST(a_tree_is_moved_no_more_than_its_size_while_it_is_written)
{
	struct tree_writer w;
	struct tree t;
	char name[32];
	size_t bytes;
	int i;

	ck_assert_int_eq(tree_writer_begin(&w, _i ? 4 << 20 : 0, NULL), 0);
	for (i = 0; i < 3000; i++) {
		uint8_t value[1000] = { (uint8_t)i };

		snprintf(name, sizeof(name), "node@%d", i);
		ck_assert(!tree_writer_down(&w, name, NULL) &&
			  !tree_writer_bytes(&w, "value", value, sizeof(value), NULL) &&
			  !tree_writer_up(&w, NULL));
	}
	bytes = w.moved_bytes;
	ck_assert_int_eq(tree_writer_end(&w, &t, NULL), 0);
	ck_assert_uint_le(bytes, _i ? 0 : 2 * tree_bytes_used(&t));
	ck_assert_int_eq(fdt_check_full(t.fdt, tree_bytes_used(&t)), 0);
	tree_free(&t);
}
END_TEST

static void refused(const struct tree *t, unsigned int n_cpus, const char *path, const char *why)
{
	struct rig b;
	struct err e = { "" };

	ck_assert_int_eq(read_back(t, n_cpus, &b, NULL, &e), -1);
	ck_assert_msg(strstr(e.text, path) && strstr(e.text, why), "'%s': no '%s' or '%s'", e.text,
		      path, why);
	rig_free(&b);
}

START_TEST(states_that_do_not_fit_the_machine_are_refused_by_path)
{
	struct rig a = rig_new(3);
	struct tree t = written(&a, 0);
	uint8_t v[4] = { 0 };

	refused(&t, 4, "/cpus/cpu@3", "missing");
	refused(&t, 2, "/cpus/cpu@2", "does not have");
	/* A group that this machine has nothing of is no group to it. */
	refused(&t, 0, "/cpus", "does not know");
	ck_assert_int_eq(tree_set_bytes(&t, "/other/thing", "value", v, 4, NULL), 0);
	refused(&t, 3, "/other", "does not know");
	tree_free(&t);
	t = written(&a, 0);
	ck_assert_int_eq(tree_set_bytes(&t, "/devices/three", "value", v, 4, NULL), 0);
	refused(&t, 3, "/devices/three", "does not have");
	tree_free(&t);
	t = written(&a, 0);
	ck_assert_int_eq(tree_set_bytes(&t, "/cpus/cpu@1/more", "value", v, 4, NULL), 0);
	refused(&t, 3, "/cpus/cpu@1", "does not know");
	tree_free(&t);
	rig_free(&a);
}
END_TEST

START_TEST(a_state_that_comes_twice_is_refused)
{
	struct tree_writer w;
	struct rig a = rig_new(1);
	struct tree t;
	int i;

	rig_things(&a);
	ck_assert_int_eq(tree_writer_begin(&w, 0, NULL), 0);
	for (i = 0; i < 2; i++)
		ck_assert_int_eq(state_save(&w, "/vm", &vm_desc, &a.vm, NULL), 0);
	ck_assert_int_eq(tree_writer_end(&w, &t, NULL), 0);
	refused(&t, 1, "/vm", "twice");
	tree_free(&t);
	rig_free(&a);
}
END_TEST

/* Fields that nobody asks for, as many as a node may have: refused, in bounded memory. */
START_TEST(a_node_with_very_many_fields_or_nodes_is_refused)
{
	struct tree_writer w;
	uint32_t value = 1;
	struct tree t;
	char name[32];
	struct err e;
	int i;

	ck_assert_int_eq(tree_writer_begin(&w, 0, NULL), 0);
	ck_assert_int_eq(tree_writer_down(&w, "vm", NULL), 0);
	for (i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "field%d", i);
		if (_i)
			ck_assert(!tree_writer_down(&w, name, NULL) && !tree_writer_up(&w, NULL));
		else
			ck_assert_int_eq(tree_writer_bytes(&w, name, &value, 4, NULL), 0);
	}
	ck_assert(!tree_writer_up(&w, NULL) && !tree_writer_end(&w, &t, NULL));
	ck_assert_int_eq(state_load(&t, "/vm", &vm_desc, &value, &e), -1);
	ck_assert_msg(strstr(e.text, "/vm: has fields"), "%s", e.text);
	tree_free(&t);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("states");
	TCase *tc = tcase_create("states");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_loop_test(tc, states_of_as_many_vcpus_as_there_can_be_come_back, 0, 5);
	tcase_add_test(tc, states_in_the_opposite_order_come_back);
	tcase_add_loop_test(tc, a_vcpu_costs_the_same_however_many_there_are, 0, 2);
	tcase_add_loop_test(tc, a_tree_is_moved_no_more_than_its_size_while_it_is_written, 0, 2);
	tcase_add_test(tc, states_that_do_not_fit_the_machine_are_refused_by_path);
	tcase_add_test(tc, a_state_that_comes_twice_is_refused);
	tcase_add_loop_test(tc, a_node_with_very_many_fields_or_nodes_is_refused, 0, 2);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
