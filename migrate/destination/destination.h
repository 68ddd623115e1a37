/*
 * The destination's side of a migration, or the reading of a saved machine.
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
	struct door *door; /* by which further connections come; NULL: none can */
	int stop_fd;
	/* How long to wait for further connections; how old GO may be (handover.h). Tests make them
	 * shorter. */
	int lanes_ms, go_ms;
	struct receive in;    /* its connections, and what comes on them */
	struct writer writer; /* to the source */
	uint64_t heard_us;    /* when MACHINE was here */
	bool costs_known;     /* destination_set_costs */
	struct checked_costs costs;

	/* Set by the caller, or NULL: asked on the owner's thread right before the guest is let
	 * run; -1: it must not be, and from a 0 on nobody can cancel any more. */
	int (*commit)(void *arg, struct err *e);
	void *commit_arg;

	struct teller *teller; /* set by the caller; NULL: the guest's agent is told nothing */

	/* Where its pages go, if the caller has another place than the guest's memory as it is. */
	struct place *place;
	struct place memory; /* that one */

	struct guest *guest;
	struct stats *stats;
	uint64_t ready_ns; /* CLOCK_BOOTTIME, which goes on while the host sleeps: READY was said */
	/* The source has handed the guest over and then closed the connection: whether it runs
	 * there is not known here, and the source does not know whether it runs here. */
	bool undecided;
};

/*
 * Waits at an open door until a migration begins: HELLO and MACHINE. -1 when stopped. The door is
 * to be shut before destination_receive, which goes on with it, and to live as long as `d`.
 */
int destination_accept(struct destination *d, struct door *door, int stop_fd, struct tree *machine,
		       struct err *e);

/* The same for a connection or file that is open already (owned by d from here on, also on -1). */
int destination_open(struct destination *d, struct channel *ch, bool cold, int stop_fd,
		     struct tree *machine, struct err *e);

/* What stops the waits from here on. */
void destination_set_stop(struct destination *d, int stop_fd);

/* What loading the states and starting the vCPUs takes here, as rehearsed: for the next answer. */
void destination_set_costs(struct destination *d, uint64_t load_us, uint64_t start_us);

/* Tells the source what became of its machine: NULL for built, else why not. */
int destination_answer(struct destination *d, const char *refusal, struct err *e);

/*
 * Receives everything into the guest, loads its states and, with a source at the other end, says
 * READY and waits for GO. On 0 the guest may be started: destination_start. On -1 it must never
 * run; the source was told, if it still listens.
 */
int destination_receive(struct destination *d, struct guest *g, struct stats *stats, struct err *e);

/* Starts it (as it was: running, or paused) and says RUNNING, or FAILED if it cannot. On -1 with
 * d->undecided the guest is whole and parked here, and a person decides. */
int destination_start(struct destination *d, bool paused, struct err *e);

void destination_free(struct destination *d);

#endif
