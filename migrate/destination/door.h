/*
 * The door of a waiting destination: who may come in, who has to wait, who is sent away. It
 * outlives the arrivals, of which it lets in one at a time:
 *
 *     door_open --> door_next --> (the machine is built) --> door_shut
 *                      ^                  |                      |
 *                      +--- refused ------+        door_enter, door_lane..., door_watch
 *                                                                |
 *                  door_pass_on <------- it did not arrive ------+----> it has: door_close
 *
 * A source that comes during an arrival hears that another guest is just coming, once bytes of that
 * have come after it. While none do it is kept waiting, and after DOOR_CONTENDED_MS of silence
 * the arrival is given up for it; after `silence_ms` in any case. So a stranger that begins a
 * migration and then says nothing keeps nobody out. The time is of the whole migration, not of one
 * connection, and counts until the guest's states are here.
 */
#ifndef GODWIT_MIGRATE_DOOR_H
#define GODWIT_MIGRATE_DOOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/destination/callers.h"

struct listeners;

#define DOOR_WAITING_MAX 8

/* Who connects must have said HELLO, and what its machine is, within this. */
#define DOOR_HELLO_MS 10000

/* Well above every silence of a source that is at work (it waits 12 s for the guest's agent), well
 * below the 60 s that a source waits to be let in. */
#define DOOR_CONTENDED_MS 20000

/* What a source must send in that time to be at work, when another one waits. */
#define DOOR_WORK_BYTES 16384u
#define DOOR_SILENCE_MS 60000

/* What the door asks of the arrival that it watches; from its own thread. */
struct door_arrival {
	uint64_t (*received)(void *arg); /* bytes from its source so far */
	void (*give_up)(void *arg, const char *why);
	void *arg;
};

/* What several processes share, one after the other, each of which may receive a guest. */
struct door_shared {
	const struct listeners *listeners;
	struct refusals *refusals; /* in shared memory */
	int passed_on[2];	   /* sockets: those who wait, from one process to the next */
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
	int end_fd; /* eventfd, -1: none; readable when what it does is to end */
	struct door_arrival arrival;
	uint64_t bytes, since_us; /* own thread: how many have come, and since when */
};

/* The sockets that `passed_on` needs. */
int door_make_passage(int passed_on[2], struct err *e);

void door_init(struct door *d, const struct door_shared *shared, int silence_ms);

/* Hears those who connect, on threads. Those whom an earlier process has passed on come first. */
int door_open(struct door *d, struct err *e);

/* Ends door_next, and what it waits for. Any thread. */
void door_stop(struct door *d);

/* The next one that begins a migration; -1 when stopped. The door is open. */
int door_next(struct door *d, struct heard *out, struct err *e);

/* Its threads end; whoever has said all it must is kept. Nothing when it is not open. */
void door_shut(struct door *d);

/* The same sockets during an arrival: those of its further connections among the callers. */
int door_enter(struct door *d, int stop_fd, int hello_ms, struct err *e);

/* The next further connection of the migration with that id, until `deadline_us`. */
int door_lane(struct door *d, const uint8_t id[16], uint64_t deadline_us, struct heard *out,
	      struct err *e);

/* Watches the arrival on a thread of its own, until door_unwatch. */
int door_watch(struct door *d, const struct door_arrival *arrival, struct err *e);
void door_unwatch(struct door *d);

/* A guest has come: who waits is told that it is too late. */
void door_close(struct door *d);

/* No guest has come: whoever waits waits on, for whoever opens a door with the same passage. */
void door_pass_on(struct door *d);

#endif
