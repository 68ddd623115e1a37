/*
 * Pages in, the data of PAGES records out: one encoder for each worker, with its buffers. All that
 * is given out is made of copies: each page of the guest, which may write to it meanwhile, is read
 * once, and what was read is what is encoded, sent, and remembered in the cache.
 */
#ifndef GODWIT_MIGRATE_CODEC_ENCODER_H
#define GODWIT_MIGRATE_CODEC_ENCODER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "migrate/codec/compress.h"
#include "migrate/stream/body.h"
#include "vmm/base/bitmap.h"

struct err;
struct page_cache;

#define ENCODER_WORDS BITMAP_WORDS(PAGES_ENCODED_MAX)

/* Some pages of one block. */
struct page_set {
	unsigned int block;
	uint64_t first;		       /* page number of bit 0 */
	const uint8_t *host;	       /* where page `first` is */
	uint64_t pages[ENCODER_WORDS]; /* which of the PAGES_ENCODED_MAX from there on */
};

struct encode_how {
	bool delta;	       /* XBZRLE for those that the cache has */
	enum pages_codec rest; /* the others: CODEC_PLAIN, CODEC_ZLIB or CODEC_ZSTD */
	int level;	       /* of the compression */
	uint32_t round;	       /* from 1; the age of what is in the cache */
};

/* What one PAGES record says; its runs are those of `pages`. */
struct encoded {
	enum pages_codec codec;
	uint32_t n_pages;
	uint64_t pages[ENCODER_WORDS];
	struct iovec data; /* of the encoder, until it is used again */
};

/* By codec, since encoder_init; atomic, for readers. */
struct encoder_count {
	uint64_t pages;	    /* that went out in this codec */
	uint64_t out_bytes; /* their data */
	uint64_t cpu_ns; /* spent on it, also where it gained nothing; XBZRLE, PLAIN: copying too */
};

struct encoder {
	struct page_cache *cache; /* shared with other workers, not owned; NULL: no deltas */
	struct compressor compressor;
	uint8_t *copies, *deltas, *frame; /* made when needed: 2 MiB each */
	struct encoder_count count[CODEC_ZSTD + 1];
	/* Of the last encoder_run with `delta`: pages that the cache had, the bytes of them, and
	 * how many did not shrink. */
	uint64_t known_pages, known_bytes, overflows;
};

/* All zero but for the cache. Cannot fail. */
void encoder_init(struct encoder *enc, struct page_cache *cache);
void encoder_free(struct encoder *enc);

/*
 * Encodes a set of pages. Returns how many records are to be sent, 0 to 2, in out[0] and out[1], in
 * any order; pages that are in none of them are as the destination has them. Where a codec does not
 * gain, its pages are in a plain record. -1 with a sentence: no memory, a level that is none; the
 * cache may be ahead of the destination then, and the migration must not go on.
 */
int encoder_run(struct encoder *enc, const struct encode_how *how, const struct page_set *set,
		struct encoded out[2], struct err *e);

/*
 * These pages are sent without encoder_run: straight from guest memory, or as zero. Must be called
 * for each such page when there is a cache, before its next encoder_run.
 */
void encoder_forget(struct encoder *enc, const struct page_set *set);

#endif
