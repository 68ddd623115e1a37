/*
 * Which bytes the other side has of a page: copies of what was sent, of as many pages as there is
 * room for, so that XBZRLE can send what changed since.
 *
 *   stripe = index % 64, each with a lock; set = index / 64 % sets of the stripe; 4 ways a set
 *   index  = page number, moved on for each block
 *
 * Neighbours lie in different stripes, so workers seldom meet, and as many pages in a row as the
 * cache is large all have room. A page that was used in this round or the one before is not thrown
 * out (QEMU's rule): where the guest writes to more than there is room for, some pages stay and
 * gain, instead of each driving out the next.
 *
 * The rule that everything rests on: the cache holds exactly what the destination has. A page that
 * went through page_cache_encode is sent as that says, from the copy that was given to it; one that
 * is sent in any other way is forgotten: page_cache_forget.
 */
#ifndef GODWIT_MIGRATE_CODEC_PAGE_CACHE_H
#define GODWIT_MIGRATE_CODEC_PAGE_CACHE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define PAGE_CACHE_STRIPES 64u
#define PAGE_CACHE_WAYS	   4u

/* One set of each stripe: no cache is smaller. */
#define PAGE_CACHE_BYTES_MIN (PAGE_CACHE_STRIPES * PAGE_CACHE_WAYS * 4096u)

/* What page_cache_encode says instead of a number of bytes. */
#define PAGE_CACHE_MISS	    (-1)
#define PAGE_CACHE_OVERFLOW (-2)

struct page_cache_slot {
	uint64_t key;	/* 0: empty */
	uint32_t round; /* when it was used last */
};

/* What was counted, pages but for the bytes; hits = encoded pages + unchanged. */
struct page_cache_stats {
	uint64_t hits, unchanged, misses, overflows;
	uint64_t in_bytes, out_bytes; /* of the hits: whole pages, and what became of them */
};

struct page_cache_stripe {
	pthread_mutex_t lock;
	/* Under the lock. */
	uint64_t sets;
	struct page_cache_slot *slots; /* PAGE_CACHE_WAYS for each set */
	uint8_t *copies;	       /* a page for each slot */
	struct page_cache_stats stats; /* atomic, for readers */
} __attribute__((aligned(64)));

struct page_cache {
	struct page_cache_stripe stripe[PAGE_CACHE_STRIPES];
	uint64_t bytes;
};

/*
 * An empty cache of about `bytes`, at least PAGE_CACHE_BYTES_MIN: a whole, odd number of sets in
 * each stripe, so that pages a power of two apart do not meet. Memory is used as pages come. -1:
 * there is no memory, or `bytes` is more than the host has.
 */
int page_cache_init(struct page_cache *c, uint64_t bytes, struct err *e);
void page_cache_free(struct page_cache *c);

/* Its size. Any thread. */
uint64_t page_cache_bytes(const struct page_cache *c);

/*
 * What is to be sent of a page in this round (from 1). `page` is a copy that nobody changes, and
 * the cache believes from here on that the destination has it. Any thread, but for each page one at
 * a time. Returns
 *
 *   - 1 or more: so many bytes in `out` are the page in XBZRLE;
 *   - 0: the destination has just this;
 *   - PAGE_CACHE_MISS: it was not in the cache, and is now, unless its set is full of hot pages;
 *   - PAGE_CACHE_OVERFLOW: more than out_max bytes.
 *
 * After the last two the copy is to be sent, as it is or compressed.
 */
int page_cache_encode(struct page_cache *c, unsigned int block, uint64_t page_no, uint32_t round,
		      const void *page, uint8_t *out, size_t out_max);

/* The page was or will be sent in another way: zero, or straight from guest memory. Any thread. */
void page_cache_forget(struct page_cache *c, unsigned int block, uint64_t page_no);

/* The sum over all stripes, at about one moment. Any thread. */
void page_cache_count(const struct page_cache *c, struct page_cache_stats *out);

#endif
