/*
 * The source from within: what its files tell each other. Nobody outside of migrate/source/
 * includes this. All on the migration's thread.
 */
#ifndef GODWIT_MIGRATE_SOURCE_INTERNAL_H
#define GODWIT_MIGRATE_SOURCE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/policy/expect.h"
#include "migrate/source/answers.h"
#include "migrate/source/dirty.h"
#include "migrate/source/dirty_rate.h"
#include "migrate/source/lanes.h"
#include "migrate/source/limiter.h"
#include "migrate/source/link.h"
#include "migrate/source/pages.h"
#include "migrate/source/ram.h"
#include "migrate/source/source.h"
#include "migrate/source/steer.h"
#include "migrate/source/throttle.h"

struct err;
struct record;

struct source {
	struct source_job job;
	struct channel *channel; /* the main one */

	/* Atomic: read by anybody. */
	enum owner owner;

	/* The migration's thread. */
	struct answers answers;
	struct expect expect;
	struct steer steer;
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

/* -- source.c -- */

void source_enter(struct source *s, enum phase p);
void source_set_owner(struct source *s, enum owner o);

/* A record on the main connection. */
int source_send_record(struct source *s, enum record_type type, const void *body, size_t len,
		       struct err *e);

/* Waits for the next record from the destination. -1 if it is of another type, or does not come in
 * `timeout_ms` or before the guest has stood for as long as it may. */
int source_expect(struct source *s, enum record_type type, int timeout_ms, struct record *rec,
		  struct err *e);

/* -- precopy.c -- */

/* Sends rounds until the guest can be parked. It may be parked within one. */
int precopy_run(struct source *s, struct err *e);

/* A part calls them before and after each step of a round (ram.h). The guest may be parked in the
 * first one; the round then goes on. */
int precopy_before_step(void *source, struct err *e);
int precopy_after_step(void *source, struct err *e);

/* One round of all parts, with its figures. While the guest runs, the round is over when the
 * destination has it: what the sockets hold would otherwise be sent within the pause. */
int precopy_round(struct source *s, uint64_t round, struct err *e);

/* Waits until the destination has all of that round. */
int precopy_await(struct source *s, uint64_t round, struct err *e);

/* What is dirty in all parts is to be sent in the next round: how many pages. */
int precopy_fetch(struct source *s, uint64_t *pages, struct err *e);

/* -- handover.c -- */

/* For how many ms more the guest may stand. -1: it is not parked, or the source does not own it. */
int handover_left_ms(const struct source *s);
/* -1: the guest has stood for as long as it may. */
int handover_check_pause(const struct source *s, struct err *e);
int handover_park(struct source *s, struct err *e);
void handover_limit_pause(struct source *s);
/* Parks the guest, unless that was done within a round, and hands it over: to RUNNING. */
int handover_live(struct source *s, struct err *e);
/* Parks the guest and writes all of it to a file. */
int handover_cold(struct source *s, struct err *e);

#endif
