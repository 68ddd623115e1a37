/*
 * Whether the guest can be parked at the end of a round: not as soon as the pause fits the downtime
 * limit, but when one more round would not make the pause notably shorter. Pure.
 */
#ifndef GODWIT_MIGRATE_POLICY_SWITCHOVER_H
#define GODWIT_MIGRATE_POLICY_SWITCHOVER_H

#include <stdbool.h>
#include <stdint.h>

struct switchover_input {
	uint64_t remaining_bytes;	   /* dirty at the end of the round */
	uint64_t previous_remaining_bytes; /* at the end of the round before; UINT64_MAX: none */
	uint64_t rate_bytes;		   /* sent in a second */
	uint64_t fixed_us;		   /* the pause without the bytes that remain */
	uint64_t limit_us;		   /* the downtime that is allowed */
	/* If no round can make the pause fit: a policy or a timeout decides what is done (true), or
	 * the guest is parked as soon as rounds gain nothing (false). */
	bool patient;
};

struct switchover_verdict {
	bool stop;
	bool unkeepable;      /* hardly anything remains, and the pause is still too long */
	uint64_t expected_us; /* the pause if the guest were parked now */
	const char *reason;
};

struct switchover_verdict switchover_decide(const struct switchover_input *in);

#endif
