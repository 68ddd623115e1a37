/*
 * Compressors and decompressors: see compress.h. The libraries' own parts are zlib.c and zstd.c.
 * The frame comes from a peer that may be hostile: its content goes nowhere but into the pieces,
 * and what is beyond them is noticed with its first byte.
 */
#include "migrate/codec/compress.h"

#include <string.h>

#include "vmm/base/err.h"

const struct compression *compression_of(enum pages_codec codec)
{
	switch (codec) {
	case CODEC_ZLIB:
		return &compression_zlib;
	case CODEC_ZSTD:
		return &compression_zstd;
	default:
		return NULL;
	}
}

int compressor_init(struct compressor *c, enum pages_codec codec, int level, struct err *e)
{
	const struct compression *how = compression_of(codec);

	if (how && c->how == how && c->level == level)
		return 0;
	compressor_free(c);
	if (!how)
		return err_set(e, "codec %d does not compress", (int)codec);
	if (level < how->level_min || level > how->level_max)
		return err_set(e, "%s has no level %d, only %d to %d", how->name, level,
			       how->level_min, how->level_max);
	if (how->init(&c->state, level, e))
		return -1;
	c->how = how;
	c->level = level;
	return 0;
}

ptrdiff_t compressor_run(struct compressor *c, const void *in, size_t n, uint8_t *out,
			 size_t out_max, struct err *e)
{
	if (n > COMPRESS_MAX)
		return err_set(e, "%zu bytes are more than a frame holds (%u)", n, COMPRESS_MAX);
	return c->how->compress(c->state, in, n, out, out_max, e);
}

void compressor_free(struct compressor *c)
{
	if (c->how)
		c->how->free(c->state);
	*c = (struct compressor){ 0 };
}

int decompressor_begin(struct decompressor *d, enum pages_codec codec, struct iovec *out,
		       unsigned int n_out, struct err *e)
{
	const struct compression *how = compression_of(codec);

	if (d->how != how)
		decompressor_free(d);
	if (!how)
		return err_set(e, "codec %d does not compress", (int)codec);
	d->how = how;
	d->out = out;
	d->n_out = n_out;
	d->ended = false;
	return how->begin(&d->state, e);
}

/* Whether there is still a byte to be filled; leaves out[0] as a piece that has one. */
static bool has_room(struct decompressor *d)
{
	while (d->n_out && !d->out->iov_len) {
		d->out++;
		d->n_out--;
	}
	return d->n_out;
}

int decompressor_feed(struct decompressor *d, const void *in, size_t n, struct err *e)
{
	struct decompress_step s = { .in = in, .in_bytes = n };
	size_t taken, made, room;
	uint8_t beyond;
	bool inside;

	do {
		if (d->ended)
			return s.in_bytes ? err_set(e, "the %s data go on after their end",
						    d->how->name)
					  : 0;
		/* With all filled there is the end of the frame to be read, but nothing more. */
		inside = has_room(d);
		s.out = inside ? d->out->iov_base : &beyond;
		s.out_bytes = room = inside ? d->out->iov_len : 1;
		taken = s.in_bytes;
		if (d->how->step(d->state, &s, e))
			return -1;
		taken -= s.in_bytes;
		made = room - s.out_bytes;
		if (made && !inside)
			return err_set(e, "the %s data are more than their pages", d->how->name);
		if (inside) {
			d->out->iov_base = s.out;
			d->out->iov_len = s.out_bytes;
		}
		d->ended = s.ended;
		if (!taken && !made && !s.ended && s.in_bytes)
			return err_set(e, "the %s data are damaged", d->how->name);
		/* Output that was filled to the brim may have left more behind. */
	} while (s.in_bytes || (made == room && !d->ended));
	return 0;
}

int decompressor_end(struct decompressor *d, struct err *e)
{
	bool left = has_room(d);

	d->out = NULL;
	d->n_out = 0;
	if (!d->ended)
		return err_set(e, "the %s data end early", d->how->name);
	return left ? err_set(e, "the %s data are less than their pages", d->how->name) : 0;
}

void decompressor_free(struct decompressor *d)
{
	if (d->how && d->state)
		d->how->end(d->state);
	*d = (struct decompressor){ 0 };
}
