/*
 * Threads that touch memory ahead of its data: see ahead.h. The lock is never held while memory is
 * touched.
 */
#include "migrate/destination/ahead.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/destination/place.h"
#include "migrate/guest.h"
#include "vmm/base/err.h"

static uint64_t units_of(const struct guest_block *b)
{
	return (b->pages + AHEAD_UNIT_PAGES - 1) / AHEAD_UNIT_PAGES;
}

/* The next unit, once the data are near enough; under lock. False: there is nothing more to do. */
static bool next_unit(struct ahead *a, uint64_t *unit)
{
	while (!a->end) {
		uint64_t reached;

		__atomic_store_n(&a->waiting, true, __ATOMIC_SEQ_CST);
		reached = __atomic_load_n(&a->reached, __ATOMIC_SEQ_CST);
		if (a->next == a->n_told || a->next > reached + AHEAD_WINDOW_UNITS) {
			pthread_cond_wait(&a->changed, &a->lock);
			continue;
		}
		*unit = a->told[a->next++];
		if (a->next >= reached)
			return true;
		/* The data were faster. */
	}
	return false;
}

static void *ahead_thread(void *arg)
{
	struct ahead *a = arg;
	uint64_t unit;

	pthread_mutex_lock(&a->lock);
	while (next_unit(a, &unit)) {
		uint64_t page, n, pages;
		unsigned int i = a->place->guest->n_blocks - 1;

		pthread_mutex_unlock(&a->lock);
		while (unit < a->first[i])
			i--;
		pages = a->place->guest->blocks[i].pages;
		page = (unit - a->first[i]) * AHEAD_UNIT_PAGES;
		n = pages - page < AHEAD_UNIT_PAGES ? pages - page : AHEAD_UNIT_PAGES;
		if (a->place->ops->prepare(a->place, i, page, n))
			return NULL; /* the data will show what is wrong */
		pthread_mutex_lock(&a->lock);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

/* One thread is faster than a fast link if pages are large; more if there are cores to spare. */
static unsigned int threads_wanted(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN) / 4;

	return cpus < 1 ? 1 : cpus > AHEAD_THREADS_MAX ? AHEAD_THREADS_MAX : (unsigned int)cpus;
}

void ahead_init(struct ahead *a, struct place *place)
{
	const struct guest *g = place->guest;
	unsigned int i;

	memset(a, 0, sizeof(*a));
	a->place = place;
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->changed, NULL);
	for (i = 0; i < g->n_blocks; i++) {
		a->first[i] = a->units;
		a->units += units_of(&g->blocks[i]);
	}
}

/* Each unit once: to be told of it again changes nothing. */
static void tell(struct ahead *a, uint64_t unit)
{
	if (a->turn[unit])
		return;
	a->told[a->n_told++] = (uint32_t)unit;
	__atomic_store_n(&a->turn[unit], (uint32_t)a->n_told, __ATOMIC_RELAXED);
}

/* Takes the units of the runs over; -1 at the first run that is not within its block. */
static int take_runs(struct ahead *a, const struct ahead_runs *r, struct err *e)
{
	const struct guest_block *b = &a->place->guest->blocks[r->block];
	uint64_t first, pages, unit;

	for (uint32_t i = 0; i < r->n; i++) {
		run_decode(r->runs, i, &first, &pages);
		if (first >= b->pages || pages > b->pages - first)
			return err_set(e, "an AHEAD record of pages outside memory block %" PRIu32,
				       r->block);
		for (unit = first; unit < first + pages; unit += AHEAD_UNIT_PAGES)
			tell(a, a->first[r->block] + unit / AHEAD_UNIT_PAGES);
	}
	return 0;
}

static bool make_room(struct ahead *a)
{
	uint32_t *turn;

	if (a->turn)
		return true;
	free(a->told);
	a->told = calloc(a->units, sizeof(a->told[0]));
	turn = a->told ? calloc(a->units, sizeof(turn[0])) : NULL;
	__atomic_store_n(&a->turn, turn, __ATOMIC_RELEASE);
	return turn;
}

int ahead_take(struct ahead *a, const struct record *rec, struct err *e)
{
	struct ahead_runs runs;
	int rc;

	if (ahead_runs_decode(rec, &runs, e))
		return -1;
	if (runs.block >= a->place->guest->n_blocks)
		return err_set(e, "an AHEAD record of memory block %" PRIu32 ", the machine has %u",
			       runs.block, a->place->guest->n_blocks);
	/* No memory to note it: it is only a hint. */
	if (a->units > UINT32_MAX || !make_room(a))
		return 0;
	pthread_mutex_lock(&a->lock);
	rc = take_runs(a, &runs, e);
	pthread_cond_broadcast(&a->changed);
	pthread_mutex_unlock(&a->lock);
	while (!rc && !a->end && a->threads < threads_wanted() &&
	       pthread_create(&a->thread[a->threads], NULL, ahead_thread, a) == 0)
		pthread_setname_np(a->thread[a->threads++], "migrate-ahead");
	return rc;
}

void ahead_reached(struct ahead *a, unsigned int block, uint64_t page)
{
	const uint32_t *turns = __atomic_load_n(&a->turn, __ATOMIC_ACQUIRE);
	uint64_t before = __atomic_load_n(&a->reached, __ATOMIC_RELAXED), turn;

	if (!turns)
		return;
	turn = __atomic_load_n(&turns[a->first[block] + page / AHEAD_UNIT_PAGES], __ATOMIC_RELAXED);
	while (turn > before && !__atomic_compare_exchange_n(&a->reached, &before, turn, true,
							     __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
	if (turn <= before || !__atomic_exchange_n(&a->waiting, false, __ATOMIC_SEQ_CST))
		return;
	pthread_mutex_lock(&a->lock);
	pthread_cond_broadcast(&a->changed);
	pthread_mutex_unlock(&a->lock);
}

void ahead_free(struct ahead *a)
{
	unsigned int i;

	if (!a->place)
		return;
	pthread_mutex_lock(&a->lock);
	a->end = true;
	pthread_cond_broadcast(&a->changed);
	pthread_mutex_unlock(&a->lock);
	for (i = 0; i < a->threads; i++)
		pthread_join(a->thread[i], NULL);
	free(a->told);
	free(a->turn);
	pthread_cond_destroy(&a->changed);
	pthread_mutex_destroy(&a->lock);
	a->place = NULL;
}
