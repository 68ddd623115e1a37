/* Pages that the guest does not use: see unused.h. */
#include "migrate/source/unused.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/guest_log.h"
#include "migrate/source/source.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

void unused_found(void *arg, unsigned int block, uint64_t first, uint64_t n)
{
	uint64_t *named = ((struct source *)arg)->unused.named[block], at = first, end = first + n;

	while (at < end) {
		uint64_t bits = 64 - at % 64, mask;

		bits = bits < end - at ? bits : end - at;
		mask = (bits < 64 ? (1ull << bits) - 1 : UINT64_MAX) << (at % 64);
		__atomic_fetch_or(&named[at / 64], mask, __ATOMIC_RELAXED);
		at += bits;
	}
}

/* Before anything else is in `pending`. */
static int clear_log(struct source *s, unsigned int block, struct err *e)
{
	size_t bytes = BITMAP_WORDS(s->guest->blocks[block].pages) * sizeof(uint64_t);
	int rc;

	memset(s->pending[block], 0xff, bytes);
	rc = guest_log_clear(s->guest, block, s->pending[block], s->stop_fd, e);
	memset(s->pending[block], 0, bytes);
	return rc;
}

int unused_ask(struct source *s, struct err *e)
{
	unsigned int i;

	if (!s->guest->ops->names_free_pages(s->guest))
		return 0;
	for (i = 0; i < s->guest->n_blocks; i++) {
		s->unused.named[i] = calloc(BITMAP_WORDS(s->guest->blocks[i].pages),
					    sizeof(uint64_t));
		if (!s->unused.named[i])
			return err_set(e, "out of memory");
		if (clear_log(s, i, e))
			return -1;
	}
	s->unused.asked = s->unused.listening = true;
	s->guest->ops->free_pages_name(s->guest, unused_found, s);
	return 0;
}

void unused_leave_out(struct source *s, unsigned int block, uint64_t first, uint64_t n)
{
	const uint64_t *named = s->unused.named[block];
	uint64_t w;

	for (w = first / 64; named && w < BITMAP_WORDS(first + n); w++)
		s->pending[block][w] &= ~__atomic_load_n(&named[w], __ATOMIC_RELAXED);
}

void unused_stop(struct source *s)
{
	if (!s->unused.listening)
		return;
	s->unused.listening = false;
	s->guest->ops->free_pages_stop(s->guest);
	if (!s->unused.pages)
		return;
	decision_tell(&s->decisions, DECISION_FREE_PAGES,
		      "the guest does not use %llu MiB: they are left out of the first round",
		      (unsigned long long)(s->unused.pages * PAGE_SIZE >> 20));
}

void unused_done(struct source *s)
{
	unused_stop(s);
	if (s->unused.asked)
		s->guest->ops->free_pages_done(s->guest);
	s->unused.asked = false;
}

void unused_free(struct source *s)
{
	unsigned int i;

	for (i = 0; i < GUEST_BLOCKS_MAX; i++)
		free(s->unused.named[i]);
}
