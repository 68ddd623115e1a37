/*
 * KVM's dirty rings: one a vCPU, in which KVM notes each page that the vCPU dirties, once until the
 * ring is given back. A machine may be asked to have them instead of KVM's bitmap: then it is known
 * who dirties how much, at the price of an exit whenever a ring is full.
 *
 *     entry: empty --KVM: dirtied--> dirty --here: taken--> taken --KVM_RESET_DIRTY_RINGS--> empty
 *
 * The last step write-protects the page again. Before it, later writes to the page leave no trace.
 * So the caller holds one lock from taking pages into its log until they are given back: whoever
 * finds a page in the log, and reads the page then, misses nothing.
 *
 * KVM's own writes for a vCPU (its clock page) are in that vCPU's ring.
 * No locks here: dirty_log.c, the one caller, has the lock.
 */
#ifndef GODWIT_DIRTY_RING_H
#define GODWIT_DIRTY_RING_H

#include <stdint.h>

struct err;
struct kvm;
struct kvm_dirty_gfn;
struct tree;

/* Entries a ring may have: a power of two. KVM keeps some hundred for itself. */
#define DIRTY_RING_MIN 1024
#define DIRTY_RING_MAX 65536

/* Numbers count entries since the ring was made; an entry's place is its number % entries. */
struct dirty_ring {
	struct kvm_dirty_gfn *gfns;
	uint64_t first;	  /* that KVM has not got back */
	uint64_t counted; /* those before it are known to be dirty */
};

struct dirty_rings {
	/* Set before the threads start. */
	const struct kvm *kvm;
	uint32_t entries;
	struct dirty_ring *rings;
	unsigned int n_rings;
};

/* What the tree asks for: 0 for none. -1 for what no KVM has. */
int dirty_ring_entries(const struct tree *t, uint32_t *entries, struct err *e);

/* For n_vcpus of a VM that was made with rings; then each vCPU as it is made. */
int dirty_rings_init(struct dirty_rings *r, const struct kvm *kvm, unsigned int n_vcpus,
		     struct err *e);
int dirty_rings_add(struct dirty_rings *r, int vcpu_fd, struct err *e);
void dirty_rings_free(struct dirty_rings *r);

/* Takes what is in a ring, and tells `note` of each page: how many those were. They must be given
 * back to KVM, which write-protects them. */
uint64_t dirty_rings_take(struct dirty_rings *r, unsigned int vcpu,
			  void (*note)(void *arg, uint32_t slot, uint64_t page), void *arg);
int dirty_rings_give_back(const struct dirty_rings *r, uint64_t n, struct err *e);

/* Pages that the vCPU has dirtied since the ring was made. */
uint64_t dirty_rings_count(struct dirty_rings *r, unsigned int vcpu);

#endif
