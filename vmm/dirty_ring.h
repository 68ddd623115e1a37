/*
 * KVM's dirty rings: one a vCPU, in which KVM notes each page that the vCPU dirties, once until the
 * ring is given back. In place of KVM's bitmap, where a machine was asked to have them: then it is
 * known who dirties how much, at the price of an exit whenever a ring is full.
 *
 *     entry: empty --KVM: dirtied--> dirty --here: taken--> taken --KVM_RESET_DIRTY_RINGS--> empty
 *
 * The last step write-protects the page again. Before it, later writes to the page leave no trace;
 * so a page is marked in the memory's log under the lock that is held until that step is done:
 * whoever finds the mark, and reads the page then, misses nothing.
 *
 * KVM's own writes for a vCPU (its clock page) are in that vCPU's ring. A ring is harvested by its
 * vCPU's thread where it is full, and by whoever fetches the log.
 */
#ifndef GODWIT_DIRTY_RING_H
#define GODWIT_DIRTY_RING_H

#include <pthread.h>
#include <stdint.h>

struct err;
struct kvm;
struct kvm_dirty_gfn;
struct memory;
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
	struct memory *memory;
	uint32_t entries;
	struct dirty_ring *rings;
	unsigned int n_rings;

	pthread_mutex_t lock; /* the rings, and the log of each memory block */
};

/* What the tree asks for: 0 for none. -1 for what no KVM has. */
int dirty_ring_entries(const struct tree *t, uint32_t *entries, struct err *e);

/* For so many vCPUs of a VM that was made with rings; one by one as they are made. */
int dirty_rings_init(struct dirty_rings *r, const struct kvm *kvm, struct memory *memory,
		     unsigned int n_vcpus, struct err *e);
int dirty_rings_add(struct dirty_rings *r, int vcpu_fd, struct err *e);
void dirty_rings_free(struct dirty_rings *r);

/*
 * Takes what is in a ring into the memory's log, if it runs, and gives the entries back to KVM.
 * Any thread.
 */
int dirty_rings_harvest(struct dirty_rings *r, unsigned int vcpu, struct err *e);
/* All of them, with the lock held: for memory.c. */
int dirty_rings_harvest_all(struct dirty_rings *r, struct err *e);

/* Pages that the vCPU has dirtied so far; only ever grows, while the log runs. Any thread. */
uint64_t dirty_rings_count(struct dirty_rings *r, unsigned int vcpu);

#endif
