/*
 * The zero test: see zero.h. Pure. Most pages that are not zero show it in their first words, the
 * others are read in lines, so that the compiler can use vectors.
 */
#include "migrate/codec/zero.h"

#include <stdint.h>

#include "vmm/memory.h"

bool zero_page(const void *page)
{
	const uint64_t *w = page;
	unsigned int i, j;

	for (i = 0; i < PAGE_SIZE / sizeof(*w); i += 16) {
		uint64_t any = 0;

		for (j = 0; j < 16; j++)
			any |= w[i + j];
		if (any)
			return false;
	}
	return true;
}
