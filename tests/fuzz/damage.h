/*
 * Chance finds no flattened tree that begins well, so the input is what is damaged in a good one:
 * u16 place, u8 value, again and again; or (its first byte is 0) all of the tree.
 */
#ifndef GODWIT_TESTS_DAMAGE_H
#define GODWIT_TESTS_DAMAGE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/tree.h"

/* In an allocation of just its size; the caller frees it. */
static inline uint8_t *damaged(const struct tree *good, const uint8_t *in, size_t len, size_t *out)
{
	size_t n = in[0] ? tree_bytes_used(good) : len - 1, i;
	uint8_t *bytes = malloc(n ? n : 1);

	if (!bytes)
		abort();
	memcpy(bytes, in[0] ? (const uint8_t *)good->fdt : in + 1, n);
	for (i = 1; in[0] && i + 3 <= len; i += 3)
		bytes[(in[i] | (size_t)in[i + 1] << 8) % n] = in[i + 2];
	*out = n;
	return bytes;
}

#endif
