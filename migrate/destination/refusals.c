/*
 * At most one line a minute: see refusals.h.
 */
#include "migrate/destination/refusals.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "vmm/base/clock.h"
#include "vmm/base/log.h"

bool refusals_due(struct refusals *r, uint64_t now_us, uint64_t *untold)
{
	uint64_t next_us = __atomic_load_n(&r->next_us, __ATOMIC_SEQ_CST);

	/* If several threads find a line due, the one that sets the next time writes it. */
	if ((next_us && now_us < next_us) ||
	    !__atomic_compare_exchange_n(&r->next_us, &next_us, now_us + REFUSALS_PAUSE_US, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
		__atomic_fetch_add(&r->untold, 1, __ATOMIC_SEQ_CST);
		return false;
	}
	*untold = __atomic_exchange_n(&r->untold, 0, __ATOMIC_SEQ_CST);
	return true;
}

void refusals_tell(struct refusals *r, const char *fmt, ...)
{
	char text[700];
	uint64_t untold;
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (!refusals_due(r, clock_us(), &untold))
		log_verbose("%s", text);
	else if (untold)
		log_warn("%s (and %" PRIu64 " more like it since the last such line)", text,
			 untold);
	else
		log_warn("%s", text);
}
