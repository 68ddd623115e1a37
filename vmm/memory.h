/*
 * Guest memory: RAM blocks, guest physical address -> host pointer with bounds, and the marks of
 * pages that godwit itself wrote (KVM's dirty log does not see those).
 *
 * Devices reach guest memory only through here and devices/virtio/queue.c, which mark *after* the
 * write. A host pointer is for one use at once, never kept across calls.
 * Blocks are set before any thread starts; the marks may be set by any thread.
 */
#ifndef GODWIT_MEMORY_H
#define GODWIT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct kvm;
struct tree;

#define PAGE_SIZE 4096u

#define MEMORY_BLOCKS_MAX 4

struct memory_block {
	uint64_t gpa;
	uint64_t size; /* bytes, a multiple of PAGE_SIZE */
	uint8_t *host;
	char path[24];	 /* its node in the machine tree: "/memory@100000000" */
	uint64_t *dirty; /* a bit a page, atomic: written by godwit since the last harvest */
	uint64_t *log;	 /* while the log runs: what KVM_GET_DIRTY_LOG writes to, or with dirty
			  * rings, under their lock: dirtied, and not yet fetched or cleared */
};

struct dirty_rings;

struct memory {
	struct memory_block blocks[MEMORY_BLOCKS_MAX];
	unsigned int n_blocks;
	bool marking;		   /* atomic: whether anybody wants the marks */
	int pagemap_fd;		   /* /proc/self/pagemap, opened while that is allowed */
	struct dirty_rings *rings; /* NULL: KVM keeps a bitmap */
};

/* Maps what the /memory@ nodes say. Nothing is touched: untouched pages cost nothing. */
int memory_init(struct memory *m, const struct tree *t, struct err *e);
void memory_free(struct memory *m);

/* Tells KVM of the blocks: slot numbers are the block numbers. */
int memory_attach(struct memory *m, struct kvm *kvm, struct err *e);

uint64_t memory_bytes(const struct memory *m);

/* The host address of [gpa, gpa + len), or NULL when that is not inside one block. */
void *memory_host(const struct memory *m, uint64_t gpa, uint64_t len);

/* Says that godwit has written [gpa, gpa + len), which is inside one block; after the write. */
void memory_mark(struct memory *m, uint64_t gpa, uint64_t len);

/*
 * Which of the `n` pages from `first` of a block were ever touched: sets their bits in `touched`
 * (bit 0 is page `first`; the caller has cleared it). A page that is not is zero, and reading it
 * would cost memory. From /proc/self/pagemap: present or swapped out.
 */
int memory_touched(const struct memory *m, const struct memory_block *b, uint64_t first, uint64_t n,
		   uint64_t *touched, struct err *e);

/*
 * The dirty log: which pages were written since they were last cleared, by the guest (KVM's log)
 * or by godwit (the marks). Starting it makes every page dirty; KVM write-protects a page only when
 * it is cleared, so clear just ahead of reading it:
 *
 *     fetch the bits --> clear those of a chunk --> read its pages
 *
 * One thread. Fetch adds to `bits`, one for each page of the block; those of clear begin at page
 * `first`. Clearing takes whole multiples of 64 pages (but at the block's end). Without KVM's
 * manual protection a fetch clears by itself, and clear does nothing. With dirty rings a fetch
 * clears as well, and clear forgets what was dirtied since, up to the moment at which the page was
 * last protected.
 */
int memory_log_start(struct memory *m, struct kvm *kvm, struct err *e);
int memory_log_fetch(struct memory *m, struct kvm *kvm, unsigned int block, uint64_t *bits,
		     struct err *e);
int memory_log_clear(struct memory *m, struct kvm *kvm, unsigned int block, uint64_t first,
		     uint64_t n, const uint64_t *bits, struct err *e);
void memory_log_stop(struct memory *m, struct kvm *kvm);

/*
 * Gives the host back what whole pages [gpa, gpa + len) of one block hold: they read as zero then,
 * and count as never touched. They are marked, as they may have been sent as they were. -1 when
 * that is no range of pages, or the host keeps them or some of them. Any thread.
 */
int memory_discard(struct memory *m, uint64_t gpa, uint64_t len);

/* Copies; -1 when the range is not inside one block (nothing is copied then). */
int memory_read(const struct memory *m, uint64_t gpa, void *to, size_t len);
int memory_write(struct memory *m, uint64_t gpa, const void *from, size_t len);

#endif
