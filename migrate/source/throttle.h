/*
 * How the guest is slowed: by time taken from its vCPUs, or by a limit of what each may dirty.
 * Where it is known who dirties how much (dirty rings), those who dirty next to nothing are left
 * alone. The migration's thread.
 */
#ifndef GODWIT_MIGRATE_THROTTLE_H
#define GODWIT_MIGRATE_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/stats.h"

struct source;

/* All zero at first. */
struct brake {
	/* What is taken, in permille; or may be dirtied, by all together, in bytes a second. */
	unsigned int permille;
	uint64_t limit_bytes;

	/* Of each vCPU: pages it had dirtied at the last look; whether it is left alone. */
	uint64_t pages[STATS_VCPUS_MAX], at_us;
	bool spared[STATS_VCPUS_MAX];
	unsigned int writers; /* that are not */
};

/* Sees who dirties how much, for the stats too; shares the brake out anew if that has changed. */
void brake_look(struct source *s);

/* From now on so much; one of them at most is not 0. */
void brake_set(struct source *s, unsigned int permille, uint64_t limit_bytes);

/* The guest is at its full speed again. */
void brake_release(struct source *s);

#endif
