/*
 * When to stop a pre-copy: not at the first moment that fits under the limit, but when another
 * round would no longer make the pause notably shorter. Pure.
 */
#ifndef GODWIT_MIGRATE_POLICY_SWITCHOVER_H
#define GODWIT_MIGRATE_POLICY_SWITCHOVER_H

#include <stdbool.h>
#include <stdint.h>

struct switchover_input {
	uint64_t remaining_bytes;	   /* dirty now, at the end of a round */
	uint64_t previous_remaining_bytes; /* at the end of the round before; UINT64_MAX: none */
	uint64_t rate_bytes;		   /* a second, as achieved */
	uint64_t fixed_us;		   /* of the pause: states, their load, round trips */
	uint64_t limit_us;		   /* the downtime the user allows */
	/* A policy or a timeout decides what happens if no round can make the pause fit; else the
	 * guest is parked when there is nothing left that a round could do. */
	bool patient;
};

struct switchover_verdict {
	bool stop;
	bool unkeepable;      /* hardly anything is left, and the pause is too long all the same */
	uint64_t expected_us; /* the pause if the guest were parked now */
	const char *reason;
};

struct switchover_verdict switchover_decide(const struct switchover_input *in);

#endif
