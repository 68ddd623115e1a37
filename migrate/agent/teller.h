/*
 * Tells the guest that it is about to be moved, and that this is over (enableGuestEvents of a
 * policy): on a thread of its own, "agent", so that pages go over meanwhile. What became of it is a
 * decision "guest-event"; no guest is the less moved for it.
 *
 * Only what holds at last is told: a guest that heard before_migration hears after_migration, in
 * this order and one after the other; one that did not hear the first does not hear the second.
 *
 * Called by the migration's thread, or by its owner's while there is none.
 */
#ifndef GODWIT_MIGRATE_TELLER_H
#define GODWIT_MIGRATE_TELLER_H

#include <pthread.h>
#include <stdbool.h>

#include "migrate/decisions.h"
#include "migrate/agent/agent.h"

struct guest;

/* How long the agent may take for an answer, and the hook until it has ended. */
#define TELLER_ANSWER_MS 2000
#define TELLER_HOOK_MS	 10000

/* A guest that waits for the end and cannot be told (it is paused, somebody else has the channel)
 * is tried again so often, and then left to the next host or migration. */
#define TELLER_TRIES	15
#define TELLER_RETRY_MS 2000

struct teller {
	/* Set by teller_init, and before the first teller_want; then constant. */
	struct guest *guest;
	struct decisions decisions;	  /* told on the thread "agent" */
	int answer_ms, hook_ms, retry_ms; /* tests make them shorter */
	int halt_fd, idle_fd; /* eventfds: readable when told to stop; when the thread is done */

	/* Who calls. */
	pthread_t thread;
	bool joinable;

	pthread_mutex_t lock;
	/* Under lock. */
	bool running;
	const char *halted;		  /* why; NULL: not */
	enum guest_event wanted, settled; /* what the guest is to know; what was dealt with last */
	bool told;			  /* it has heard before_migration, and nothing since */
	bool gave_up;			  /* to tell what is wanted, until somebody wants it anew */
};

int teller_init(struct teller *t, struct err *e);
/* Halts it first. */
void teller_free(struct teller *t);

/* The guest is to know this, soon. Does not wait. */
void teller_want(struct teller *t, enum guest_event event);

/* Something is being told. While it is, idle_fd is not readable. */
bool teller_busy(struct teller *t);

/* Ends at once what is being told, before the guest is parked, and waits for that. What the hook
 * has not been started for yet counts as never begun. */
void teller_halt(struct teller *t, const char *why);

/* Whether the guest has heard of a migration and not of its end; and, at the destination, that it
 * has at the source. Not while it is busy. */
bool teller_told(struct teller *t);
void teller_set_told(struct teller *t);

#endif
