/*
 * How much a vCPU may dirty in a second. Pure arithmetic, no clock.
 *
 * The quota is a bucket: it fills by `bytes_per_s`, holds 10 ms of that, and may be overdrawn. The
 * vCPU pays what it owes by naps of at most 10 ms, like those of a throttle (throttle.h). How long
 * it may run between two looks follows from how fast it was seen to write: a vCPU that stays within
 * its quota is looked at every 10 ms and never naps.
 *
 * A slice between two naps has a minimum (THROTTLE_SLICE_MIN_NS). So a vCPU that writes v bytes a
 * second cannot be held to less than v / 100.
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

/* Sets a new rate. What the vCPU owes stays owed, up to one second's worth. */
void quota_set(struct quota *q, uint64_t bytes_per_s);

/* The vCPU has dirtied `bytes` in the last `ran_ns` of its running. */
void quota_spent(struct quota *q, uint64_t bytes, uint64_t ran_ns);
/* `ns` have passed, running or not. */
void quota_passed(struct quota *q, uint64_t ns);

/* How long the vCPU should nap now; 0: it runs on. */
uint64_t quota_nap_ns(const struct quota *q);

/* How long the vCPU may run until the next look. */
uint64_t quota_slice_ns(const struct quota *q);

#endif
