/*
 * XBZRLE: a page as what differs from the page that the other side has. The format is the one that
 * QEMU published (its docs, "XBZRLE"), so that what is known of its gains holds here too:
 *
 *   page   = (zrun nzrun)...         what follows the last nzrun is unchanged, and not said
 *   zrun   = length                  so many bytes are unchanged; 0 only at the very beginning
 *   nzrun  = length byte...          so many bytes are new, and here they are; never 0
 *   length = ULEB128                 1 byte below 128, else 2: the low 7 bits | 0x80, the others
 *
 * Pure; any thread.
 */
#ifndef GODWIT_MIGRATE_CODEC_XBZRLE_H
#define GODWIT_MIGRATE_CODEC_XBZRLE_H

#include <stddef.h>
#include <stdint.h>

struct scan;

/*
 * Encodes what turns the page `from` into the page `to`, both of PAGE_SIZE bytes that nobody
 * changes meanwhile. Returns the bytes written, 0 when the pages are equal, and -1 when it would
 * take more than `out_max` bytes; up to there `out` may have been written then.
 */
int xbzrle_encode(const void *from, const void *to, uint8_t *out, size_t out_max);

/* The same with one of the paths of scan.h, which all give the same bytes. */
int xbzrle_encode_with(const struct scan *scan, const void *from, const void *to, uint8_t *out,
		       size_t out_max);

/*
 * Turns the page of PAGE_SIZE bytes into what it was encoded to. 0, or -1 for what xbzrle_encode
 * never says: the page may be changed in part then, nothing else ever is. 0 bytes change nothing.
 */
int xbzrle_decode(const uint8_t *in, size_t n, void *page);

#endif
