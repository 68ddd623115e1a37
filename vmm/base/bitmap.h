/*
 * Bit sets over page numbers: arrays of 64-bit words, bit n of word n / 64. The atomic forms are
 * for marks that several threads set while one harvests.
 */
#ifndef GODWIT_BASE_BITMAP_H
#define GODWIT_BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITMAP_WORDS(bits) (((bits) + 63) / 64)

static inline bool bitmap_test(const uint64_t *map, uint64_t bit)
{
	return map[bit / 64] >> (bit % 64) & 1;
}

static inline void bitmap_set(uint64_t *map, uint64_t bit)
{
	map[bit / 64] |= 1ull << (bit % 64);
}

static inline void bitmap_clear(uint64_t *map, uint64_t bit)
{
	map[bit / 64] &= ~(1ull << (bit % 64));
}

static inline void bitmap_set_atomic(uint64_t *map, uint64_t bit)
{
	__atomic_fetch_or(&map[bit / 64], 1ull << (bit % 64), __ATOMIC_RELEASE);
}

/* The first bit at or after `from` that is set (clear), or `bits` when there is none. */
uint64_t bitmap_next_set(const uint64_t *map, uint64_t bits, uint64_t from);
uint64_t bitmap_next_clear(const uint64_t *map, uint64_t bits, uint64_t from);

/*
 * The first run of set bits at or after *from: *from becomes its first bit, *n its length. False,
 * when there is none; then *from is `bits`. All runs:
 * for (at = 0; bitmap_next_run(map, bits, &at, &n); at += n)
 */
bool bitmap_next_run(const uint64_t *map, uint64_t bits, uint64_t *from, uint64_t *n);

uint64_t bitmap_count(const uint64_t *map, uint64_t bits);

#endif
