/*
 * Zero pages: they are neither written nor sent.
 */
#ifndef GODWIT_MIGRATE_CODEC_ZERO_H
#define GODWIT_MIGRATE_CODEC_ZERO_H

#include <stdbool.h>

/* Whether the page of PAGE_SIZE bytes at `page` (aligned) holds nothing but zeros. */
bool zero_page(const void *page);

#endif
