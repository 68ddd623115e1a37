/* Whether a codec gains: see choice.h. */
#include "migrate/codec/choice.h"

#include "vmm/memory.h"

/* In percent of the time without it: less, for on and off not to follow each other for nothing. */
#define GAIN_PCT 95u

bool choice_wants(struct choice *c, uint64_t pages)
{
	if (!c->off)
		return true;
	if (c->skipped >= c->skip)
		return true;
	c->skipped += pages;
	return false;
}

enum choice_change choice_add(struct choice *c, uint64_t pages, uint64_t bytes, uint64_t ns,
			      uint64_t byte_ps)
{
	uint64_t with, without;
	bool was_off = c->off;

	c->pages += pages;
	c->bytes += bytes;
	c->ns += ns;
	if (c->pages < CHOICE_PAGES || !byte_ps)
		return CHOICE_AS_BEFORE;
	with = c->ns + c->bytes * byte_ps / 1000;
	without = c->pages * PAGE_SIZE * byte_ps / 1000;
	c->off = with >= without / 100 * GAIN_PCT;
	c->page_bytes = c->bytes / c->pages;
	c->with_ns = with / c->pages;
	c->without_ns = without / c->pages;
	if (!c->off)
		c->skip = 0;
	else if (!c->skip)
		c->skip = CHOICE_SKIP_MIN;
	else if (was_off)
		c->skip = c->skip * 2 < CHOICE_SKIP_MAX ? c->skip * 2 : CHOICE_SKIP_MAX;
	c->pages = c->bytes = c->ns = c->skipped = 0;
	if (c->off == was_off)
		return CHOICE_AS_BEFORE;
	return c->off ? CHOICE_SWITCHED_OFF : CHOICE_SWITCHED_ON;
}
