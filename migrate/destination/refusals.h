/*
 * The log of peers that a waiting destination has sent away, and why. The first one is logged at
 * once. After that there is at most one line a minute, which says how many refusals came in
 * between: no peer fills a log by connecting.
 *
 * Any thread. Atomic words without a lock, so several processes can share it, and one that dies
 * blocks no other.
 */
#ifndef GODWIT_MIGRATE_REFUSALS_H
#define GODWIT_MIGRATE_REFUSALS_H

#include <stdbool.h>
#include <stdint.h>

#define REFUSALS_PAUSE_US 60000000u

struct refusals {
	uint64_t next_us; /* atomic: the next line may be written then */
	uint64_t untold;  /* atomic */
};

/* Whether a line may be written at that time. `untold`: refusals without a line since the last. */
bool refusals_due(struct refusals *r, uint64_t now_us, uint64_t *untold);

/* Writes a line or counts it. With --verbose every line is written. */
void refusals_tell(struct refusals *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
