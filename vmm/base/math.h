/*
 * Arithmetic on figures that come from clocks, counters and peers. Pure.
 */
#ifndef GODWIT_BASE_MATH_H
#define GODWIT_BASE_MATH_H

#include <stdint.h>

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* If min > max, the answer is max. */
static inline uint64_t clamp_u64(uint64_t v, uint64_t min, uint64_t max)
{
	return min_u64(max_u64(v, min), max);
}

static inline int64_t clamp_i64(int64_t v, int64_t min, int64_t max)
{
	return v < min ? min : v > max ? max : v;
}

/* a * b / c, rounded down, with 128 bits in between. What does not fit in 64 bits is UINT64_MAX,
 * and so is anything but 0 divided by 0; 0 / 0 is 0. */
static inline uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	if (!c)
		return product ? UINT64_MAX : 0;
	product /= c;
	return product < UINT64_MAX ? (uint64_t)product : UINT64_MAX;
}

#endif
