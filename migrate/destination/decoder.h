/*
 * Decodes the data of PAGES records that are encoded (XBZRLE, zlib, zstd), from a reader into
 * pages. Each connection has one, with its buffers; the thread that reads the connection owns it.
 *
 * The data are hostile: they are written only into the pages of the record, and must fill them.
 */
#ifndef GODWIT_MIGRATE_DECODER_H
#define GODWIT_MIGRATE_DECODER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "migrate/codec/compress.h"
#include "migrate/stream/body.h"

struct checksum;
struct err;

/* Ready for use if all zero. Buffers are made when needed: 150 KiB, and 2.5 MiB more for zstd. */
struct decoder {
	/* Set by the caller, changed by decoder_take: where the record's runs go, in order. */
	struct iovec run[PAGES_ENCODED_MAX];
	uint8_t *piece; /* data as read */
	struct decompressor zlib, zstd;
};

/* Whether records of this codec are for decoder_take. pages_decode has accepted it. */
bool decoder_wants(uint32_t codec);

/*
 * Reads all data of the record that was just read, and decodes them into `run`: n_runs runs of
 * whole pages. The data, as they came, are added to `sum`. XBZRLE changes what the pages hold.
 * After -1 they may hold anything.
 */
int decoder_take(struct decoder *d, struct reader *r, uint32_t codec, uint32_t n_runs,
		 struct checksum *sum, struct err *e);

void decoder_free(struct decoder *d);

#endif
