/*
 * A guest that comes in, from a source or from the file of a saved machine.
 *
 *   accept or open --> the caller builds the machine from the tree --> answer --> receive --> start
 */
#ifndef GODWIT_MIGRATE_DESTINATION_H
#define GODWIT_MIGRATE_DESTINATION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/destination/place.h"
#include "migrate/destination/receive.h"
#include "migrate/guest.h"
#include "migrate/stats.h"
#include "migrate/stream/hello.h"
#include "vmm/base/err.h"

struct channel;
struct destination;
struct door;
struct teller;

struct destination {
	/* Set by destination_accept or destination_open. */
	struct hello hello;
	bool cold;	   /* a file */
	struct door *door; /* further connections come by it; NULL: none can */
	int stop_fd;
	/* How long to wait for further connections, and how old GO may be (handover.h). Tests make
	 * them shorter. */
	int lanes_ms, go_ms;
	struct receive in;    /* its connections, and what comes on them */
	struct writer writer; /* to the source */
	uint64_t heard_us;    /* MACHINE came then */
	bool costs_known;     /* destination_set_costs */
	struct checked_costs costs;

	/* Set by the caller, or NULL. Asked on the owner's thread right before the guest runs. 0:
	 * no cancel is taken from here on. -1: the guest must not run. */
	int (*commit)(void *arg, struct err *e);
	void *commit_arg;

	/* Set by the caller. NULL: the guest's agent is told nothing. */
	struct teller *teller;

	/* Where pages go. Set by the caller, or NULL: into the guest's memory as it is. */
	struct place *place;
	struct place memory;

	struct guest *guest;
	struct stats *stats;
	uint64_t ready_ns; /* READY was sent then; CLOCK_BOOTTIME, which counts while a host sleeps
			    */
	/* The source has handed the guest over and then closed the connection. Neither side knows
	 * whether the guest runs at the other one. */
	bool undecided;
};

/*
 * Waits at an open door until a migration begins: HELLO and MACHINE. -1 when stopped. The caller
 * shuts the door before destination_receive, which opens it anew; it lives as long as `d`.
 */
int destination_accept(struct destination *d, struct door *door, int stop_fd, struct tree *machine,
		       struct err *e);

/* The same on an open connection or file, which `d` owns from here on, also on -1. */
int destination_open(struct destination *d, struct channel *ch, bool cold, int stop_fd,
		     struct tree *machine, struct err *e);

/* A descriptor that ends all waits from here on as soon as it is readable. */
void destination_set_stop(struct destination *d, int stop_fd);

/* How long loading the states and starting the vCPUs take here, as rehearsed. The next answer says
 * so. */
void destination_set_costs(struct destination *d, uint64_t load_us, uint64_t start_us);

/* Tells the source whether its machine was built (NULL), or why it was not. */
int destination_answer(struct destination *d, const char *refusal, struct err *e);

/*
 * Receives all pages, loads the states and, if there is a source, sends READY and waits for GO. On
 * 0 the guest may be started (destination_start). On -1 it must never run; the source was told if
 * it still listens.
 */
int destination_receive(struct destination *d, struct guest *g, struct stats *stats, struct err *e);

/* Starts the guest as it was, running or paused, and sends RUNNING; or FAILED if it cannot start.
 * On -1 with d->undecided the guest is whole and parked here, and a person decides. */
int destination_start(struct destination *d, bool paused, struct err *e);

void destination_free(struct destination *d);

#endif
