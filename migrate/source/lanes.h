/*
 * The lanes of a migration: one connection each, with one stream's guarantees. Each chunk goes by
 * one of them. With one lane all is sent on the caller's thread; with several each lane has a
 * thread, "migrate0"..., which takes chunks from a common queue.
 *
 * A page goes at most once in a round, so its newest copy wins: at the end of a round all lanes say
 * so, and the destination lets none of them go on before all have arrived there. Urgent chunks keep
 * this rule. They overtake those in turn, and a page that was queued leaves its place in the queue.
 */
#ifndef GODWIT_MIGRATE_LANES_H
#define GODWIT_MIGRATE_LANES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/source/part.h"
#include "migrate/stats.h"
#include "migrate/stream/hello.h"
#include "migrate/stream/record.h"
#include "vmm/base/err.h"

struct limiter;

/* Queued chunks per lane: enough to keep lanes busy, few because queued pages get dirty again. */
#define LANES_QUEUE_EACH 2

/* Urgent chunks that may wait beside those. */
#define LANES_URGENT_MAX 16

#define LANES_QUEUE (LANES_QUEUE_EACH * LANES_MAX + LANES_URGENT_MAX)

struct lanes;

struct lane {
	struct lanes *all;
	struct writer writer;
	pthread_t thread;
	bool started;
	/* Under lock: it sends `chunk`, whose pages belong to the lane's thread meanwhile. */
	bool busy;
	struct chunk chunk;
};

struct lanes {
	/* Set by lanes_init. */
	struct stats *stats;
	struct limiter *limiter; /* ended as soon as a lane has failed */
	unsigned int n;		 /* 0: there are none */
	struct lane lane[LANES_MAX];

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* Under lock. */
	struct chunk queue[LANES_QUEUE]; /* in the order in which they go: the urgent ones first */
	unsigned int n_queued, n_urgent;
	unsigned int busy; /* lanes that send a chunk */
	bool end, failed;
	struct err error; /* of the first that failed */
};

/* Lane 0 is the main connection. The channels of the writers stay the caller's. */
int lanes_init(struct lanes *l, const struct writer *writers, unsigned int n, struct stats *stats,
	       struct limiter *limiter, struct err *e);

/* Waits for chunks under way, and forgets those in the queue. Does nothing if there are none. */
void lanes_free(struct lanes *l);

/* Ends what the lanes are doing, however long the peer would let them wait. After it only
 * lanes_main can send. Does nothing if there are none. */
void lanes_abort(struct lanes *l);

/*
 * Sends a chunk, or queues it; waits if the queue is full. Its pages must not have been handed over
 * in this round before. The caller's thread: one at a time, except for urgent chunks when there are
 * several lanes.
 */
int lanes_send(struct lanes *l, const struct chunk *c, struct err *e);

/*
 * Makes those pages of `c` urgent that wait in the queue in their turn; waits if too many are
 * urgent. Returns how many they are: the others are urgent, sent or on their way already, or were
 * never handed over. Any thread.
 */
unsigned int lanes_hurry(struct lanes *l, const struct chunk *c);

/* Waits until everything is on the way; then a ROUND record with that number on every lane. */
int lanes_drain(struct lanes *l, struct err *e);
int lanes_end_round(struct lanes *l, uint32_t round, struct err *e);

/* The writer of lane 0, for all other records; only after lanes_drain or lanes_end_round. */
struct writer *lanes_main(struct lanes *l);

#endif
