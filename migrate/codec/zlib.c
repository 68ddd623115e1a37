/*
 * zlib as a codec: see compress.h. Pure but for the library's memory, which is made once: about
 * 270 KiB to compress, 50 KiB to decompress, whatever the input.
 */
#include <stdlib.h>

#define ZLIB_CONST /* it takes input that is const */
#include <zlib.h>

#include "migrate/codec/compress.h"
#include "vmm/base/err.h"

static int init(void **state, int level, struct err *e)
{
	z_stream *z = calloc(1, sizeof(*z));

	if (!z || deflateInit(z, level) != Z_OK) {
		free(z);
		return err_set(e, "out of memory");
	}
	*state = z;
	return 0;
}

static ptrdiff_t compress_frame(void *state, const uint8_t *in, size_t n, uint8_t *out,
				size_t out_max, struct err *e)
{
	z_stream *z = state;
	int rc;

	if (deflateReset(z) != Z_OK)
		return err_set(e, "zlib cannot begin anew");
	z->next_in = in;
	z->avail_in = (uInt)n;
	z->next_out = out;
	z->avail_out = out_max < COMPRESS_MAX ? (uInt)out_max : COMPRESS_MAX;
	rc = deflate(z, Z_FINISH);
	if (rc == Z_STREAM_END)
		return (ptrdiff_t)z->total_out;
	/* What did not fit is given up; the library holds nothing that the next reset would not. */
	return rc == Z_OK || rc == Z_BUF_ERROR ? 0 : err_set(e, "zlib cannot compress (%d)", rc);
}

static void free_compressor(void *state)
{
	deflateEnd(state);
	free(state);
}

static int begin(void **state, struct err *e)
{
	z_stream *z = *state;

	if (z)
		return inflateReset(z) == Z_OK ? 0 : err_set(e, "zlib cannot begin anew");
	z = calloc(1, sizeof(*z));
	if (!z || inflateInit(z) != Z_OK) {
		free(z);
		return err_set(e, "out of memory");
	}
	*state = z;
	return 0;
}

static int step(void *state, struct decompress_step *s, struct err *e)
{
	z_stream *z = state;
	int rc;

	z->next_in = s->in;
	z->avail_in = (uInt)s->in_bytes;
	z->next_out = s->out;
	z->avail_out = (uInt)s->out_bytes;
	rc = inflate(z, Z_NO_FLUSH);
	s->in = z->next_in;
	s->in_bytes = z->avail_in;
	s->out = z->next_out;
	s->out_bytes = z->avail_out;
	s->ended = rc == Z_STREAM_END;
	/* Z_BUF_ERROR: there was nothing to do with what it had. */
	if (rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR)
		return 0;
	if (rc == Z_MEM_ERROR)
		return err_set(e, "out of memory");
	return err_set(e, "the zlib data are damaged (%s)", z->msg ? z->msg : "a dictionary");
}

static void free_decompressor(void *state)
{
	inflateEnd(state);
	free(state);
}

const struct compression compression_zlib = {
	.name = "zlib",
	.level_min = 1,
	.level_max = 9,
	.level_default = 1,
	.init = init,
	.compress = compress_frame,
	.free = free_compressor,
	.begin = begin,
	.step = step,
	.end = free_decompressor,
};
