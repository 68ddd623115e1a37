/*
 * What the destination says. One thread, "migrate-answers", reads every record that comes back on
 * the main connection, from the first to the end of the migration; so FAILED, or the end of the
 * connection, is known while the engine sends. The engine takes the records one by one and waits
 * for those that it expects. Any other record is an error.
 */
#ifndef GODWIT_MIGRATE_SOURCE_ANSWERS_H
#define GODWIT_MIGRATE_SOURCE_ANSWERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/stream/record.h"
#include "vmm/base/err.h"

struct channel;

/* Answers that may wait for the engine. It never has more than ROUND and READY outstanding. */
#define ANSWERS_MAX 4u

/* A longer body is cut: the longest that means something is the text of a FAILED. */
#define ANSWERS_BODY_BYTES 512u

struct answer {
	struct record record; /* `body` is not set while it is in the queue */
	uint8_t body[ANSWERS_BODY_BYTES];
};

struct answers {
	/* Set by answers_begin; constant while the thread runs. */
	struct channel *channel; /* NULL: nobody answers (a file) */
	pthread_t thread;
	bool started;
	int wake_fd; /* wake.h: a record has come, or the end */

	/* The reader's thread. */
	struct reader reader;

	/* Under `lock`. */
	pthread_mutex_t lock;
	struct answer queue[ANSWERS_MAX];
	unsigned int at, n;
	bool over; /* nothing more is read; `why` says why */
	struct err why;

	/* The engine's thread. */
	int stop_fd;	     /* ends every wait with "cancelled"; -1: nothing does */
	struct answer taken; /* the record that was taken last */
	bool refused;	     /* the destination said why it cannot go on: that became the error */
};

/*
 * Starts the reader. Afterwards the deadline and the stop fd of the channel hold for writes only.
 * `channel` may be NULL: then nobody answers, and only the stop fd counts. On failure too
 * answers_end must be called.
 */
int answers_begin(struct answers *a, struct channel *channel, int stop_fd, struct err *e);

/* Ends reading on the channel and joins the thread. */
void answers_end(struct answers *a);

/*
 * Waits for the next record, which must be of that type. 1: it is in *out, and valid until the next
 * call. 0: it did not come, whole, within `timeout_ms`. -1: cancelled, the connection is lost, the
 * destination refuses or gives up (then `refused` is set), or it is another record.
 */
int answers_expect(struct answers *a, enum record_type type, int timeout_ms, struct record *out,
		   struct err *e);

/* Whether a record, or the end of the connection, waits to be taken. */
bool answers_waiting(struct answers *a);

/*
 * While no record is expected: waits for `timeout_ms`, or until `also_fd` (-1: none) is readable.
 * 0, or -1 with the error: cancelled, the connection is lost, FAILED, or any other record.
 */
int answers_poll(struct answers *a, int also_fd, int timeout_ms, struct err *e);

/* Looks for a refusal among the records that come within `timeout_ms`; sets the error to it. */
bool answers_await_refusal(struct answers *a, int timeout_ms, struct err *e);

#endif
