/* Rounds: see ram.h. */
#include "migrate/source/ram.h"

#include <limits.h>
#include <stdlib.h>

#include "migrate/channel/channel.h"
#include "migrate/policy/rate.h"
#include "migrate/source/ahead.h"
#include "migrate/source/order.h"
#include "migrate/source/source.h"
#include "migrate/source/source_internal.h"
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

_Static_assert(DIRTY_STEP_MAX >= CLEAR_PAGES, "a step can be taken at once");

static uint64_t bandwidth(const struct source *s)
{
	return __atomic_load_n(&s->limits->bandwidth, __ATOMIC_RELAXED);
}

int rounds_fetch(struct source *s, uint64_t *count, struct err *e)
{
	uint64_t start = clock_us();

	if (dirty_fetch(&s->dirty, count, e))
		return -1;
	s->expect.fetch_us = clock_us() - start;
	return 0;
}

/*
 * Whether hot chunks are left for the next round, as the guest will write to them again anyway: in
 * a first round, once enough has been sent to know how fast the link is.
 */
static bool defers_hot(const struct source *s)
{
	return !s->parked && s->dirty.logging &&
	       stats_get(&s->stats->data_bytes) >= RATE_SAMPLE_BYTES;
}

static int take_first(struct source *s, unsigned int block, uint64_t first, uint64_t n,
		      struct err *e)
{
	uint64_t to_send;

	if (dirty_take_first(&s->dirty, block, first, n, &to_send, e))
		return -1;
	/* What was never touched, or is not used, is done with. */
	stats_add(&s->stats->remaining_pages, to_send - n);
	return 0;
}

/* One step: pages are taken from the log and handed to the lanes. */
static int send_step(struct source *s, unsigned int block, uint64_t first, uint64_t n,
		     bool first_round, struct err *e)
{
	struct chunk c = { .part = &s->pages.part };
	bool hot, defers;

	if (wake_nap(s->stop_fd, 0, e) || answers_poll(&s->answers, -1, 0, e))
		return -1;
	if (precopy_park_within_round(s, e))
		return -1;
	defers = defers_hot(s);
	if (first_round ? take_first(s, block, first, n, e)
			: dirty_take(&s->dirty, block, first, n, e))
		return -1;
	while (dirty_next(&s->dirty, &c, &hot)) {
		if (hot && defers)
			dirty_defer(&s->dirty, &c);
		else if (lanes_send(&s->lanes, &c, e))
			return -1;
	}
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
	uint64_t quiet = dirty_next_pending(&s->dirty, block, at, end) - at;
	uint64_t n = quiet - quiet % CHUNK_PAGES, least = clear_pages(s);

	n = n < least ? least : n < DIRTY_STEP_MAX ? n : DIRTY_STEP_MAX;
	return n < end - at ? n : end - at;
}

/* A live migration scatters them, so that hot pages show themselves; a file is in order. */
static void order_of(const struct source *s, struct order *o)
{
	order_init(o, s->guest, CHUNK_PAGES, s->dirty.logging);
}

/* Everything, piece by piece; pieces to come are sampled well before their turn. */
static int send_all(struct source *s, struct err *e)
{
	uint64_t at = 0, ahead = 0, samples = SAMPLE_FIRST, first;
	struct order_piece p, next;
	struct order o;

	order_of(s, &o);
	if (s->dirty.logging && dirty_begin_samples(&s->dirty, e))
		return -1;
	while (order_next(&o, &at, &p)) {
		for (; s->dirty.logging && samples && order_next(&o, &ahead, &next); samples--)
			if (dirty_sample(&s->dirty, next.block, next.first, next.pages, e))
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

		for (at = 0; (at = dirty_next_pending(&s->dirty, i, at, pages)) < pages; at += n) {
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
	uint64_t at = 0, unit, end;
	int rc = 0;

	if (dirty_guess(&s->dirty, e))
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
						    s->dirty.pending[p.block], &unit, end, body)))
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
	dirty_stop_free(&s->dirty);
	if ((!s->cold && lanes_end_round(&s->lanes, (uint32_t)round, e)) ||
	    (!s->cold && !last && rounds_await(s, round, e)))
		return -1;
	link_round_end(&s->link, clock_us());
	return 0;
}
