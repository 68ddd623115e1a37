/*
 * The dirty log: which pages were written since they were last cleared, by the guest (KVM's bitmap
 * or its dirty rings) or by godwit (the marks of memory.h). Starting it makes every page dirty; KVM
 * write-protects a page only when it is cleared, so clear just ahead of reading it:
 *
 *     fetch the bits --> clear those of a chunk --> read its pages
 *
 * One thread starts, fetches, clears and stops. vCPU threads harvest their own ring when it is
 * full.
 */
#ifndef GODWIT_DIRTY_LOG_H
#define GODWIT_DIRTY_LOG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/dirty_ring.h"
#include "vmm/memory.h"

struct err;
struct kvm;

struct dirty_log {
	/* Set before the threads start. */
	struct kvm *kvm;
	struct memory *memory;
	bool has_rings; /* else KVM keeps a bitmap */

	pthread_mutex_t lock; /* with rings: for them and for `bits` */
	struct dirty_rings rings;
	/* While the log runs. Without rings: what KVM_GET_DIRTY_LOG writes to. With rings: pages
	 * that are dirty, and neither fetched nor cleared yet. */
	uint64_t *bits[MEMORY_BLOCKS_MAX];
};

/* For a VM of n_vcpus, with rings if the VM was made with them; then each vCPU as it is made. */
int dirty_log_init(struct dirty_log *l, struct kvm *kvm, struct memory *memory,
		   unsigned int n_vcpus, struct err *e);
int dirty_log_add_vcpu(struct dirty_log *l, int vcpu_fd, struct err *e);
void dirty_log_free(struct dirty_log *l); /* also one that is zeroed */

int dirty_log_start(struct dirty_log *l, struct err *e);
void dirty_log_stop(struct dirty_log *l);

/*
 * Fetch adds to `bits`, one for each page of the block; those of clear begin at page `first`.
 * Clearing takes whole multiples of 64 pages (except at the block's end). Without KVM's manual
 * protection a fetch clears by itself, and clear does nothing. With dirty rings a fetch clears as
 * well, and clear forgets what was dirtied since, up to the moment at which the page was last
 * protected.
 */
int dirty_log_fetch(struct dirty_log *l, unsigned int block, uint64_t *bits, struct err *e);
int dirty_log_clear(struct dirty_log *l, unsigned int block, uint64_t first, uint64_t n,
		    const uint64_t *bits, struct err *e);

/* Takes what is in a vCPU's ring into the log, if it runs, and gives the ring back to KVM. Any
 * thread, with rings. */
int dirty_log_harvest(struct dirty_log *l, unsigned int vcpu, struct err *e);

/* Pages that the vCPU has dirtied while the log ran; it only ever grows. 0 without rings. Any
 * thread. */
uint64_t dirty_log_dirtied(struct dirty_log *l, unsigned int vcpu);

#endif
