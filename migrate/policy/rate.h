/*
 * Arithmetic of rates, and how much must be sent before a rate can be believed. Pure. The engine
 * and the prediction of a check use the same constants.
 */
#ifndef GODWIT_MIGRATE_POLICY_RATE_H
#define GODWIT_MIGRATE_POLICY_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/math.h"

/* A link is at its full speed once this many bytes have been sent. */
#define RATE_SAMPLE_BYTES (16u << 20)
/* A measurement that took less time is no measurement. */
#define RATE_SAMPLE_US 2000u

/* A slow link is known from fewer bytes that took longer. */
#define RATE_LONG_BYTES (1u << 20)
#define RATE_LONG_US	50000u

/* n in `us` microseconds: how many in a second. */
static inline uint64_t rate_per_second(uint64_t n, uint64_t us)
{
	return mul_div(n, 1000000, us + 1);
}

/* How many microseconds n takes at `rate` a second. */
static inline uint64_t rate_us(uint64_t n, uint64_t rate)
{
	return mul_div(n, 1000000, rate + 1);
}

/* Whether sending so many bytes in so much time tells the speed of the link. */
static inline bool rate_is_known(uint64_t bytes, uint64_t us)
{
	return (us >= RATE_SAMPLE_US && bytes >= RATE_SAMPLE_BYTES) ||
	       (us >= RATE_LONG_US && bytes >= RATE_LONG_BYTES);
}

#endif
