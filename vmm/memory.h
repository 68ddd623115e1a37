/*
 * Guest memory: RAM blocks, guest physical address -> host pointer with bounds, and the marks of
 * pages that godwit itself wrote (KVM's dirty log does not see those; dirty_log.h adds both).
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

/* Of the host and of the guest: memory_init refuses hosts with other pages. */
#define PAGE_SIZE 4096u

#define MEMORY_BLOCKS_MAX 4

struct memory_block {
	uint64_t gpa;
	uint64_t size; /* bytes, a multiple of PAGE_SIZE */
	uint8_t *host;
	char path[24];	 /* its node in the machine tree: "/memory@100000000" */
	uint64_t *dirty; /* a bit a page, atomic: written by godwit since the last harvest */
};

struct memory {
	struct memory_block blocks[MEMORY_BLOCKS_MAX];
	unsigned int n_blocks;
	bool marking;	/* atomic: whether anybody wants the marks */
	int pagemap_fd; /* /proc/self/pagemap, opened while that is allowed */
};

/* Maps what the /memory@ nodes say. Nothing is touched: untouched pages cost nothing. */
int memory_init(struct memory *m, const struct tree *t, struct err *e);
void memory_free(struct memory *m);

/* Tells KVM of the blocks, as slots of their numbers; again, to change whether it logs writes to
 * them (dirty_log.h). */
int memory_attach(struct memory *m, struct kvm *kvm, bool logged, struct err *e);

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
 * The marks that memory_mark leaves while they are wanted: start forgets older ones, take adds
 * those of a block to `bits` (one for each page) and clears them. One thread, which is the dirty
 * log's.
 */
void memory_marks_start(struct memory *m);
void memory_marks_take(struct memory *m, unsigned int block, uint64_t *bits);
void memory_marks_stop(struct memory *m);

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
