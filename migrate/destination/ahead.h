/*
 * Touching memory ahead of its data. The first touch costs a destination most: the kernel finds and
 * zeroes memory before data can be copied into it. So the source says where data will come, in
 * that order (AHEAD records). Threads of its own touch that memory in large pages, a little ahead
 * of the data.
 *
 * All of it is a hint: an error in it costs time or memory, and never changes what memory holds.
 */
#ifndef GODWIT_MIGRATE_DESTINATION_AHEAD_H
#define GODWIT_MIGRATE_DESTINATION_AHEAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/guest.h"
#include "migrate/stream/body.h"

struct err;
struct place;

/* How far ahead of the data memory is touched: enough that data never wait, and little enough if
 * the guest does not come after all. */
#define AHEAD_WINDOW_UNITS 64u

#define AHEAD_THREADS_MAX 4

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

/* Takes an AHEAD record; the first one starts the threads. -1: it is damaged. */
int ahead_take(struct ahead *a, const struct record *rec, struct err *e);

/* Data for that page have come. Any thread. */
void ahead_reached(struct ahead *a, unsigned int block, uint64_t page);

/* Ends the threads. Also after ahead_init alone. */
void ahead_free(struct ahead *a);

#endif
