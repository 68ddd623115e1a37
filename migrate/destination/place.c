/* Pages into memory that is there as a whole: see place.h. */
#include "migrate/destination/place.h"

#include <string.h>
#include <sys/mman.h>

#include "migrate/codec/zero.h"
#include "migrate/guest.h"
#include "vmm/memory.h"

/* Since Linux 5.14. Older kernels refuse it; then the data touch the memory themselves. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static uint8_t *memory_direct(struct place *p, unsigned int block, uint64_t first, uint64_t n)
{
	(void)n;
	return p->guest->blocks[block].host + first * PAGE_SIZE;
}

static int memory_copy(struct place *p, unsigned int block, uint64_t first, uint64_t n,
		       const void *pages, struct err *e)
{
	(void)e;
	memcpy(memory_direct(p, block, first, n), pages, n * PAGE_SIZE);
	return 0;
}

/* A page that was never touched reads as zero: writing to it would cost memory. */
static int memory_zero(struct place *p, unsigned int block, uint64_t first, uint64_t n,
		       struct err *e)
{
	uint8_t *host = memory_direct(p, block, first, n);

	(void)e;
	for (; n; n--, host += PAGE_SIZE)
		if (!zero_page(host))
			memset(host, 0, PAGE_SIZE);
	return 0;
}

static int memory_prepare(struct place *p, unsigned int block, uint64_t first, uint64_t n)
{
	return madvise(memory_direct(p, block, first, n), n * PAGE_SIZE, MADV_POPULATE_WRITE);
}

static const struct place_ops memory_ops = {
	.direct = memory_direct,
	.copy = memory_copy,
	.zero = memory_zero,
	.prepare = memory_prepare,
};

void place_memory_init(struct place *p, const struct guest *g)
{
	*p = (struct place){ .ops = &memory_ops, .guest = g, .keeps_old = true };
}

bool place_has(const struct place *p, uint64_t block, uint64_t first, uint64_t n)
{
	return block < p->guest->n_blocks && first < p->guest->blocks[block].pages &&
	       n <= p->guest->blocks[block].pages - first;
}
