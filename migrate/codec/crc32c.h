/*
 * CRC-32C (Castagnoli, as iSCSI and ext4 have it), as fast as this processor can: the checksum of
 * page data in streams since version 2. One function per instruction set; all of them give the same
 * answers. Pure; any thread.
 */
#ifndef GODWIT_MIGRATE_CODEC_CRC32C_H
#define GODWIT_MIGRATE_CODEC_CRC32C_H

#include <stddef.h>
#include <stdint.h>

struct crc32c {
	const char *name; /* "sse4.2", "portable" */
	/* The checksum of what `crc` is the checksum of (0: of nothing), and of these bytes behind
	 * it. The bytes may change meanwhile: then it is the checksum of a mixture. */
	uint32_t (*run)(uint32_t crc, const void *bytes, size_t len);
};

/* The i-th that this processor can run, the fastest first, the portable one last; then NULL. */
const struct crc32c *crc32c_path(unsigned int i);

/* By the first of them. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);

extern const struct crc32c crc32c_portable;

/* The same for those of the architecture alone: migrate/codec/<arch>/crc32c.c. */
const struct crc32c *crc32c_native(unsigned int i);

#endif
