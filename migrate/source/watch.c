/* Within a round: see watch.h. */
#include "migrate/source/watch.h"

#include "migrate/source/source.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/memory.h"

/* Looks are CONVERGE_LOOK_US apart. If a look costs over 1/LOOK_SHARE of that, they get rarer, up
 * to LOOK_MAX_US; beyond it only to stay below 1/LOOK_LARGE_SHARE. */
#define LOOK_SHARE	 20u
#define LOOK_MAX_US	 200000u
#define LOOK_LARGE_SHARE 5u

void watch_rest(struct source *s)
{
	brake_release(s);
	s->watch.converge = (struct converge){ .bounds = parameters_throttle_bounds(&s->parameters),
					       .by_limit = s->parameters.dirty_limit };
	dirty_rate_restart(&s->dirty_rate);
}

void watch_init(struct source *s)
{
	s->watch = (struct watch){ 0 };
	watch_rest(s);
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

/* The first round says nothing about the next ones. */
static bool may_slow(const struct source *s)
{
	return parameters_may_slow(&s->parameters) && stats_get(&s->stats->round) > 1;
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

	if (s->parked || !s->dirty.logging)
		return 0;
	brake_look(s);
	if (start - s->watch.at_us < s->watch.every_us)
		return 0;
	if (dirty_look(&s->dirty, e))
		return -1;
	left = stats_get(&s->stats->round) > 1 ? dirty_left(&s->dirty) : 0;
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
