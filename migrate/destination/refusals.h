/*
 * The log of a waiting destination: who was sent away, and why. One line at once; then one a minute
 * at most, which says how many there were in between. So nobody fills a log by connecting. Any
 * thread; atomic words without a lock, so that several processes can share it and one that dies
 * holds nobody up.
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

/* Whether a line may be written at that time; `untold`: of how many none was since the last one. */
bool refusals_due(struct refusals *r, uint64_t now_us, uint64_t *untold);

/* Writes a line, or counts it. With --verbose each is written. */
void refusals_tell(struct refusals *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
