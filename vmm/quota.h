/*
 * How much a vCPU may dirty in a second: pure arithmetic, no clock.
 *
 * A bucket that fills by `bytes_per_s`, holds what comes in 10 ms, and may be overdrawn: what is
 * owed then is napped off, in naps of at most 10 ms as of a throttle (throttle.h). How long the
 * vCPU may run between two looks follows from how fast it was seen to write: one that stays within
 * its quota is looked at every 10 ms and naps never.
 *
 * Between two naps there is a shortest slice (THROTTLE_SLICE_MIN_NS), so whoever writes v bytes a
 * second is held to v / 100 at the least.
 *
 * Owner: one thread, the vCPU's.
 */
#ifndef GODWIT_QUOTA_H
#define GODWIT_QUOTA_H

#include <stdint.h>

struct quota {
	uint64_t bytes_per_s; /* 0: no limit */
	int64_t owed_bytes;   /* below 0: what is in the bucket */
	uint64_t speed;	      /* bytes a second of its running, as last seen */
};

/* A new rate; what was owed stays owed, as far as it is not more than a second's worth. */
void quota_set(struct quota *q, uint64_t bytes_per_s);

/* It has dirtied so much while it ran so long, since it was last told. */
void quota_spent(struct quota *q, uint64_t bytes, uint64_t ran_ns);
/* So much time has passed, in whatever way. */
void quota_passed(struct quota *q, uint64_t ns);

/* How long it should nap now; 0: it runs on. */
uint64_t quota_nap_ns(const struct quota *q);

/* How long it may run until the next look. */
uint64_t quota_slice_ns(const struct quota *q);

#endif
