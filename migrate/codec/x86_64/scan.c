/*
 * Scanning pages with AVX2 and AVX-512: see migrate/codec/scan.h. Pure. The compiler may use these
 * instructions only in the functions that say so; whether the processor and the kernel have them
 * was found out by the compiler's runtime before main.
 */
#include <immintrin.h>
#include <stddef.h>

#include "migrate/codec/scan.h"

#define AVX2   __attribute__((target("avx2,popcnt")))
#define AVX512 __attribute__((target("avx512f,avx512bw,popcnt")))

AVX2 static bool avx2_zero(const void *page)
{
	const __m256i *p = page;
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / 32; i += 8) {
		__m256i x = _mm256_or_si256(_mm256_loadu_si256(p + i),
					    _mm256_loadu_si256(p + i + 1));
		__m256i y = _mm256_or_si256(_mm256_loadu_si256(p + i + 2),
					    _mm256_loadu_si256(p + i + 3));
		__m256i z = _mm256_or_si256(_mm256_loadu_si256(p + i + 4),
					    _mm256_loadu_si256(p + i + 5));
		__m256i w = _mm256_or_si256(_mm256_loadu_si256(p + i + 6),
					    _mm256_loadu_si256(p + i + 7));

		x = _mm256_or_si256(_mm256_or_si256(x, y), _mm256_or_si256(z, w));
		if (!_mm256_testz_si256(x, x))
			return false;
	}
	return true;
}

AVX2 static uint32_t avx2_diff(const void *a, const void *b, uint64_t diff[SCAN_WORDS])
{
	const __m256i *pa = a, *pb = b;
	uint64_t before = 0;
	uint32_t least = 0;
	unsigned int w;

	for (w = 0; w < SCAN_WORDS; w++, pa += 2, pb += 2) {
		__m256i low = _mm256_cmpeq_epi8(_mm256_loadu_si256(pa), _mm256_loadu_si256(pb));
		__m256i high = _mm256_cmpeq_epi8(_mm256_loadu_si256(pa + 1),
						 _mm256_loadu_si256(pb + 1));
		uint64_t m = ~((uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32 |
			       (uint32_t)_mm256_movemask_epi8(low));

		diff[w] = m;
		least += (uint32_t)(_mm_popcnt_u64(m) + 2 * _mm_popcnt_u64(m & ~(m << 1 | before)));
		before = m >> 63;
	}
	return least;
}

AVX512 static bool avx512_zero(const void *page)
{
	const uint8_t *p = page;
	unsigned int i;

	for (i = 0; i < PAGE_SIZE; i += 256) {
		__m512i x = _mm512_or_si512(_mm512_loadu_si512(p + i),
					    _mm512_loadu_si512(p + i + 64));
		__m512i y = _mm512_or_si512(_mm512_loadu_si512(p + i + 128),
					    _mm512_loadu_si512(p + i + 192));

		x = _mm512_or_si512(x, y);
		if (_mm512_test_epi64_mask(x, x))
			return false;
	}
	return true;
}

AVX512 static uint32_t avx512_diff(const void *a, const void *b, uint64_t diff[SCAN_WORDS])
{
	const uint8_t *pa = a, *pb = b;
	uint64_t before = 0;
	uint32_t least = 0;
	unsigned int w;

	for (w = 0; w < SCAN_WORDS; w++, pa += 64, pb += 64) {
		uint64_t m = _mm512_cmpneq_epi8_mask(_mm512_loadu_si512(pa),
						     _mm512_loadu_si512(pb));

		diff[w] = m;
		least += (uint32_t)(_mm_popcnt_u64(m) + 2 * _mm_popcnt_u64(m & ~(m << 1 | before)));
		before = m >> 63;
	}
	return least;
}

static const struct scan avx512 = { .name = "avx512", .zero = avx512_zero, .diff = avx512_diff };
static const struct scan avx2 = { .name = "avx2", .zero = avx2_zero, .diff = avx2_diff };

const struct scan *scan_native(unsigned int i)
{
	if (__builtin_cpu_supports("avx512bw") && i-- == 0)
		return &avx512;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") && i-- == 0)
		return &avx2;
	return NULL;
}
