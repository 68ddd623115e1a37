/* Within a round: see watch.h. */
#include "migrate/source/watch.h"

#include <stdlib.h>
#include <string.h>

#include "migrate/guest_log.h"
#include "migrate/source/source.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/base/wake.h"
#include "vmm/memory.h"

/* Looks are CONVERGE_LOOK_US apart. If a look costs over 1/LOOK_SHARE of that, they get rarer, up
 * to LOOK_MAX_US; beyond it only to stay below 1/LOOK_LARGE_SHARE. */
#define LOOK_SHARE	 20u
#define LOOK_MAX_US	 200000u
#define LOOK_LARGE_SHARE 5u

/* Samples are cleared in steps: KVM holds vCPUs up meanwhile. A multiple of 64. */
#define SAMPLE_STEP_PAGES (64u << 10)

void watch_rest(struct source *s)
{
	brake_release(s);
	s->watch.converge = (struct converge){ .bounds = parameters_throttle_bounds(&s->parameters),
					       .by_limit = s->parameters.dirty_limit };
	dirty_rate_restart(&s->dirty_rate);
}

int watch_init(struct source *s, struct err *e)
{
	unsigned int i;

	s->watch = (struct watch){ 0 };
	watch_rest(s);
	for (i = 0; i < s->guest->n_blocks; i++) {
		s->watch.again[i] = calloc(BITMAP_WORDS(s->guest->blocks[i].pages),
					   sizeof(uint64_t));
		if (!s->watch.again[i])
			return err_set(e, "out of memory");
	}
	return 0;
}

void watch_free(struct source *s)
{
	unsigned int i;

	for (i = 0; i < GUEST_BLOCKS_MAX; i++)
		free(s->watch.again[i]);
	free(s->watch.samples);
}

static uint64_t pages_sent(const struct source *s)
{
	return stats_data_pages(s->stats) + stats_get(&s->stats->zero_pages);
}

void watch_round(struct source *s)
{
	s->watch.at_us = clock_us();
	s->watch.left_pages = 0;
	s->watch.round_limit_us = __atomic_load_n(&s->limits->downtime_us, __ATOMIC_RELAXED);
	s->watch.rest_us = UINT64_MAX;
}

void watch_taken(struct source *s, unsigned int block, uint64_t first, uint64_t n)
{
	uint64_t w;

	for (w = first / 64; w < BITMAP_WORDS(first + n); w++)
		s->watch.again[block][w] &= ~s->pending[block][w];
}

void watch_merge(struct source *s)
{
	unsigned int i;
	uint64_t w;

	for (i = 0; i < s->guest->n_blocks; i++)
		for (w = 0; w < BITMAP_WORDS(s->guest->blocks[i].pages); w++) {
			s->pending[i][w] |= s->watch.again[i][w];
			s->watch.again[i][w] = 0;
		}
}

/* One bit of each word; scattered, as guests like even distances. */
static uint64_t sample_of(uint64_t word)
{
	return 1ull << (word * 0x9e3779b97f4a7c15ull >> 58);
}

int watch_begin_samples(struct source *s, struct err *e)
{
	s->watch.samples = calloc(BITMAP_WORDS(SAMPLE_STEP_PAGES), sizeof(uint64_t));
	if (!s->watch.samples)
		return err_set(e, "out of memory");
	/* Where fetching takes the bits: all of them, for what is sampled to be new. */
	return guest_log_fetch(s->guest, s->watch.again, e);
}

static int sample_step(struct source *s, unsigned int block, uint64_t first, uint64_t n,
		       struct err *e)
{
	uint64_t w;

	for (w = 0; w < BITMAP_WORDS(n); w++) {
		s->watch.samples[w] = sample_of(first / 64 + w);
		s->watch.again[block][first / 64 + w] &= ~s->watch.samples[w];
	}
	return s->guest->ops->log_clear(s->guest, block, first, n, s->watch.samples, e);
}

int watch_sample(struct source *s, unsigned int block, uint64_t first, uint64_t n, struct err *e)
{
	uint64_t end = first + n;

	for (; first < end; first += n) {
		n = end - first < SAMPLE_STEP_PAGES ? end - first : SAMPLE_STEP_PAGES;
		if (wake_nap(s->stop_fd, 0, e) || sample_step(s, block, first, n, e))
			return -1;
	}
	return 0;
}

bool watch_is_hot(const struct source *s, unsigned int block, uint64_t first)
{
	uint64_t w = first / 64, end = BITMAP_WORDS(s->guest->blocks[block].pages);

	end = end < w + CHUNK_WORDS ? end : w + CHUNK_WORDS;
	for (; w < end; w++)
		if (s->watch.again[block][w] & sample_of(w))
			return true;
	return false;
}

void watch_defer(struct source *s, const struct chunk *c)
{
	unsigned int i;

	for (i = 0; i < CHUNK_WORDS; i++)
		if (c->pages[i])
			s->watch.again[c->block][c->first / 64 + i] |= c->pages[i];
}

/* The first round says nothing about the next ones. */
static bool may_slow(const struct source *s)
{
	return parameters_may_slow(&s->parameters) && stats_get(&s->stats->round) > 1;
}

/* Pages that are dirty and that this round will not send. */
static uint64_t count_again(const struct source *s)
{
	uint64_t n = 0, w;
	unsigned int i;

	for (i = 0; i < s->guest->n_blocks; i++)
		for (w = 0; w < BITMAP_WORDS(s->guest->blocks[i].pages); w++)
			n += (uint64_t)__builtin_popcountll(s->watch.again[i][w] &
							    ~s->pending[i][w]);
	return n;
}

/* Takes a sample of what the log says by now: `left` pages are dirty and not for this round. */
static void slow_down(struct source *s, uint64_t left, uint64_t pending, uint64_t now)
{
	struct watch *w = &s->watch;
	uint64_t limit = __atomic_load_n(&s->limits->downtime_us, __ATOMIC_RELAXED);
	struct converge_sample sample = {
		.now_us = now,
		.sent_bytes = (pages_sent(s) - w->first_pages) * PAGE_SIZE,
		.again_bytes = (w->again_before + left) * PAGE_SIZE,
		.left_bytes = left * PAGE_SIZE,
		.pending_bytes = pending * PAGE_SIZE,
		.rate_bytes = link_round_page_rate(&s->link, now),
	};
	/* As the pause is estimated: pages that were found zero say nothing about the link. */
	uint64_t rate = link_round_data_rate(&s->link, now);
	uint64_t fixed = steer_fixed_us(s);
	char reason[256];

	if (limit > fixed)
		sample.fit_bytes = mul_div(limit - fixed, rate, 1000000);
	w->converge.bounds.least_bytes = parameters_least_dirty_bytes(&s->parameters) *
					 (s->brake.writers ? s->brake.writers : 1);
	if (!converge_add(&w->converge, &sample, reason, sizeof(reason)))
		return;
	brake_set(s, w->converge.permille, w->converge.limit_bytes);
	decision_tell(&s->decisions,
		      w->converge.by_limit ? DECISION_DIRTY_LIMIT : DECISION_THROTTLE, "%s",
		      reason);
}

static uint64_t look_every(uint64_t took)
{
	uint64_t us = took * LOOK_SHARE < LOOK_MAX_US ? took * LOOK_SHARE : LOOK_MAX_US;

	us = us > took * LOOK_LARGE_SHARE ? us : took * LOOK_LARGE_SHARE;
	return max_u64(us, CONVERGE_LOOK_US);
}

int watch_look(struct source *s, struct err *e)
{
	uint64_t start = clock_us(), left, took, pending;
	struct course_figures within;

	if (s->parked || !s->logging)
		return 0;
	brake_look(s);
	if (start - s->watch.at_us < s->watch.every_us)
		return 0;
	if (guest_log_fetch(s->guest, s->watch.again, e))
		return -1;
	left = stats_get(&s->stats->round) > 1 ? count_again(s) : 0;
	took = clock_us() - start;
	s->watch.at_us = start;
	s->watch.every_us = look_every(took);
	if (stats_get(&s->stats->round) > 1)
		dirty_rate_look(&s->dirty_rate, s->watch.again_before + left, start);
	pending = stats_get(&s->stats->remaining_pages);
	s->watch.left_pages = left;
	/* In the first round nobody knows what is dirty. */
	s->watch.rest_us = stats_get(&s->stats->round) > 1
				   ? link_us(&s->link, (left + pending) * PAGE_SIZE, clock_us())
				   : UINT64_MAX;
	within = steer_figures_within(s);
	/* A guest that is about to be parked is not slowed. */
	if (may_slow(s) && !course_fits_raised_limit(&within))
		slow_down(s, left, pending, start);
	return 0;
}

void watch_end_round(struct source *s, uint64_t dirty)
{
	if (may_slow(s))
		slow_down(s, dirty, 0, clock_us());
	if (stats_get(&s->stats->round) == 1)
		s->watch.first_pages = pages_sent(s);
	else
		s->watch.again_before += dirty;
}
