/*
 * The migrations of one machine as its owner sees them: parameters, start, cancel, questions, the
 * end. One after the other; the work is done on a thread of its own, "migrate".
 *
 *     none --> setup --> active --> device --> completed
 *                 \---------\----------\--> failed, cancelled    (the guest goes on at the source)
 *                                       \--> undecided           (after GO, without RUNNING)
 *
 * The statuses are QEMU's, but for undecided, which QEMU does not know; QMP calls it
 * "postcopy-paused", the status by which management tools know that a person is wanted.
 */
#ifndef GODWIT_MIGRATE_MIGRATION_H
#define GODWIT_MIGRATE_MIGRATION_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/stats.h"

struct destination;
struct err;
struct loop;
struct machine;
struct migration;

enum migration_status {
	MIGRATION_NONE,
	MIGRATION_SETUP,
	MIGRATION_ACTIVE,
	MIGRATION_DEVICE, /* the guest is parked */
	MIGRATION_COMPLETED,
	MIGRATION_FAILED,
	MIGRATION_CANCELLING,
	MIGRATION_CANCELLED,
	MIGRATION_UNDECIDED,
};

/* QEMU's MigrationStatus names. */
const char *migration_status_name(enum migration_status s);

/* Called on the owner's thread. */
struct migration_events {
	void (*status)(void *arg, enum migration_status s);
	void (*pass)(void *arg, uint64_t round);
	void (*decision)(void *arg, const char *action, const char *reason);
	/* The guest is no longer here: `where` names the place. */
	void (*moved)(void *arg, const char *where);
	void *arg;
};

struct migration_parameters {
	uint64_t bandwidth;   /* bytes a second, 0 = no limit; may change while it runs */
	uint64_t downtime_ms; /* may change while it runs */
	uint64_t timeout_s;   /* from the start to GO, 0: none; may change while it runs */
	uint32_t channels;    /* count only with `multifd`, as in QEMU */
	bool multifd;
	char bind[64]; /* local address, "": any */
};

/* One for each machine, for all its migrations, one after the other. Without a machine (NULL: it
 * comes later, by migration_set_machine) there can be parameters and questions. */
int migration_new(struct migration **out, struct machine *m, struct loop *owner_loop,
		  const struct migration_events *events, struct err *e);
void migration_set_machine(struct migration *mig, struct machine *m);
/* Cancels what is under way and waits for its end; when the owner's loop does not run any more
 * (else each would wait for the other). NULL is allowed. */
void migration_free(struct migration *mig);

/* The owner's thread. Channels and local address hold for the next migration, the rest at once. */
void migration_get_parameters(struct migration *mig, struct migration_parameters *out);
void migration_set_parameters(struct migration *mig, const struct migration_parameters *p);

/* Whether one is between its start and its end. */
bool migration_under_way(struct migration *mig);

/* Starts one to a URI; -1 when another is under way or the URI cannot be used. */
int migration_start(struct migration *mig, const char *uri, struct err *e);

/* Asks for the end, with the sentence that will be the error ("" when a person cancelled); without
 * effect when there is none or GO was sent. */
void migration_cancel(struct migration *mig, const char *why);

/* Undecided only: a person says that the guest does not run elsewhere, so it goes on here. */
int migration_force_resume(struct migration *mig, struct err *e);

/* What query-migrate tells. Times in ms, since the start. */
struct migration_report {
	enum migration_status status;
	char error[512]; /* of a failed one, else "" */
	char uri[512];
	uint64_t total_ms;
	struct migration_parameters parameters;
	struct stats stats;  /* a copy */
	uint64_t rate_bytes; /* a second: in the round under way, at the end over the last one */
	bool incoming;
};

void migration_query(struct migration *mig, struct migration_report *out);

/*
 * The other side: takes a machine in, in the background. `d` has answered its source; it is freed
 * at the end, whatever that is. Events: status, then nothing more when completed (the guest runs,
 * or is paused if `paused`), or failed (it must never run).
 */
int migration_receive(struct migration *mig, struct destination *d, bool paused, struct err *e);

#endif
