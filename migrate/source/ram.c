/* Steps and pieces of RAM, and what the destination is told ahead. */
#include "migrate/source/ram.h"

#include <stdlib.h>

#include "migrate/guest.h"
#include "migrate/policy/rate.h"
#include "migrate/source/ahead.h"
#include "migrate/source/dirty.h"
#include "migrate/source/lanes.h"
#include "migrate/source/limiter.h"
#include "migrate/source/order.h"
#include "migrate/source/pages.h"
#include "migrate/stats.h"
#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/memory.h"

/* A step clears the dirty bits of this many pages, just ahead of the lanes. */
#define CLEAR_PAGES (8 * CHUNK_PAGES)

/* If the bandwidth is low, a step takes no longer than this, so that the log is looked at. */
#define STEP_US 80000u

/* Pieces of a first round that are sampled before it begins, and with each piece that is sent. */
#define SAMPLE_FIRST 8u
#define SAMPLE_MORE  4u

_Static_assert(DIRTY_STEP_MAX >= CLEAR_PAGES, "a step can be taken at once");

/* -- steps -- */

/*
 * Whether hot chunks are left for the next round, as the guest will write to them again anyway.
 * Only once enough has been sent to know how fast the link is.
 */
static bool defers_hot(const struct ram *r)
{
	return !*r->parked && stats_get(&r->stats->data_bytes) >= RATE_SAMPLE_BYTES;
}

static int take_first(struct ram *r, unsigned int block, uint64_t first, uint64_t n, struct err *e)
{
	uint64_t to_send;

	if (dirty_take_first(r->dirty, block, first, n, &to_send, e))
		return -1;
	/* What was never touched, or is free, is done with. */
	stats_add(&r->stats->remaining_pages, to_send - n);
	return 0;
}

/* One step: pages are taken from the log and handed to the lanes. */
static int send_step(struct ram *r, unsigned int block, uint64_t first, uint64_t n,
		     bool first_round, struct err *e)
{
	struct chunk c = { .part = &r->part };
	bool hot, defers;

	if (r->before_step(r->arg, e))
		return -1;
	defers = defers_hot(r);
	if (first_round ? take_first(r, block, first, n, e)
			: dirty_take(r->dirty, block, first, n, e))
		return -1;
	while (dirty_next(r->dirty, &c, &hot)) {
		if (hot && defers)
			dirty_defer(r->dirty, &c);
		else if (lanes_send(r->lanes, &c, e))
			return -1;
	}
	return r->after_step(r->arg, e);
}

/* How many pages a step takes from the log, at most, if they are to be sent. */
static uint64_t clear_pages(const struct ram *r)
{
	uint64_t rate = limiter_rate(r->pages->limiter), n;

	if (!rate || !r->dirty->logging)
		return CLEAR_PAGES;
	n = rate / PAGE_SIZE * STEP_US / 1000000 / CHUNK_PAGES * CHUNK_PAGES;
	return clamp_u64(n, CHUNK_PAGES, CLEAR_PAGES);
}

/* How many pages the step from `at` on has; more if the first ones are not pending. */
static uint64_t step_pages(const struct ram *r, unsigned int block, uint64_t at, uint64_t end)
{
	uint64_t quiet = dirty_next_pending(r->dirty, block, at, end) - at;
	uint64_t n = clamp_u64(quiet - quiet % CHUNK_PAGES, clear_pages(r), DIRTY_STEP_MAX);

	return min_u64(n, end - at);
}

/* -- rounds -- */

/* A live migration scatters the pieces, so that hot pages show themselves; a file is in order. */
static void order_of(const struct ram *r, struct order *o)
{
	order_init(o, r->guest, CHUNK_PAGES, r->dirty->logging);
}

/* Everything, piece by piece; pieces to come are sampled well before their turn. */
static int send_all(struct ram *r, struct err *e)
{
	uint64_t at = 0, ahead = 0, samples = SAMPLE_FIRST, first, n;
	struct order_piece p, next;
	struct order o;

	order_of(r, &o);
	if (r->dirty->logging && dirty_begin_samples(r->dirty, e))
		return -1;
	while (order_next(&o, &at, &p)) {
		for (; r->dirty->logging && samples && order_next(&o, &ahead, &next); samples--)
			if (dirty_sample(r->dirty, next.block, next.first, next.pages, e))
				return -1;
		samples = SAMPLE_MORE;
		for (first = p.first; first < p.first + p.pages; first += n) {
			n = step_pages(r, p.block, first, p.first + p.pages);
			if (send_step(r, p.block, first, n, true, e))
				return -1;
		}
	}
	dirty_stop_free(r->dirty);
	return 0;
}

static int send_pending(struct ram *r, struct err *e)
{
	uint64_t at, n, pages;
	unsigned int i;

	for (i = 0; i < r->guest->n_blocks; i++) {
		pages = r->guest->blocks[i].pages;
		for (at = 0; (at = dirty_next_pending(r->dirty, i, at, pages)) < pages; at += n) {
			at -= at % CHUNK_PAGES;
			n = step_pages(r, i, at, pages);
			if (send_step(r, i, at, n, false, e))
				return -1;
		}
	}
	return 0;
}

static int ram_round(struct part *part, uint64_t round, struct err *e)
{
	struct ram *r = (struct ram *)part;

	r->pages->round = (uint32_t)round;
	return round == 1 ? send_all(r, e) : send_pending(r, e);
}

static int ram_fetch(struct part *part, uint64_t *bytes, struct err *e)
{
	struct ram *r = (struct ram *)part;
	uint64_t pages;

	if (dirty_fetch(r->dirty, &pages, e))
		return -1;
	*bytes = pages * PAGE_SIZE;
	return 0;
}

static int ram_send(struct part *part, unsigned int lane, struct writer *w, struct chunk *c,
		    struct err *e)
{
	return pages_send(((struct ram *)part)->pages, lane, w, c, e);
}

static const struct part_ops ram_ops = {
	.round = ram_round,
	.fetch = ram_fetch,
	.send = ram_send,
};

void ram_init(struct ram *r)
{
	r->part.ops = &ram_ops;
}

/* -- ahead of the first round -- */

static int tell_ahead(struct ram *r, const void *body, size_t bytes, struct err *e)
{
	if (writer_record(lanes_main(r->lanes), RECORD_AHEAD, body, bytes, NULL, 0, e))
		return -1;
	stats_add(&r->stats->meta_bytes, RECORD_HEAD_BYTES + bytes);
	return 0;
}

int ram_look_ahead(struct ram *r, struct err *e)
{
	uint64_t at = 0, unit, end;
	struct order_piece p;
	struct order o;
	size_t bytes;
	uint8_t *body;
	int rc = 0;

	if (dirty_guess(r->dirty, e))
		return -1;
	if (!r->dirty->logging)
		return 0;
	body = malloc(AHEAD_BODY_MAX);
	if (!body)
		return err_set(e, "out of memory");
	order_of(r, &o);
	while (!rc && order_next(&o, &at, &p)) {
		unit = p.first / AHEAD_UNIT_PAGES;
		end = (p.first + p.pages + AHEAD_UNIT_PAGES - 1) / AHEAD_UNIT_PAGES;
		while (!rc &&
		       (bytes = ahead_encode(&r->guest->blocks[p.block], p.block,
					     dirty_guessed(r->dirty, p.block), &unit, end, body)))
			rc = tell_ahead(r, body, bytes, e);
	}
	free(body);
	return rc;
}
