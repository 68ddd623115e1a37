/*
 * First touch is the dearest step of a destination: the kernel finds and zeroes memory before the
 * data can be copied into it. So it is told where data will come, in that order (AHEAD records),
 * and threads of its own touch those places in large pages, some way ahead of the data.
 *
 * A hint only: what is wrong or missing in it costs time or memory, never content.
 */
#ifndef GODWIT_MIGRATE_AHEAD_H
#define GODWIT_MIGRATE_AHEAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/guest.h"
#include "migrate/stream/body.h"

struct err;
struct place;

/* How far ahead of the data: enough for the data never to wait, and little for a guest that does
 * not come in the end. */
#define AHEAD_WINDOW_UNITS 64u

#define AHEAD_THREADS_MAX 4

/*
 * Source: the runs of units in which a page other than zero was seen, for `touched` bits of the
 * block, from unit *at on and before unit `end`; at most AHEAD_RUNS_MAX. Writes a body, moves *at
 * on, returns its bytes; 0 at the end. Units of which less than half is touched do not count, and
 * of each only a few pages are looked at.
 */
size_t ahead_encode(const struct guest_block *b, uint32_t block, const uint64_t *touched,
		    uint64_t *at, uint64_t end, uint8_t body[AHEAD_BODY_MAX]);

struct ahead {
	struct place *place;
	uint64_t first[GUEST_BLOCKS_MAX]; /* a block's first unit, counted over all blocks */
	uint64_t units;
	uint32_t *told;	  /* units, in the order in which they were told: n_told of them */
	uint32_t *turn;	  /* each unit's in `told`, from 1; 0: was not told. Atomic */
	uint64_t reached; /* atomic: the latest turn that data came for */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool waiting; /* atomic */
	bool end;
	uint64_t n_told, next; /* where the next thread goes on */
	pthread_t thread[AHEAD_THREADS_MAX];
	unsigned int threads;
};

void ahead_init(struct ahead *a, struct place *place);

/* An AHEAD record came; the first one starts the threads. -1 for what is no such record. */
int ahead_take(struct ahead *a, const struct record *rec, struct err *e);

/* Data for that page came. Any thread. */
void ahead_reached(struct ahead *a, unsigned int block, uint64_t page);

/* Ends the threads; also after an init alone. */
void ahead_free(struct ahead *a);

#endif
