/*
 * The MSRs of a vCPU: which ones there are, read and set. The vCPU's own thread, parked; those that
 * there are, once, while the first vCPU is made.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"
#include "vmm/x86_64/arch_x86.h"

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
};

int x86_msrs_find(struct arch *a, struct vcpu *v, struct err *e)
{
	struct kvm_msr_list *all = calloc(1, sizeof(*all) + X86_MSRS_MAX * sizeof(uint32_t));
	struct kvm_msrs *list = new_msrs(X86_MSRS_MAX + 1);
	uint32_t i, n = 0;
	int rc = -1;

	if (!all || !list) {
		err_set(e, "out of memory");
		goto out;
	}
	all->nmsrs = X86_MSRS_MAX;
	if (kvm_ioctl(a->kvm, a->kvm->dev_fd, KVM_GET_MSR_INDEX_LIST, all)) {
		err_errno(e, errno, "KVM_GET_MSR_INDEX_LIST (%u MSRs)", all->nmsrs);
		goto out;
	}
	for (i = 0; i < all->nmsrs; i++)
		if (all->indices[i] != X86_MSR_TSC && all->indices[i] != X86_MSR_TSC_DEADLINE)
			list->entries[n++].index = all->indices[i];
	for (i = 0; i < sizeof(unlisted) / sizeof(unlisted[0]); i++)
		for (uint32_t k = 0; k < unlisted[i].n && n < X86_MSRS_MAX; k++)
			list->entries[n++].index = unlisted[i].first + k;
	/* The TSC is saved as an offset; the deadline goes last: see the order above. */
	list->entries[n++].index = X86_MSR_TSC_DEADLINE;

	/* KVM_GET_MSRS stops at the first one that this CPU has not: take it out, go on there. */
	while (n) {
		list->nmsrs = n;
		rc = x86_vcpu_ioctl(v, KVM_GET_MSRS, list);
		if (rc < 0) {
			err_errno(e, errno, "KVM_GET_MSRS");
			goto out;
		}
		if ((uint32_t)rc >= n)
			break;
		memmove(&list->entries[rc], &list->entries[rc + 1],
			(n - (uint32_t)rc - 1) * sizeof(list->entries[0]));
		n--;
	}
	a->n_msrs = n;
	for (i = 0; i < n; i++)
		a->msrs[i] = list->entries[i].index;
	rc = 0;
out:
	free(all);
	free(list);
	return rc < 0 ? -1 : 0;
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

int x86_msrs_set(struct vcpu *v, const uint32_t *numbers, const uint64_t *values, uint32_t n,
		 struct err *e)
{
	struct kvm_msrs *list = new_msrs(n);
	uint32_t from = 0, i;
	int rc = 0;

	if (!list)
		return err_set(e, "out of memory");
	while (from < n) {
		list->nmsrs = n - from;
		for (i = from; i < n; i++)
			list->entries[i - from] = (struct kvm_msr_entry){
				.index = numbers[i],
				.data = values[i],
			};
		rc = VCPU_IOCTL(v, KVM_SET_MSRS, list, e);
		if (rc < 0)
			break;
		from += (uint32_t)rc;
		/* One that this host has not matters only when it holds something. */
		if (from < n && values[from++]) {
			rc = err_set(e,
				     "vCPU %u: this host does not take MSR 0x%" PRIx32
				     " with value 0x%" PRIx64,
				     v->index, numbers[from - 1], values[from - 1]);
			break;
		}
	}
	free(list);
	return rc < 0 ? -1 : 0;
}
