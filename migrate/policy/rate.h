/*
 * Rates: their arithmetic, and how much must be sent before a rate can be believed. Pure. The
 * engine and the prediction of a check share the constants.
 */
#ifndef GODWIT_MIGRATE_POLICY_RATE_H
#define GODWIT_MIGRATE_POLICY_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/math.h"

/* A link has reached its full speed once this many bytes were sent. */
#define RATE_SAMPLE_BYTES (16u << 20)
/* A shorter measurement is too inexact. */
#define RATE_SAMPLE_US 2000u

/* Fewer bytes are enough on a slow link, where they take longer. */
#define RATE_LONG_BYTES (1u << 20)
#define RATE_LONG_US	50000u

/* The rate per second if there were n in `us` microseconds. */
static inline uint64_t rate_per_second(uint64_t n, uint64_t us)
{
	return mul_div(n, 1000000, us + 1);
}

/* How long n takes at `rate` per second, in us. */
static inline uint64_t rate_us(uint64_t n, uint64_t rate)
{
	return mul_div(n, 1000000, rate + 1);
}

/* Whether these bytes, sent in that time, tell how fast the link is. */
static inline bool rate_is_known(uint64_t bytes, uint64_t us)
{
	return (us >= RATE_SAMPLE_US && bytes >= RATE_SAMPLE_BYTES) ||
	       (us >= RATE_LONG_US && bytes >= RATE_LONG_BYTES);
}

#endif
