/* Stalled rounds. */
#include "migrate/policy/stall.h"

bool stall_add(struct stall *s, uint64_t round_us, uint64_t remaining_bytes)
{
	bool stalled;

	s->short_us += round_us;
	if (s->short_us < STALL_ROUND_US)
		return false;
	s->short_us = 0;
	/* If nothing was left once, more rounds cannot be an improvement: every one has stalled. */
	stalled = s->any &&
		  (!s->lowest_bytes ||
		   remaining_bytes > s->lowest_bytes / 100 * (100 - STALL_PCT) +
					     s->lowest_bytes % 100 * (100 - STALL_PCT) / 100);
	if (!s->any || remaining_bytes < s->lowest_bytes)
		s->lowest_bytes = remaining_bytes;
	s->any = true;
	s->stalled += stalled;
	return stalled;
}
