/* Dirty pages. Only dirty_found runs on other threads than the migration's. */
#include "migrate/source/dirty.h"

#include <stdlib.h>
#include <string.h>

#include "migrate/decisions.h"
#include "migrate/guest_log.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/base/wake.h"
#include "vmm/memory.h"

/* Samples are cleared in steps: KVM holds vCPUs up meanwhile. A multiple of 64. */
#define SAMPLE_STEP_PAGES (64u << 10)

static uint64_t words_of(const struct dirty *d, unsigned int block)
{
	return BITMAP_WORDS(d->guest->blocks[block].pages);
}

int dirty_init(struct dirty *d, struct guest *g, int stop_fd, const struct decisions *decisions,
	       struct err *e)
{
	unsigned int i;

	*d = (struct dirty){ .guest = g, .stop_fd = stop_fd, .decisions = decisions };
	d->touched = calloc(BITMAP_WORDS(DIRTY_STEP_MAX), sizeof(uint64_t));
	if (!d->touched)
		return err_set(e, "out of memory");
	for (i = 0; i < g->n_blocks; i++) {
		/* The last chunk of a block is read whole. */
		d->pending[i] = calloc(words_of(d, i) + CHUNK_WORDS, sizeof(uint64_t));
		d->again[i] = calloc(words_of(d, i), sizeof(uint64_t));
		if (!d->pending[i] || !d->again[i])
			return err_set(e, "out of memory");
	}
	return 0;
}

void dirty_free(struct dirty *d)
{
	unsigned int i;

	for (i = 0; i < GUEST_BLOCKS_MAX; i++) {
		free(d->pending[i]);
		free(d->again[i]);
		free(d->named[i]);
	}
	free(d->touched);
	free(d->samples);
	*d = (struct dirty){ 0 };
}

int dirty_start(struct dirty *d, struct err *e)
{
	if (d->guest->ops->log_start(d->guest, e))
		return -1;
	d->logging = true;
	return 0;
}

void dirty_stop(struct dirty *d)
{
	if (d->logging)
		d->guest->ops->log_stop(d->guest);
	d->logging = false;
}

/* -- free pages -- */

/* Pages of a block were named. Any thread. */
static void dirty_found(void *arg, unsigned int block, uint64_t first, uint64_t n)
{
	uint64_t *named = ((struct dirty *)arg)->named[block], at = first, end = first + n;

	while (at < end) {
		uint64_t bits = min_u64(64 - at % 64, end - at), mask;

		mask = (bits < 64 ? (1ull << bits) - 1 : UINT64_MAX) << (at % 64);
		__atomic_fetch_or(&named[at / 64], mask, __ATOMIC_RELAXED);
		at += bits;
	}
}

/* Nothing else is in `pending` yet. */
static int clear_log(struct dirty *d, unsigned int block, struct err *e)
{
	size_t bytes = words_of(d, block) * sizeof(uint64_t);
	int rc;

	memset(d->pending[block], 0xff, bytes);
	rc = guest_log_clear(d->guest, block, d->pending[block], d->stop_fd, e);
	memset(d->pending[block], 0, bytes);
	return rc;
}

int dirty_ask_free(struct dirty *d, struct err *e)
{
	unsigned int i;

	if (!d->guest->ops->names_free_pages(d->guest))
		return 0;
	for (i = 0; i < d->guest->n_blocks; i++) {
		d->named[i] = calloc(words_of(d, i), sizeof(uint64_t));
		if (!d->named[i])
			return err_set(e, "out of memory");
		if (clear_log(d, i, e))
			return -1;
	}
	d->asked = d->listening = true;
	d->guest->ops->free_pages_name(d->guest, dirty_found, d);
	return 0;
}

/* Removes from `pending` what was named by now: before these pages are cleared in the log. */
static void leave_out_free(struct dirty *d, unsigned int block, uint64_t first, uint64_t n)
{
	const uint64_t *named = d->named[block];
	uint64_t w;

	for (w = first / 64; named && w < BITMAP_WORDS(first + n); w++)
		d->pending[block][w] &= ~__atomic_load_n(&named[w], __ATOMIC_RELAXED);
}

void dirty_stop_free(struct dirty *d)
{
	if (!d->listening)
		return;
	d->listening = false;
	d->guest->ops->free_pages_stop(d->guest);
	if (!d->left_out)
		return;
	decision_tell(d->decisions, DECISION_FREE_PAGES,
		      "the guest does not use %llu MiB: they are left out of the first round",
		      (unsigned long long)(d->left_out * PAGE_SIZE >> 20));
}

void dirty_end_free(struct dirty *d)
{
	dirty_stop_free(d);
	if (d->asked)
		d->guest->ops->free_pages_done(d->guest);
	d->asked = false;
}

/* -- before the first round -- */

int dirty_guess(struct dirty *d, struct err *e)
{
	unsigned int i;

	for (i = 0; i < d->guest->n_blocks; i++)
		if (d->guest->ops->touched(d->guest, i, 0, d->guest->blocks[i].pages, d->pending[i],
					   e))
			return -1;
	return 0;
}

const uint64_t *dirty_guessed(const struct dirty *d, unsigned int block)
{
	return d->pending[block];
}

/* One bit of each word; scattered, as guests like even distances. */
static uint64_t sample_of(uint64_t word)
{
	return 1ull << (word * 0x9e3779b97f4a7c15ull >> 58);
}

int dirty_begin_samples(struct dirty *d, struct err *e)
{
	d->samples = calloc(BITMAP_WORDS(SAMPLE_STEP_PAGES), sizeof(uint64_t));
	if (!d->samples)
		return err_set(e, "out of memory");
	/* If fetching removes pages from the log, all must be removed before the first sample. */
	return guest_log_fetch(d->guest, d->again, e);
}

static int sample_step(struct dirty *d, unsigned int block, uint64_t first, uint64_t n,
		       struct err *e)
{
	uint64_t w;

	for (w = 0; w < BITMAP_WORDS(n); w++) {
		d->samples[w] = sample_of(first / 64 + w);
		d->again[block][first / 64 + w] &= ~d->samples[w];
	}
	return d->guest->ops->log_clear(d->guest, block, first, n, d->samples, e);
}

int dirty_sample(struct dirty *d, unsigned int block, uint64_t first, uint64_t n, struct err *e)
{
	uint64_t end = first + n;

	/* All of the log was cleared before the guest was asked for free pages. A write that it
	 * has seen since then must not be lost. */
	if (d->asked)
		return 0;
	for (; first < end; first += n) {
		n = min_u64(end - first, SAMPLE_STEP_PAGES);
		if (wake_nap(d->stop_fd, 0, e) || sample_step(d, block, first, n, e))
			return -1;
	}
	return 0;
}

static bool is_hot(const struct dirty *d, unsigned int block, uint64_t first)
{
	uint64_t w = first / 64, end = min_u64(words_of(d, block), w + CHUNK_WORDS);

	for (; w < end; w++)
		if (d->again[block][w] & sample_of(w))
			return true;
	return false;
}

/* -- in a round -- */

uint64_t dirty_next_pending(const struct dirty *d, unsigned int block, uint64_t from, uint64_t end)
{
	return bitmap_next_set(d->pending[block], end, from);
}

static int take(struct dirty *d, unsigned int block, uint64_t first, uint64_t n, struct err *e)
{
	const uint64_t *bits = d->pending[block] + first / 64;
	uint64_t w;

	d->step.block = block;
	d->step.at = d->step.first = first;
	d->step.end = first + n;
	if (d->logging && d->guest->ops->log_clear(d->guest, block, first, n, bits, e))
		return -1;
	/* What was seen before of the pages to be sent now no longer counts. */
	for (w = first / 64; w < BITMAP_WORDS(first + n); w++)
		d->again[block][w] &= ~d->pending[block][w];
	return 0;
}

int dirty_take(struct dirty *d, unsigned int block, uint64_t first, uint64_t n, struct err *e)
{
	memset(d->step.hot, 0, sizeof(d->step.hot));
	return take(d, block, first, n, e);
}

/* Of the pending pages those stay that were ever touched. */
static int keep_touched(struct dirty *d, unsigned int block, uint64_t first, uint64_t n,
			struct err *e)
{
	uint64_t *bits = d->pending[block] + first / 64, *touched = d->touched, i;

	memset(touched, 0, BITMAP_WORDS(n) * sizeof(touched[0]));
	if (d->guest->ops->touched(d->guest, block, first, n, touched, e))
		return -1;
	for (i = 0; i < BITMAP_WORDS(n); i++) {
		d->left_out += (uint64_t)__builtin_popcountll(touched[i] & ~bits[i]);
		bits[i] &= touched[i];
	}
	return 0;
}

int dirty_take_first(struct dirty *d, unsigned int block, uint64_t first, uint64_t n,
		     uint64_t *to_send, struct err *e)
{
	uint64_t *bits = d->pending[block] + first / 64, at;

	/* Before the samples are taken with the other pages. */
	memset(d->step.hot, 0, sizeof(d->step.hot));
	for (at = 0; d->samples && at < n; at += CHUNK_PAGES)
		if (is_hot(d, block, first + at))
			bitmap_set(d->step.hot, at / CHUNK_PAGES);
	memset(bits, 0xff, BITMAP_WORDS(n) * sizeof(bits[0]));
	leave_out_free(d, block, first, n);
	if (take(d, block, first, n, e) || keep_touched(d, block, first, n, e))
		return -1;
	*to_send = bitmap_count(bits, n);
	return 0;
}

bool dirty_next(struct dirty *d, struct chunk *c, bool *hot)
{
	struct dirty_step *step = &d->step;
	uint64_t *bits, first;

	first = dirty_next_pending(d, step->block, step->at, step->end);
	if (first >= step->end)
		return false;
	first -= first % CHUNK_PAGES;
	bits = d->pending[step->block] + first / 64;
	c->block = step->block;
	c->first = first;
	memcpy(c->pages, bits, sizeof(c->pages));
	memset(bits, 0, sizeof(c->pages));
	*hot = bitmap_test(step->hot, (first - step->first) / CHUNK_PAGES);
	step->at = first + CHUNK_PAGES;
	return true;
}

void dirty_defer(struct dirty *d, const struct chunk *c)
{
	unsigned int i;

	for (i = 0; i < CHUNK_WORDS; i++)
		if (c->pages[i])
			d->again[c->block][c->first / 64 + i] |= c->pages[i];
}

int dirty_look(struct dirty *d, struct err *e)
{
	return guest_log_fetch(d->guest, d->again, e);
}

uint64_t dirty_left(const struct dirty *d)
{
	uint64_t n = 0, w;
	unsigned int i;

	for (i = 0; i < d->guest->n_blocks; i++)
		for (w = 0; w < words_of(d, i); w++)
			n += (uint64_t)__builtin_popcountll(d->again[i][w] & ~d->pending[i][w]);
	return n;
}

int dirty_fetch(struct dirty *d, uint64_t *count, struct err *e)
{
	unsigned int i;
	uint64_t w;

	for (i = 0; i < d->guest->n_blocks; i++)
		for (w = 0; w < words_of(d, i); w++) {
			d->pending[i][w] |= d->again[i][w];
			d->again[i][w] = 0;
		}
	if (guest_log_fetch(d->guest, d->pending, e))
		return -1;
	*count = 0;
	for (i = 0; i < d->guest->n_blocks; i++)
		*count += bitmap_count(d->pending[i], d->guest->blocks[i].pages);
	return 0;
}
