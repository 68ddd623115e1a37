/*
 * How fast the link is: a check sends a little to a destination, which discards it and goes on
 * waiting (destination/answer_probe.h). On a connection of its own:
 *
 *     HELLO(probe)      -->
 *                       <--  CHECKED
 *     ROUND 1           -->
 *                       <--  ROUND 1: a round trip
 *     PROBE... ROUND n  -->
 *                       <--  ROUND n, when all of it was read; each has twice the data
 */
#ifndef GODWIT_MIGRATE_PROBE_H
#define GODWIT_MIGRATE_PROBE_H

#include <stdint.h>

struct channel;
struct err;

struct probe {
	uint64_t rate_bytes; /* a second */
	uint64_t round_trip_us;
};

/*
 * The source's end, on the migration's thread: measures for about half a second, at no more than
 * `bandwidth` bytes a second (0: no limit). `stop_fd` ends it (-1: none). What the connection
 * carries is known to be nothing else's.
 */
int probe_measure(struct channel *ch, uint64_t bandwidth, int stop_fd, struct probe *out,
		  struct err *e);

#endif
