/*
 * The times of the hand-over, in one place because each rests on the others.
 *
 *     source                                  destination
 *     the guest is parked
 *     pages, STATES  ------------------->     loads them
 *                    <-------------------     READY
 *     GO             ------------------->     lets the guest run, if that is still right
 *                    <-------------------     RUNNING
 *
 * Up to GO the guest stands, and is the source's: the switchover timeout bounds that
 * (handover_limit_us). After GO the source waits for RUNNING for HANDOVER_RUNNING_MS. Then it gives
 * up, a person may decide that the guest goes on there, and the destination must not start it any
 * more. The destination sees to that by its own clock: it obeys GO only within HANDOVER_GO_MS of
 * the moment at which it said READY. GO was sent after that moment, so whatever the two clocks
 * say, a guest that starts does so before the source can have given up.
 */
#ifndef GODWIT_MIGRATE_HANDOVER_H
#define GODWIT_MIGRATE_HANDOVER_H

#include <stdint.h>

#define HANDOVER_RUNNING_MS 30000
#define HANDOVER_GO_MS	    15000

_Static_assert(HANDOVER_GO_MS * 2 <= HANDOVER_RUNNING_MS, "a late GO is refused in good time");

/* How long a destination tries to take its READY back, by FAILED. */
#define HANDOVER_FAILED_MS 2000

/* What the switchover timeout is, if no parameter says it: so many downtimes, and a little. */
#define HANDOVER_DOWNTIMES 10
#define HANDOVER_SPARE_MS  2000

/* The longest that can be asked for: a month. */
#define HANDOVER_CHOSEN_MAX_MS (31ll * 24 * 3600 * 1000)

/*
 * How long the guest may stand before GO, in microseconds: `chosen_us`, or if that is 0 what
 * follows from the downtime that is allowed, and from how long the rest should take (four times
 * that).
 */
static inline uint64_t handover_limit_us(uint64_t chosen_us, uint64_t downtime_us, uint64_t rest_us,
					 uint64_t spare_us)
{
	if (chosen_us)
		return chosen_us;
	return HANDOVER_DOWNTIMES * downtime_us + 4 * rest_us + spare_us;
}

#endif
