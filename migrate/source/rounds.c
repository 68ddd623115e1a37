/*
 * Rounds: see rounds.h. The bits in `pending` are what is still to be sent in the round; a step
 * takes some of them from the log, hands them to the lanes, and forgets them.
 */
#include "migrate/source/rounds.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "migrate/guest_log.h"
#include "migrate/policy/rate.h"
#include "migrate/source/ahead.h"
#include "migrate/source/order.h"
#include "migrate/source/source.h"
#include "migrate/source/source_internal.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/wake.h"
#include "vmm/memory.h"

/* Dirty bits are cleared in steps of so many pages, just ahead of the lanes. */
#define CLEAR_PAGES (8 * CHUNK_PAGES)

/* Where the link is slow a step takes no longer than so, for the log to be looked at meanwhile. */
#define STEP_US 80000u

/* Pieces of a first round that are sampled before it begins, and with each that is sent. */
#define SAMPLE_FIRST 8u
#define SAMPLE_MORE  4u

#define DEFERRED_WORDS (ROUNDS_STEP_MAX / CHUNK_PAGES / 64)

_Static_assert(ROUNDS_STEP_MAX >= CLEAR_PAGES, "a step finds room in `touched`");

static uint64_t bandwidth(const struct source *s)
{
	return __atomic_load_n(&s->limits->bandwidth, __ATOMIC_RELAXED);
}

int rounds_fetch(struct source *s, uint64_t *count, struct err *e)
{
	uint64_t start = clock_us();
	unsigned int i;

	*count = 0;
	watch_merge(s);
	if (guest_log_fetch(s->guest, s->pending, e))
		return -1;
	for (i = 0; i < s->guest->n_blocks; i++)
		*count += bitmap_count(s->pending[i], s->guest->blocks[i].pages);
	s->expect.fetch_us = clock_us() - start;
	return 0;
}

/* Of the pending pages those that were ever touched stay, as a first round wants it. */
static int keep_touched(struct source *s, unsigned int block, uint64_t first, uint64_t n,
			struct err *e)
{
	uint64_t *bits = s->pending[block] + first / 64, *touched = s->touched, i;

	memset(touched, 0, BITMAP_WORDS(n) * sizeof(touched[0]));
	if (s->guest->ops->touched(s->guest, block, first, n, touched, e))
		return -1;
	for (i = 0; i < BITMAP_WORDS(n); i++) {
		s->unused.pages += (uint64_t)__builtin_popcountll(touched[i] & ~bits[i]);
		bits[i] &= touched[i];
	}
	return 0;
}

/*
 * In a first round, whether a chunk is left for the next, as it will be written to again anyway;
 * once enough has been sent for the speed of the link to be known.
 */
static bool is_deferred(const struct source *s, unsigned int block, uint64_t first)
{
	return !s->parked && s->logging && watch_is_hot(s, block, first) &&
	       stats_get(&s->stats->data_bytes) >= RATE_SAMPLE_BYTES;
}

/* One step: bits are cleared in the log, then handed to the lanes, then forgotten here. */
static int send_step(struct source *s, unsigned int block, uint64_t first, uint64_t n,
		     bool first_round, struct err *e)
{
	uint64_t *bits = s->pending[block] + first / 64, at, any = 0, deferred[DEFERRED_WORDS];
	struct chunk c = { .part = &s->pages.part, .block = block };

	if (wake_nap(s->stop_fd, 0, e) || answers_poll(&s->answers, -1, 0, e))
		return -1;
	if (precopy_park_within_round(s, e))
		return -1;
	memset(deferred, 0, sizeof(deferred));
	for (at = 0; first_round && at < n; at += CHUNK_PAGES)
		if (is_deferred(s, block, first + at))
			bitmap_set(deferred, at / CHUNK_PAGES);
	if (first_round) { /* the log says of every page that it is dirty */
		memset(bits, 0xff, BITMAP_WORDS(n) * sizeof(bits[0]));
		unused_leave_out(s, block, first, n);
	}
	if (s->logging && s->guest->ops->log_clear(s->guest, block, first, n, bits, e))
		return -1;
	watch_taken(s, block, first, n);
	if (first_round) {
		if (keep_touched(s, block, first, n, e))
			return -1;
		/* What was never touched, or is not used, is done with. */
		stats_add(&s->stats->remaining_pages, bitmap_count(bits, n) - n);
	}
	for (at = 0; at < n; at += CHUNK_PAGES) {
		unsigned int i;

		c.first = first + at;
		memcpy(c.pages, bits + at / 64, sizeof(c.pages));
		for (i = 0, any = 0; i < CHUNK_WORDS; i++)
			any |= c.pages[i];
		if (!any)
			continue;
		if (bitmap_test(deferred, at / CHUNK_PAGES))
			watch_defer(s, &c);
		else if (lanes_send(&s->lanes, &c, e))
			return -1;
	}
	memset(bits, 0, BITMAP_WORDS(n) * sizeof(bits[0]));
	return watch_look(s, e);
}

/* How many pages are taken from the log at once, at most. */
static uint64_t clear_pages(const struct source *s)
{
	uint64_t rate = bandwidth(s), n;

	if (!rate || s->cold || steer_forced(s))
		return CLEAR_PAGES;
	n = rate / PAGE_SIZE * STEP_US / 1000000 / CHUNK_PAGES * CHUNK_PAGES;
	return n < CHUNK_PAGES ? CHUNK_PAGES : n < CLEAR_PAGES ? n : CLEAR_PAGES;
}

/* How many pages the step from `at` on has; a longer one over what seems to be untouched. */
static uint64_t step_pages(const struct source *s, unsigned int block, uint64_t at, uint64_t end)
{
	uint64_t quiet = bitmap_next_set(s->pending[block], end, at) - at;
	uint64_t n = quiet - quiet % CHUNK_PAGES, least = clear_pages(s);

	n = n < least ? least : n < ROUNDS_STEP_MAX ? n : ROUNDS_STEP_MAX;
	return n < end - at ? n : end - at;
}

/* A live migration scatters them, so that hot pages show themselves; a file is in order. */
static void order_of(const struct source *s, struct order *o)
{
	order_init(o, s->guest, CHUNK_PAGES, s->logging);
}

/*
 * Everything, piece by piece; pieces to come are sampled well before their turn. Not where the
 * guest names pages: all of the log was cleared then, and no write that it has seen may be lost.
 */
static int send_all(struct source *s, struct err *e)
{
	uint64_t at = 0, ahead = 0, samples = SAMPLE_FIRST, first;
	bool sampled = s->logging && !s->unused.asked;
	struct order_piece p, next;
	struct order o;

	order_of(s, &o);
	if (s->logging && watch_begin_samples(s, e))
		return -1;
	while (order_next(&o, &at, &p)) {
		for (; sampled && samples && order_next(&o, &ahead, &next); samples--)
			if (watch_sample(s, next.block, next.first, next.pages, e))
				return -1;
		samples = SAMPLE_MORE;
		for (first = p.first; first < p.first + p.pages;) {
			uint64_t n = step_pages(s, p.block, first, p.first + p.pages);

			if (send_step(s, p.block, first, n, true, e))
				return -1;
			first += n;
		}
	}
	return 0;
}

static int send_pending(struct source *s, struct err *e)
{
	unsigned int i;
	uint64_t at, n;

	for (i = 0; i < s->guest->n_blocks; i++) {
		uint64_t pages = s->guest->blocks[i].pages;

		for (at = 0; (at = bitmap_next_set(s->pending[i], pages, at)) < pages; at += n) {
			at -= at % CHUNK_PAGES;
			n = step_pages(s, i, at, pages);
			if (send_step(s, i, at, n, false, e))
				return -1;
		}
	}
	return 0;
}

/*
 * Before the first round: what was touched so far, roughly. The destination makes ready for it, and
 * the round makes long steps elsewhere; what is to be sent is found out only when the log is clear.
 */
int rounds_look_ahead(struct source *s, struct err *e)
{
	struct order_piece p;
	struct order o;
	size_t bytes;
	uint8_t *body;
	unsigned int i;
	uint64_t at = 0, unit, end;
	int rc = 0;

	for (i = 0; i < s->guest->n_blocks; i++)
		if (s->guest->ops->touched(s->guest, i, 0, s->guest->blocks[i].pages, s->pending[i],
					   e))
			return -1;
	if (s->cold)
		return 0;
	body = malloc(AHEAD_BODY_MAX);
	if (!body)
		return err_set(e, "out of memory");
	order_of(s, &o);
	while (!rc && order_next(&o, &at, &p)) {
		unit = p.first / AHEAD_UNIT_PAGES;
		end = (p.first + p.pages + AHEAD_UNIT_PAGES - 1) / AHEAD_UNIT_PAGES;
		while (!rc && (bytes = ahead_encode(&s->guest->blocks[p.block], p.block,
						    s->pending[p.block], &unit, end, body)))
			rc = source_send_record(s, RECORD_AHEAD, body, bytes, e);
	}
	free(body);
	return rc;
}

/* The destination has taken in the round: nothing of it is on the way any more. */
int rounds_await(struct source *s, uint64_t round, struct err *e)
{
	uint64_t start = clock_us();
	struct record rec;
	uint32_t taken;

	if (source_expect(s, RECORD_ROUND, s->parked ? INT_MAX : s->round_ms, &rec, e))
		return -1;
	if (round_decode(&rec, &taken, NULL) || taken != (uint32_t)round)
		return err_set(e, "%s: the destination has taken in another round than %llu",
			       s->channel->name, (unsigned long long)round);
	expect_answered(&s->expect, clock_us() - start);
	return 0;
}

/*
 * One round, with its figures. While the guest runs it is over when the destination has it: what
 * is still in the sockets' buffers would otherwise be sent within the pause.
 */
int rounds_send(struct source *s, uint64_t round, struct err *e)
{
	bool last = s->parked;

	link_round_begin(&s->link, round, clock_us());
	watch_round(s);
	s->pages.round = (uint32_t)round;
	if (s->events.round)
		s->events.round(s->events.arg, round);
	if (round == 1 ? send_all(s, e) : send_pending(s, e))
		return -1;
	unused_stop(s);
	if ((!s->cold && lanes_end_round(&s->lanes, (uint32_t)round, e)) ||
	    (!s->cold && !last && rounds_await(s, round, e)))
		return -1;
	link_round_end(&s->link, clock_us());
	return 0;
}
