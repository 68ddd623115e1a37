/*
 * RAM as a part of a migration. A round goes through it in steps: the pages of a step are taken
 * from the dirty log just before the lanes get them, and between two steps the caller looks at the
 * rest of the migration. The migration's thread.
 */
#ifndef GODWIT_MIGRATE_SOURCE_RAM_H
#define GODWIT_MIGRATE_SOURCE_RAM_H

#include <stdbool.h>

#include "migrate/source/part.h"

struct dirty;
struct err;
struct guest;
struct lanes;
struct pages_sender;
struct stats;

struct ram {
	struct part part; /* first; by ram_init */

	/* Set by the caller. */
	struct guest *guest;
	struct stats *stats;
	struct dirty *dirty;
	struct lanes *lanes;
	struct pages_sender *pages;
	const bool *parked; /* the guest is: no chunk is deferred any more */
	/* Before and after each step of a round: 0, or -1 to give up. */
	int (*before_step)(void *arg, struct err *e);
	int (*after_step)(void *arg, struct err *e);
	void *arg;
};

void ram_init(struct ram *r);

/*
 * Before the first round: guesses what it will send. The destination is told, unless the log does
 * not run (a file), and the round makes long steps over the rest.
 */
int ram_look_ahead(struct ram *r, struct err *e);

#endif
