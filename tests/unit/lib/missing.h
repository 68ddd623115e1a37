/*
 * Guest memory whose pages are missing until they are placed, and the place that they come by: all
 * by copy. Whoever touches a missing page stands still until it is there, as with userfaultfd. It
 * is noted who did, and whether it held a lock.
 *
 * One at a time in a process: it takes SIGSEGV.
 */
#ifndef GODWIT_TESTS_MISSING_H
#define GODWIT_TESTS_MISSING_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/destination/place.h"
#include "migrate/guest.h"

struct missing {
	struct place place; /* first */
	struct guest *guest;
	uint8_t *before[GUEST_BLOCKS_MAX]; /* the guest's own memory, which it gets back */
	uint8_t *behind[GUEST_BLOCKS_MAX]; /* the pages, always accessible */
	uint64_t *here[GUEST_BLOCKS_MAX];  /* atomic: a bit for each page that was placed */

	bool rest_is_zero; /* atomic: a page that is touched does not come any more: it is zero */
	unsigned int touches; /* atomic: of missing pages */
	unsigned int locked;  /* atomic: of these, by a thread that held a mutex */
};

/* The locks that this thread holds: counted by a program that wraps pthread_mutex_lock. */
extern __thread unsigned int missing_locks_held;

/* All pages of the guest are missing from here on. */
void missing_init(struct missing *m, struct guest *g);

/* The guest gets its own memory back, with what has come. Nobody touches it meanwhile. */
void missing_free(struct missing *m);

#endif
