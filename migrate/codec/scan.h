/*
 * What the codecs ask of a page, as fast as this processor can: whether it is zero, and which bytes
 * of it differ from another. One table per instruction set; all of them give the same answers.
 * Pure; any thread. The pages are PAGE_SIZE bytes at any alignment.
 */
#ifndef GODWIT_MIGRATE_CODEC_SCAN_H
#define GODWIT_MIGRATE_CODEC_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/memory.h"

#define SCAN_WORDS (PAGE_SIZE / 64)

struct scan {
	const char *name; /* "avx512", "avx2", "portable" */
	bool (*zero)(const void *page);
	/*
	 * Sets bit n % 64 of diff[n / 64] where byte n differs, and clears it where not. Returns
	 * the bytes that differ + 2 for each run of them: the least that an encoding as
	 * runs takes, 0 when the pages are equal.
	 */
	uint32_t (*diff)(const void *a, const void *b, uint64_t diff[SCAN_WORDS]);
};

/* The i-th that this processor can run, the fastest first, the portable one last; then NULL. */
const struct scan *scan_path(unsigned int i);

/* The first of them: a few loads and compares, so it may be asked for each page. */
const struct scan *scan_best(void);

extern const struct scan scan_portable;

/* The same for those of the architecture alone: migrate/codec/<arch>/scan.c. */
const struct scan *scan_native(unsigned int i);

#endif
