/*
 * A migration from within. One object in four files, of which each calls only those before it:
 * tell.c (what the owner is told), run.c (the thread "migrate"), migration.c (the owner's side) and
 * check/run.c (a check on that thread). No other file includes this.
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
	int stop_fd;		    /* wake.h: set by a cancel */
	struct inherited *inherited;

	/* Owner's thread. */
	pthread_t thread;
	bool thread_started; /* and not yet joined */
	struct uri uri;
	struct loop_watch timeout; /* a timerfd, armed while a migration out is under way */
	struct timeout progress;
	struct migration_parameters parameters;
	struct migration_parameters used; /* by the present migration; constant for its thread */
	struct source_limits limits;	  /* atomic: the parameters that may change meanwhile */
	struct teller teller;		  /* of the guest, through all migrations */
	struct slots slots;   /* used by the owner's and the migration's thread in turn */
	struct err why_slots; /* why there are no slots */
	struct destination *destination; /* NULL: a migration out */
	bool receives;	   /* atomic: there is a destination; for threads that tell the owner */
	struct news news;  /* receiving: from the migration's threads */
	bool paused;	   /* receiving: the guest must not be let run */
	bool arrived_runs; /* receiving: the guest is to run; the thread's until its end */
	struct uri check_uri;
	struct migration_parameters checked; /* by the present check; constant for its thread */
	struct check check;		     /* the thread's until its end */

	/* Under `lock`. */
	pthread_mutex_t lock;
	enum phase phase;
	enum owner owner; /* other than the source: GO comes next, and no cancel is taken */
	struct err error, cancel_reason;
	uint64_t start_us, end_us;
	char waiting[512]; /* what it waits for before it begins; "": nothing */
	enum check_status check_status;
	bool check_cancelled;
	struct err check_error;

	/*
	 * Held while the owner is called. While its loop runs, the owner does one call after the
	 * other and never takes this. Once its loop has ended, callers run their calls themselves,
	 * and this keeps them apart.
	 */
	pthread_mutex_t calling;

	struct stats stats; /* atomic members */
};

/* -- migration.c: the owner's thread -- */

/* -1 unless the VM is free to leave, and its machine is what its tree says, from which others will
 * build it. */
int migration_check_machine(struct migration *mig, struct err *e);
/* -1 if a migration with the present parameters is known to be impossible. */
int migration_check_parameters(struct migration *mig, struct err *e);
/* Joins the thread of the last migration or check, and forgets its cancel. */
void migration_end_before(struct migration *mig);
int migration_start_thread(struct migration *mig, void *(*thread)(void *), struct err *e);

/* -- run.c: the thread "migrate" -- */

void *migration_out_thread(void *mig);
void *migration_in_thread(void *mig);
/* Connects to `u`. `bind` is a local address; "": any. NULL, with the error, if it fails. */
struct channel *migration_connect(struct migration *mig, const struct uri *u, const char *bind,
				  struct err *e);

/* -- tell.c: the owner's thread -- */

/* Takes the step and tells of it. Does nothing if the step is not legal (phase.h): after a cancel
 * only an end is. */
void migration_enter(struct migration *mig, enum phase s);
/* The guest is no longer here. */
void migration_left(void *mig);
void migration_decided(struct migration *mig, enum decision d, const char *reason);
/* What a migration that comes in has posted. */
void migration_take_news(void *mig, const struct news_item *item);

/* -- tell.c: the migration's threads -- */

/* Calls fn on the owner's thread and waits for it. */
void migration_call_owner(struct migration *mig, void (*fn)(void *arg), void *arg);
/* migration_enter there, and waits for it. So the owner never sees the end before this thread has
 * nothing more to ask: the owner may then start anew, and joins this thread. */
void migration_tell_phase(struct migration *mig, enum phase s);
void migration_tell_round(void *mig, uint64_t round);
/* migration_decided there, as the engine and the teller call it. A migration out waits for it; one
 * that comes in does not. */
void migration_tell_decision(void *mig, enum decision d, const char *reason);

#endif
