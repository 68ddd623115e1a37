/*
 * The dirty pages of a guest: the one owner of what is still to be sent. The migration's thread.
 *
 * A page that the guest has written to is, one after the other,
 *
 *   in the log      the guest's, or KVM's: nobody here has seen it yet
 *   in `again`      seen within a round, to be sent in the next one
 *   in `pending`    to be sent in this round
 *   in a chunk      cleared in the log, then read and sent: a later write is in the log again
 *
 * Fetching may remove a page from the log, if that log is taken and not read (guest.h). So from
 * then on only `again` or `pending` knows of the write.
 *
 * In a first round the log says that every page is dirty. Pages that were never touched are not
 * sent. To find those that are written to all the time, one page of each 64 is cleared well before
 * it is sent (dirty_sample). If it is dirty again by then, its chunk is hot.
 *
 * Free pages: a guest that is asked names pages that it does not use. The first round leaves them
 * out, and the destination has zeros there. The round never waits for a name.
 *
 * Why no write to a named page is lost. The whole log is cleared before the guest is asked. A page
 * that is left out is not cleared again in the first round. So a write to it is found when the
 * round is over, even if it came before the name was heard here. A name that is heard after its
 * page was sent changes nothing, and after the first round no name is heard.
 */
#ifndef GODWIT_MIGRATE_SOURCE_DIRTY_H
#define GODWIT_MIGRATE_SOURCE_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/guest.h"
#include "migrate/source/part.h"

struct decisions;
struct err;

/* A step takes at most this many pages from the log. */
#define DIRTY_STEP_MAX (256u << 10)

/* What was taken from the log last, and not given out yet. */
struct dirty_step {
	unsigned int block;
	uint64_t first, at, end;
	uint64_t hot[DIRTY_STEP_MAX / CHUNK_PAGES / 64]; /* a bit for each chunk from `first` on */
};

struct dirty {
	/* Set by dirty_init. */
	struct guest *guest;
	const struct decisions *decisions;
	int stop_fd;

	bool logging; /* from dirty_start to dirty_stop */
	uint64_t *pending[GUEST_BLOCKS_MAX];
	uint64_t *again[GUEST_BLOCKS_MAX];
	struct dirty_step step;
	uint64_t *touched; /* of the pages of a step */
	uint64_t *samples; /* a bit of each word, of a step; NULL: no chunk is hot */

	uint64_t *named[GUEST_BLOCKS_MAX]; /* atomic: free pages; NULL: nobody was asked */
	uint64_t left_out;		   /* free pages that were touched */
	bool listening;			   /* names are heard */
	bool asked;			   /* and the guest was not told yet that it is over */
};

/* After a failure dirty_free may be called, and nothing else. */
int dirty_init(struct dirty *d, struct guest *g, int stop_fd, const struct decisions *decisions,
	       struct err *e);
void dirty_free(struct dirty *d);

/* Starts and stops the log. Without a log, the guest is parked. */
int dirty_start(struct dirty *d, struct err *e);
void dirty_stop(struct dirty *d);

/* -- free pages -- */

/* The log was just started: asks for free pages, if the guest names them. */
int dirty_ask_free(struct dirty *d, struct err *e);

/* The first round is over: no names are heard any more. */
void dirty_stop_free(struct dirty *d);

/* The guest is parked, or goes on here: it may count on its free pages again. */
void dirty_end_free(struct dirty *d);

/* -- before the first round -- */

/* Guesses what the first round will send: what was touched so far becomes pending. */
int dirty_guess(struct dirty *d, struct err *e);

/* The guess: a bit for each page of the block. Valid until pages are taken. */
const uint64_t *dirty_guessed(const struct dirty *d, unsigned int block);

/* From here on hot chunks are found. */
int dirty_begin_samples(struct dirty *d, struct err *e);

/* Samples these pages; `first` is a multiple of 64. Does nothing if the guest names free pages: the
 * log was cleared then, so that it needs no samples. */
int dirty_sample(struct dirty *d, unsigned int block, uint64_t first, uint64_t n, struct err *e);

/* -- in a round -- */

/* The first pending page of a block from `from` on, before `end`; or `end`. */
uint64_t dirty_next_pending(const struct dirty *d, unsigned int block, uint64_t from, uint64_t end);

/*
 * Takes the pending pages among these from the log; in a first round (dirty_take_first) all of them
 * that were touched, except free pages: *to_send is how many. `first` is a multiple of CHUNK_PAGES,
 * `n` at most DIRTY_STEP_MAX. They must be given out by dirty_next before more are taken.
 */
int dirty_take(struct dirty *d, unsigned int block, uint64_t first, uint64_t n, struct err *e);
int dirty_take_first(struct dirty *d, unsigned int block, uint64_t first, uint64_t n,
		     uint64_t *to_send, struct err *e);

/* The next chunk of what was taken, without part and priority; false: there is none. *hot: the
 * guest writes to it all the time. */
bool dirty_next(struct dirty *d, struct chunk *c, bool *hot);

/* Leaves a chunk that dirty_next gave out for the next round. */
void dirty_defer(struct dirty *d, const struct chunk *c);

/* Looks at the log without clearing it. What is dirty by now and not pending is for the next round:
 * dirty_left says how many pages. */
int dirty_look(struct dirty *d, struct err *e);
uint64_t dirty_left(const struct dirty *d);

/* Between two rounds: all that is dirty by now becomes pending. *count: how many pages. */
int dirty_fetch(struct dirty *d, uint64_t *count, struct err *e);

#endif
