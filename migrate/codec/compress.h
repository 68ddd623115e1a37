/*
 * Compression of page data: one frame for the data of one PAGES record, a zlib stream (RFC 1950)
 * or a zstd frame (RFC 8878), by the libraries of that name. What is compressed must not change
 * meanwhile: both read it more than once.
 *
 * A compressor or decompressor belongs to one thread at a time.
 */
#ifndef GODWIT_MIGRATE_CODEC_COMPRESS_H
#define GODWIT_MIGRATE_CODEC_COMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "migrate/stream/body.h"

struct err;

/* The most that one frame holds, in bytes; a decompressor's memory is bounded by it. */
#define COMPRESS_LOG_MAX 21 /* its base-2 logarithm: 2 MiB */
#define COMPRESS_MAX	 (1u << COMPRESS_LOG_MAX)

/* One step of a decompressor. */
struct decompress_step {
	const uint8_t *in; /* moved on by what was taken */
	size_t in_bytes;
	uint8_t *out;
	size_t out_bytes; /* at least 1 */
	bool ended;	  /* the frame is complete */
};

/* One library; a table of constants. `state` is what its init made. */
struct compression {
	const char *name;
	int level_min, level_max, level_default;
	int (*init)(void **state, int level, struct err *e);
	/* Bytes; 0 when it does not fit; -1 with a sentence. */
	ptrdiff_t (*compress)(void *state, const uint8_t *in, size_t n, uint8_t *out,
			      size_t out_max, struct err *e);
	void (*free)(void *state);

	int (*begin)(void **state, struct err *e); /* of a frame; makes the state when it is NULL */
	/* As far as input and output go; -1 with a sentence when the frame is damaged. */
	int (*step)(void *state, struct decompress_step *s, struct err *e);
	void (*end)(void *state);
};

extern const struct compression compression_zlib, compression_zstd;

/* The table of a codec; NULL for those that do not compress. */
const struct compression *compression_of(enum pages_codec codec);

struct compressor {
	const struct compression *how; /* NULL: none */
	int level;
	void *state;
};

/*
 * Makes a compressor, or changes the one that is there (all zero: none) to this codec and level:
 * cheap when it is that one already. -1, and then it is none, when the level is out of the range of
 * the table, or there is no memory.
 */
int compressor_init(struct compressor *c, enum pages_codec codec, int level, struct err *e);

/*
 * Compresses n bytes, at most COMPRESS_MAX, that nobody changes meanwhile. Returns the bytes
 * written, 0 when that would be more than `out_max`, or -1.
 */
ptrdiff_t compressor_run(struct compressor *c, const void *in, size_t n, uint8_t *out,
			 size_t out_max, struct err *e);

/* Leaves it as none. */
void compressor_free(struct compressor *c);

struct decompressor {
	const struct compression *how;
	void *state;
	struct iovec *out; /* not owned; what is left of it to be filled */
	unsigned int n_out;
	bool ended;
};

/*
 * Begins a frame whose content goes into the n_out pieces (together 1 to COMPRESS_MAX bytes), in
 * order; the vector stays in use, and is changed, until decompressor_end. What an earlier frame
 * needed is used again. A decompressor that is all zero is fit to begin.
 */
int decompressor_begin(struct decompressor *d, enum pages_codec codec, struct iovec *out,
		       unsigned int n_out, struct err *e);

/* The next bytes of the frame. -1: damaged, larger than the pieces, or beyond its end. */
int decompressor_feed(struct decompressor *d, const void *in, size_t n, struct err *e);

/* That was all. -1: the frame is not complete, or smaller than the pieces. */
int decompressor_end(struct decompressor *d, struct err *e);

/* Leaves it as all zero. */
void decompressor_free(struct decompressor *d);

#endif
