/*
 * How long a vCPU that is kept from running may run, and naps then: pure arithmetic, no clock.
 *
 * A throttle takes a share of a vCPU's time away, in permille: its processor is as one that is
 * slower by that share. For what it has run it owes naps, share / (1 - share) times as long; time
 * that it slept by itself (HLT) costs it nothing and earns it nothing, so that only who runs is
 * slowed. It runs in slices, each of which owes one nap; slice and nap are 10 ms together, so no
 * nap is longer than that. What came out otherwise (a slice that ended late, a nap that was too
 * long or too short) is made up for by the next ones.
 *
 * Owner: one thread, the vCPU's.
 */
#ifndef GODWIT_THROTTLE_H
#define GODWIT_THROTTLE_H

#include <stdint.h>

#define THROTTLE_MAX_PERMILLE 999
#define THROTTLE_NAP_MAX_NS   10000000
/*
 * A shorter slice would be over before KVM has entered the guest (where KVM is nested in another,
 * that was seen to take 70 us), and the guest stood still. So above 990 permille it gets a little
 * more than its share.
 */
#define THROTTLE_SLICE_MIN_NS 100000

struct throttle {
	unsigned int permille; /* 0 to THROTTLE_MAX_PERMILLE */
	int64_t owed_ns;       /* of naps; below 0: napped too long */
	uint64_t rest_ns;      /* a vCPU that mostly sleeps is looked at this rarely, at least */
};

/* A new share; of what was owed under the old one, at most one nap of the new stays. */
void throttle_set(struct throttle *t, unsigned int permille);

/* It has run `ran_ns` of its own CPU time in `wall_ns`, since it was last told. */
void throttle_ran(struct throttle *t, uint64_t ran_ns, uint64_t wall_ns);
/* It has napped so long. */
void throttle_napped(struct throttle *t, uint64_t ns);

/* How long it should nap now; 0: not enough is owed, it runs on. */
uint64_t throttle_nap_ns(const struct throttle *t);

/* How long it may run until the next look. */
uint64_t throttle_slice_ns(const struct throttle *t);

#endif
