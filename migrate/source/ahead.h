/*
 * What the destination is told ahead of the first round: where data will come (AHEAD records), so
 * that it can touch that memory before (destination/ahead.h).
 */
#ifndef GODWIT_MIGRATE_SOURCE_AHEAD_H
#define GODWIT_MIGRATE_SOURCE_AHEAD_H

#include <stddef.h>
#include <stdint.h>

#include "migrate/stream/body.h"

struct guest_block;

/*
 * Writes the body of one record: runs of units of the block, from unit *at on and before unit
 * `end`, at most AHEAD_RUNS_MAX. A unit counts if at least half of its pages are in `touched` and
 * one of the few that are looked at is not zero. Moves *at on. Returns the bytes; 0 at the end.
 */
size_t ahead_encode(const struct guest_block *b, uint32_t block, const uint64_t *touched,
		    uint64_t *at, uint64_t end, uint8_t body[AHEAD_BODY_MAX]);

#endif
