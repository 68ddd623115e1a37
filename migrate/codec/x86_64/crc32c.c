/*
 * CRC-32C with the instruction of SSE4.2: see migrate/codec/crc32c.h. Pure. The instruction takes
 * three cycles and one can begin in each, so three parts of the data are summed side by side, and
 * their sums put together by multiplication.
 */
#include <immintrin.h>
#include <string.h>

#include "migrate/codec/crc32c.h"

#define SSE42 __attribute__((target("sse4.2,pclmul")))

/* Nearly a third of a page, in words of 8 bytes: a page is three parts and two words. */
#define PART_WORDS 170u

/* x to the power of 8 n - 33, reversed, modulo the polynomial, for n bytes: one part, two parts. */
#define BEHIND_ONE 0x3f70cc6fu
#define BEHIND_TWO 0x5aa1f3cfu

static uint64_t load(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return v;
}

/* The state `crc` after as many bytes of 0 as `behind` stands for. */
SSE42 static uint64_t move_on(uint64_t crc, uint32_t behind)
{
	__m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc),
					       _mm_cvtsi32_si128((int)behind), 0);

	return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

SSE42 static uint64_t three_parts(uint64_t state, const uint8_t *p)
{
	const uint8_t *q = p + PART_WORDS * 8, *r = q + PART_WORDS * 8;
	uint64_t b = 0, c = 0;
	unsigned int i;

	for (i = 0; i < PART_WORDS; i++, p += 8, q += 8, r += 8) {
		state = _mm_crc32_u64(state, load(p));
		b = _mm_crc32_u64(b, load(q));
		c = _mm_crc32_u64(c, load(r));
	}
	return move_on(state, BEHIND_TWO) ^ move_on(b, BEHIND_ONE) ^ c;
}

SSE42 static uint32_t sse42(uint32_t crc, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	uint64_t state = ~crc;

	for (; len >= 3 * PART_WORDS * 8; len -= 3 * PART_WORDS * 8, p += 3 * PART_WORDS * 8)
		state = three_parts(state, p);
	for (; len >= 8; len -= 8, p += 8)
		state = _mm_crc32_u64(state, load(p));
	for (; len; len--, p++)
		state = _mm_crc32_u8((uint32_t)state, *p);
	return ~(uint32_t)state;
}

static const struct crc32c native = { .name = "sse4.2", .run = sse42 };

const struct crc32c *crc32c_native(unsigned int i)
{
	if (i == 0 && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"))
		return &native;
	return NULL;
}
