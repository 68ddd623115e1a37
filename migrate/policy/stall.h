/*
 * Which rounds of a pre-copy have stalled. A round is stalled when at its end what remains has not
 * fallen at least 5 % below the lowest value so far; rounds shorter than a second are counted
 * together until they make one. Pure; zeroed before the first round.
 */
#ifndef GODWIT_MIGRATE_POLICY_STALL_H
#define GODWIT_MIGRATE_POLICY_STALL_H

#include <stdbool.h>
#include <stdint.h>

#define STALL_ROUND_US 1000000u
#define STALL_PCT      5

struct stall {
	unsigned int stalled; /* rounds, so far */
	uint64_t lowest_bytes;
	bool any;	   /* lowest_bytes is set: a round has been counted */
	uint64_t short_us; /* of rounds that do not make one yet */
};

/* A round has ended: how long it took, and what remains. Whether it (with the short ones before
 * it) has stalled. */
bool stall_add(struct stall *s, uint64_t round_us, uint64_t remaining_bytes);

#endif
