/*
 * The checksum of the data of a PAGES record, as they are on the wire: CRC-32C, in version 1
 * CRC-32, or none. Pure; of the thread that reads or writes the record.
 */
#ifndef GODWIT_MIGRATE_STREAM_CHECKSUM_H
#define GODWIT_MIGRATE_STREAM_CHECKSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct record;

enum checksum_kind { CHECKSUM_NONE, CHECKSUM_CRC32, CHECKSUM_CRC32C };

struct checksum {
	enum checksum_kind kind;
	uint32_t value;
};

/* For the data of a record that was read; nothing is added yet. */
struct checksum checksum_of(const struct record *r);

/* The next bytes of the data. */
void checksum_add(struct checksum *c, const void *bytes, size_t len);

/* Whether it is the one that the record says; true if the record has none. */
bool checksum_is(const struct checksum *c, uint32_t said);

#endif
