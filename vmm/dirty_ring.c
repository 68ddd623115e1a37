/*
 * KVM's protocol of the rings is in its API documentation, below KVM_CAP_DIRTY_LOG_RING: entries
 * are taken in order, an entry's flags are read with acquire and written with release.
 */
#include "vmm/dirty_ring.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "vmm/base/err.h"
#include "vmm/kvm.h"
#include "vmm/memory.h"
#include "vmm/tree.h"

/* Signals come one at a time; so many calls in a row that do nothing are something else. */
#define VAIN_MAX 1000

int dirty_ring_entries(const struct tree *t, uint32_t *entries, struct err *e)
{
	*entries = 0;
	if (!tree_has(t, "/host", "dirty-ring"))
		return 0;
	if (tree_u32(t, "/host", "dirty-ring", entries, e))
		return -1;
	if (*entries &&
	    (*entries < DIRTY_RING_MIN || *entries > DIRTY_RING_MAX || (*entries & (*entries - 1))))
		return err_set(e,
			       "/host: a dirty ring of %" PRIu32 " entries (expected a power of "
			       "two from %d to %d)",
			       *entries, DIRTY_RING_MIN, DIRTY_RING_MAX);
	return 0;
}

int dirty_rings_init(struct dirty_rings *r, const struct kvm *kvm, unsigned int n_vcpus,
		     struct err *e)
{
	*r = (struct dirty_rings){ .kvm = kvm, .entries = kvm->ring_entries };
	r->rings = calloc(n_vcpus, sizeof(r->rings[0]));
	return r->rings ? 0 : err_set(e, "out of memory");
}

static size_t ring_bytes(const struct dirty_rings *r)
{
	return r->entries * sizeof(struct kvm_dirty_gfn);
}

int dirty_rings_add(struct dirty_rings *r, int vcpu_fd, struct err *e)
{
	void *map = mmap(NULL, ring_bytes(r), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd,
			 (off_t)KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_SIZE);

	if (map == MAP_FAILED)
		return err_errno(e, errno, "cannot map the dirty ring of vCPU %u", r->n_rings);
	r->rings[r->n_rings++].gfns = map;
	return 0;
}

void dirty_rings_free(struct dirty_rings *r)
{
	while (r->n_rings)
		munmap(r->rings[--r->n_rings].gfns, ring_bytes(r));
	free(r->rings);
}

static struct kvm_dirty_gfn *entry(const struct dirty_rings *r, const struct dirty_ring *ring,
				   uint64_t number)
{
	return &ring->gfns[number % r->entries];
}

static bool is_dirty(const struct kvm_dirty_gfn *g)
{
	return __atomic_load_n(&g->flags, __ATOMIC_ACQUIRE) == KVM_DIRTY_GFN_F_DIRTY;
}

/* Counts what has come; a ring that was not given back ends where it begins. */
static void count(const struct dirty_rings *r, struct dirty_ring *ring)
{
	while (ring->counted - ring->first < r->entries && is_dirty(entry(r, ring, ring->counted)))
		ring->counted++;
}

uint64_t dirty_rings_take(struct dirty_rings *r, unsigned int vcpu,
			  void (*note)(void *arg, uint32_t slot, uint64_t page), void *arg)
{
	struct dirty_ring *ring = &r->rings[vcpu];
	uint64_t start = ring->first;

	count(r, ring);
	for (; ring->first < ring->counted; ring->first++) {
		struct kvm_dirty_gfn *g = entry(r, ring, ring->first);

		note(arg, g->slot, g->offset);
		__atomic_store_n(&g->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
	return ring->first - start;
}

/*
 * KVM says how many it took back. A signal that is pending (the end of a slice) makes it stop
 * early; what it has not seen then stays taken, and its ring full, until it is asked again.
 */
int dirty_rings_give_back(const struct dirty_rings *r, uint64_t n, struct err *e)
{
	unsigned int vain = 0;
	int rc;

	while (n) {
		rc = ioctl(r->kvm->vm_fd, KVM_RESET_DIRTY_RINGS, 0);
		if (rc < 0 && errno != EINTR && errno != EAGAIN)
			return err_errno(e, errno, "KVM_RESET_DIRTY_RINGS");
		if (rc > 0 ? (uint64_t)rc > n : ++vain > VAIN_MAX)
			return err_set(e,
				       "KVM_RESET_DIRTY_RINGS took %d entries back of the %" PRIu64
				       " that were left",
				       rc, n);
		n -= rc > 0 ? (uint64_t)rc : 0;
	}
	return 0;
}

uint64_t dirty_rings_count(struct dirty_rings *r, unsigned int vcpu)
{
	count(r, &r->rings[vcpu]);
	return r->rings[vcpu].counted;
}
