/*
 * The zero test: see zero.h. Pure.
 */
#include "migrate/codec/zero.h"

#include "migrate/codec/scan.h"

bool zero_page(const void *page)
{
	return scan_best()->zero(page);
}
