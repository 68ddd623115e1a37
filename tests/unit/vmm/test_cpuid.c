/*
 * The guest's CPUID: what is made of the tables of an Intel and an AMD host (written here, not read
 * from a machine), what may never reach a guest, and what a host without a feature answers.
 */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/tree.h"
#include "vmm/x86_64/cpuid.h"

#define INDEXED KVM_CPUID_FLAG_SIGNIFCANT_INDEX

static void add(struct cpuid_table *c, uint32_t function, uint32_t index, uint32_t eax,
		uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	const uint32_t base = function & 0x7fffffff;
	uint32_t flags = base == 4 || base == 7 || base == 0xd || base == 0x1d ? INDEXED : 0;

	c->entries[c->n++] = (struct kvm_cpuid_entry2){ .function = function,
							.index = index,
							.flags = flags,
							.eax = eax,
							.ebx = ebx,
							.ecx = ecx,
							.edx = edx };
}

static void amd_host(struct cpuid_table *c)
{
	memset(c, 0, sizeof(*c));
	add(c, 0, 0, 0x1c, 0x68747541, 0x444d4163, 0x69746e65);
	/* With MONITOR, OSXSAVE, an APIC id of the host; without TSC deadline, as old kernels. */
	add(c, 1, 0, 0xa10f11, 0x05020800, 0x0ed8320b | 1u << 21, 0x178bfbff);
	add(c, 5, 0, 64, 64, 3, 0);
	add(c, 6, 0, 0xf4, 1, 1, 0);
	add(c, 7, 0, 1, 0xf1bf97a9, 0x00415fde, 0x10000010);
	add(c, 7, 1, 0x20, 0, 0, 0);
	add(c, 0xa, 0, 0x08300802, 0, 0, 0x603);
	add(c, 0xd, 0, 0x602e7, 0x980, 0x2b00, 0);
	add(c, 0xd, 1, 0x1f, 0, 0x1900, 0);
	add(c, 0xd, 2, 0x100, 0x240, 0, 0);
	add(c, 0xd, 5, 0x40, 0x340, 0, 0);
	add(c, 0xd, 6, 0x200, 0x380, 0, 0);
	add(c, 0xd, 7, 0x400, 0x580, 0, 0);
	add(c, 0xd, 9, 8, 0x980, 0, 0);
	add(c, 0xd, 11, 0x10, 0, 1, 0);	      /* CET, a supervisor state */
	add(c, 0xd, 17, 0x40, 0xac0, 2, 0);   /* AMX */
	add(c, 0xd, 18, 0x2000, 0xb00, 6, 0); /* AMX */
	add(c, 0x14, 0, 1, 2, 3, 4);
	add(c, 0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	add(c, 0x40000001, 0, 0x01007efb, 0, 0, 1);
	add(c, 0x80000000, 0, 0x80000022, 0x68747541, 0x444d4163, 0x69746e65);
	add(c, 0x80000001, 0, 0xa10f11, 0x40000000, 0x75c237ff, 0x2fd3fbff);
	add(c, 0x80000007, 0, 0, 0x3b, 0, 0x6799);
	add(c, 0x80000008, 0, 0x3034, 0x11eb7257, 0x700f, 0x10007);
	add(c, 0x8000000a, 0, 1, 0x8000, 0, 0x1ebfbcff);
	add(c, 0x8000001d, 0, 0x121 | 1 << 14, 0x01c0003f, 0x3f, 0);
	add(c, 0x8000001d, 2, 0x143 | 1 << 14, 0x01c0003f, 0x7ff, 2);
	add(c, 0x8000001d, 3, 0x163 | 15 << 14, 0x03c0003f, 0x7fff, 1);
	add(c, 0x8000001d, 4, 0, 0, 0, 0);
	add(c, 0x8000001e, 0, 7, 0x103, 0x301, 0);
	add(c, 0x80000021, 0, 0x245, 5, 6, 7);
	add(c, 0x80000022, 0, 1, 6, 0, 0);
}

static void intel_host(struct cpuid_table *c)
{
	memset(c, 0, sizeof(*c));
	add(c, 0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69);
	add(c, 1, 0, 0x806f8, 0x10800, 0xfffa3223 | 1u << 5, 0x1fabfbff);
	add(c, 4, 0, 0x1c004121, 0x02c0003f, 0x3f, 0);
	add(c, 4, 1, 0x1c004122, 0x01c0003f, 0x3f, 0);
	add(c, 4, 2, 0x1c004143, 0x03c0003f, 0x7ff, 0);
	add(c, 4, 3, 0x1c03c163, 0x04c0003f, 0x7fff, 4);
	add(c, 4, 4, 0, 0, 0, 0);
	add(c, 7, 0, 2, 0xf1bf27ef, 0x1b415fee, 0xbfd14410);
	add(c, 0xb, 0, 1, 2, 0x100, 9);
	add(c, 0x15, 0, 2, 200, 25000000, 0);
	add(c, 0x1f, 0, 1, 2, 0x100, 9);
	add(c, 0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	add(c, 0x40000001, 0, 0x01007efb, 0, 0, 0);
	add(c, 0x80000000, 0, 0x80000008, 0, 0, 0);
	add(c, 0x80000001, 0, 0, 0, 0x121, 0x2c100800);
	add(c, 0x80000008, 0, 0x3934, 0, 0x1234, 0);
}

static struct kvm_cpuid_entry2 *find(struct cpuid_table *c, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < c->n; i++) {
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	}
	return NULL;
}

static struct kvm_cpuid_entry2 *get(struct cpuid_table *c, uint32_t function, uint32_t index)
{
	struct kvm_cpuid_entry2 *l = find(c, function, index);

	ck_assert_msg(l != NULL, "no leaf 0x%x.%u", function, index);
	return l;
}

START_TEST(guest_never_sees_what_is_not_saved)
{
	static const uint32_t absent[] = { 5,	 0xa,	     0x14,	 0x15,	    0x12,
					   0x10, 0x8000000a, 0x8000001f, 0x80000022 };
	struct cpuid_table host, g;

	for (int k = 0; k < 2; k++) {
		if (k)
			intel_host(&host);
		else
			amd_host(&host);
		cpuid_for_guest(&host, 2, 2600000, &g);
		for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
			ck_assert_msg(!find(&g, absent[i], 0), "leaf 0x%x is there", absent[i]);
		ck_assert_uint_eq(get(&g, 1, 0)->ecx & (1u << 3 | 1u << 5 | 1u << 15 | 1u << 27),
				  0);
		ck_assert_uint_eq(get(&g, 0x80000001, 0)->ecx & (1u << 2 | 1u << 23 | 1u << 29), 0);
		/* SGX, PT; CET; AMX, LBR */
		ck_assert_uint_eq(get(&g, 7, 0)->ebx & (1u << 2 | 1u << 25), 0);
		ck_assert_uint_eq(get(&g, 7, 0)->ecx & 1u << 7, 0);
		ck_assert_uint_eq(get(&g, 7, 0)->edx & (7u << 19 | 1u << 22 | 3u << 24), 0);
	}
}
END_TEST

START_TEST(xsave_area_holds_the_guests_components_only)
{
	struct cpuid_table host, g;

	amd_host(&host);
	cpuid_for_guest(&host, 1, 0, &g);
	ck_assert_uint_eq(get(&g, 0xd, 0)->eax, 0x2e7);
	ck_assert_uint_eq(get(&g, 0xd, 0)->ecx, 0x988);
	ck_assert_uint_eq(get(&g, 0xd, 1)->eax, 0xf);
	ck_assert_uint_eq(get(&g, 0xd, 1)->ecx, 0);
	ck_assert_ptr_null(find(&g, 0xd, 11));
	ck_assert_ptr_null(find(&g, 0xd, 17));
	ck_assert_ptr_nonnull(find(&g, 0xd, 9));
}
END_TEST

START_TEST(guest_is_told_it_runs_under_kvm)
{
	struct cpuid_table host, g;

	amd_host(&host);
	cpuid_for_guest(&host, 1, 2596123, &g);
	/* x2APIC, TSC deadline, hypervisor */
	ck_assert_uint_eq(get(&g, 1, 0)->ecx & (1u << 21 | 1u << 24 | 1u << 31),
			  1u << 21 | 1u << 24 | 1u << 31);
	ck_assert_uint_eq(get(&g, 0x40000000, 0)->eax, 0x40000010);
	ck_assert_uint_eq(get(&g, 0x40000000, 0)->ebx, 0x4b4d564b);
	ck_assert_uint_eq(get(&g, 0x40000001, 0)->eax, 0x01007efb);
	ck_assert_uint_eq(get(&g, 0x40000001, 0)->edx, 0);
	ck_assert_uint_eq(get(&g, 0x40000010, 0)->eax, 2596123);
	ck_assert_uint_eq(get(&g, 0x80000007, 0)->edx, 0x100);
	ck_assert_uint_eq(get(&g, 6, 0)->eax, 4);
	cpuid_for_guest(&host, 1, 0, &g);
	ck_assert_ptr_null(find(&g, 0x40000010, 0));
	ck_assert_uint_eq(get(&g, 0x40000000, 0)->eax, 0x40000001);
	/* Maxima say what is there, not what the host has. */
	ck_assert_uint_eq(get(&g, 0, 0)->eax, 0xd);
	ck_assert_uint_eq(get(&g, 0x80000000, 0)->eax, 0x80000021);
}
END_TEST

START_TEST(topology_is_one_package_of_single_threaded_cores)
{
	static const struct {
		uint32_t cpus, bits;
	} sizes[] = { { 1, 0 }, { 2, 1 }, { 3, 2 }, { 4, 2 }, { 5, 3 }, { 254, 8 } };
	struct cpuid_table host, g, v;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t n = sizes[i].cpus, bits = sizes[i].bits, last = n - 1;

		amd_host(&host);
		cpuid_for_guest(&host, n, 0, &g);
		cpuid_for_vcpu(&g, last, &v);
		ck_assert_uint_eq(get(&v, 1, 0)->ebx, last << 24 | n << 16 | 0x0800);
		ck_assert_uint_eq(get(&v, 1, 0)->edx >> 28 & 1, n > 1);
		ck_assert_uint_eq(get(&v, 0xb, 0)->eax, 0);
		ck_assert_uint_eq(get(&v, 0xb, 0)->ebx, 1);
		ck_assert_uint_eq(get(&v, 0xb, 0)->ecx, 0x100);
		ck_assert_uint_eq(get(&v, 0xb, 1)->eax, bits);
		ck_assert_uint_eq(get(&v, 0xb, 1)->ebx, n);
		ck_assert_uint_eq(get(&v, 0xb, 1)->ecx, 0x201);
		ck_assert_uint_eq(get(&v, 0xb, 2)->ecx, 2);
		for (uint32_t k = 0; k < 3; k++)
			ck_assert_uint_eq(get(&v, 0xb, k)->edx, last);
		ck_assert_uint_eq(get(&v, 0x80000008, 0)->ecx, bits << 12 | last);
		ck_assert_uint_eq(get(&v, 0x80000001, 0)->ecx >> 1 & 1, n > 1);
		ck_assert_uint_eq(get(&v, 0x8000001e, 0)->eax, last);
		ck_assert_uint_eq(get(&v, 0x8000001e, 0)->ebx, last);
		ck_assert_uint_eq(get(&v, 0x8000001e, 0)->ecx, 0);
		/* L2 is a core's own, L3 everybody's. */
		ck_assert_uint_eq(get(&v, 0x8000001d, 2)->eax, 0x143);
		ck_assert_uint_eq(get(&v, 0x8000001d, 3)->eax, 0x163 | last << 14);

		intel_host(&host);
		cpuid_for_guest(&host, n, 0, &g);
		cpuid_for_vcpu(&g, last, &v);
		ck_assert_uint_eq(get(&v, 0x1f, 1)->eax, bits);
		ck_assert_uint_eq(get(&v, 0x1f, 1)->edx, last);
		ck_assert_uint_eq(get(&v, 4, 2)->eax >> 14 & 0xfff, 0);
		ck_assert_uint_eq(get(&v, 4, 3)->eax >> 14 & 0xfff, (1u << bits) - 1);
		ck_assert_uint_eq(get(&v, 4, 3)->eax >> 26, bits > 6 ? 63 : (1u << bits) - 1);
		ck_assert_uint_eq(get(&v, 0x80000008, 0)->ecx, 0);
		ck_assert_uint_eq(get(&v, 0x80000001, 0)->ecx >> 1 & 1, 0);
		ck_assert_ptr_null(find(&v, 0x8000001e, 0));
	}
}
END_TEST

START_TEST(arch_capabilities_are_intels_alone)
{
	struct cpuid_table host, g;

	amd_host(&host);
	get(&host, 7, 0)->edx |= 1u << 29;
	cpuid_for_guest(&host, 2, 2600000, &g);
	ck_assert_uint_eq(get(&g, 7, 0)->edx & 1u << 29, 0);
	intel_host(&host);
	get(&host, 7, 0)->edx |= 1u << 29;
	cpuid_for_guest(&host, 2, 2600000, &g);
	ck_assert_uint_eq(get(&g, 7, 0)->edx & 1u << 29, 1u << 29);
}
END_TEST

START_TEST(host_that_made_a_table_can_keep_it)
{
	struct cpuid_table host, g, v;
	struct err e = { "" };

	amd_host(&host);
	cpuid_for_guest(&host, 4, 2600000, &g);
	ck_assert_msg(cpuid_check(&g, &host, &e) == 0, "%s", e.text);
	cpuid_for_vcpu(&g, 3, &v);
	ck_assert_msg(cpuid_check(&v, &host, &e) == 0, "%s", e.text);
	intel_host(&host);
	cpuid_for_guest(&host, 4, 2600000, &g);
	ck_assert_msg(cpuid_check(&g, &host, &e) == 0, "%s", e.text);
	/* Topology is ours: an Intel host without leaf 0x1f will do. */
	get(&host, 0, 0)->eax = 0x16;
	ck_assert_msg(cpuid_check(&g, &host, &e) == 0, "%s", e.text);
}
END_TEST

START_TEST(missing_features_are_named)
{
	struct cpuid_table host, g;
	struct err e;

	amd_host(&host);
	cpuid_for_guest(&host, 2, 0, &g);
	get(&host, 7, 0)->ebx &= ~(1u << 16 | 1u << 5 | 1u << 31);
	get(&host, 0x80000001, 0)->edx &= ~(1u << 27);
	get(&host, 1, 0)->ecx &= ~(1u << 12);
	get(&host, 0x40000001, 0)->eax &= ~(1u << 3 | 1u << 24);
	ck_assert_int_eq(cpuid_check(&g, &host, &e), -1);
	ck_assert_str_eq(e.text,
			 "the guest uses CPU features that this host lacks: fma, avx2, avx512f, "
			 "avx512vl, kvmclock, kvmclock_stable_bit, rdtscp");

	amd_host(&host);
	get(&g, 7, 0)->ecx |= 1u << 21;
	get(&g, 0x80000021, 0)->eax |= 1u << 31;
	ck_assert_int_eq(cpuid_check(&g, &host, &e), -1);
	ck_assert_ptr_nonnull(
		strstr(e.text, "lacks: cpuid 7.0 ecx bit 21, cpuid 80000021 eax bit 31"));
	get(&host, 0x80000021, 0)->eax &= ~(1u << 2);
	get(&g, 0x80000021, 0)->eax |= 1u << 27;
	ck_assert_int_eq(cpuid_check(&g, &host, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "lfence_rdtsc, sbpb, cpuid 80000021 eax bit 31"));

	amd_host(&host);
	cpuid_for_guest(&host, 2, 0, &g);
	get(&host, 0xd, 0)->eax = 7;
	get(&host, 0xd, 9)->ebx = 0x340;
	get(&host, 0x80000008, 0)->eax = 0x302b;
	get(&host, 0x80000000, 0)->eax = 0x80000008;
	ck_assert_int_eq(cpuid_check(&g, &host, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "xstate_opmask"));
	ck_assert_ptr_nonnull(strstr(e.text, "xstate_pkru"));
	ck_assert_ptr_nonnull(
		strstr(e.text, "XSAVE component 9 of 8 bytes at 2432 (here 8 at 832)"));
	ck_assert_ptr_nonnull(strstr(e.text, "52 bits of physical address (here 43)"));
	ck_assert_ptr_nonnull(strstr(e.text, "cpuid level 0x80000021 (here 0x80000008)"));
}
END_TEST

START_TEST(other_vendor_is_refused)
{
	struct cpuid_table amd, intel, g;
	struct err e;

	amd_host(&amd);
	intel_host(&intel);
	cpuid_for_guest(&amd, 2, 0, &g);
	ck_assert_int_eq(cpuid_check(&g, &intel, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "AuthenticAMD"));
	ck_assert_ptr_nonnull(strstr(e.text, "GenuineIntel"));
}
END_TEST

START_TEST(long_list_of_missing_features_is_cut)
{
	struct cpuid_table host, g;
	struct err e;

	amd_host(&host);
	g = host;
	for (uint32_t i = 1; i < g.n; i++)
		g.entries[i].eax = g.entries[i].ebx = g.entries[i].ecx = g.entries[i].edx = ~0u;
	ck_assert_int_eq(cpuid_check(&g, &host, &e), -1);
	ck_assert_uint_lt(strlen(e.text), sizeof(e.text) - 1);
	ck_assert_ptr_nonnull(strstr(e.text, " more"));
	ck_assert_str_eq(e.text + strlen(e.text) - 5, " more");
}
END_TEST

START_TEST(table_survives_the_tree)
{
	struct cpuid_table host, g, back;
	struct err e = { "" };
	struct tree t;

	amd_host(&host);
	cpuid_for_guest(&host, 2, 2600000, &g);
	ck_assert_int_eq(tree_init(&t, NULL), 0);
	ck_assert_int_eq(cpuid_to_tree(&g, &t, &e), 0);
	ck_assert_msg(cpuid_from_tree(&t, &back, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(back.n, g.n);
	ck_assert_int_eq(memcmp(back.entries, g.entries, sizeof(g.entries)), 0);
	tree_free(&t);
}
END_TEST

static void assert_blob_refused(const uint32_t *cells, size_t bytes, const char *part)
{
	struct cpuid_table c;
	struct err e = { "" };
	struct tree t;

	ck_assert_int_eq(tree_init(&t, NULL), 0);
	ck_assert_int_eq(tree_set_u32(&t, "/cpus", "count", 1, NULL), 0);
	if (cells)
		ck_assert_int_eq(tree_set_bytes(&t, "/cpus", "cpuid", cells, bytes, NULL), 0);
	ck_assert_msg(cpuid_from_tree(&t, &c, &e) == -1, "taken, expected '%s'", part);
	ck_assert_msg(strstr(e.text, part) != NULL, "'%s' lacks '%s'", e.text, part);
	tree_free(&t);
}

START_TEST(odd_table_in_a_tree_is_refused)
{
	static uint32_t cells[7 * (CPUID_ENTRIES_MAX + 1)];

	assert_blob_refused(NULL, 0, "/cpus");
	assert_blob_refused(cells, 0, "/cpus");
	assert_blob_refused(cells, 27, "/cpus: cpuid has 27 bytes");
	assert_blob_refused(cells, sizeof(cells), "/cpus: cpuid has 7196 bytes");
	assert_blob_refused(cells, 56, "leaf 0x0.0 twice");
	assert_blob_refused(cells, 28, "lacks leaf 0 or 1");
	cells[2] = __builtin_bswap32(2);
	assert_blob_refused(cells, 28, "unknown flags 0x2");
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("cpuid");
	Suite *s = suite_create("cpuid");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, guest_never_sees_what_is_not_saved);
	tcase_add_test(tc, xsave_area_holds_the_guests_components_only);
	tcase_add_test(tc, guest_is_told_it_runs_under_kvm);
	tcase_add_test(tc, topology_is_one_package_of_single_threaded_cores);
	tcase_add_test(tc, arch_capabilities_are_intels_alone);
	tcase_add_test(tc, host_that_made_a_table_can_keep_it);
	tcase_add_test(tc, missing_features_are_named);
	tcase_add_test(tc, other_vendor_is_refused);
	tcase_add_test(tc, long_list_of_missing_features_is_cut);
	tcase_add_test(tc, table_survives_the_tree);
	tcase_add_test(tc, odd_table_in_a_tree_is_refused);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
