/*
 * The portable scan, eight bytes at a time, and the choice between it and the architecture's own:
 * see scan.h. Pure.
 */
#include "migrate/codec/scan.h"

#include <stddef.h>
#include <string.h>

#define LOW_BITS  0x7f7f7f7f7f7f7f7full
#define HIGH_BITS 0x8080808080808080ull
#define GATHER	  0x0102040810204080ull

static uint64_t load(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return v;
}

/* Most pages that are not zero show it in their first line; the others are read in lines, so that
 * the compiler can use what vectors it may. */
static bool portable_zero(const void *page)
{
	const uint8_t *p = page;
	unsigned int i, j;

	for (i = 0; i < PAGE_SIZE; i += 128) {
		uint64_t any = 0;

		for (j = 0; j < 128; j += 8)
			any |= load(p + i + j);
		if (any)
			return false;
	}
	return true;
}

/* A bit for each byte of `x` that is not zero: the high bit of each such byte, gathered by a
 * multiplication whose partial sums never meet. */
static uint64_t bytes_set(uint64_t x)
{
	x = (((x & LOW_BITS) + LOW_BITS) | x) & HIGH_BITS;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	x = __builtin_bswap64(x);
#endif
	return (x >> 7) * GATHER >> 56;
}

static uint32_t portable_diff(const void *a, const void *b, uint64_t diff[SCAN_WORDS])
{
	const uint8_t *pa = a, *pb = b;
	uint64_t before = 0; /* the last byte of the word before differs */
	uint32_t least = 0;
	unsigned int w, j;

	for (w = 0; w < SCAN_WORDS; w++, pa += 64, pb += 64) {
		uint64_t m = 0;

		for (j = 0; j < 8; j++) {
			uint64_t x = load(pa + 8 * j) ^ load(pb + 8 * j);

			if (x)
				m |= bytes_set(x) << (8 * j);
		}
		diff[w] = m;
		if (m)
			least += (uint32_t)(__builtin_popcountll(m) +
					    2 * __builtin_popcountll(m & ~(m << 1 | before)));
		before = m >> 63;
	}
	return least;
}

const struct scan scan_portable = {
	.name = "portable",
	.zero = portable_zero,
	.diff = portable_diff,
};

const struct scan *scan_path(unsigned int i)
{
	unsigned int n;

	for (n = 0; n <= i; n++)
		if (!scan_native(n))
			return n == i ? &scan_portable : NULL;
	return scan_native(i);
}

const struct scan *scan_best(void)
{
	const struct scan *native = scan_native(0);

	return native ? native : &scan_portable;
}
