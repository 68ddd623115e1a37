/*
 * Hosts that are not this one: what a machine that was made on one is told on another, before any
 * of its memory moves, and what of its vCPUs arrives. KVM is played by fake_kvm.c.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "tests/unit/lib/fake_kvm.h"
#include "vmm/arch.h"
#include "vmm/base/err.h"
#include "vmm/state.h"
#include "vmm/tree.h"
#include "vmm/tree_writer.h"

/* Two hosts, and the tree of a machine that was made on the first. */
static struct fake_kvm here, there;
static struct tree tree;
static struct err err;

static void set_up(void)
{
	fake_kvm_init(&here);
	fake_kvm_init(&there);
	err.text[0] = 0;
}

static void tear_down(void)
{
	tree_free(&tree);
	fake_kvm_free(&here);
	fake_kvm_free(&there);
}

static void make_tree(struct fake_kvm *host)
{
	ck_assert(tree_init(&tree, &err) == 0);
	ck_assert(tree_set_u32(&tree, "/cpus", "count", 1, &err) == 0);
	ck_assert_msg(arch_tree_probe(&tree, &host->kvm, &err) == 0, "%s", err.text);
}

/* As machine_build does. */
static int build(struct fake_kvm *host, struct arch **a, struct vcpu *v)
{
	*a = NULL;
	if (arch_init(a, &host->kvm, &tree, &err))
		return -1;
	fake_kvm_vcpu(host, v);
	return arch_vcpu_init(*a, v, &err);
}

static void check_built(struct fake_kvm *host, struct arch **a, struct vcpu *v)
{
	ck_assert_msg(build(host, a, v) == 0, "%s", err.text);
}

static void check_refused(struct fake_kvm *host, const char *const words[])
{
	struct arch *a;
	struct vcpu v;

	ck_assert_int_eq(build(host, &a, &v), -1);
	for (; *words; words++)
		ck_assert_msg(strstr(err.text, *words) != NULL, "no '%s' in: %s", *words, err.text);
	arch_free(a);
}

#define REFUSED(host, ...) check_refused(host, (const char *const[]){ __VA_ARGS__, NULL })

/* The states of vCPU 0, as plain bytes and as a tree. */
static void *save(struct arch *a, struct vcpu *v, const struct arch_moment *now, struct tree *t)
{
	void *st = calloc(1, arch_vcpu_state.size);
	struct tree_writer w;

	ck_assert_msg(arch_vcpu_save(a, v, now, st, &err) == 0, "%s", err.text);
	ck_assert(!tree_writer_begin(&w, 0, &err) && !tree_writer_down(&w, "cpus", &err));
	ck_assert_msg(state_save(&w, "/cpus/cpu@0", &arch_vcpu_state, st, &err) == 0, "%s",
		      err.text);
	ck_assert(!tree_writer_up(&w, &err) && !tree_writer_end(&w, t, &err));
	return st;
}

/* -- the time stamp counter -- */

START_TEST(frequency_is_known_on_every_kernel)
{
	struct arch *a;
	struct vcpu v;
	uint32_t khz;

	fake_kvm_init_5_10(&here);
	make_tree(&here);
	ck_assert_int_eq(tree_u32(&tree, "/cpus", "tsc-khz", &khz, &err), 0);
	ck_assert_uint_eq(khz, 2000000);
	there.khz = 2400000;
	REFUSED(&there, "2000000 kHz", "2400000 kHz");
	check_built(&here, &a, &v);
	arch_free(a);
}
END_TEST

START_TEST(frequency_is_scaled_only_by_a_kvm_that_scales)
{
	static const uint32_t khz[] = { 1800000, 2200000 };
	struct arch *a;
	struct vcpu v;

	make_tree(&here);
	there.khz = khz[_i];
	REFUSED(&there, "2000000 kHz", _i ? "2200000 kHz" : "1800000 kHz", "KVM_CAP_TSC_CONTROL");
	there.scales = true;
	check_built(&there, &a, &v);
	ck_assert_uint_eq(there.vcpu_khz, 2000000);
	arch_free(a);
}
END_TEST

START_TEST(frequency_within_kvms_tolerance_is_taken_as_it_is)
{
	static const struct {
		uint32_t khz;
		bool fits;
	} cases[] = {
		{ 2000499, true }, { 1999501, true }, { 2000600, false }, { 1999400, false }
	};
	struct arch *a;
	struct vcpu v;

	make_tree(&here);
	there.khz = cases[_i].khz;
	if (!cases[_i].fits) {
		REFUSED(&there, "2000000 kHz");
		return;
	}
	check_built(&there, &a, &v);
	ck_assert_uint_eq(there.vcpu_khz, there.khz);
	arch_free(a);
}
END_TEST

START_TEST(guest_of_unknown_frequency_does_not_count_on_it)
{
	struct cpuid_table guest;
	struct arch *a;
	struct vcpu v;

	here.khz = 0;
	make_tree(&here);
	ck_assert_int_eq(cpuid_from_tree(&tree, &guest, &err), 0);
	ck_assert_uint_eq(cpuid_word(&guest, 0x80000007, 0, CPUID_EDX), 0);
	ck_assert_uint_eq(cpuid_word(&guest, 1, 0, CPUID_ECX) & 1u << 24, 0);
	check_built(&here, &a, &v);
	arch_free(a);
	check_built(&there, &a, &v);
	arch_free(a);
}
END_TEST

START_TEST(frequency_that_one_side_does_not_know_is_refused)
{
	make_tree(&here);
	there.khz = 0;
	REFUSED(&there, "2000000 kHz", "does not tell");
	/* As older versions made them where the VM's fd does not tell. */
	ck_assert_int_eq(tree_set_u32(&tree, "/cpus", "tsc-khz", 0, &err), 0);
	REFUSED(&here, "/cpus: it is not known");
}
END_TEST

static uint64_t saved_tsc(struct arch *a, struct vcpu *v, const struct arch_moment *now)
{
	struct tree t;
	void *st = save(a, v, now, &t);
	uint64_t tsc;

	ck_assert_int_eq(tree_u64(&t, "/cpus/cpu@0", "tsc", &tsc, &err), 0);
	tree_free(&t);
	free(st);
	return tsc;
}

START_TEST(counter_is_saved_as_of_the_moment_of_the_park)
{
	struct arch_moment then = { 0 };
	const uint64_t offset = -123456789012ull;
	uint64_t before, window, tsc, off_by;
	struct arch *a;
	struct vcpu v;

	if (_i)
		fake_kvm_init_5_10(&here);
	make_tree(&here);
	check_built(&here, &a, &v);
	here.tsc_offset = offset;
	before = __rdtsc();
	then.host_counter = before - 20000000000; /* ten seconds ago */
	tsc = saved_tsc(a, &v, &then);
	window = __rdtsc() - before;
	off_by = tsc - (then.host_counter + offset);
	ck_assert_msg(off_by + window <= 2 * window, "off by %lld ticks, measured within %llu",
		      (long long)off_by, (unsigned long long)window);
	/* Another vCPU measures anew, and has the same. */
	ck_assert_uint_eq(saved_tsc(a, &v, &then), tsc);
	arch_free(a);
}
END_TEST

START_TEST(counter_is_loaded_as_of_its_moment)
{
	struct arch_moment now = { 0 };
	uint64_t before, window, off_by;
	struct tree t;
	struct arch *a;
	struct vcpu v;
	void *st;

	if (_i)
		fake_kvm_init_5_10(&there);
	make_tree(&here);
	check_built(&here, &a, &v);
	here.tsc_offset = 5000;
	now.host_counter = __rdtsc();
	st = save(a, &v, &now, &t);
	arch_free(a);
	check_built(&there, &a, &v);
	before = __rdtsc();
	now.host_counter -= 1000000; /* loading has begun a while ago, on a host that is younger */
	now.advance_ns = 3000;
	ck_assert_msg(arch_vcpu_load(a, &v, &now, st, &err) == 0, "%s", err.text);
	window = __rdtsc() - before;
	off_by = there.tsc_offset - (5000 + 1000000 + 6000);
	ck_assert_msg(off_by + window <= 2 * window, "off by %lld ticks", (long long)off_by);
	tree_free(&t);
	free(st);
	arch_free(a);
}
END_TEST

/* -- the CPU's name -- */

static void guests_brand(char brand[49])
{
	struct cpuid_table guest;
	uint32_t *words = (uint32_t *)brand;

	ck_assert_int_eq(cpuid_from_tree(&tree, &guest, &err), 0);
	for (uint32_t i = 0; i < 12; i++)
		words[i] = cpuid_word(&guest, 0x80000002 + i / 4, 0, (enum cpuid_reg)(i % 4));
	brand[48] = 0;
}

/* Of a KVM that gives one. */
static void add_name(struct fake_kvm *host)
{
	char name[16] = "another";
	struct kvm_cpuid_entry2 *l = &host->cpuid.entries[host->cpuid.n++];

	*l = (struct kvm_cpuid_entry2){ .function = 0x80000002 };
	memcpy(&l->eax, name, sizeof(name));
}

START_TEST(cpu_has_a_name)
{
	_Alignas(4) char brand[49];
	struct arch *a;
	struct vcpu v;

	make_tree(&here);
	guests_brand(brand);
	ck_assert_uint_gt(strlen(brand), 3);
	for (const char *c = brand; *c; c++)
		ck_assert(*c >= ' ' && *c <= '~');
	/* It is the guest's, whatever the other host is called. */
	add_name(&there);
	check_built(&there, &a, &v);
	arch_free(a);
	tree_free(&tree);
	make_tree(&there);
	guests_brand(brand);
	ck_assert_str_eq(brand, "another");
}
END_TEST

/* -- interrupts -- */

START_TEST(interrupts_go_to_the_ioapic_alone)
{
	struct arch *a;
	struct vcpu v;

	make_tree(&here);
	check_built(&here, &a, &v);
	ck_assert_uint_eq(here.n_routes, KVM_IOAPIC_NUM_PINS);
	for (uint32_t i = 0; i < here.n_routes; i++) {
		const struct kvm_irq_routing_entry *r = &here.routes[i];

		ck_assert_uint_eq(r->gsi, i);
		ck_assert_uint_eq(r->type, KVM_IRQ_ROUTING_IRQCHIP);
		ck_assert_uint_eq(r->u.irqchip.irqchip, KVM_IRQCHIP_IOAPIC);
		ck_assert_uint_eq(r->u.irqchip.pin, i);
	}
	arch_free(a);
}
END_TEST

/* -- a move of one vCPU -- */

/* From `here` to `there`, as an encoded tree; -1: it was refused. */
static int move_and(struct arch **there_arch, struct vcpu *there_vcpu,
		    void (*change)(struct tree *states))
{
	const struct arch_moment now = { .host_counter = __rdtsc() };
	struct arch *a;
	struct vcpu v;
	struct tree t;
	void *st;
	int rc;

	check_built(&here, &a, &v);
	here.ran = true;
	st = save(a, &v, &now, &t);
	arch_free(a);
	if (change)
		change(&t);
	check_built(&there, there_arch, there_vcpu);
	memset(st, 0xff, arch_vcpu_state.size);
	rc = state_load(&t, "/cpus/cpu@0", &arch_vcpu_state, st, &err) ||
			     arch_vcpu_load(*there_arch, there_vcpu, &now, st, &err)
		     ? -1
		     : 0;
	tree_free(&t);
	free(st);
	return rc;
}

static void move(void)
{
	struct arch *a;
	struct vcpu v;

	ck_assert_msg(move_and(&a, &v, NULL) == 0, "%s", err.text);
	arch_free(a);
}

static void check_move_refused(const char *word)
{
	struct arch *a;
	struct vcpu v;

	ck_assert_int_eq(move_and(&a, &v, NULL), -1);
	ck_assert_msg(strstr(err.text, word) != NULL, "no '%s' in: %s", word, err.text);
	arch_free(a);
}

/* As versions before this one made it. */
static void make_old_tree(struct fake_kvm *host)
{
	struct tree t;

	make_tree(host);
	ck_assert(tree_init(&t, &err) == 0);
	for (unsigned int i = 0; i < 3; i++) {
		static const char *const kept[] = { "count", "cpuid", "tsc-khz" };
		const void *bytes;
		size_t len;

		ck_assert(tree_bytes(&tree, "/cpus", kept[i], &bytes, &len, &err) == 0);
		ck_assert(tree_set_bytes(&t, "/cpus", kept[i], bytes, len, &err) == 0);
	}
	tree_free(&tree);
	tree = t;
}

START_TEST(machine_moves_between_kernels)
{
	if (_i & 1)
		fake_kvm_init_5_10(&here);
	if (_i & 2)
		fake_kvm_init_5_10(&there);
	here.regs.rip = 0x1234;
	here.lapic.regs[7] = 42;
	make_tree(&here);
	move();
	ck_assert_uint_eq(there.regs.rip, 0x1234);
	ck_assert_int_eq(there.lapic.regs[7], 42);
}
END_TEST

/* -- faults of the CPU -- */

START_TEST(faults_that_the_guest_does_not_expect_are_named)
{
	make_tree(&here);
	fake_msr_set(&there.features, 0x10a, 0x0a);
	REFUSED(&there, "/cpus: ", "RDCL_NO, MDS_NO", "relies on");
	fake_msr_drop(&there.features, 0x10a);
	REFUSED(&there, "RDCL_NO, IBRS_ALL, MDS_NO");
}
END_TEST

START_TEST(faults_of_high_numbers_are_named)
{
	fake_msr_set(&here.features, 0x10a, 1ull << 62 | 1ull << 26 | 1ull << 8 | 1ull << 40);
	fake_msr_set(&here.features, 0xc0011029, 2);
	make_tree(&here);
	REFUSED(&there, "TAA_NO, GDS_NO, bit 40 of MSR 0x10a, ITS_NO, LFENCE_SERIALIZE");
}
END_TEST

START_TEST(guest_keeps_its_view_of_its_cpus_faults)
{
	struct arch *a;
	struct vcpu v;

	make_tree(&here);
	/* A better CPU, one with more weaknesses of other kinds told, another microcode. */
	fake_msr_set(&there.features, 0x10a, 0x2b | 1u << 8 | 1u << 19);
	fake_msr_set(&there.features, 0x8b, 0x700000000);
	fake_msr_set(&there.msrs, 0x10a, 0x2b | 1u << 8 | 1u << 19);
	check_built(&there, &a, &v);
	ck_assert_uint_eq(fake_msr(&there.values, 0x10a), 0x2b);
	arch_free(a);
	move();
	ck_assert_uint_eq(fake_msr(&there.values, 0x10a), 0x2b);
}
END_TEST

START_TEST(machine_of_an_older_version_is_checked_when_it_arrives)
{
	make_old_tree(&here);
	fake_msr_set(&there.features, 0x10a, 0x0a);
	fake_msr_set(&there.msrs, 0x10a, 0x0a);
	check_move_refused("RDCL_NO, MDS_NO");
}
END_TEST

START_TEST(machine_of_an_older_version_can_be_reset_after_it_ran)
{
	const struct arch_moment now = { .host_counter = __rdtsc() };
	void *pristine;
	struct tree t;
	struct arch *a;
	struct vcpu v;

	make_old_tree(&here);
	fake_msr_set(&there.features, 0x10a, 0x12b);
	fake_msr_set(&there.msrs, 0x10a, 0x12b);
	check_built(&there, &a, &v);
	pristine = save(a, &v, &now, &t);
	fake_msr_set(&there.values, 0x10a, 0x2b); /* as its state has it */
	there.ran = true;
	ck_assert_msg(arch_vcpu_load(a, &v, &now, pristine, &err) == 0, "%s", err.text);
	arch_free(a);
	tree_free(&t);
	free(pristine);
}
END_TEST

START_TEST(odd_features_in_a_tree_are_refused)
{
	static const uint8_t unknown[12] = { 0, 0, 1, 0 };

	make_tree(&here);
	ck_assert(tree_set_bytes(&tree, "/cpus", "feature-msrs", unknown, 12, &err) == 0);
	REFUSED(&here, "MSR 0x100");
	ck_assert(tree_set_bytes(&tree, "/cpus", "feature-msrs", unknown, 11, &err) == 0);
	REFUSED(&here, "11 bytes");
	ck_assert(tree_set_bytes(&tree, "/cpus", "feature-msrs", NULL, 0, &err) == 0);
	ck_assert(tree_set_bytes(&tree, "/cpus", "msrs", unknown, 10, &err) == 0);
	REFUSED(&here, "10 bytes");
}
END_TEST

/* -- what does not fit -- */

START_TEST(msrs_of_hidden_features_are_not_carried)
{
	if (_i) {
		/* Nor taken from a stream that has them. */
		make_old_tree(&here);
	} else {
		make_tree(&here);
	}
	fake_msr_set(&here.msrs, 0xc0000104, 1ull << 32);
	fake_msr_drop(&there.msrs, 0x345);
	fake_msr_drop(&there.msrs, 0x480);
	move();
}
END_TEST

static void add_hidden_msrs(struct tree *states)
{
	const uint8_t numbers[] = { 0, 0, 1, 0x74, 0, 0, 3, 0x45 };
	const uint8_t values[] = { 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0x20, 0 };
	const char *path = "/cpus/cpu@0";

	ck_assert(!tree_set_bytes(states, path, "msr-numbers", numbers, sizeof(numbers), &err));
	ck_assert(!tree_set_bytes(states, path, "msr-values", values, sizeof(values), &err));
}

START_TEST(msrs_of_hidden_features_in_an_old_stream_are_left_out)
{
	struct arch *a;
	struct vcpu v;

	make_old_tree(&here);
	fake_msr_drop(&there.msrs, 0x345);
	ck_assert_msg(move_and(&a, &v, add_hidden_msrs) == 0, "%s", err.text);
	ck_assert_uint_eq(fake_msr(&there.values, 0x174), 5);
	arch_free(a);
}
END_TEST

START_TEST(msr_that_holds_something_is_not_lost)
{
	fake_msr_set(&here.msrs, 0x1fc, 7);
	make_tree(&here);
	check_move_refused("does not take MSR 0x1fc with value 0x7");
	fake_msr_set(&here.msrs, 0x1fc, 0);
	move();
	/* As after a reset, on a KVM without SMM. */
	fake_msr_set(&here.msrs, 0x9e, 0x30000);
	move();
}
END_TEST

START_TEST(counters_that_are_found_without_cpuid_are_refused_by_name)
{
	struct arch *a;
	struct vcpu v;

	fake_msr_set(&here.msrs, 0xc0010000, 0);
	make_tree(&here);
	REFUSED(&there, "MSR 0xc0010000", "enable_pmu");
	/* A KVM that has it and does not list it. */
	fake_msr_set(&there.unlisted, 0xc0010000, 0);
	check_built(&there, &a, &v);
	arch_free(a);
}
END_TEST

START_TEST(extended_state_is_the_guests_and_not_the_hosts)
{
	const uint64_t foreign = 1ull << 18 | 7;

	here.xsave2 = 11008;
	here.xfeatures |= 1u << 18;
	memcpy(here.xsave + 512, &foreign, sizeof(foreign));
	here.xsave[2695] = 9;
	here.xsave[9000] = 1; /* of a component that the guest cannot use */
	make_tree(&here);
	move();
	ck_assert_uint_eq(there.xsave[512], 7);
	ck_assert_uint_eq(there.xsave[514], 0);
	ck_assert_uint_eq(there.xsave[2695], 9);
}
END_TEST

static void make_xsave_longer(struct tree *states)
{
	const char *path = "/cpus/cpu@0";
	uint8_t longer[5000] = { 0 };
	const void *bytes;
	size_t len;

	ck_assert(!tree_bytes(states, path, "xsave", &bytes, &len, &err));
	memcpy(longer, bytes, len);
	ck_assert(!tree_set_bytes(states, path, "xsave", longer, sizeof(longer), &err));
}

START_TEST(longer_state_of_an_older_version_is_taken_if_it_holds_no_more)
{
	struct arch *a;
	struct vcpu v;

	make_tree(&here);
	ck_assert_msg(move_and(&a, &v, make_xsave_longer) == 0, "%s", err.text);
	arch_free(a);
}
END_TEST

START_TEST(extended_state_that_is_too_large_is_refused_in_set_up)
{
	struct cpuid_table c;

	make_tree(&here);
	ck_assert(cpuid_from_tree(&tree, &c, &err) == 0);
	for (uint32_t i = 0; i < c.n; i++)
		if (c.entries[i].function == 0xd && c.entries[i].index == 0)
			c.entries[i].ecx = 5000;
	ck_assert(cpuid_to_tree(&c, &tree, &err) == 0);
	REFUSED(&there, "/cpus: ", "5000 bytes", "4096");
}
END_TEST

/* -- rare states -- */

START_TEST(pending_triple_fault_arrives)
{
	make_tree(&here);
	here.events.triple_fault.pending = 1;
	here.events.flags = KVM_VCPUEVENT_VALID_SHADOW;
	move();
	ck_assert_uint_eq(there.events.triple_fault.pending, 1);
	fake_kvm_init_5_10(&there);
	check_move_refused("triple fault");
	/* None is pending: not told, and one that is pending there is gone. */
	fake_kvm_init(&there);
	here.events.triple_fault.pending = 0;
	there.events.triple_fault.pending = 1;
	move();
	ck_assert_uint_eq(there.events.triple_fault.pending, 0);
	ck_assert_uint_eq(there.events.flags & KVM_VCPUEVENT_VALID_SHADOW,
			  KVM_VCPUEVENT_VALID_SHADOW);
}
END_TEST

START_TEST(page_directory_pointers_of_a_pae_guest_arrive)
{
	here.sregs.cr0 = 0x80000011;
	here.sregs.cr4 = 0x20;
	here.sregs.cr3 = 0x5000;
	here.pdptrs[3] = 0x6001;
	make_tree(&here);
	move();
	ck_assert(there.pdptrs_set);
	ck_assert_uint_eq(there.pdptrs[3], 0x6001);
	ck_assert_uint_eq(there.sregs.cr3, 0x5000);
	/* A guest that has none, or a KVM that takes none. */
	here.sregs.efer = 0x500;
	there.pdptrs_set = false;
	move();
	ck_assert(!there.pdptrs_set);
	ck_assert_uint_eq(there.sregs.efer, 0x500);
	here.sregs.efer = 0;
	fake_kvm_init_5_10(&there);
	move();
	ck_assert_uint_eq(there.sregs.cr3, 0x5000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("hosts");
	TCase *tsc = tcase_create("time stamp counter");
	TCase *state = tcase_create("states");
	TCase *faults = tcase_create("features");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tsc, set_up, tear_down);
	tcase_add_test(tsc, frequency_is_known_on_every_kernel);
	tcase_add_loop_test(tsc, frequency_is_scaled_only_by_a_kvm_that_scales, 0, 2);
	tcase_add_loop_test(tsc, frequency_within_kvms_tolerance_is_taken_as_it_is, 0, 4);
	tcase_add_test(tsc, guest_of_unknown_frequency_does_not_count_on_it);
	tcase_add_test(tsc, frequency_that_one_side_does_not_know_is_refused);
	tcase_add_loop_test(tsc, counter_is_saved_as_of_the_moment_of_the_park, 0, 2);
	tcase_add_loop_test(tsc, counter_is_loaded_as_of_its_moment, 0, 2);
	suite_add_tcase(s, tsc);

	tcase_add_checked_fixture(faults, set_up, tear_down);
	tcase_add_test(faults, cpu_has_a_name);
	tcase_add_test(faults, interrupts_go_to_the_ioapic_alone);
	tcase_add_test(faults, faults_that_the_guest_does_not_expect_are_named);
	tcase_add_test(faults, faults_of_high_numbers_are_named);
	tcase_add_test(faults, guest_keeps_its_view_of_its_cpus_faults);
	tcase_add_test(faults, machine_of_an_older_version_is_checked_when_it_arrives);
	tcase_add_test(faults, machine_of_an_older_version_can_be_reset_after_it_ran);
	tcase_add_test(faults, odd_features_in_a_tree_are_refused);
	suite_add_tcase(s, faults);

	tcase_add_checked_fixture(state, set_up, tear_down);
	tcase_add_loop_test(state, machine_moves_between_kernels, 0, 4);
	tcase_add_loop_test(state, msrs_of_hidden_features_are_not_carried, 0, 2);
	tcase_add_test(state, msrs_of_hidden_features_in_an_old_stream_are_left_out);
	tcase_add_test(state, msr_that_holds_something_is_not_lost);
	tcase_add_test(state, counters_that_are_found_without_cpuid_are_refused_by_name);
	tcase_add_test(state, extended_state_is_the_guests_and_not_the_hosts);
	tcase_add_test(state, longer_state_of_an_older_version_is_taken_if_it_holds_no_more);
	tcase_add_test(state, extended_state_that_is_too_large_is_refused_in_set_up);
	tcase_add_test(state, pending_triple_fault_arrives);
	tcase_add_test(state, page_directory_pointers_of_a_pae_guest_arrive);
	suite_add_tcase(s, state);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
