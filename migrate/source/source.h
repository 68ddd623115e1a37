/*
 * The source's side of a migration, from the first record to the last (migrate/README.md draws it).
 * It knows the guest by guest.h and the destination by channels, and reports by callbacks.
 */
#ifndef GODWIT_MIGRATE_SOURCE_H
#define GODWIT_MIGRATE_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/decisions.h"
#include "migrate/parameters.h"
#include "migrate/phase.h"

struct channel;
struct err;
struct guest;
struct policy;
struct stats;
struct teller;

/* Atomic: these may change while the migration runs. */
struct source_limits {
	uint64_t bandwidth; /* bytes a second, 0 = none */
	uint64_t downtime_us;
	uint64_t switchover_us; /* how long the guest may stand before GO; 0: see handover.h */
	bool force;		/* park the guest now, whatever the pause will be */
};

struct source_events {
	void (*phase)(void *arg, enum phase p);
	void (*round)(void *arg, uint64_t round);
	/* Called right before GO is sent; -1, with "cancelled", prevents that. */
	int (*commit)(void *arg, struct err *e);
	/* Opens one more connection like the main one; NULL, with the error, if it fails. */
	struct channel *(*connect)(void *arg, struct err *e);
	/* The migration has failed with `e`: may replace it by a better reason. */
	void (*explain)(void *arg, struct err *e);
	void *arg;
};

/* What is to be moved, and how. */
struct source_job {
	struct guest *guest;
	unsigned int n_lanes; /* 1 to LANES_MAX */
	bool cold;	      /* to a file: the guest is parked from the start, nobody answers */
	int stop_fd;
	struct source_limits *limits; /* a policy raises the downtime */
	/* Those that cannot change while it runs; `limits` has the others. */
	struct migration_parameters parameters;
	const struct policy *policy; /* NULL: none */
	struct teller *teller;	     /* NULL: the guest's agent is told nothing */
	bool guest_events;	     /* it is told of this migration */
	struct stats *stats;
	struct source_events events;
	struct decisions decisions; /* told on any of its threads */

	/* For tests; 0 and NULL: what is usual. How long to wait for CHECKED, for ROUND while the
	 * guest runs, for RUNNING; and the spare time of the switchover timeout (handover.h). */
	int checked_ms, round_ms, running_ms, spare_ms;
	const uint8_t *fixed_id; /* 16 bytes */
	const char *program;
};

struct source;

/* Copies the job; what it points to stays the caller's. Takes the first downtime limit of the
 * policy. NULL: out of memory. */
struct source *source_new(const struct source_job *job, struct err *e);
void source_free(struct source *s);

/*
 * Runs the whole migration over `channel`, the main connection, which is not closed here. Once.
 * 0: the guest runs at the destination, or is in the file. -1: it is not, and source_owner says
 * where it is. OWNER_SOURCE: here, as it was before, at full speed. OWNER_NOBODY: GO was sent and
 * RUNNING did not come; the guest is parked here, and only a person may resume it.
 */
int source_run(struct source *s, struct channel *channel, struct err *e);

/* Who owns the guest. Any thread. */
enum owner source_owner(const struct source *s);

/* After source_run: the migration failed, and the guest could not run again. */
bool source_is_stuck(const struct source *s);

#endif
