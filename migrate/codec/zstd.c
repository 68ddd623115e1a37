/*
 * zstd as a codec: see compress.h. Pure but for the library's memory: a few MiB to compress (tens
 * at the highest levels), at most about 2.5 MiB to decompress, as no frame may ask for a larger
 * window than COMPRESS_MAX. As a frame's size is known before, none of ours does.
 */
#include <zstd.h>
#include <zstd_errors.h>

#include "migrate/codec/compress.h"
#include "vmm/base/err.h"

static int init(void **state, int level, struct err *e)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();

	if (!c || ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level))) {
		ZSTD_freeCCtx(c);
		return err_set(e, "out of memory");
	}
	*state = c;
	return 0;
}

static ptrdiff_t compress_frame(void *state, const uint8_t *in, size_t n, uint8_t *out,
				size_t out_max, struct err *e)
{
	size_t done = ZSTD_compress2(state, out, out_max, in, n);

	if (!ZSTD_isError(done))
		return (ptrdiff_t)done;
	/* It begins the next frame anew by itself. */
	return ZSTD_getErrorCode(done) == ZSTD_error_dstSize_tooSmall
		       ? 0
		       : err_set(e, "zstd cannot compress (%s)", ZSTD_getErrorName(done));
}

static void free_compressor(void *state)
{
	ZSTD_freeCCtx(state);
}

static int begin(void **state, struct err *e)
{
	ZSTD_DCtx *d = *state;

	if (!d) {
		d = ZSTD_createDCtx();
		if (!d || ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax,
							      COMPRESS_LOG_MAX))) {
			ZSTD_freeDCtx(d);
			return err_set(e, "out of memory");
		}
		*state = d;
	}
	ZSTD_DCtx_reset(d, ZSTD_reset_session_only);
	return 0;
}

static int step(void *state, struct decompress_step *s, struct err *e)
{
	ZSTD_inBuffer in = { s->in, s->in_bytes, 0 };
	ZSTD_outBuffer out = { s->out, s->out_bytes, 0 };
	size_t rc = ZSTD_decompressStream(state, &out, &in);

	s->in += in.pos;
	s->in_bytes -= in.pos;
	s->out += out.pos;
	s->out_bytes -= out.pos;
	s->ended = rc == 0;
	if (ZSTD_isError(rc))
		return err_set(e, "the zstd data are damaged (%s)", ZSTD_getErrorName(rc));
	return 0;
}

static void free_decompressor(void *state)
{
	ZSTD_freeDCtx(state);
}

const struct compression compression_zstd = {
	.name = "zstd",
	.level_min = 1,
	.level_max = 20,
	.level_default = 1,
	.init = init,
	.compress = compress_frame,
	.free = free_compressor,
	.begin = begin,
	.step = step,
	.end = free_decompressor,
};
