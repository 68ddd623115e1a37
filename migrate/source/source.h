/*
 * The source's side of a migration, from the first record to the last (migrate/README.md draws it).
 * It knows the guest by guest.h and the destination by channels, and reports by callbacks.
 */
#ifndef GODWIT_MIGRATE_SOURCE_H
#define GODWIT_MIGRATE_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/source/answers.h"
#include "migrate/source/throttle.h"
#include "migrate/policy/expect.h"
#include "migrate/decisions.h"
#include "migrate/guest.h"
#include "migrate/parameters.h"
#include "migrate/phase.h"
#include "migrate/source/dirty.h"
#include "migrate/source/dirty_rate.h"
#include "migrate/source/lanes.h"
#include "migrate/source/limiter.h"
#include "migrate/source/link.h"
#include "migrate/source/pages.h"
#include "migrate/source/ram.h"
#include "migrate/stats.h"
#include "migrate/source/steer.h"

struct channel;
struct err;
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

struct source {
	/* Set by the caller. */
	struct guest *guest;
	struct channel *channel; /* the main one; not closed here */
	unsigned int n_lanes;	 /* 1 to LANES_MAX */
	bool cold;		 /* to a file: the guest is parked from the start, nobody answers */
	int stop_fd;
	struct source_limits *limits; /* a policy raises the downtime */
	/* Those that cannot change while it runs; `limits` has the others. */
	struct migration_parameters parameters;
	struct teller *teller; /* NULL: the guest's agent is told nothing */
	bool guest_events;     /* it is told of this migration */
	struct stats *stats;
	struct source_events events;
	struct decisions decisions; /* told on any of its threads */

	/* For tests; 0 and NULL: what is usual. How long to wait for CHECKED, for ROUND while the
	 * guest runs, for RUNNING; and the spare time of the switchover timeout (handover.h). */
	int checked_ms, round_ms, running_ms, spare_ms;
	const uint8_t *fixed_id; /* 16 bytes */
	const char *program;

	/* Atomic: read by anybody. */
	enum owner owner;

	/* The migration's thread. */
	struct answers answers;
	struct expect expect;
	struct steer steer; /* steer_begin before source_run; zero: no policy */
	struct limiter limiter;
	struct lanes lanes;
	struct dirty dirty;
	struct pages_sender pages;
	struct ram ram;
	struct part *parts[PARTS_MAX];
	unsigned int n_parts;
	struct throttle throttle;
	struct page_cache *cache; /* for XBZRLE */
	struct link link;
	struct dirty_rate dirty_rate;
	struct channel *extra[LANES_MAX];
	uint8_t id[16];
	uint64_t features;		   /* of the stream: what the destination has accepted */
	uint64_t parked_at_us, give_up_us; /* 0: it was not limited yet */
	bool parked;
	bool parked_within; /* within a round, of which pages may still be on the way */
	bool last_round_in; /* the destination has the round that was sent in the pause */
	bool stuck;	    /* the migration failed, and the guest could not run again */
};

/*
 * Runs the whole migration. 0: the guest runs at the destination, or is in the file. -1: it is not,
 * and s->owner says where it is. OWNER_SOURCE: here, as it was before, at full speed. OWNER_NOBODY:
 * GO was sent and RUNNING did not come; the guest is parked here, and only a person may resume it.
 */
int source_run(struct source *s, struct err *e);

#endif
