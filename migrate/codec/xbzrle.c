/*
 * XBZRLE: see xbzrle.h for the format. Pure. Encoding first makes a bit map of the bytes that
 * differ (scan.h), at the speed of memory, and then walks along its runs.
 */
#include "migrate/codec/xbzrle.h"

#include <string.h>

#include "migrate/codec/scan.h"

/* The first bit from `at` on that is set (flip 0) or clear (flip ~0), else PAGE_SIZE. */
static inline uint32_t next_bit(const uint64_t diff[SCAN_WORDS], uint32_t at, uint64_t flip)
{
	uint32_t w = at / 64;
	uint64_t bits;

	if (at >= PAGE_SIZE)
		return PAGE_SIZE;
	bits = (diff[w] ^ flip) >> at % 64;
	if (bits)
		return at + (uint32_t)__builtin_ctzll(bits);
	while (++w < SCAN_WORDS) {
		bits = diff[w] ^ flip;
		if (bits)
			return w * 64 + (uint32_t)__builtin_ctzll(bits);
	}
	return PAGE_SIZE;
}

/* A length up to PAGE_SIZE; returns its bytes. */
static inline size_t put_length(uint8_t *out, uint32_t n)
{
	if (n < 0x80) {
		out[0] = (uint8_t)n;
		return 1;
	}
	out[0] = (uint8_t)(n | 0x80);
	out[1] = (uint8_t)(n >> 7);
	return 2;
}

int xbzrle_encode_with(const struct scan *scan, const void *from, const void *to, uint8_t *out,
		       size_t out_max)
{
	const uint8_t *new = to;
	uint64_t diff[SCAN_WORDS];
	uint32_t at = 0, begin, end;
	uint8_t head[4];
	size_t done = 0;

	if (scan->diff(from, to, diff) > out_max)
		return -1;
	while ((begin = next_bit(diff, at, 0)) < PAGE_SIZE) {
		size_t n = put_length(head, begin - at);

		end = next_bit(diff, begin, ~0ull);
		n += put_length(head + n, end - begin);
		if (n + end - begin > out_max - done)
			return -1;
		memcpy(out + done, head, n);
		done += n;
		/* Most runs are short; a copy of fixed length is much cheaper. */
		if (end - begin <= 8 && begin <= PAGE_SIZE - 8 && out_max - done >= 8)
			memcpy(out + done, new + begin, 8);
		else
			memcpy(out + done, new + begin, end - begin);
		done += end - begin;
		at = end;
	}
	return (int)done;
}

int xbzrle_encode(const void *from, const void *to, uint8_t *out, size_t out_max)
{
	return xbzrle_encode_with(scan_best(), from, to, out, out_max);
}

/* Takes a length, and moves on; -1 where it is cut short or longer than it need be. */
static inline int take_length(const uint8_t **in, const uint8_t *end, uint32_t *out)
{
	const uint8_t *p = *in;

	if (p == end)
		return -1;
	*out = *p++;
	if (*out & 0x80) {
		if (p == end || !*p || *p & 0x80)
			return -1;
		*out = (*out & 0x7f) | (uint32_t)*p++ << 7;
	}
	*in = p;
	return 0;
}

int xbzrle_decode(const uint8_t *in, size_t n, void *page)
{
	const uint8_t *begin = in, *end = in + n;
	uint8_t *to = page;
	uint32_t at = 0, len;

	while (in < end) {
		const uint8_t *run = in;

		if (take_length(&in, end, &len) || (!len && run != begin) || len > PAGE_SIZE - at)
			return -1;
		at += len;
		if (take_length(&in, end, &len) || !len || len > PAGE_SIZE - at ||
		    len > (size_t)(end - in))
			return -1;
		memcpy(to + at, in, len);
		in += len;
		at += len;
	}
	return 0;
}
