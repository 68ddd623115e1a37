/* Touching memory ahead of its data: see ahead.h. */
#include "migrate/ahead.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migrate/codec/zero.h"
#include "migrate/stream/record.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

/* Since Linux 5.14; older kernels refuse it, and the data touch the memory themselves. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Pages of a unit that are looked at: memory that is touched but zero is left alone over there. */
#define SAMPLES 4u

static uint64_t units_of(const struct guest_block *b)
{
	return (b->pages + AHEAD_UNIT_PAGES - 1) / AHEAD_UNIT_PAGES;
}

/* -- source -- */

static bool has_data(const struct guest_block *b, const uint64_t *touched, uint64_t unit)
{
	uint64_t at = unit * AHEAD_UNIT_PAGES, end = at + AHEAD_UNIT_PAGES, i;

	end = end < b->pages ? end : b->pages;
	/* Few pages, not in a large one: they would cost more memory there than here. */
	if (bitmap_count(touched + at / 64, end - at) < (end - at) / 2)
		return false;
	for (i = 0; i < SAMPLES; i++, at += AHEAD_UNIT_PAGES / SAMPLES) {
		at = at < end ? bitmap_next_set(touched, end, at) : end;
		if (at == end)
			return false;
		if (!zero_page(b->host + at * PAGE_SIZE))
			return true;
	}
	return false;
}

size_t ahead_encode(const struct guest_block *b, uint32_t block, const uint64_t *touched,
		    uint64_t *at, uint8_t body[AHEAD_BODY_MAX])
{
	uint64_t units = units_of(b), unit = *at, from, first, end;
	uint8_t *run = body + AHEAD_HEAD_BYTES;
	uint32_t n = 0;

	while (unit < units && n < AHEAD_RUNS_MAX) {
		first = bitmap_next_set(touched, b->pages, unit * AHEAD_UNIT_PAGES);
		from = unit = first == b->pages ? units : first / AHEAD_UNIT_PAGES;
		while (unit < units && has_data(b, touched, unit))
			unit++;
		if (unit == from) {
			unit += unit < units;
			continue;
		}
		end = unit * AHEAD_UNIT_PAGES;
		put_u64(run, from * AHEAD_UNIT_PAGES);
		put_u64(run + 8, (end < b->pages ? end : b->pages) - from * AHEAD_UNIT_PAGES);
		run += AHEAD_RUN_BYTES;
		n++;
	}
	*at = unit;
	put_u32(body, block);
	put_u32(body + 4, n);
	return n ? (size_t)(run - body) : 0;
}

/* -- destination -- */

/* The next unit, when the data are near enough: under lock. False: nothing more to do. */
static bool next_unit(struct ahead *a, unsigned int *block, uint64_t *unit)
{
	const struct guest *g = a->guest;

	while (!a->end && a->block < g->n_blocks) {
		const struct guest_block *b = &g->blocks[a->block];
		uint64_t reached, here;

		a->unit = a->units[a->block]
				  ? bitmap_next_set(a->units[a->block], units_of(b), a->unit)
				  : units_of(b);
		if (a->unit == units_of(b)) {
			a->block++;
			a->unit = 0;
			continue;
		}
		here = a->first[a->block] + a->unit;
		__atomic_store_n(&a->waiting, true, __ATOMIC_SEQ_CST);
		reached = __atomic_load_n(&a->reached, __ATOMIC_SEQ_CST);
		if (here > reached + AHEAD_WINDOW_UNITS) {
			pthread_cond_wait(&a->changed, &a->lock);
			continue;
		}
		*block = a->block;
		*unit = a->unit++;
		if (here >= reached)
			return true;
		/* The data were faster. */
	}
	return false;
}

static void *ahead_thread(void *arg)
{
	struct ahead *a = arg;
	unsigned int block;
	uint64_t unit;

	pthread_mutex_lock(&a->lock);
	while (next_unit(a, &block, &unit)) {
		const struct guest_block *b = &a->guest->blocks[block];
		uint64_t page = unit * AHEAD_UNIT_PAGES, n = b->pages - page;

		pthread_mutex_unlock(&a->lock);
		n = n < AHEAD_UNIT_PAGES ? n : AHEAD_UNIT_PAGES;
		if (madvise(b->host + page * PAGE_SIZE, n * PAGE_SIZE, MADV_POPULATE_WRITE))
			return NULL; /* the data will show what is wrong */
		pthread_mutex_lock(&a->lock);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

/* One is faster than a fast link with large pages; where there are cores to spare, more. */
static unsigned int threads_wanted(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN) / 4;

	return cpus < 1 ? 1 : cpus > AHEAD_THREADS_MAX ? AHEAD_THREADS_MAX : (unsigned int)cpus;
}

void ahead_init(struct ahead *a, const struct guest *g)
{
	uint64_t first = 0;
	unsigned int i;

	memset(a, 0, sizeof(*a));
	a->guest = g;
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->changed, NULL);
	for (i = 0; i < g->n_blocks; i++) {
		a->first[i] = first;
		first += units_of(&g->blocks[i]);
	}
}

/* Checks the body, and sets the bits of its block. */
static int take_runs(struct ahead *a, const struct record *rec, uint64_t *units, struct err *e)
{
	const struct guest_block *b = &a->guest->blocks[get_u32(rec->body)];
	const uint8_t *run = rec->body + AHEAD_HEAD_BYTES;
	uint32_t n = get_u32(rec->body + 4), i;
	uint64_t first, pages, unit, end = 0;

	for (i = 0; i < n; i++, run += AHEAD_RUN_BYTES) {
		first = get_u64(run);
		pages = get_u64(run + 8);
		if (first % AHEAD_UNIT_PAGES || first < end || first >= b->pages || !pages ||
		    pages > b->pages - first)
			return err_set(e,
				       "an AHEAD record of pages outside memory block, or out of "
				       "order: %" PRIu32,
				       get_u32(rec->body));
		for (unit = first; unit < first + pages; unit += AHEAD_UNIT_PAGES)
			bitmap_set(units, unit / AHEAD_UNIT_PAGES);
		end = first + pages;
	}
	return 0;
}

int ahead_take(struct ahead *a, const struct record *rec, struct err *e)
{
	uint32_t block, n;
	int rc;

	if (rec->body_bytes < AHEAD_HEAD_BYTES)
		return err_set(e, "an AHEAD record of %" PRIu32 " bytes", rec->body_bytes);
	block = get_u32(rec->body);
	n = get_u32(rec->body + 4);
	if (block >= a->guest->n_blocks || n > AHEAD_RUNS_MAX ||
	    rec->body_bytes != AHEAD_HEAD_BYTES + n * AHEAD_RUN_BYTES)
		return err_set(e, "an AHEAD record of %" PRIu32 " runs of memory block %" PRIu32, n,
			       block);
	pthread_mutex_lock(&a->lock);
	if (!a->units[block])
		a->units[block] = calloc(BITMAP_WORDS(units_of(&a->guest->blocks[block])),
					 sizeof(uint64_t));
	rc = a->units[block] ? take_runs(a, rec, a->units[block], e) : 0;
	pthread_mutex_unlock(&a->lock);
	while (!rc && !a->end && a->threads < threads_wanted() &&
	       pthread_create(&a->thread[a->threads], NULL, ahead_thread, a) == 0)
		pthread_setname_np(a->thread[a->threads++], "migrate-ahead");
	return rc;
}

void ahead_reached(struct ahead *a, unsigned int block, uint64_t page)
{
	uint64_t unit = a->first[block] + page / AHEAD_UNIT_PAGES;
	uint64_t before = __atomic_load_n(&a->reached, __ATOMIC_RELAXED);

	while (unit > before && !__atomic_compare_exchange_n(&a->reached, &before, unit, true,
							     __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
	if (unit <= before || !__atomic_exchange_n(&a->waiting, false, __ATOMIC_SEQ_CST))
		return;
	pthread_mutex_lock(&a->lock);
	pthread_cond_broadcast(&a->changed);
	pthread_mutex_unlock(&a->lock);
}

void ahead_free(struct ahead *a)
{
	unsigned int i;

	if (!a->guest)
		return;
	pthread_mutex_lock(&a->lock);
	a->end = true;
	pthread_cond_broadcast(&a->changed);
	pthread_mutex_unlock(&a->lock);
	for (i = 0; i < a->threads; i++)
		pthread_join(a->thread[i], NULL);
	for (i = 0; i < a->guest->n_blocks; i++)
		free(a->units[i]);
	pthread_cond_destroy(&a->changed);
	pthread_mutex_destroy(&a->lock);
	a->guest = NULL;
}
