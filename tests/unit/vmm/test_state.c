/*
 * The state visitor: one field list, both directions; nothing missing, unknown or misshapen gets
 * through.
 */
#include <check.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/lib/one_state.h"
#include "vmm/base/err.h"
#include "vmm/state.h"
#include "vmm/tree.h"

struct part {
	uint16_t index;
};

struct thing {
	uint8_t a;
	uint16_t b;
	uint32_t c;
	uint64_t d;
	bool e;
	uint8_t bytes[5];
	uint8_t buffer[16];
	uint32_t buffer_len;
	uint64_t numbers[4];
	uint32_t n_numbers;
	struct part parts[2];
	uint32_t later;
};

static void part_fields(struct state *s, void *p)
{
	state_u16(s, "index", &((struct part *)p)->index);
}

static void fields(struct state *s, void *p)
{
	struct thing *t = p;

	state_u8(s, "a", &t->a);
	state_u16(s, "b", &t->b);
	state_u32(s, "c", &t->c);
	state_u64(s, "d", &t->d);
	state_bool(s, "e", &t->e);
	state_bytes(s, "bytes", t->bytes, sizeof(t->bytes));
	state_buffer(s, "buffer", t->buffer, &t->buffer_len, sizeof(t->buffer));
	state_u64_array(s, "numbers", t->numbers, &t->n_numbers, 4);
	state_list(s, "part", t->parts, sizeof(t->parts[0]), 2, part_fields);
	state_u32_optional(s, "later", &t->later, 77);
}

static int check(const void *p, struct err *e)
{
	return ((const struct thing *)p)->c == 13 ? err_set(e, "field 'c' is 13") : 0;
}

static const struct state_desc desc = { sizeof(struct thing), fields, check };
static const char path[] = "/devices/thing";

static struct thing sample(void)
{
	struct thing t = { .a = 1,
			   .b = 0x1234,
			   .c = 0x12345678,
			   .d = 0x123456789abcdef0ull,
			   .e = true,
			   .bytes = "abcd",
			   .buffer = "xyz",
			   .buffer_len = 3,
			   .numbers = { 1, 2, 1ull << 63 },
			   .n_numbers = 3,
			   .parts = { { 7 }, { 8 } },
			   .later = 5 };

	return t;
}

static struct tree saved(const struct thing *t)
{
	struct tree states;

	ck_assert_int_eq(save_one(&states, path, &desc, t, NULL), 0);
	return states;
}

START_TEST(loaded_state_equals_saved_state)
{
	struct thing t = sample(), u;
	struct tree states = saved(&t);

	ck_assert_int_eq(state_load(&states, path, &desc, &u, NULL), 0);
	ck_assert(u.a == t.a && u.b == t.b && u.c == t.c && u.d == t.d && u.e == t.e);
	ck_assert_mem_eq(u.bytes, t.bytes, sizeof(t.bytes));
	ck_assert_mem_eq(u.buffer, t.buffer, sizeof(t.buffer));
	ck_assert_uint_eq(u.buffer_len, 3);
	ck_assert_mem_eq(u.numbers, t.numbers, sizeof(t.numbers));
	ck_assert(u.parts[0].index == 7 && u.parts[1].index == 8 && u.later == 5);
	tree_free(&states);
}
END_TEST

START_TEST(optional_field_is_written_only_if_it_says_something)
{
	struct thing t = sample(), u;
	struct tree states = saved(&t);

	ck_assert(tree_has(&states, path, "later"));
	tree_free(&states);
	t.later = 77;
	states = saved(&t);
	ck_assert(!tree_has(&states, path, "later"));
	ck_assert_int_eq(state_load(&states, path, &desc, &u, NULL), 0);
	ck_assert_uint_eq(u.later, 77);
	tree_free(&states);
}
END_TEST

/* Each property of the node, and of one sub-node, in turn: gone, one byte shorter, one longer. */
static void damage_each(const char *node_path, const char *optional)
{
	struct thing t = sample(), u;
	int i, n = 0, how;

	for (i = 0; i == 0 || i < n; i++)
		for (how = 0; how < 3; how++) {
			struct tree states = saved(&t);
			int node = fdt_path_offset(states.fdt, node_path), at, len, k = 0;
			uint8_t value[128] = { 0 };
			const char *key = NULL;
			const void *v = NULL;
			char name[32];
			struct err e;
			int rc;

			fdt_for_each_property_offset(at, states.fdt, node) if (k++ == i)
				v = fdt_getprop_by_offset(states.fdt, at, &key, &len);
			n = k;
			ck_assert_ptr_nonnull(v);
			memcpy(value, v, (size_t)len);
			snprintf(name, sizeof(name), "%s", key);
			if (how == 0)
				ck_assert_int_eq(fdt_delprop(states.fdt, node, name), 0);
			else
				tree_set_bytes(&states, node_path, name, value,
					       (size_t)(how == 1 ? len - 1 : len + 1), NULL);
			rc = state_load(&states, path, &desc, &u, &e);
			if (how == 0 && optional && !strcmp(name, optional)) {
				ck_assert_int_eq(rc, 0);
				ck_assert_uint_eq(u.later, 77);
			} else if (strcmp(name, "buffer")) {
				ck_assert_msg(rc == -1, "%s damaged (%d) was taken", name, how);
				ck_assert_msg(strstr(e.text, name), "'%s' does not name %s", e.text,
					      name);
			}
			tree_free(&states);
		}
	ck_assert_int_gt(n, 0);
}

START_TEST(missing_or_misshapen_fields_are_refused_by_name)
{
	damage_each(path, "later");
	damage_each("/devices/thing/part@1", NULL);
}
END_TEST

START_TEST(unknown_fields_and_parts_are_refused)
{
	struct thing t = sample(), u;
	struct tree states = saved(&t);

	tree_set_u32(&states, path, "from-the-future", 1, NULL);
	ck_assert_int_eq(state_load(&states, path, &desc, &u, NULL), -1);
	tree_free(&states);
	states = saved(&t);
	tree_set_u32(&states, "/devices/thing/part@2", "index", 1, NULL);
	ck_assert_int_eq(state_load(&states, path, &desc, &u, NULL), -1);
	tree_free(&states);
}
END_TEST

START_TEST(values_out_of_range_are_refused)
{
	static const uint8_t many[5 * 8], two = 2;
	struct thing t = sample(), u;
	struct tree states = saved(&t);

	tree_set_bytes(&states, path, "numbers", many, sizeof(many), NULL);
	ck_assert_int_eq(state_load(&states, path, &desc, &u, NULL), -1);
	tree_free(&states);
	states = saved(&t);
	tree_set_bytes(&states, path, "buffer", many, 17, NULL);
	ck_assert_int_eq(state_load(&states, path, &desc, &u, NULL), -1);
	tree_free(&states);
	states = saved(&t);
	tree_set_bytes(&states, path, "e", &two, 1, NULL);
	ck_assert_int_eq(state_load(&states, path, &desc, &u, NULL), -1);
	tree_free(&states);
	t.c = 13;
	states = saved(&t);
	ck_assert_int_eq(state_load(&states, path, &desc, &u, NULL), -1);
	ck_assert_int_eq(state_load(&states, "/devices/other", &desc, &u, NULL), -1);
	tree_free(&states);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("state");
	TCase *c = tcase_create("state");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(c, optional_field_is_written_only_if_it_says_something);
	tcase_add_test(c, loaded_state_equals_saved_state);
	tcase_add_test(c, missing_or_misshapen_fields_are_refused_by_name);
	tcase_add_test(c, unknown_fields_and_parts_are_refused);
	tcase_add_test(c, values_out_of_range_are_refused);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
