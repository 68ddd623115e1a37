/*
 * The source from within: what its files tell each other. Nobody outside of migrate/source/
 * includes this. All on the migration's thread.
 */
#ifndef GODWIT_MIGRATE_SOURCE_INTERNAL_H
#define GODWIT_MIGRATE_SOURCE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/source/source.h"

struct err;
struct record;

/* -- source.c -- */

void source_enter(struct source *s, enum phase p);
void source_set_owner(struct source *s, enum owner o);

/* A record on the main connection. */
int source_send_record(struct source *s, enum record_type type, const void *body, size_t len,
		       struct err *e);

/* The next record from the destination, which must be of that type and come in that time, and
 * before the guest has stood for as long as it may. */
int source_expect(struct source *s, enum record_type type, int timeout_ms, struct record *rec,
		  struct err *e);

/* -- precopy.c -- */

/* Rounds until the guest can be parked; it may be parked in one. */
int precopy_run(struct source *s, struct err *e);
/* In the middle of a round, which then goes on: by force, or as all fits a limit that was raised.
 */
int precopy_park_within_round(struct source *s, struct err *e);

/* -- handover.c -- */

/* How long the guest may stand yet, in ms; -1: it does not stand, or is not ours any more. */
int handover_left_ms(const struct source *s);
/* 0, or -1 when the guest has stood for as long as it may. */
int handover_check_pause(const struct source *s, struct err *e);
int handover_park(struct source *s, struct err *e);
void handover_limit_pause(struct source *s);
/* From the park, if it was not done within a round, to RUNNING. */
int handover_live(struct source *s, struct err *e);
/* All of a migration to a file. */
int handover_cold(struct source *s, struct err *e);

#endif
