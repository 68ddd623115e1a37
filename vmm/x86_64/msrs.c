/*
 * The MSRs of a vCPU: which ones there are, read and set. The vCPU's own thread, parked; those that
 * there are, once, while the first vCPU is made.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/kvm.h"
#include "vmm/tree.h"
#include "vmm/vcpu.h"
#include "vmm/x86_64/arch_internal.h"

#define BIT(n) (1u << (n))

#define MSR_SMBASE   0x9eu /* KVMs without SMM do not have it */
#define SMBASE_RESET 0x30000u

/* MSRs of what a guest may not have, and the CPUID bits that would show it. */
static const struct {
	uint32_t first, n;
	uint32_t function, index;
	enum cpuid_reg reg;
	uint32_t bits; /* any of them; 0: never shown */
} hidden[] = {
	{ 0x8c, 4, 7, 0, CPUID_ECX, BIT(30) },		       /* SGX launch control */
	{ 0xc1, 8, 0xa, 0, CPUID_EAX, 0xff },		       /* performance counters, Intel */
	{ 0x10a, 1, 7, 0, CPUID_EDX, BIT(29) },		       /* ARCH_CAPABILITIES */
	{ 0x186, 8, 0xa, 0, CPUID_EAX, 0xff },		       /* performance events */
	{ 0x1c4, 2, 0xd, 1, CPUID_EAX, BIT(4) },	       /* XFD */
	{ 0x309, 8, 0xa, 0, CPUID_EAX, 0xff },		       /* fixed counters */
	{ 0x345, 1, 1, 0, CPUID_ECX, BIT(15) },		       /* PERF_CAPABILITIES: PDCM */
	{ 0x38d, 4, 0xa, 0, CPUID_EAX, 0xff },		       /* their control */
	{ 0x3f1, 2, 0xa, 0, CPUID_EAX, 0xff },		       /* PEBS */
	{ 0x480, 18, 1, 0, CPUID_ECX, BIT(5) },		       /* VMX */
	{ 0x4c1, 8, 0xa, 0, CPUID_EAX, 0xff },		       /* counters of full width */
	{ 0x560, 40, 7, 0, CPUID_EBX, BIT(25) },	       /* processor trace */
	{ 0x600, 1, 0xa, 0, CPUID_EAX, 0xff },		       /* DS_AREA */
	{ 0x14ce, 2, 7, 0, CPUID_EDX, BIT(19) },	       /* last branches */
	{ 0x40000000, 0x200, 0, 0, CPUID_EAX, 0 },	       /* Hyper-V's */
	{ 0xc0000104, 1, 0x8000000a, 0, CPUID_EDX, BIT(4) },   /* a nested guest's TSC ratio */
	{ 0xc0000300, 4, 0x80000022, 0, CPUID_EAX, BIT(0) },   /* AMD's PerfMonV2 */
	{ 0xc0010114, 1, 0x80000001, 0, CPUID_ECX, BIT(2) },   /* SVM: VM_CR */
	{ 0xc0010117, 1, 0x80000001, 0, CPUID_ECX, BIT(2) },   /* SVM: VM_HSAVE_PA */
	{ 0xc0010200, 12, 0x80000001, 0, CPUID_ECX, BIT(23) }, /* AMD's further counters */
};

bool x86_msr_is_hidden(const struct cpuid_table *c, uint32_t number)
{
	for (size_t i = 0; i < sizeof(hidden) / sizeof(hidden[0]); i++)
		if (number - hidden[i].first < hidden[i].n)
			return !(cpuid_word(c, hidden[i].function, hidden[i].index, hidden[i].reg) &
				 hidden[i].bits);
	return false;
}

/* KVM's list of MSRs, with room for `n`; NULL when memory is short. */
static struct kvm_msrs *new_msrs(uint32_t n)
{
	struct kvm_msrs *list = calloc(1, sizeof(*list) + n * sizeof(list->entries[0]));

	if (list)
		list->nmsrs = n;
	return list;
}

/*
 * What KVM's list leaves out although it keeps values for them: memory types and machine-check
 * banks. Those that a CPU has not are dropped below like any other.
 */
static const struct {
	uint32_t first, n;
} unlisted[] = {
	{ 0x200, 16 },				       /* MTRR variable ranges */
	{ 0x250, 1 },	   { 0x258, 2 }, { 0x268, 8 }, /* MTRR fixed ranges */
	{ 0x2ff, 1 },				       /* MTRR default type */
	{ 0x17a, 2 },				       /* machine check: status, control */
	{ 0x400, 32 * 4 },			       /* machine-check banks */
	{ 0xc0011029, 1 },			       /* AMD's DE_CFG, which a guest may set */
};

/* What KVM lists of which this guest sees something; NULL on failure. The TSC is not among them. */
static struct kvm_msr_list *listed(const struct kvm *kvm, const struct cpuid_table *guest,
				   struct err *e)
{
	struct kvm_msr_list *all = calloc(1, sizeof(*all) + X86_MSRS_MAX * sizeof(uint32_t));
	uint32_t i, n = 0;

	if (!all) {
		err_set(e, "out of memory");
		return NULL;
	}
	all->nmsrs = X86_MSRS_MAX;
	if (kvm_ioctl(kvm, kvm->dev_fd, KVM_GET_MSR_INDEX_LIST, all)) {
		err_errno(e, errno, "KVM_GET_MSR_INDEX_LIST (%u MSRs)", all->nmsrs);
		free(all);
		return NULL;
	}
	for (i = 0; i < all->nmsrs; i++)
		if (all->indices[i] != X86_MSR_TSC && !x86_msr_is_hidden(guest, all->indices[i]))
			all->indices[n++] = all->indices[i];
	all->nmsrs = n;
	return all;
}

/* KVM_GET_MSRS stops at the first one that this CPU has not: that is taken out, until all are. */
static int keep_readable(struct vcpu *v, struct kvm_msrs *list, struct err *e)
{
	uint32_t got;
	int rc;

	while (list->nmsrs) {
		rc = VCPU_IOCTL(v, KVM_GET_MSRS, list, e);
		if (rc < 0)
			return -1;
		got = (uint32_t)rc;
		if (got >= list->nmsrs)
			break;
		memmove(&list->entries[got], &list->entries[got + 1],
			(list->nmsrs - got - 1) * sizeof(list->entries[0]));
		list->nmsrs--;
	}
	return 0;
}

int x86_msrs_find(struct arch *a, struct vcpu *v, struct err *e)
{
	struct kvm_msr_list *all = listed(a->kvm, &a->cpuid, e);
	struct kvm_msrs *list = new_msrs(X86_MSRS_MAX);
	uint32_t i, n = 0;
	int rc = -1;

	if (!all || !list) {
		if (all)
			err_set(e, "out of memory");
		goto out;
	}
	for (i = 0; i < all->nmsrs && n < X86_MSRS_MAX - 1; i++)
		if (all->indices[i] != X86_MSR_TSC_DEADLINE)
			list->entries[n++].index = all->indices[i];
	for (i = 0; i < sizeof(unlisted) / sizeof(unlisted[0]); i++)
		for (uint32_t k = 0; k < unlisted[i].n && n < X86_MSRS_MAX - 1; k++)
			list->entries[n++].index = unlisted[i].first + k;
	/* The TSC is saved as an offset; the deadline goes last: see vcpu_state.c. */
	list->entries[n++].index = X86_MSR_TSC_DEADLINE;
	list->nmsrs = n;
	rc = keep_readable(v, list, e);
	for (i = 0; !rc && i < list->nmsrs; i++)
		a->msrs[i] = list->entries[i].index;
	a->n_msrs = list->nmsrs;
out:
	free(all);
	free(list);
	return rc;
}

int x86_msrs_to_tree(const struct kvm *kvm, const struct cpuid_table *guest, struct tree *t,
		     struct err *e)
{
	struct kvm_msr_list *all = listed(kvm, guest, e);
	int rc;

	if (!all)
		return -1;
	for (uint32_t i = 0; i < all->nmsrs; i++)
		all->indices[i] = htobe32(all->indices[i]);
	rc = tree_set_bytes(t, "/cpus", "msrs", all->indices, all->nmsrs * sizeof(uint32_t), e);
	free(all);
	return rc;
}

int x86_msrs_from_tree(const struct tree *t, struct arch *a, struct err *e)
{
	const void *bytes;
	size_t len;

	if (!tree_has(t, "/cpus", "msrs")) /* of an older version */
		return 0;
	if (tree_bytes(t, "/cpus", "msrs", &bytes, &len, e))
		return -1;
	if (len % sizeof(uint32_t) || len / sizeof(uint32_t) > X86_MSRS_MAX)
		return err_set(e, "/cpus: msrs has %zu bytes, expected up to %d numbers of 4", len,
			       X86_MSRS_MAX);
	a->n_born_with = (uint32_t)(len / sizeof(uint32_t));
	memcpy(a->born_with, bytes, len);
	for (uint32_t i = 0; i < a->n_born_with; i++)
		a->born_with[i] = be32toh(a->born_with[i]);
	return 0;
}

/*
 * MSRs that a guest finds without looking at CPUID. Of all others CPUID tells, which was compared;
 * a KVM that lists more than another is no reason to refuse: what they hold decides.
 */
static const struct {
	uint32_t first, n;
	const char *name;
} found_anyway[] = {
	{ 0xc0010000, 8, "AMD's performance counters (is enable_pmu off here?)" },
};

static bool is_there(struct vcpu *v, uint32_t number)
{
	union {
		struct kvm_msrs head; /* its entry follows it */
		uint8_t bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} one = { .head.nmsrs = 1 };

	one.head.entries[0].index = number;
	return x86_vcpu_ioctl(v, KVM_GET_MSRS, &one) == 1;
}

int x86_msrs_check(const struct arch *a, struct vcpu *v, struct err *e)
{
	for (size_t k = 0; k < sizeof(found_anyway) / sizeof(found_anyway[0]); k++)
		for (uint32_t i = 0; i < a->n_born_with; i++) {
			uint32_t number = a->born_with[i];

			if (number - found_anyway[k].first >= found_anyway[k].n)
				continue;
			if (!is_there(v, number))
				return err_set(e,
					       "/cpus: the guest has MSR 0x%" PRIx32
					       ", which this host's KVM lacks: %s",
					       number, found_anyway[k].name);
		}
	return 0;
}

int x86_msrs_get(const struct arch *a, struct vcpu *v, uint64_t *values, struct err *e)
{
	struct kvm_msrs *list = new_msrs(a->n_msrs);
	uint32_t i;
	int rc;

	if (!list)
		return err_set(e, "out of memory");
	for (i = 0; i < a->n_msrs; i++)
		list->entries[i].index = a->msrs[i];
	rc = VCPU_IOCTL(v, KVM_GET_MSRS, list, e);
	if (rc >= 0 && (uint32_t)rc != a->n_msrs)
		rc = err_set(e, "vCPU %u: MSR 0x%" PRIx32 " cannot be read", v->index,
			     list->entries[rc].index);
	for (i = 0; rc >= 0 && i < a->n_msrs; i++)
		values[i] = list->entries[i].data;
	free(list);
	return rc < 0 ? -1 : 0;
}

/*
 * One that KVM does not take matters only when it holds something. And a CPU's features, which are
 * known to fit, cannot change once the vCPU has run.
 */
static bool may_be_left(uint32_t number, uint64_t value)
{
	return !value || (number == MSR_SMBASE && value == SMBASE_RESET) || x86_is_feature(number);
}

int x86_msrs_set(const struct arch *a, struct vcpu *v, const uint32_t *numbers,
		 const uint64_t *values, uint32_t n, struct err *e)
{
	struct kvm_msrs *list = new_msrs(n);
	uint32_t i, taken = 0, left = 0;
	int rc = 0;

	if (!list)
		return err_set(e, "out of memory");
	for (i = 0; i < n && !rc; i++) {
		rc = x86_feature_fits(&a->host_features, numbers[i], values[i], e);
		if (!x86_msr_is_hidden(&a->cpuid, numbers[i]))
			list->entries[left++] = (struct kvm_msr_entry){
				.index = numbers[i],
				.data = values[i],
			};
	}
	while (!rc && left) {
		struct kvm_msr_entry *refused;

		list->nmsrs = left;
		rc = VCPU_IOCTL(v, KVM_SET_MSRS, list, e);
		if (rc < 0)
			break;
		taken = (uint32_t)rc < left ? (uint32_t)rc + 1 : left;
		refused = (uint32_t)rc < left ? &list->entries[rc] : NULL;
		rc = 0;
		if (refused && !may_be_left(refused->index, refused->data))
			rc = err_set(e,
				     "vCPU %u: this host does not take MSR 0x%" PRIx32
				     " with value 0x%" PRIx64,
				     v->index, refused->index, (uint64_t)refused->data);
		left -= taken;
		memmove(list->entries, list->entries + taken, left * sizeof(list->entries[0]));
	}
	free(list);
	return rc < 0 ? -1 : 0;
}
