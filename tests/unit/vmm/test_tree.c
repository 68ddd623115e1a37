/*
 * The machine tree: what is written is read back, in order; what is damaged is refused.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/tree.h"

static struct tree sample(void)
{
	struct tree t;

	ck_assert_int_eq(tree_init(&t, NULL), 0);
	ck_assert_int_eq(tree_set_str(&t, "/", "compatible", "godwit,test", NULL), 0);
	ck_assert_int_eq(tree_set_u32(&t, "/devices/b", "interrupts", 5, NULL), 0);
	ck_assert_int_eq(tree_set_u64(&t, "/devices/a", "capacity", 1ull << 40, NULL), 0);
	ck_assert_int_eq(tree_set_u64_pair(&t, "/devices/a", "reg", 0xd0000000, 0x1000, NULL), 0);
	return t;
}

START_TEST(values_are_read_back)
{
	struct tree t = sample();
	const char *text;
	uint64_t a, b;
	uint32_t n;

	ck_assert_int_eq(tree_str(&t, "/", "compatible", &text, NULL), 0);
	ck_assert_str_eq(text, "godwit,test");
	ck_assert_int_eq(tree_u32(&t, "/devices/b", "interrupts", &n, NULL), 0);
	ck_assert_uint_eq(n, 5);
	ck_assert_int_eq(tree_u64(&t, "/devices/a", "capacity", &a, NULL), 0);
	ck_assert_uint_eq(a, 1ull << 40);
	ck_assert_int_eq(tree_u64_pair(&t, "/devices/a", "reg", &a, &b, NULL), 0);
	ck_assert(a == 0xd0000000 && b == 0x1000);
	tree_free(&t);
}
END_TEST

START_TEST(children_come_in_the_order_they_were_written)
{
	struct tree t = sample();
	char path[TREE_PATH_MAX];
	unsigned int it = 0;

	ck_assert(tree_next_child(&t, "/devices", &it, path));
	ck_assert_str_eq(path, "/devices/b");
	ck_assert(tree_next_child(&t, "/devices", &it, path));
	ck_assert_str_eq(path, "/devices/a");
	ck_assert(!tree_next_child(&t, "/devices", &it, path));
	tree_free(&t);
}
END_TEST

START_TEST(wrong_reads_name_node_and_property)
{
	struct tree t = sample();
	const char *text;
	struct err e;
	uint32_t n;

	ck_assert_int_eq(tree_u32(&t, "/devices/c", "x", &n, &e), -1);
	ck_assert_str_eq(e.text, "/devices/c: no such node in the tree");
	ck_assert_int_eq(tree_u32(&t, "/devices/a", "x", &n, &e), -1);
	ck_assert_str_eq(e.text, "/devices/a: 'x' is missing");
	ck_assert_int_eq(tree_u32(&t, "/devices/a", "capacity", &n, &e), -1);
	ck_assert_str_eq(e.text, "/devices/a: 'capacity' has 8 bytes, expected 4");
	ck_assert_int_eq(tree_str(&t, "/devices/a", "capacity", &text, &e), -1);
	ck_assert_str_eq(e.text, "/devices/a: 'capacity' is not a string");
	tree_free(&t);
}
END_TEST

START_TEST(a_tree_grows_beyond_its_first_size)
{
	static uint8_t large[100000];
	struct tree t = sample();
	const void *value;
	size_t len;

	memset(large, 0xa5, sizeof(large));
	ck_assert_int_eq(tree_set_bytes(&t, "/cpus", "table", large, sizeof(large), NULL), 0);
	ck_assert_int_eq(tree_bytes(&t, "/cpus", "table", &value, &len, NULL), 0);
	ck_assert_uint_eq(len, sizeof(large));
	ck_assert_int_eq(memcmp(value, large, len), 0);
	ck_assert(tree_has(&t, "/devices/a", "reg"));
	tree_free(&t);
}
END_TEST

START_TEST(a_cut_or_foreign_blob_is_refused)
{
	struct tree t = sample(), copy;
	size_t used, len;

	tree_pack(&t);
	used = tree_bytes_used(&t);
	ck_assert_int_eq(tree_copy(&copy, t.fdt, used, NULL), 0);
	tree_free(&copy);
	for (len = 0; len < used; len++)
		ck_assert_int_eq(tree_copy(&copy, t.fdt, len, NULL), -1);
	((uint8_t *)t.fdt)[0] ^= 1;
	ck_assert_int_eq(tree_copy(&copy, t.fdt, used, NULL), -1);
	tree_free(&t);
}
END_TEST

START_TEST(printed_text_is_dts)
{
	static const char expected[] =
		"/dts-v1/;\n\n/ {\n\tcompatible = \"godwit,test\";\n"
		"\tdevices {\n\t\tb {\n\t\t\tinterrupts = <0x5>;\n\t\t};\n"
		"\t\ta {\n\t\t\tcapacity = <0x100 0x0>;\n"
		"\t\t\treg = <0x0 0xd0000000 0x0 0x1000>;\n\t\t};\n\t};\n};\n";
	struct tree t = sample();
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	tree_print(&t, f);
	fclose(f);
	ck_assert_str_eq(text, expected);
	free(text);
	tree_free(&t);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tree");
	TCase *c = tcase_create("tree");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(c, values_are_read_back);
	tcase_add_test(c, children_come_in_the_order_they_were_written);
	tcase_add_test(c, wrong_reads_name_node_and_property);
	tcase_add_test(c, a_tree_grows_beyond_its_first_size);
	tcase_add_test(c, a_cut_or_foreign_blob_is_refused);
	tcase_add_test(c, printed_text_is_dts);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
