/*
 * Fuzzing XBZRLE. Byte 0 of the input, bit 0:
 *   0  the rest is decoded, into a page of just its size: an error or a page, and no byte outside
 *   1  the rest are changes (u16 place, u8 bytes, u8 value) to a page: all paths encode them
 *      alike, in buffers of just the size, and they come back
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/codec/scan.h"
#include "migrate/codec/xbzrle.h"
#include "vmm/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len);

static void *copy_of(const void *from, size_t n)
{
	void *copy = malloc(n ? n : 1);

	if (!copy)
		abort();
	memcpy(copy, from, n);
	return copy;
}

static void decode(const uint8_t *in, size_t len)
{
	uint8_t *page = calloc(1, PAGE_SIZE), *bytes = copy_of(in, len);

	if (!page)
		abort();
	xbzrle_decode(bytes, len, page);
	free(bytes);
	free(page);
}

static void change(uint8_t *page, const uint8_t *in, size_t len)
{
	for (; len >= 4; in += 4, len -= 4) {
		size_t at = (in[0] | (size_t)in[1] << 8) % PAGE_SIZE, n = in[2];

		memset(page + at, in[3], n < PAGE_SIZE - at ? n : PAGE_SIZE - at);
	}
}

static void round_trip(const uint8_t *in, size_t len)
{
	static const uint8_t zeros[PAGE_SIZE];
	uint8_t *from = copy_of(zeros, PAGE_SIZE), *to, *first, *out;
	unsigned int i;
	int n;

	change(from, in, len / 2);
	to = copy_of(from, PAGE_SIZE);
	change(to, in + len / 2, len - len / 2);
	first = malloc(2 * PAGE_SIZE);
	if (!first)
		abort();
	n = xbzrle_encode(from, to, first, 2 * PAGE_SIZE);
	for (i = 0; n >= 0 && scan_path(i); i++) {
		out = malloc((size_t)n + 1);
		if (!out || xbzrle_encode_with(scan_path(i), from, to, out, (size_t)n) != n ||
		    memcmp(out, first, (size_t)n) ||
		    (n && xbzrle_encode_with(scan_path(i), from, to, out, (size_t)n - 1) != -1))
			abort();
		free(out);
	}
	if (n >= 0) {
		out = copy_of(first, (size_t)n);
		if (xbzrle_decode(out, (size_t)n, from) || memcmp(from, to, PAGE_SIZE))
			abort();
		free(out);
	}
	free(first);
	free(to);
	free(from);
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
	if (!len)
		return 0;
	(in[0] & 1 ? round_trip : decode)(in + 1, len - 1);
	return 0;
}
