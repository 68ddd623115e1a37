/*
 * The door of a waiting destination decides which source comes in, which has to wait and which is
 * sent away. It outlives the arrivals, and lets in one at a time:
 *
 *     door_open --> door_next --> (the machine is built) --> door_shut
 *                      ^                  |                      |
 *                      +--- refused ------+        door_enter, door_lane..., door_watch
 *                                                                |
 *                  door_pass_on <------- it did not arrive ------+----> it has: door_close
 *
 * A second source that connects during an arrival waits until the first one sends something. Then
 * it is told that another guest is just coming. If the first one is silent for DOOR_CONTENDED_MS
 * meanwhile, its arrival is given up; without a second source that takes `silence_ms`. So a
 * stranger that begins a migration and then says nothing keeps no source out. Silence is that of
 * the whole migration, not of one connection, and counts until the guest's states are here.
 */
#ifndef GODWIT_MIGRATE_DOOR_H
#define GODWIT_MIGRATE_DOOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/destination/callers.h"

struct listeners;

#define DOOR_WAITING_MAX 8

/* A peer that connects must have sent HELLO and MACHINE within this. */
#define DOOR_HELLO_MS 10000

/* Well above any silence of a source at work (it waits 12 s for the guest's agent), and well below
 * the 60 s that a source waits to be let in. */
#define DOOR_CONTENDED_MS 20000

/* A source that sends this in that time counts as at work while another one waits. */
#define DOOR_WORK_BYTES 16384u
#define DOOR_SILENCE_MS 60000

/* What the door asks of the arrival that it watches, on the door's thread. */
struct door_arrival {
	uint64_t (*received)(void *arg); /* bytes from its source so far */
	void (*give_up)(void *arg, const char *why);
	void *arg;
};

/* What the processes of one `receive` share. Each, one after the other, may receive a guest. */
struct door_shared {
	const struct listeners *listeners;
	struct refusals *refusals; /* in shared memory */
	int passed_on[2];	   /* sockets: waiting sources, from one process to the next */
};

struct door {
	/* Set by door_init. */
	struct door_shared shared;
	int silence_ms, contended_ms; /* tests make them shorter */

	/* Its user's thread, and while it is watched the door's own. */
	bool open;
	struct callers callers;
	struct heard waiting[DOOR_WAITING_MAX]; /* complete, oldest first */
	unsigned int n_waiting;

	pthread_t thread;
	bool watching;
	int end_fd; /* eventfd, or -1: ends what the door does */
	struct door_arrival arrival;
	uint64_t bytes, since_us; /* own thread: how many had come, and when the last ones came */
};

/* The sockets that `passed_on` needs. */
int door_make_passage(int passed_on[2], struct err *e);

void door_init(struct door *d, const struct door_shared *shared, int silence_ms);

/* Begins to hear callers, on threads. Sources that an earlier process has passed on come first. */
int door_open(struct door *d, struct err *e);

/* Ends door_next and what it waits for. Any thread. */
void door_stop(struct door *d);

/* The next source that begins a migration; -1 when stopped. The door is open. */
int door_next(struct door *d, struct heard *out, struct err *e);

/* Ends its threads. Callers that have said all they must are kept. Does nothing if it is not open.
 */
void door_shut(struct door *d);

/* Opens it for the further connections of an arrival. */
int door_enter(struct door *d, int stop_fd, int hello_ms, struct err *e);

/* The next further connection of the migration with that id, until `deadline_us`. */
int door_lane(struct door *d, const uint8_t id[16], uint64_t deadline_us, struct heard *out,
	      struct err *e);

/* Watches the arrival on a thread of its own, until door_unwatch. */
int door_watch(struct door *d, const struct door_arrival *arrival, struct err *e);
void door_unwatch(struct door *d);

/* A guest has come: sources that wait are told that it is too late. */
void door_close(struct door *d);

/* No guest has come: sources that wait are left to the next process that opens a door with the
 * same passage. */
void door_pass_on(struct door *d);

#endif
