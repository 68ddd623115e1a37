/*
 * The migrations of one machine, one after the other: parameters, start, cancel, questions. The
 * work is done on a thread of its own, "migrate". phase.h draws the phases.
 */
#ifndef GODWIT_MIGRATE_MIGRATION_H
#define GODWIT_MIGRATE_MIGRATION_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/check/check.h"
#include "migrate/decisions.h"
#include "migrate/phase.h"
#include "migrate/parameters.h"
#include "migrate/stats.h"

struct destination;
struct err;
struct inherited;
struct loop;
struct machine;
struct migration;

/* Called on the owner's thread. */
struct migration_events {
	void (*status)(void *arg, enum phase s);
	void (*pass)(void *arg, uint64_t round);
	void (*decision)(void *arg, enum decision d, const char *reason);
	/* The guest is no longer here: `where` names the place. */
	void (*moved)(void *arg, const char *where);
	/* A guest has arrived and is about to run: whatever has asked for the end of this VM, and
	 * was not looked at yet, is to be looked at now (and cancels, if it does); -1: that cannot
	 * be known, so it must not run. May be NULL. */
	int (*arrived)(void *arg, struct err *e);
	void *arg;
};

/* One for each machine, for all its migrations, one after the other. Without a machine (NULL: it
 * comes later, by migration_set_machine) there can be parameters and questions. */
int migration_new(struct migration **out, struct machine *m, struct loop *owner_loop,
		  const struct migration_events *events, struct err *e);
void migration_set_machine(struct migration *mig, struct machine *m);
/* What fd:N may name; stays the caller's. Without it nothing. */
void migration_set_inherited(struct migration *mig, struct inherited *inherited);
/* Cancels what is under way and waits for its end; when the owner's loop does not run any more
 * (else each would wait for the other). NULL is allowed. */
void migration_free(struct migration *mig);

/*
 * Makes the migrations of the VM called `vm` count among those that leave this host, over all VMs
 * whose runtime directory is `dir`. While there is the right to make a file there. Where that fails
 * one with a policy is refused, by the reason.
 */
void migration_open_slots(struct migration *mig, const char *dir, const char *vm);

/*
 * The owner's thread. What may change while a migration runs holds at once, the rest for the next.
 * -1, without effect: this VM cannot do it.
 */
void migration_get_parameters(struct migration *mig, struct migration_parameters *out);
int migration_set_parameters(struct migration *mig, const struct migration_parameters *p,
			     struct err *e);

/* Whether a migration is between its start and its end. */
bool migration_under_way(struct migration *mig);

/* -1 unless this VM could be migrated now: a migration or a check is under way, or the guest is not
 * in a status that it can leave. */
int migration_refuse_busy(struct migration *mig, struct err *e);

/* Starts a migration to a URI. -1: another one is under way, or the URI cannot be used. */
int migration_start(struct migration *mig, const char *uri, struct err *e);

/* Cancels. `why` becomes the error; "": a person cancelled. False, with no effect, if no migration
 * runs or GO was sent. Any thread. */
bool migration_cancel(struct migration *mig, const char *why);

/* Undecided only, at either side: a person says that the guest does not run at the other side, so
 * it goes on here. */
int migration_force_resume(struct migration *mig, struct err *e);

/* What query-migrate reports. Times are in ms since the start. */
struct migration_report {
	enum phase status;
	enum owner owner; /* of the guest, as the migration has left it */
	char error[512];  /* of a failed one, else "" */
	char uri[512];
	char waiting[512]; /* why it has not begun yet, else "" */
	uint64_t total_ms;
	struct migration_parameters parameters;
	bool xbzrle;			/* was allowed */
	uint64_t limit_ms;		/* the downtime that is allowed now */
	char policy[POLICY_NAME_BYTES]; /* the policy's name, "": without */
	struct stats stats;		/* a copy */
	unsigned int n_vcpus;
	bool vcpu_dirty_known; /* the figures of each vCPU mean something */
	uint64_t rate_bytes;   /* a second: in the round under way, at the end over the last one */
	bool incoming;
};

void migration_query(struct migration *mig, struct migration_report *out);

/*
 * Checks what would become of a migration to a URI with the present parameters (check.h), in the
 * background. -1 when one cannot begin. While it runs no migration does, and the other way round;
 * migration_cancel ends it too. What is told of the last migration stays.
 */
int migration_check(struct migration *mig, const char *uri, struct err *e);

enum check_status { CHECK_NONE, CHECK_ACTIVE, CHECK_COMPLETED, CHECK_FAILED, CHECK_CANCELLED };

struct check_report {
	enum check_status status;
	char error[512]; /* of a failed one, else "" */
	char uri[512];
	struct check check; /* completed: what was found */
};

/* Reports the check that runs, or the last one. */
void migration_query_check(struct migration *mig, struct check_report *out);

/*
 * The other side: takes a machine in, in the background. `d` has answered its source; it is freed
 * at the end, whatever that is. Events: status, then nothing more when completed (the guest runs,
 * or is paused if `paused`), or failed (it must never run).
 */
int migration_receive(struct migration *mig, struct destination *d, bool paused, struct err *e);

#endif
