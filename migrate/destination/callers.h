/*
 * Who connects to a destination, until it has said who it is. Each is heard on a thread of its own,
 * so one that says nothing, or half a word, keeps nobody else waiting.
 */
#ifndef GODWIT_MIGRATE_CALLERS_H
#define GODWIT_MIGRATE_CALLERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/stream/hello.h"
#include "vmm/base/err.h"

struct listeners;
struct refusals;

/* With one more, the one that has been silent for longest is sent away. */
#define CALLERS_MAX 16

/* What another source is told. */
#define CALLERS_BUSY "another guest is just coming in here"

/* What one has said: taken over by whoever gets it from callers_next. */
struct heard {
	struct reader reader; /* of its connection */
	struct hello hello;
	struct tree machine; /* of ROLE_MAIN */
};

struct caller {
	struct callers *all;
	bool there; /* the slot is in use */
	uint64_t since_us;
	pthread_t thread;
	bool spoken; /* under lock: the thread is done; then: */
	bool probe;  /* it has measured the link, and wants no more */
	int rc;
	struct heard heard;
	struct err why;
};

/* One thread uses it; constant but for the callers and what `listen` does. */
struct callers {
	const struct listeners *listeners;
	struct refusals *refusals;
	int stop_fd;
	int hello_ms;	 /* how long each may take */
	bool in_arrival; /* a migration is under way: its further connections are let in, and who
			  * wants to measure the link is not served */
	int spare_fd;	 /* given up to be able to turn one away when there are no more fds */
	uint64_t deaf_until_us; /* accepting failed: not tried again before */
	int told_fd;		/* eventfd: one has spoken */
	pthread_mutex_t lock;
	struct caller caller[CALLERS_MAX];
};

int callers_init(struct callers *cs, const struct listeners *listeners, struct refusals *refusals,
		 int stop_fd, int hello_ms, bool in_arrival, struct err *e);

/*
 * The next one that has said all it must: HELLO and MACHINE, or in an arrival HELLO of a further
 * connection or of a probe. Who only measures the link (probe.h) is answered on its own thread, and
 * gone then. Others are sent away on the way, with the reason if they speak in records, and told to
 * `refusals`. 0; 1 when none came within `timeout_ms` (-1: for ever); -1 when stopped.
 */
int callers_next(struct callers *cs, int timeout_ms, struct heard *out, struct err *e);

/* Whoever has said all it must and waits to be taken, without waiting: 0, or 1 when there is none.
 */
int callers_take(struct callers *cs, struct heard *out);

/* Those that have not been heard to the end are cut off, the others told that it is too late. */
void callers_free(struct callers *cs);

/* Ends a connection that was heard: told why, or without a word (NULL). */
void heard_dismiss(struct heard *h, const char *why);

#endif
