/*
 * The lanes of a migration. A lane is one connection, with the guarantees of one stream. One lane
 * sends on the caller's thread. If there are several, each has a thread, "migrate0"..., and all
 * take their chunks from one queue.
 *
 * A page goes at most once in a round, so the newest copy of it arrives last: at the end of a round
 * each lane sends ROUND, and the destination reads on only when it has that of every lane. Urgent
 * chunks keep this rule. They overtake chunks in turn, and a page that becomes urgent leaves the
 * chunk in which it was queued.
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
	/* Under lock: the lane sends `chunk`, whose pages its thread may change meanwhile. */
	bool busy;
	struct chunk chunk;
};

struct lanes {
	/* Set by lanes_init. */
	struct stats *stats;
	struct limiter *limiter; /* ended when a lane fails */
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

/* Waits for chunks under way, and drops those in the queue. Does nothing if there are no lanes. */
void lanes_free(struct lanes *l);

/* Ends what the lanes are doing, even if the peer does not read. Afterwards only lanes_main can
 * send. Does nothing if there are no lanes. */
void lanes_abort(struct lanes *l);

/*
 * Sends a chunk, or queues it; waits if the queue is full. The caller must not have sent these
 * pages in this round before. If there is one lane, one thread at a time may call this.
 */
int lanes_send(struct lanes *l, const struct chunk *c, struct err *e);

/*
 * Makes those pages of `c` urgent that are queued in turn; waits if too many chunks are urgent.
 * Returns how many pages that are. The others are urgent already, on their way, sent, or were never
 * handed over. Any thread.
 */
unsigned int lanes_hurry(struct lanes *l, const struct chunk *c);

/* Waits until all chunks were sent. */
int lanes_drain(struct lanes *l, struct err *e);

/* Drains, then sends ROUND with that number on every lane. */
int lanes_end_round(struct lanes *l, uint32_t round, struct err *e);

/* The writer of lane 0, for all other records. Only while no chunk is queued or under way. */
struct writer *lanes_main(struct lanes *l);

#endif
