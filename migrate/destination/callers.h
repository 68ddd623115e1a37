/*
 * The peers that connect to a destination, until each has said what it is. A thread of its own
 * reads each of them, so a peer that says nothing, or half a record, delays no other.
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

/* If one more connects, the caller that has been silent for longest is sent away. */
#define CALLERS_MAX 16

/* The refusal of any other source. */
#define CALLERS_BUSY "another guest is just coming in here"

/* What a caller has said. callers_next gives the connection away. */
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
	bool spoken; /* under lock: the thread is done, and what follows is set */
	bool probe;  /* it has measured the link, and wants nothing more */
	int rc;
	struct heard heard;
	struct err why;
};

/* One thread uses it. Constant except the callers and what accepting changes. */
struct callers {
	const struct listeners *listeners;
	struct refusals *refusals;
	int stop_fd;
	int hello_ms;	 /* how long a caller may take */
	bool in_arrival; /* a migration is under way: its further connections are let in, and no
			  * probe is answered */
	int spare_fd;	 /* closed to turn a caller away when there are no descriptors left */
	uint64_t deaf_until_us; /* accepting failed: it is not tried again before */
	int told_fd;		/* eventfd: a caller has spoken */
	pthread_mutex_t lock;
	struct caller caller[CALLERS_MAX];
};

int callers_init(struct callers *cs, const struct listeners *listeners, struct refusals *refusals,
		 int stop_fd, int hello_ms, bool in_arrival, struct err *e);

/*
 * Waits for the next caller that has said all it must: HELLO and MACHINE, or during an arrival the
 * HELLO of a further connection or of a probe. Otherwise a probe is answered on the caller's own
 * thread (answer_probe.h), and that is its end. All other callers are sent away and counted in
 * `refusals`; those that speak in records hear why. Returns 0; 1 if none came within `timeout_ms`
 * (-1: no limit); -1 when stopped.
 */
int callers_next(struct callers *cs, int timeout_ms, struct heard *out, struct err *e);

/* The same without waiting: 0, or 1 if there is none. */
int callers_take(struct callers *cs, struct heard *out);

/* Cuts off callers that have not said all yet. The others are told that it is too late. */
void callers_free(struct callers *cs);

/* Closes the connection of a caller. It is told why, or nothing (NULL). */
void heard_dismiss(struct heard *h, const char *why);

#endif
