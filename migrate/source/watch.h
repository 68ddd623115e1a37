/*
 * What goes on within a round: measured several times a second, and how much the guest is slowed
 * for it. The migration's thread.
 */
#ifndef GODWIT_MIGRATE_WATCH_H
#define GODWIT_MIGRATE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/guest.h"
#include "migrate/policy/converge.h"

struct chunk;
struct err;
struct source;

struct watch {
	uint64_t *again[GUEST_BLOCKS_MAX]; /* found dirty within the round; or left for the next */
	uint64_t *samples;		   /* a bit of each word, of one step */
	uint64_t at_us, every_us;	   /* the last look, and how often */
	uint64_t left_pages;		   /* seen then: dirty, and not for this round */
	uint64_t round_limit_us;	   /* the downtime that was allowed as the round began */
	uint64_t rest_us; /* by the last look: how long all that is left takes; the most: unknown */
	/* Pages sent in the first round; dirty at the ends of the others. */
	uint64_t first_pages, again_before;
	struct converge converge;
};

int watch_init(struct source *s, struct err *e);
void watch_free(struct source *s);

/* A round begins. */
void watch_round(struct source *s);

/* Between two steps of a round: looks if it is wanted and time to, and slows the guest as needed.
 */
int watch_look(struct source *s, struct err *e);

/* Nothing will be sent for a while: the guest is at its full speed, and measured anew after it. */
void watch_rest(struct source *s);

/* The round is over, and so many pages are for the next. */
void watch_end_round(struct source *s, uint64_t dirty);

/*
 * Of these pages those that are pending are taken from the log, to be sent now: what was seen of
 * them before counts no more. What was seen of the others nobody else knows: fetching took it.
 */
void watch_taken(struct source *s, unsigned int block, uint64_t first, uint64_t n);

/*
 * In a first round the log says of every page that it is dirty. So of each 64 pages one is cleared
 * well before it is sent: when it is dirty again by then, its chunk is being written to.
 */
int watch_begin_samples(struct source *s, struct err *e);
int watch_sample(struct source *s, unsigned int block, uint64_t first, uint64_t n, struct err *e);
bool watch_is_hot(const struct source *s, unsigned int block, uint64_t first);

/* Leaves a chunk that was taken from the log for the next round. */
void watch_defer(struct source *s, const struct chunk *c);

/* Adds what was seen within the round to the pages of the next. */
void watch_merge(struct source *s);

#endif
