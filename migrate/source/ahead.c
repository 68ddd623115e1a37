/* What a destination is told of the first round's data: see ahead.h. */
#include "migrate/source/ahead.h"

#include "migrate/codec/zero.h"
#include "migrate/guest.h"
#include "vmm/base/bitmap.h"
#include "vmm/memory.h"

/* Pages of a unit that are looked at: the destination does not touch memory that is only zero. */
#define SAMPLES 4u

static uint64_t units_of(const struct guest_block *b)
{
	return (b->pages + AHEAD_UNIT_PAGES - 1) / AHEAD_UNIT_PAGES;
}

static bool has_data(const struct guest_block *b, const uint64_t *touched, uint64_t unit)
{
	uint64_t at = unit * AHEAD_UNIT_PAGES, end = at + AHEAD_UNIT_PAGES, i;

	end = end < b->pages ? end : b->pages;
	/* A few pages that are not in a large page here would cost more memory there. */
	if (bitmap_count(touched + at / 64, end - at) < (end - at) / 2)
		return false;
	for (i = 0; i < SAMPLES; i++, at += AHEAD_UNIT_PAGES / SAMPLES) {
		at = at < end ? bitmap_next_set(touched, end, at) : end;
		if (at == end)
			return false;
		if (!zero_page(b->host + at * PAGE_SIZE))
			return true;
	}
	return false;
}

size_t ahead_encode(const struct guest_block *b, uint32_t block, const uint64_t *touched,
		    uint64_t *at, uint64_t end, uint8_t body[AHEAD_BODY_MAX])
{
	uint64_t units = end < units_of(b) ? end : units_of(b), unit = *at, from, first;
	uint64_t pages = units * AHEAD_UNIT_PAGES < b->pages ? units * AHEAD_UNIT_PAGES : b->pages;
	struct ahead_runs out = { .block = block };

	while (unit < units && out.n < AHEAD_RUNS_MAX) {
		first = bitmap_next_set(touched, pages, unit * AHEAD_UNIT_PAGES);
		from = unit = first < pages ? first / AHEAD_UNIT_PAGES : units;
		while (unit < units && has_data(b, touched, unit))
			unit++;
		if (unit == from) {
			unit += unit < units;
			continue;
		}
		first = unit * AHEAD_UNIT_PAGES;
		run_encode(body + AHEAD_HEAD_BYTES, out.n++, from * AHEAD_UNIT_PAGES,
			   (first < b->pages ? first : b->pages) - from * AHEAD_UNIT_PAGES);
	}
	*at = unit;
	ahead_runs_encode(&out, body);
	return out.n ? AHEAD_HEAD_BYTES + out.n * RUN_BYTES : 0;
}
