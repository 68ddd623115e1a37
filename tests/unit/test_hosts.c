/*
 * Hosts that are not this one: what a machine that was made on one is told on another, before any
 * of its memory moves, and what of its vCPUs arrives. KVM is played by fake_kvm.c.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "tests/unit/fake_kvm.h"
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

int main(void)
{
	Suite *s = suite_create("hosts");
	TCase *tsc = tcase_create("time stamp counter");
	TCase *interrupts = tcase_create("interrupts");
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
	tcase_add_checked_fixture(interrupts, set_up, tear_down);
	tcase_add_test(interrupts, interrupts_go_to_the_ioapic_alone);
	suite_add_tcase(s, interrupts);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
