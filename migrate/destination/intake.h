/*
 * The pages of one connection on their way from its reader to their place (place.h). The thread
 * that reads the connection owns the intake.
 */
#ifndef GODWIT_MIGRATE_DESTINATION_INTAKE_H
#define GODWIT_MIGRATE_DESTINATION_INTAKE_H

#include <stdint.h>

#include "migrate/destination/decoder.h"

struct ahead;
struct err;
struct place;
struct reader;
struct record;
struct stats;

/* Set the pointers; all else zero. */
struct intake {
	struct reader *reader;
	struct place *place;
	struct ahead *ahead; /* is told how far the data are; several connections share it */
	struct stats *stats; /* the same */
	struct decoder decoder;
	uint8_t *scratch; /* pages that the place takes by copy: INTAKE_SCRATCH_PAGES of them */
};

#define INTAKE_SCRATCH_PAGES PAGES_ENCODED_MAX

/* Takes a PAGES record that was just read, and its data. After -1 the pages may hold anything,
 * except in a place that takes copies: there they are as they were. */
int intake_pages(struct intake *in, const struct record *rec, struct err *e);

void intake_free(struct intake *in);

#endif
