/*
 * Pages that the guest does not use: where it names them when it is asked, the first round leaves
 * them out, and the destination has zeros there. The round never waits for a name.
 *
 * Why no write is lost. The whole log is cleared before the guest is asked, and what is left out
 * of the round is not cleared again in it: so a write to a page that was named is found when the
 * round is over, also one that came before the name was heard here. A name that is heard when its
 * page has been sent changes nothing, and after the first round none is heard.
 */
#ifndef GODWIT_MIGRATE_UNUSED_H
#define GODWIT_MIGRATE_UNUSED_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/guest.h"

struct err;
struct source;

struct unused {
	uint64_t *named[GUEST_BLOCKS_MAX]; /* atomic; NULL: nobody was asked */
	uint64_t pages;			   /* that were left out though they were touched */
	bool listening;			   /* names are heard */
	bool asked;			   /* and the guest not told yet that it is over */
};

/* The log has just been started: asks, if there is anything to gain by it. */
int unused_ask(struct source *s, struct err *e);

/* Pages of a block were named: to a struct source. Any thread. */
void unused_found(void *source, unsigned int block, uint64_t first, uint64_t n);

/* Takes what was named by now out of these pages of `pending`: before they are cleared in the log.
 */
void unused_leave_out(struct source *s, unsigned int block, uint64_t first, uint64_t n);

/* The first round is over: no more names. */
void unused_stop(struct source *s);

/* The guest is parked, or goes on here: what was left out will stay as it is. */
void unused_done(struct source *s);

void unused_free(struct source *s);

#endif
