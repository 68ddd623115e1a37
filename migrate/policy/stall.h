/*
 * Which rounds of a pre-copy have stalled. A round has stalled unless it leaves at least 5 % less
 * than any round before it. Rounds shorter than a second are added up until they make one. Pure.
 */
#ifndef GODWIT_MIGRATE_POLICY_STALL_H
#define GODWIT_MIGRATE_POLICY_STALL_H

#include <stdbool.h>
#include <stdint.h>

#define STALL_ROUND_US 1000000u
#define STALL_PCT      5

/* Zero before the first round. */
struct stall {
	unsigned int stalled; /* rounds so far */
	uint64_t lowest_bytes;
	bool any;	   /* a round has been counted: lowest_bytes is set */
	uint64_t short_us; /* the length of the short rounds that have not been counted yet */
};

/* Counts a round that has ended. True if it, together with short ones before it, has stalled. */
bool stall_add(struct stall *s, uint64_t round_us, uint64_t remaining_bytes);

#endif
