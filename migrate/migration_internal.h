/*
 * A migration from within: for migration.c, its owner's side, run.c, what runs on the
 * thread "migrate", and check/run.c. Nobody else includes this. `lock` guards what several
 * threads see; the status is changed in one place, which tells the owner.
 */
#ifndef GODWIT_MIGRATION_INTERNAL_H
#define GODWIT_MIGRATION_INTERNAL_H

#include <pthread.h>

#include "migrate/channel/uri.h"
#include "migrate/guest.h"
#include "migrate/migration.h"
#include "migrate/news.h"
#include "migrate/slots.h"
#include "migrate/source/source.h"
#include "migrate/agent/teller.h"
#include "vmm/base/err.h"
#include "vmm/loop.h"

struct migration {
	/* Set by migration_new. */
	struct loop *owner_loop;
	struct migration_events events;
	struct guest_machine guest; /* without a machine until migration_set_machine */
	int stop_fd;		    /* eventfd: readable when cancelled */
	struct inherited *inherited;

	/* Owner's thread. */
	pthread_t thread;
	bool thread_started; /* and not yet joined */
	struct uri uri;
	struct loop_watch timeout; /* a timerfd, armed while a migration out is under way */
	struct timeout progress;
	struct migration_parameters parameters;
	struct migration_parameters used; /* by the one under way: constant for its thread */
	struct source_limits limits;	  /* a copy of what may change: atomic */
	struct source source;
	struct teller teller; /* the guest's: through all migrations */
	struct slots slots;   /* its own: by turns the owner's and the migration's thread */
	struct err why_slots; /* why there are none */
	struct destination *destination;
	bool receives;	   /* atomic: the same, for those who tell the owner something */
	struct news news;  /* of one that receives: from its threads */
	bool paused;	   /* receiving: do not let it run */
	bool arrived_runs; /* receiving: the guest is to run; the thread's until it is over */
	struct uri check_uri;
	struct migration_parameters checked; /* by the one under way: constant for its thread */
	struct check check;		     /* its thread's until it is over */

	pthread_mutex_t lock;
	enum phase phase;
	enum owner owner; /* not the source: GO is on its way, and no cancel is taken */
	struct err error, cancel_reason;
	uint64_t start_us, end_us;
	char waiting[512]; /* for what, before it began; "": not */
	enum check_status check_status;
	bool check_cancelled;
	struct err check_error;

	/* Held by whoever calls the owner. He runs one call after the other, but not once his loop
	 * has ended: then each runs its own. Never taken by the owner while his loop runs. */
	pthread_mutex_t calling;

	struct stats stats; /* atomic members */
};

/* -- migration.c: the owner's thread -- */

/* That too, and whether the machine is as its tree says, which others will build it from. */
int migration_check_machine(struct migration *mig, struct err *e);
/* Whether one with the present parameters could be: what is known before it begins. */
int migration_check_parameters(struct migration *mig, struct err *e);
/* Nothing is left of the thread before: of a migration or of a check. */
void migration_end_before(struct migration *mig);
int migration_start_thread(struct migration *mig, void *(*thread)(void *), struct err *e);
/* Takes the step, if it is legal (phase.h), and tells of it: after a cancel nothing but an end is.
 */
void migration_enter(struct migration *mig, enum phase s);
/* The guest is no longer here. */
void migration_left(void *mig);
void migration_decided(struct migration *mig, enum decision d, const char *reason);

/* -- run.c: its own thread -- */

void *migration_out_thread(void *mig);
void *migration_in_thread(void *mig);
/* Calls fn on the owner's thread and waits for it. */
void migration_call_owner(struct migration *mig, void (*fn)(void *arg), void *arg);
/* migration_decided, from any thread; as teller and source call it. A source waits for its owner,
 * one that receives does not. */
void migration_tell_decision(void *mig, enum decision d, const char *reason);
/* Owner's thread: what a receiving migration has posted. */
void migration_take_news(void *mig, const struct news_item *item);
/* NULL when it cannot be had. `bind`: a local address, "": any. */
struct channel *migration_connect(struct migration *mig, const struct uri *u, const char *bind,
				  struct err *e);

/* -- check/run.c -- */

bool migration_is_checking(struct migration *mig);

#endif
