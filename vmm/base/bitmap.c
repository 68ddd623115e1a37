/*
 * Bit sets over page numbers. Pure. Bits past the end of a set are ignored.
 */
#include "vmm/base/bitmap.h"

static uint64_t next_bit(const uint64_t *map, uint64_t bits, uint64_t from, uint64_t flip)
{
	uint64_t word, i;

	if (from >= bits)
		return bits;
	i = from / 64;
	word = (map[i] ^ flip) & (~0ull << (from % 64));
	while (!word) {
		if (++i >= BITMAP_WORDS(bits))
			return bits;
		word = map[i] ^ flip;
	}
	from = i * 64 + (uint64_t)__builtin_ctzll(word);
	return from < bits ? from : bits;
}

uint64_t bitmap_next_set(const uint64_t *map, uint64_t bits, uint64_t from)
{
	return next_bit(map, bits, from, 0);
}

uint64_t bitmap_next_clear(const uint64_t *map, uint64_t bits, uint64_t from)
{
	return next_bit(map, bits, from, ~0ull);
}

bool bitmap_next_run(const uint64_t *map, uint64_t bits, uint64_t *from, uint64_t *n)
{
	*from = bitmap_next_set(map, bits, *from);
	*n = bitmap_next_clear(map, bits, *from) - *from;
	return *n > 0;
}

uint64_t bitmap_count(const uint64_t *map, uint64_t bits)
{
	uint64_t n = 0, i;

	for (i = 0; i < bits / 64; i++)
		n += (uint64_t)__builtin_popcountll(map[i]);
	if (bits % 64)
		n += (uint64_t)__builtin_popcountll(map[i] & ((1ull << (bits % 64)) - 1));
	return n;
}
