/*
 * The guest's CPUID table: made once from what KVM supports, carried in the machine tree, given to
 * each vCPU with its own APIC id. See cpuid.h; the comparison with another host is cpuid_check.c.
 * No state; the owner's thread.
 *
 * Invariant: a leaf reaches the guest only if guest_leaf() knows it. What is left out, and why:
 *   - VMX and SVM with their leaves: the state of a guest's own guests is not saved;
 *   - performance counters (leaf 0xa, PerfCtr*, PDCM): theirs neither;
 *   - MONITOR/MWAIT: exit on every use under KVM, and idle time would not be seen;
 *   - XSAVE components that a process must ask the kernel for (AMX) or that KVM_GET_XSAVE2 does not
 *     give (CET, PT, LBR: supervisor states);
 *   - frequency leaves 0x15, 0x16: the TSC's frequency is told by kvmclock and 0x40000010.
 */
#include "vmm/x86_64/cpuid.h"

#include <cpuid.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/kvm.h"
#include "vmm/tree.h"

#define BIT(n) (1u << (n))

#define LEAF_KVM	  0x40000000u
#define LEAF_KVM_FEATURES 0x40000001u
#define LEAF_HV_TIMING	  0x40000010u
#define LEAF_EXTENDED	  0x80000000u
#define LEAF_BRAND	  0x80000002u /* and two more */
#define APIC_BUS_KHZ	  1000000u    /* KVM's APIC timer ticks at 1 GHz */

/* One entry in the machine tree: big endian cells. */
#define CELLS 7

/* x87 SSE AVX, MPX (2), AVX-512 (3), PKRU: user states that any process may save. */
#define XCR0_GUEST (0xffu | BIT(9))

/* Where the entry is, or -1. */
static int find(const struct cpuid_table *c, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < c->n; i++) {
		if (c->entries[i].function == function && c->entries[i].index == index)
			return (int)i;
	}
	return -1;
}

/* An entry of zeros says the same as none. */
static bool is_empty(const struct kvm_cpuid_entry2 *l)
{
	return !(l->eax | l->ebx | l->ecx | l->edx);
}

static void add(struct cpuid_table *c, struct kvm_cpuid_entry2 l)
{
	if (c->n < CPUID_ENTRIES_MAX)
		c->entries[c->n++] = l;
}

/* The CPU's name: KVM leaves it to us, and a guest's users look for it. */
static void add_brand(struct cpuid_table *c)
{
	uint32_t brand[3][4] = { { 0 } };

	if (find(c, LEAF_BRAND, 0) >= 0 && !is_empty(&c->entries[find(c, LEAF_BRAND, 0)]))
		return;
	for (uint32_t i = 0; i < 3; i++)
		if (!__get_cpuid(LEAF_BRAND + i, &brand[i][0], &brand[i][1], &brand[i][2],
				 &brand[i][3]))
			break;
	if (!brand[0][0])
		snprintf((char *)brand, sizeof(brand), "godwit virtual CPU");
	for (uint32_t i = 0; i < 3; i++) {
		const struct kvm_cpuid_entry2 l = { .function = LEAF_BRAND + i,
						    .eax = brand[i][0],
						    .ebx = brand[i][1],
						    .ecx = brand[i][2],
						    .edx = brand[i][3] };
		int at = find(c, l.function, 0);

		if (at >= 0)
			c->entries[at] = l;
		else
			add(c, l);
	}
}

int cpuid_supported(const struct kvm *kvm, struct cpuid_table *out, struct err *e)
{
	union {
		struct kvm_cpuid2 head; /* its entries follow it */
		uint8_t bytes[sizeof(struct kvm_cpuid2) + sizeof(out->entries)];
	} c;

	memset(&c, 0, sizeof(c));
	c.head.nent = CPUID_ENTRIES_MAX;
	if (kvm_ioctl(kvm, kvm->dev_fd, KVM_GET_SUPPORTED_CPUID, &c) < 0)
		return err_errno(e, errno, "KVM does not tell which CPUID it supports");
	if (c.head.nent > CPUID_ENTRIES_MAX)
		return err_set(e, "KVM supports %u CPUID entries, more than %d", c.head.nent,
			       CPUID_ENTRIES_MAX);
	memset(out, 0, sizeof(*out));
	out->n = c.head.nent;
	memcpy(out->entries, c.head.entries, out->n * sizeof(out->entries[0]));
	add_brand(out);
	return 0;
}

static bool is_amd(const struct cpuid_table *c)
{
	int at = find(c, 0, 0);
	uint32_t ebx = at >= 0 ? c->entries[at].ebx : 0;

	/* "AuthenticAMD", "HygonGenuine" */
	return ebx == 0x68747541 || ebx == 0x6f677948;
}

/* Bits of an APIC id that number `n_cpus` cores. */
static uint32_t core_id_bits(uint32_t n_cpus)
{
	return n_cpus > 1 ? 32 - (uint32_t)__builtin_clz(n_cpus - 1) : 0;
}

static void leaf_1(struct kvm_cpuid_entry2 *l, uint32_t n_cpus)
{
	/* Brand, CLFLUSH size; logical processors; the APIC id is filled in for each vCPU. */
	l->ebx = (l->ebx & 0xffff) | n_cpus << 16;
	/* DTES64 MONITOR DS_CPL VMX SMX EST TM2 PDCM; OSXSAVE is KVM's to show. */
	l->ecx &= ~(BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(15) |
		    BIT(27));
	/* x2APIC, TSC deadline timer (older kernels do not list it), hypervisor. */
	l->ecx |= BIT(21) | BIT(24) | BIT(31);
	/* PSN DS ACPI TM PBE; HTT: the count above holds. */
	l->edx &= ~(BIT(18) | BIT(21) | BIT(22) | BIT(28) | BIT(29) | BIT(31));
	if (n_cpus > 1)
		l->edx |= BIT(28);
}

/* Caches (leaf 4, 0x8000001d): the first two levels for each core, the others for all. */
static void cache_leaf(struct kvm_cpuid_entry2 *l, uint32_t n_cpus, bool amd)
{
	uint32_t level = l->eax >> 5 & 7, sharing, cores = (1u << core_id_bits(n_cpus)) - 1;

	/* Intel counts APIC ids, AMD processors. */
	sharing = level < 3 ? 0 : amd ? n_cpus - 1 : cores;
	l->eax = (l->eax & 0x3fff) | sharing << 14;
	if (!amd)
		l->eax |= (cores < 63 ? cores : 63) << 26;
}

static void leaf_7(struct kvm_cpuid_entry2 *l, bool amd)
{
	if (l->index == 0) {
		/* SGX, PQM, PQE, PT */
		l->ebx &= ~(BIT(2) | BIT(12) | BIT(15) | BIT(25));
		/* OSPKE is KVM's to show; CET shadow stacks, TME, key locker, ENQCMD, SGX_LC, PKS
		 */
		l->ecx &= ~(BIT(4) | BIT(7) | BIT(13) | BIT(23) | BIT(29) | BIT(30) | BIT(31));
		/* UINTR, PCONFIG, LBR, CET branch tracking, AMX (3), core capabilities */
		l->edx &= ~(BIT(5) | BIT(18) | BIT(19) | BIT(20) | BIT(22) | BIT(24) | BIT(25) |
			    BIT(30));
		/* ARCH_CAPABILITIES is Intel's: on AMD some KVMs make it up, younger ones do not.
		 */
		if (amd)
			l->edx &= ~BIT(29);
	} else if (l->index == 1) {
		/* architectural PerfMon, AMX-FP16, HRESET */
		l->eax &= ~(BIT(8) | BIT(21) | BIT(22));
		/* AMX-COMPLEX, UIRET/UIF, CET_SSS, AVX10 (its leaf is not given), APX */
		l->edx &= ~(BIT(8) | BIT(17) | BIT(18) | BIT(19) | BIT(21));
	}
}

/* False for a component that the guest does not get. */
static bool leaf_d(struct kvm_cpuid_entry2 *l)
{
	if (l->index == 0) {
		l->eax &= XCR0_GUEST;
		l->edx = 0;
	} else if (l->index == 1) {
		l->eax &= 0xf; /* not XFD, which is for components of permission */
		l->ecx = 0;    /* no supervisor states */
		l->edx = 0;
	} else if (l->index >= 32 || !(XCR0_GUEST >> l->index & 1) || (l->ecx & 1)) {
		return false;
	}
	return true;
}

static void leaf_extended_1(struct kvm_cpuid_entry2 *l, uint32_t n_cpus, bool amd)
{
	/* SVM, ExtApic, IBS, SKINIT, WDT, LWP, NodeId, PerfCtr core and NB, PTSC, LLC, MWAITX */
	l->ecx &= ~(BIT(2) | BIT(3) | BIT(10) | BIT(12) | BIT(13) | BIT(15) | BIT(19) | BIT(23) |
		    BIT(24) | BIT(27) | BIT(28) | BIT(29));
	/* CmpLegacy: HTT means cores, not threads. */
	l->ecx &= ~BIT(1);
	if (amd && n_cpus > 1)
		l->ecx |= BIT(1);
}

static void leaf_extended_8(struct kvm_cpuid_entry2 *l, uint32_t n_cpus, bool amd)
{
	l->ecx = amd ? core_id_bits(n_cpus) << 12 | (n_cpus - 1) : 0;
	l->edx = 0;
}

/* Makes one supported entry the guest's; false when the guest does not get it. */
static bool guest_leaf(struct kvm_cpuid_entry2 *l, uint32_t n_cpus, bool amd)
{
	switch (l->function) {
	case 0:
	case 2: /* cache descriptors */
	case LEAF_KVM:
	case LEAF_EXTENDED:
	case LEAF_BRAND:
	case LEAF_BRAND + 1:
	case LEAF_BRAND + 2:
	case 0x80000005: /* AMD's caches and TLBs */
	case 0x80000006:
	case 0x80000019:
	case 0x8000001a:
		return true;
	case 1:
		leaf_1(l, n_cpus);
		return true;
	case 4:
		if (!(l->eax & 0x1f))
			return false;
		cache_leaf(l, n_cpus, false);
		return true;
	case 6:
		l->eax &= BIT(2); /* the APIC timer runs always */
		l->ebx = l->ecx = l->edx = 0;
		return true;
	case 7:
		leaf_7(l, amd);
		return true;
	case 0xd:
		return leaf_d(l);
	case LEAF_KVM_FEATURES:
		l->edx = 0; /* hints that vCPUs are never preempted: not promised */
		return true;
	case 0x80000001:
		leaf_extended_1(l, n_cpus, amd);
		return true;
	case 0x80000007:
		l->eax = l->ebx = l->ecx = 0;
		l->edx &= BIT(8); /* the TSC runs at one rate always */
		return true;
	case 0x80000008:
		leaf_extended_8(l, n_cpus, amd);
		return true;
	case 0x8000001d:
		if (!(l->eax & 0x1f))
			return false;
		cache_leaf(l, n_cpus, true);
		return true;
	case 0x80000021:
		l->ebx = l->edx = 0;
		return true;
	}
	return false;
}

/* The XSAVE area's size follows from the components that are left. */
static void set_xsave_size(struct cpuid_table *c)
{
	uint32_t bytes = 576; /* x87, SSE, header */
	struct kvm_cpuid_entry2 *d0;
	int at = find(c, 0xd, 0);

	if (at < 0)
		return;
	d0 = &c->entries[at];
	for (uint32_t i = 0; i < c->n; i++) {
		const struct kvm_cpuid_entry2 *l = &c->entries[i];

		if (l->function == 0xd && l->index >= 2 && l->eax + l->ebx > bytes &&
		    (d0->eax >> l->index & 1))
			bytes = l->eax + l->ebx;
	}
	d0->ecx = bytes;
	d0->ebx = bytes; /* KVM follows XCR0 from here on */
}

/* Leaf 0xb and its younger form 0x1f: one thread a core, all cores in one package. */
static void add_topology(struct cpuid_table *c, uint32_t function, uint32_t n_cpus)
{
	const uint32_t flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

	add(c, (struct kvm_cpuid_entry2){ .function = function,
					  .index = 0,
					  .flags = flags,
					  .eax = 0,
					  .ebx = 1,
					  .ecx = 0 | 1 << 8 });
	add(c, (struct kvm_cpuid_entry2){ .function = function,
					  .index = 1,
					  .flags = flags,
					  .eax = core_id_bits(n_cpus),
					  .ebx = n_cpus,
					  .ecx = 1 | 2 << 8 });
	/* The end of the list has no type, and an x2APIC id all the same. */
	add(c, (struct kvm_cpuid_entry2){
		       .function = function, .index = 2, .flags = flags, .ecx = 2 });
}

/* A maximum is the highest leaf that the guest really has: what is above differs among hosts. */
static void set_maximum(struct cpuid_table *c, uint32_t base)
{
	int top = find(c, base, 0);
	uint32_t max = base;

	if (top < 0)
		return;
	for (uint32_t i = 0; i < c->n; i++) {
		uint32_t f = c->entries[i].function;

		if (f >> 16 == base >> 16 && f > max)
			max = f;
	}
	c->entries[top].eax = max;
}

/*
 * A guest that moves to a host of another frequency must then not notice: no invariant TSC, no
 * deadline timer, which counts in its ticks.
 */
static void hide_constant_tsc(struct cpuid_table *c)
{
	int at = find(c, 1, 0);

	if (at >= 0)
		c->entries[at].ecx &= ~BIT(24);
	at = find(c, 0x80000007, 0);
	if (at >= 0)
		c->entries[at].edx &= ~BIT(8);
}

void cpuid_for_guest(const struct cpuid_table *supported, uint32_t n_cpus, uint32_t tsc_khz,
		     struct cpuid_table *out)
{
	uint32_t basic_max = 0;
	bool amd = is_amd(supported), amd_topology = false;

	memset(out, 0, sizeof(*out));
	n_cpus = n_cpus < 1 ? 1 : n_cpus > 255 ? 255 : n_cpus; /* as leaf 1 can count */
	for (uint32_t i = 0; i < supported->n && i < CPUID_ENTRIES_MAX; i++) {
		struct kvm_cpuid_entry2 l = supported->entries[i];

		if (l.function == 0)
			basic_max = l.eax;
		if (l.function == 0x80000001)
			amd_topology = amd && (l.ecx & BIT(22));
		l.flags &= KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		if (guest_leaf(&l, n_cpus, amd) && !is_empty(&l))
			add(out, l);
	}
	set_xsave_size(out);
	if (basic_max >= 0xb)
		add_topology(out, 0xb, n_cpus);
	if (basic_max >= 0x1f && !amd)
		add_topology(out, 0x1f, n_cpus);
	if (amd_topology) /* APIC id and core number are filled in for each vCPU */
		add(out, (struct kvm_cpuid_entry2){ .function = 0x8000001e });
	if (tsc_khz)
		add(out, (struct kvm_cpuid_entry2){
				 .function = LEAF_HV_TIMING, .eax = tsc_khz, .ebx = APIC_BUS_KHZ });
	else
		hide_constant_tsc(out);
	set_maximum(out, 0);
	set_maximum(out, LEAF_KVM);
	set_maximum(out, LEAF_EXTENDED);
}

void cpuid_for_vcpu(const struct cpuid_table *c, uint32_t index, struct cpuid_table *out)
{
	*out = *c;
	for (uint32_t i = 0; i < out->n; i++) {
		struct kvm_cpuid_entry2 *l = &out->entries[i];

		switch (l->function) {
		case 1:
			l->ebx = (l->ebx & 0x00ffffff) | index << 24;
			break;
		case 0xb:
		case 0x1f:
			l->edx = index;
			break;
		case 0x8000001e:
			l->eax = index;
			l->ebx = (l->ebx & ~0xffu) | (index & 0xff);
			break;
		}
	}
}

int cpuid_to_tree(const struct cpuid_table *c, struct tree *t, struct err *e)
{
	uint32_t cells[CPUID_ENTRIES_MAX * CELLS];

	for (uint32_t i = 0; i < c->n; i++) {
		const struct kvm_cpuid_entry2 *l = &c->entries[i];
		const uint32_t v[CELLS] = { l->function, l->index, l->flags, l->eax,
					    l->ebx,	 l->ecx,   l->edx };

		for (unsigned int k = 0; k < CELLS; k++)
			cells[i * CELLS + k] = htobe32(v[k]);
	}
	return tree_set_bytes(t, "/cpus", "cpuid", cells, c->n * CELLS * sizeof(uint32_t), e);
}

int cpuid_from_tree(const struct tree *t, struct cpuid_table *out, struct err *e)
{
	const size_t entry_bytes = CELLS * sizeof(uint32_t);
	const void *bytes;
	size_t len;

	memset(out, 0, sizeof(*out));
	if (tree_bytes(t, "/cpus", "cpuid", &bytes, &len, e))
		return -1;
	if (len == 0 || len % entry_bytes || len / entry_bytes > CPUID_ENTRIES_MAX)
		return err_set(e, "/cpus: cpuid has %zu bytes, expected 1 to %d entries of %zu",
			       len, CPUID_ENTRIES_MAX, entry_bytes);
	for (size_t i = 0; i < len / entry_bytes; i++) {
		struct kvm_cpuid_entry2 *l = &out->entries[i];
		uint32_t v[CELLS];

		memcpy(v, (const uint8_t *)bytes + i * entry_bytes, entry_bytes);
		for (unsigned int k = 0; k < CELLS; k++)
			v[k] = be32toh(v[k]);
		if (v[2] & ~(uint32_t)KVM_CPUID_FLAG_SIGNIFCANT_INDEX)
			return err_set(e, "/cpus: cpuid entry %zu has unknown flags 0x%x", i, v[2]);
		if (find(out, v[0], v[1]) >= 0)
			return err_set(e, "/cpus: cpuid has leaf 0x%x.%u twice", v[0], v[1]);
		l->function = v[0];
		l->index = v[1];
		l->flags = v[2];
		l->eax = v[3];
		l->ebx = v[4];
		l->ecx = v[5];
		l->edx = v[6];
		out->n++;
	}
	if (find(out, 0, 0) < 0 || find(out, 1, 0) < 0)
		return err_set(e, "/cpus: cpuid lacks leaf 0 or 1");
	return 0;
}
