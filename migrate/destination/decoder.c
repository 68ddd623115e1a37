/*
 * Decoding as data come: see decoder.h. They are read in pieces of some tens of pages, since each
 * read may be a system call.
 */
#include "migrate/destination/decoder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "migrate/codec/xbzrle.h"
#include "migrate/stream/checksum.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

#define PIECE_BYTES (128u << 10)

bool decoder_wants(uint32_t codec)
{
	return codec == CODEC_XBZRLE || compression_of((enum pages_codec)codec);
}

/* Reads more data behind the `have` bytes of the piece. Returns the new number of bytes, or -1. */
static ptrdiff_t read_more(struct decoder *d, struct reader *r, size_t have, struct checksum *sum,
			   struct err *e)
{
	size_t n = PIECE_BYTES - have;

	if (r->data_left < n)
		n = (size_t)r->data_left;
	if (reader_data(r, d->piece + have, n, e))
		return -1;
	checksum_add(sum, d->piece + have, n);
	return (ptrdiff_t)(have + n);
}

static int decompress(struct decoder *d, struct reader *r, enum pages_codec codec, uint32_t n_runs,
		      struct checksum *sum, struct err *e)
{
	struct decompressor *dec = codec == CODEC_ZLIB ? &d->zlib : &d->zstd;
	ptrdiff_t n;

	if (decompressor_begin(dec, codec, d->run, n_runs, e))
		return -1;
	while (r->data_left) {
		n = read_more(d, r, 0, sum, e);
		if (n < 0)
			return -1;
		if (decompressor_feed(dec, d->piece, (size_t)n, e))
			return err_context(e, "%s", r->channel->name);
	}
	return decompressor_end(dec, e) ? err_context(e, "%s", r->channel->name) : 0;
}

/* What was read and is not decoded yet: n bytes from d->piece + at on. */
struct window {
	size_t at, n;
};

/* Sees to it that `n` bytes are in the window, or -1. */
static int need(struct decoder *d, struct reader *r, struct window *w, size_t n,
		struct checksum *sum, struct err *e)
{
	ptrdiff_t have;

	if (w->n >= n)
		return 0;
	memmove(d->piece, d->piece + w->at, w->n);
	w->at = 0;
	have = read_more(d, r, w->n, sum, e);
	if (have < 0)
		return -1;
	w->n = (size_t)have;
	return w->n >= n ? 0
			 : err_set(e, "%s: the xbzrle data end within a page", r->channel->name);
}

static int apply_page(struct decoder *d, struct reader *r, struct window *w, uint8_t *page,
		      struct checksum *sum, struct err *e)
{
	size_t n;

	if (need(d, r, w, PAGES_XBZRLE_HEAD_BYTES, sum, e))
		return -1;
	n = d->piece[w->at] | (size_t)d->piece[w->at + 1] << 8;
	if (n > PAGE_SIZE)
		return err_set(e, "%s: the xbzrle data of a page are %zu bytes, at most %u can be",
			       r->channel->name, n, PAGE_SIZE);
	w->at += PAGES_XBZRLE_HEAD_BYTES;
	w->n -= PAGES_XBZRLE_HEAD_BYTES;
	if (need(d, r, w, n, sum, e))
		return -1;
	if (xbzrle_decode(d->piece + w->at, n, page))
		return err_set(e, "%s: the xbzrle data of a page are damaged", r->channel->name);
	w->at += n;
	w->n -= n;
	return 0;
}

static int apply(struct decoder *d, struct reader *r, uint32_t n_runs, struct checksum *sum,
		 struct err *e)
{
	struct window w = { 0, 0 };
	uint32_t i;
	size_t at;

	for (i = 0; i < n_runs; i++)
		for (at = 0; at < d->run[i].iov_len; at += PAGE_SIZE)
			if (apply_page(d, r, &w, (uint8_t *)d->run[i].iov_base + at, sum, e))
				return -1;
	return w.n || r->data_left ? err_set(e, "%s: the xbzrle data are more than their pages",
					     r->channel->name)
				   : 0;
}

int decoder_take(struct decoder *d, struct reader *r, uint32_t codec, uint32_t n_runs,
		 struct checksum *sum, struct err *e)
{
	if (!d->piece)
		d->piece = malloc(PIECE_BYTES);
	if (!d->piece)
		return err_set(e, "out of memory");
	return codec == CODEC_XBZRLE ? apply(d, r, n_runs, sum, e)
				     : decompress(d, r, (enum pages_codec)codec, n_runs, sum, e);
}

void decoder_free(struct decoder *d)
{
	free(d->piece);
	d->piece = NULL;
	decompressor_free(&d->zlib);
	decompressor_free(&d->zstd);
}
