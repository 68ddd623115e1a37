/*
 * Takes the data of PAGES records that are encoded (XBZRLE, zlib, zstd) from a reader into guest
 * memory: one for each connection, with its buffers. Of the thread that reads the connection.
 *
 * The data are hostile: they go nowhere but into the pages of the record, and must fill just those.
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

/* All zero is fit for use; buffers are made when they are needed, 150 KiB and for zstd 2.5 MiB. */
struct decoder {
	/* Set by the caller, and changed by decoder_take: where the record's runs are, in order. */
	struct iovec run[PAGES_ENCODED_MAX];
	uint8_t *piece; /* of the data, as read */
	struct decompressor zlib, zstd;
};

/* Whether a record of this codec, which pages_decode has accepted, is for decoder_take. */
bool decoder_wants(uint32_t codec);

/*
 * Reads all data of the record that was just read, and decodes them into `run`, n_runs whole
 * numbers of pages. The data, as they came, are added to `sum`. After -1 the pages
 * may hold anything. XBZRLE changes what the pages hold.
 */
int decoder_take(struct decoder *d, struct reader *r, uint32_t codec, uint32_t n_runs,
		 struct checksum *sum, struct err *e);

void decoder_free(struct decoder *d);

#endif
