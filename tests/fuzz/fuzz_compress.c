/*
 * Fuzzing the decompressors: whatever comes is an error, or fills just its pieces of memory (each
 * in an allocation of its own, so that the address sanitizer sees their ends).
 *
 * Byte 0 of the input: bit 0: zlib or zstd; bit 1: the rest is content, which is compressed first
 * and must come back, or else a frame. Byte 1: pages; byte 2: in how many parts the frame comes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/codec/compress.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

#define PIECES_MAX 32u

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len);

static int take(struct decompressor *d, enum pages_codec codec, struct iovec *out, unsigned int n,
		const uint8_t *in, size_t len, size_t part, struct err *e)
{
	if (decompressor_begin(d, codec, out, n, e))
		abort();
	while (len) {
		size_t now = len < part ? len : part;
		uint8_t *copy = malloc(now);
		int rc;

		if (!copy)
			abort();
		memcpy(copy, in, now);
		rc = decompressor_feed(d, copy, now, e);
		free(copy);
		if (rc)
			return -1;
		in += now;
		len -= now;
	}
	return decompressor_end(d, e);
}

static void frame(enum pages_codec codec, unsigned int pages, size_t part, const uint8_t *in,
		  size_t len)
{
	struct iovec out[PIECES_MAX], left[PIECES_MAX];
	struct decompressor d = { 0 };
	struct err e = { "" };
	unsigned int i, again;

	for (i = 0; i < pages; i++) {
		out[i] = (struct iovec){ malloc(PAGE_SIZE), PAGE_SIZE };
		if (!out[i].iov_base)
			abort();
	}
	/* Twice, as the second frame finds what the first has left. */
	for (again = 0; again < 2; again++) {
		memcpy(left, out, pages * sizeof(out[0]));
		if (take(&d, codec, left, pages, in, len, part, &e) && !e.text[0])
			abort();
	}
	decompressor_free(&d);
	for (i = 0; i < pages; i++)
		free(out[i].iov_base);
}

static void round_trip(enum pages_codec codec, size_t part, const uint8_t *in, size_t len)
{
	uint8_t *bytes = malloc(2 * len + 1024), *back = malloc(len);
	struct iovec out = { back, len };
	struct decompressor d = { 0 };
	struct compressor c = { 0 };
	struct err e;
	ptrdiff_t n;

	if (!bytes || !back || compressor_init(&c, codec, 1, &e))
		abort();
	n = compressor_run(&c, in, len, bytes, 2 * len + 1024, &e);
	if (n <= 0 || take(&d, codec, &out, 1, bytes, (size_t)n, part, &e) || memcmp(back, in, len))
		abort();
	compressor_free(&c);
	decompressor_free(&d);
	free(back);
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
	enum pages_codec codec;
	size_t part;

	if (len < 4)
		return 0;
	codec = in[0] & 1 ? CODEC_ZSTD : CODEC_ZLIB;
	part = (len - 3) / (1 + in[2]) + 1;
	if (in[0] & 2)
		round_trip(codec, part, in + 3, len - 3);
	else
		frame(codec, 1 + in[1] % PIECES_MAX, part, in + 3, len - 3);
	return 0;
}
