/*
 * A rate limit as arithmetic: when may the next bytes go? Pure: the caller tells the time and does
 * the waiting. Time that was not used is made up for only as far as PACE_CREDIT_US, so the rate
 * holds over any second and not only on average.
 */
#ifndef GODWIT_MIGRATE_CHANNEL_PACE_H
#define GODWIT_MIGRATE_CHANNEL_PACE_H

#include <stdint.h>

#define PACE_CREDIT_US 20000u

struct pace {
	uint64_t next_us; /* when the bytes so far are paid for */
	uint64_t rate;	  /* at which they were reckoned */
	uint64_t rest;	  /* of them, less than a microsecond's worth: in bytes * 1000000 */
};

/* Takes `bytes` at `rate` bytes a second (0: no limit): how long to wait before they go, in us. */
uint64_t pace_take(struct pace *p, uint64_t now_us, uint64_t rate, uint64_t bytes);

/* What is left of a wait of `us`, reckoned at one rate, at another, higher one; 0: no limit. */
uint64_t pace_rescale(uint64_t us, uint64_t from, uint64_t to);

/* How many bytes to send at once: small enough that the rate holds within any second. */
uint64_t pace_batch_bytes(uint64_t rate, uint64_t max);

#endif
