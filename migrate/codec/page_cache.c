/*
 * The cache of what was sent: see page_cache.h. Each stripe is a cache of its own: whatever is done
 * to a page is done under the lock of its stripe, and nobody holds two of them.
 */
#include "migrate/codec/page_cache.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/codec/xbzrle.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

/* A page that was used so many rounds ago, or less, is hot (1: in the round before). */
#define HOT_ROUNDS 1u

/* Blocks begin far apart, so that their pages with low numbers do not share sets. */
#define BLOCK_STEP 0x9e3779b1u

static uint64_t key_of(unsigned int block, uint64_t page_no)
{
	return ((uint64_t)block + 1) << 56 | page_no;
}

static uint64_t index_of(uint64_t key)
{
	return (key & ((1ull << 56) - 1)) + (key >> 56) * BLOCK_STEP;
}

static struct page_cache_stripe *stripe_of(struct page_cache *c, uint64_t key)
{
	return &c->stripe[index_of(key) % PAGE_CACHE_STRIPES];
}

static struct page_cache_slot *set_of(const struct page_cache_stripe *s, uint64_t key)
{
	return s->slots + index_of(key) / PAGE_CACHE_STRIPES % s->sets * PAGE_CACHE_WAYS;
}

static uint8_t *copy_of(const struct page_cache_stripe *s, const struct page_cache_slot *slot)
{
	return s->copies + (size_t)(slot - s->slots) * PAGE_SIZE;
}

static struct page_cache_slot *find(const struct page_cache_stripe *s, uint64_t key)
{
	struct page_cache_slot *set = set_of(s, key);
	unsigned int i;

	for (i = 0; i < PAGE_CACHE_WAYS; i++)
		if (set[i].key == key)
			return &set[i];
	return NULL;
}

/* An empty slot of the set, or the one that was used longest ago. */
static struct page_cache_slot *oldest(const struct page_cache_stripe *s, uint64_t key)
{
	struct page_cache_slot *set = set_of(s, key), *best = set;
	unsigned int i;

	for (i = 0; i < PAGE_CACHE_WAYS; i++) {
		if (!set[i].key)
			return &set[i];
		if (set[i].round < best->round)
			best = &set[i];
	}
	return best;
}

static void put(struct page_cache_stripe *s, struct page_cache_slot *slot, uint64_t key,
		uint32_t round, const void *page)
{
	slot->key = key;
	slot->round = round;
	memcpy(copy_of(s, slot), page, PAGE_SIZE);
}

/* Written under the stripe's lock, read without it. */
static void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static int encode_hit(struct page_cache_stripe *s, struct page_cache_slot *slot, uint32_t round,
		      const void *page, uint8_t *out, size_t out_max)
{
	uint8_t *copy = copy_of(s, slot);
	int n = xbzrle_encode(copy, page, out, out_max);

	slot->round = round;
	if (n < 0) {
		memcpy(copy, page, PAGE_SIZE);
		count(&s->stats.overflows, 1);
		return PAGE_CACHE_OVERFLOW;
	}
	/* Little has changed: so little is written here, too. What the encoder made it decodes. */
	xbzrle_decode(out, (size_t)n, copy);
	count(&s->stats.hits, 1);
	count(&s->stats.unchanged, n == 0);
	count(&s->stats.in_bytes, PAGE_SIZE);
	count(&s->stats.out_bytes, (uint64_t)n);
	return n;
}

int page_cache_encode(struct page_cache *c, unsigned int block, uint64_t page_no, uint32_t round,
		      const void *page, uint8_t *out, size_t out_max)
{
	uint64_t key = key_of(block, page_no);
	struct page_cache_stripe *s = stripe_of(c, key);
	struct page_cache_slot *slot;
	int n = PAGE_CACHE_MISS;

	pthread_mutex_lock(&s->lock);
	slot = find(s, key);
	if (slot) {
		n = encode_hit(s, slot, round, page, out, out_max);
	} else {
		count(&s->stats.misses, 1);
		slot = oldest(s, key);
		if (!slot->key || slot->round + HOT_ROUNDS < round)
			put(s, slot, key, round, page);
	}
	pthread_mutex_unlock(&s->lock);
	return n;
}

void page_cache_forget(struct page_cache *c, unsigned int block, uint64_t page_no)
{
	uint64_t key = key_of(block, page_no);
	struct page_cache_stripe *s = stripe_of(c, key);
	struct page_cache_slot *slot;

	pthread_mutex_lock(&s->lock);
	slot = find(s, key);
	if (slot)
		*slot = (struct page_cache_slot){ 0 };
	pthread_mutex_unlock(&s->lock);
}

void page_cache_count(const struct page_cache *c, struct page_cache_stats *out)
{
	unsigned int i;

	*out = (struct page_cache_stats){ 0 };
	for (i = 0; i < PAGE_CACHE_STRIPES; i++) {
		const struct page_cache_stats *s = &c->stripe[i].stats;

		out->hits += __atomic_load_n(&s->hits, __ATOMIC_RELAXED);
		out->unchanged += __atomic_load_n(&s->unchanged, __ATOMIC_RELAXED);
		out->misses += __atomic_load_n(&s->misses, __ATOMIC_RELAXED);
		out->overflows += __atomic_load_n(&s->overflows, __ATOMIC_RELAXED);
		out->in_bytes += __atomic_load_n(&s->in_bytes, __ATOMIC_RELAXED);
		out->out_bytes += __atomic_load_n(&s->out_bytes, __ATOMIC_RELAXED);
	}
}

/* -- size -- */

/* An odd number, at least one, that takes no more than there is. */
static uint64_t sets_for(uint64_t bytes)
{
	uint64_t sets = bytes / PAGE_CACHE_BYTES_MIN;

	return sets < 1 ? 1 : sets - !(sets & 1);
}

static int make_stripe(struct page_cache_stripe *s, uint64_t sets)
{
	size_t n = (size_t)sets * PAGE_CACHE_WAYS;

	s->sets = sets;
	s->slots = calloc(n, sizeof(s->slots[0]));
	/* Of a size that comes untouched from the kernel, as all but the smallest do. */
	s->copies = aligned_alloc(PAGE_SIZE, n * PAGE_SIZE);
	return s->slots && s->copies ? 0 : -1;
}

static void free_stripe(struct page_cache_stripe *s)
{
	free(s->slots);
	free(s->copies);
}

int page_cache_init(struct page_cache *c, uint64_t bytes, struct err *e)
{
	const uint64_t sets = sets_for(bytes);
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	bool made = true;
	unsigned int i;

	memset(c, 0, sizeof(*c));
	/* Memory is promised freely, and missed only when pages come: then the process would end.
	 */
	if (bytes > host)
		return err_set(e, "a page cache of %" PRIu64 " MiB, this host has %" PRIu64 " MiB",
			       bytes >> 20, host >> 20);
	for (i = 0; i < PAGE_CACHE_STRIPES; i++) {
		pthread_mutex_init(&c->stripe[i].lock, NULL);
		made = made && make_stripe(&c->stripe[i], sets) == 0;
	}
	if (!made) {
		page_cache_free(c);
		return err_set(e, "there is no memory for a page cache of %" PRIu64 " MiB",
			       bytes >> 20);
	}
	c->bytes = sets * PAGE_CACHE_BYTES_MIN;
	return 0;
}

void page_cache_free(struct page_cache *c)
{
	unsigned int i;

	for (i = 0; i < PAGE_CACHE_STRIPES; i++) {
		free_stripe(&c->stripe[i]);
		pthread_mutex_destroy(&c->stripe[i].lock);
	}
	memset(c, 0, sizeof(*c));
}

uint64_t page_cache_bytes(const struct page_cache *c)
{
	return c->bytes;
}
