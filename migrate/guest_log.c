/* The dirty log of a whole guest: see guest_log.h. */
#include "migrate/guest_log.h"

#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/base/wake.h"

/* A multiple of 64. */
#define STEP_PAGES (64u << 10)

int guest_log_fetch(struct guest *g, uint64_t *const bits[GUEST_BLOCKS_MAX], struct err *e)
{
	unsigned int i;

	for (i = 0; i < g->n_blocks; i++)
		if (g->ops->log_fetch(g, i, bits[i], e))
			return -1;
	return 0;
}

int guest_log_clear(struct guest *g, unsigned int block, const uint64_t *bits, int stop_fd,
		    struct err *e)
{
	uint64_t pages = g->blocks[block].pages, at = 0, n;

	for (; (at = bitmap_next_set(bits, pages, at)) < pages; at += n) {
		at -= at % 64;
		n = min_u64(pages - at, STEP_PAGES);
		if (wake_nap(stop_fd, 0, e) ||
		    g->ops->log_clear(g, block, at, n, bits + at / 64, e))
			return -1;
	}
	return 0;
}
