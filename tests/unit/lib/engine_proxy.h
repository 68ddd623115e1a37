/*
 * What lies between source and destination in the engine's tests: takes the source's connections,
 * makes one of its own to the destination for each, and passes records on. It counts them, and at
 * the one it is told does what a network does at its worst.
 */
#ifndef GODWIT_TESTS_ENGINE_PROXY_H
#define GODWIT_TESTS_ENGINE_PROXY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/channel/listeners.h"
#include "migrate/channel/uri.h"

enum proxy_fault {
	PROXY_NONE,
	PROXY_CUT,	 /* `at` records go through, then at once all connections end */
	PROXY_CUT_IN,	 /* the same, and half of the next record */
	PROXY_STALL,	 /* after `at` records nothing goes through in that direction */
	PROXY_STALL_IN,	 /* the same, after half of the next one */
	PROXY_FLIP,	 /* a bit of the next record is turned over */
	PROXY_FLIP_DATA, /* a bit of the data of the next record that has some */
};

enum proxy_way { PROXY_THERE, PROXY_BACK }; /* to the destination; to the source */

#define PROXY_LINKS 40

struct proxy;

struct proxy_link {
	struct proxy *proxy;
	enum proxy_way way;
	int from, to; /* each has its mirror, which goes the other way */
	pthread_t thread;
};

struct proxy {
	/* Set before proxy_start. */
	enum proxy_fault fault;
	enum proxy_way way;
	unsigned int at;
	uint16_t at_type; /* instead: the first record of that type; 0: none */
	uint64_t rate;	  /* bytes a second on each link, each way; 0: as fast as it goes */
	struct uri destination;

	struct uri uri; /* where it listens */

	struct listeners listeners;
	int stop_fd;
	pthread_t thread;
	pthread_mutex_t lock;
	struct proxy_link link[PROXY_LINKS]; /* under lock */
	unsigned int n_links;
	bool over;	      /* cut, or at its end */
	bool struck;	      /* the fault has happened */
	unsigned int seen[2]; /* records that went through, by way */
	uint64_t bytes[2];
	unsigned int go; /* GO records that went through */
};

void proxy_start(struct proxy *p);

/* How many records have gone through. */
unsigned int proxy_seen(struct proxy *p, enum proxy_way way);

/* Whether the fault has happened. */
bool proxy_struck(struct proxy *p);

/* Ends all connections and waits for the threads. */
void proxy_stop(struct proxy *p);

#endif
