/*
 * A migration of one machine as its owner sees it: started, cancelled, asked about, over.
 *
 *     none --> setup --> active --> device --> completed
 *                 \---------\----------\--> failed, cancelled      (the guest goes on here)
 *
 * The owner's thread starts and ends it; the work is done on a thread of its own, "migrate".
 */
#ifndef GODWIT_MIGRATE_MIGRATION_H
#define GODWIT_MIGRATE_MIGRATION_H

#include <stdbool.h>
#include <stdint.h>

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
};

/* QEMU's MigrationStatus names. */
const char *migration_status_name(enum migration_status s);

/* Called on the owner's thread. */
struct migration_events {
	void (*status)(void *arg, enum migration_status s);
	/* The guest is no longer here: `where` names the place. */
	void (*moved)(void *arg, const char *where);
	void *arg;
};

/* One for each machine, for all its migrations, one after the other. */
int migration_new(struct migration **out, struct machine *m, struct loop *owner_loop,
		  const struct migration_events *events, struct err *e);
/* Cancels what is under way and waits for its end; when the owner's loop does not run any more
 * (else each would wait for the other). NULL is allowed. */
void migration_free(struct migration *mig);

/* Starts one to "file:PATH"; -1 when another is under way or the URI cannot be used. */
int migration_start(struct migration *mig, const char *uri, struct err *e);

/* Asks for the end; without effect when there is none or it is too late. */
void migration_cancel(struct migration *mig);

/* What query-migrate tells. Times in ms, since the start. */
struct migration_report {
	enum migration_status status;
	char error[512]; /* of a failed one, else "" */
	uint64_t total_ms, setup_ms, downtime_ms;
	uint64_t total_pages, seen_pages, normal_pages, bytes;
};

void migration_query(struct migration *mig, struct migration_report *out);

#endif
