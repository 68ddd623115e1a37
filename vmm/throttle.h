/*
 * How long a throttled vCPU runs and then naps. Pure arithmetic, no clock.
 *
 * A throttle takes a share of a vCPU's time, in permille: its processor behaves like one that is
 * slower by that share. For the time that it ran, it owes naps that are share / (1 - share) times
 * as long. Time that it slept by itself (HLT) costs nothing and earns nothing, so only a vCPU that
 * runs is slowed. It runs in slices, each of which owes one nap. Slice and nap take 10 ms together,
 * so no nap is longer. If a slice ended late, or a nap was too long or too short, the next ones
 * make up for it.
 *
 * Owner: one thread, the vCPU's.
 */
#ifndef GODWIT_THROTTLE_H
#define GODWIT_THROTTLE_H

#include <stdint.h>

#define THROTTLE_MAX_PERMILLE 999
#define THROTTLE_NAP_MAX_NS   10000000
/*
 * A shorter slice would be over before KVM has entered the guest, and the guest would stand still:
 * under a nested KVM the entry was seen to take 70 us. So above 990 permille the vCPU gets a little
 * more than its share.
 */
#define THROTTLE_SLICE_MIN_NS 100000

struct throttle {
	unsigned int permille; /* 0 to THROTTLE_MAX_PERMILLE */
	int64_t owed_ns;       /* of naps; below 0: napped too long */
	uint64_t rest_ns;      /* a vCPU that mostly sleeps is looked at this rarely, at least */
};

/* Sets a new share. Of what the vCPU owes, at most one nap of the new share stays. */
void throttle_set(struct throttle *t, unsigned int permille);

/* The vCPU has run `ran_ns` of its own CPU time in the last `wall_ns`. */
void throttle_ran(struct throttle *t, uint64_t ran_ns, uint64_t wall_ns);
/* The vCPU has napped for `ns`. */
void throttle_napped(struct throttle *t, uint64_t ns);

/* How long the vCPU should nap now; 0: it owes too little for a nap, and runs on. */
uint64_t throttle_nap_ns(const struct throttle *t);

/* How long the vCPU may run until its next slice is due. */
uint64_t throttle_slice_ns(const struct throttle *t);

#endif
