/* Checksums of page data: see checksum.h. Pure. */
#include "migrate/stream/checksum.h"

#include <zlib.h>

#include "migrate/codec/crc32c.h"
#include "migrate/stream/record.h"

struct checksum checksum_of(const struct record *r)
{
	struct checksum c = { .kind = CHECKSUM_NONE };

	if (!(r->flags & RECORD_UNCHECKED))
		c.kind = r->crc32c ? CHECKSUM_CRC32C : CHECKSUM_CRC32;
	return c;
}

void checksum_add(struct checksum *c, const void *bytes, size_t len)
{
	if (c->kind == CHECKSUM_CRC32C)
		c->value = crc32c(c->value, bytes, len);
	else if (c->kind == CHECKSUM_CRC32)
		c->value = (uint32_t)crc32_z(c->value, bytes, len);
}

bool checksum_is(const struct checksum *c, uint32_t said)
{
	return c->kind == CHECKSUM_NONE || c->value == said;
}
