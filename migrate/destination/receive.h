/*
 * The connections of one migration at its destination. Each is read on a thread of its own; at the
 * end of a round all wait for the slowest. The main one brings the guest's states and GO as well.
 *
 *     RECEIVE_PAGES --> RECEIVE_CLOSED --> RECEIVE_STATES --> RECEIVE_GO
 *
 * Another thread, the caller's, waits here for what the main connection brings, loads the states
 * and starts the guest. None of the readers ever waits for it, nor for the guest's owner: whatever
 * those wait for, the readers go on.
 */
#ifndef GODWIT_MIGRATE_DESTINATION_RECEIVE_H
#define GODWIT_MIGRATE_DESTINATION_RECEIVE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/destination/ahead.h"
#include "migrate/destination/intake.h"
#include "migrate/stream/body.h"
#include "migrate/stream/hello.h"
#include "migrate/stream/record.h"
#include "vmm/base/err.h"
#include "vmm/tree.h"

struct door;
struct receive;
struct stats;

enum receive_phase {
	RECEIVE_PAGES,
	RECEIVE_CLOSED, /* the states have come: no more pages may */
	RECEIVE_STATES, /* they are right in themselves; a file has been read to its end */
	RECEIVE_GO,	/* the source has handed the guest over */
};

struct receive_lane {
	struct receive *all;
	struct reader reader;
	struct intake intake;
	pthread_t thread;
	bool started;
	bool in_round;	/* own thread: pages came after the last ROUND */
	bool ended;	/* own thread: not a byte of another record, between two rounds */
	uint32_t round; /* under lock: the last one that it has read to its end */
	bool gone;	/* under lock: the same as `ended` */
};

struct receive {
	/* Set before receive_begin, then constant. */
	bool cold;	   /* a file: no rounds, END instead of GO */
	struct door *door; /* by which further connections come; NULL: none can */
	unsigned int lanes_wanted;
	const uint8_t *id; /* of the migration: further connections say it, too */
	int stop_fd;
	int lanes_ms; /* how long to wait for further connections */
	struct place *place;
	struct stats *stats;
	/* Answers to the source: the main connection's thread writes them up to RECEIVE_CLOSED,
	 * the caller of receive_await from RECEIVE_STATES on. */
	struct writer *writer;

	struct receive_lane lane[LANES_MAX]; /* the first one is the main connection */
	unsigned int n_lanes;
	struct ahead ahead;

	/* From RECEIVE_STATES on constant. */
	struct tree states;
	uint64_t advance_ns;   /* how long the guest had stood when they were sent */
	uint64_t states_at_us; /* they came then */
	bool run;	       /* the guest ran when it was parked */
	bool tell;	       /* its agent heard before_migration */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum receive_phase phase;
	bool failed;
	struct err error; /* of the first connection that failed */
	bool over;	  /* nobody reads the main connection any more */
	struct err why;	  /* over before GO: why */
	bool told;	  /* `why` is what the source has said */
};

/* The main connection's reader and `id` are set by the caller, too: HELLO was read with it. */
void receive_init(struct receive *r);

/* Takes the further connections and starts to read all of them. On -1 receive_stop comes next. */
int receive_begin(struct receive *r, struct err *e);

/* Waits until the main connection has brought that; -1 when it is over without. */
int receive_await(struct receive *r, enum receive_phase phase, struct err *e);

/* Waits for the end of the main connection, at most that long. */
void receive_await_end(struct receive *r, unsigned int timeout_ms);

/* Nobody reads the main connection any more: the caller may use it. */
void receive_stop(struct receive *r);

/* The best reason for a failure, after receive_stop. What the source has said is worth most, then
 * the connection that failed first; `e` stays if there is neither. */
void receive_explain(struct receive *r, struct err *e);

/* Ends all threads and closes all connections. */
void receive_free(struct receive *r);

#endif
