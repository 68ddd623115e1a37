/*
 * A whole machine into a stream, and out of one: cold migration. The guest is parked for all of it.
 *
 *     HELLO  MACHINE  PAGES...  STATES  END
 */
#ifndef GODWIT_MIGRATE_SNAPSHOT_H
#define GODWIT_MIGRATE_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/stream/record.h"
#include "vmm/tree.h"

struct err;
struct guest;

/* Read by others while it is written: atomic. */
struct snapshot_progress {
	uint64_t total_pages;  /* of the guest's RAM */
	uint64_t seen_pages;   /* looked at so far */
	uint64_t normal_pages; /* written */
	uint64_t bytes;	       /* on the channel */
	bool cancel;	       /* set by anybody: stop soon, with an error */
};

/* Writes everything; the guest is parked. The channel is not finished yet. */
int snapshot_save(struct guest *g, struct channel *ch, struct snapshot_progress *p, struct err *e);

/*
 * Reads HELLO and MACHINE, from which the caller builds the machine; then the rest into it.
 * Errors name the channel. After a failed snapshot_load the guest must not run.
 */
int snapshot_open(struct reader *r, struct tree *machine, struct hello *hello, struct err *e);
int snapshot_load(struct reader *r, struct guest *g, struct err *e);

#endif
