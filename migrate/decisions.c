/*
 * The names of decisions, and the one way by which they are told.
 */
#include "migrate/decisions.h"

#include <stdarg.h>
#include <stdio.h>

#define REASON_BYTES 768

const char *decision_name(enum decision d)
{
	static const char *const names[DECISIONS] = {
		[DECISION_THROTTLE] = "throttle",
		[DECISION_DIRTY_LIMIT] = "dirty-limit",
		[DECISION_DOWNTIME] = "downtime",
		[DECISION_DOWNTIME_LIMIT] = "downtime-limit",
		[DECISION_FREE_PAGES] = "free-pages",
		[DECISION_XBZRLE_OFF] = "xbzrle-off",
		[DECISION_XBZRLE_ON] = "xbzrle-on",
		[DECISION_ZLIB_OFF] = "zlib-off",
		[DECISION_ZLIB_ON] = "zlib-on",
		[DECISION_ZSTD_OFF] = "zstd-off",
		[DECISION_ZSTD_ON] = "zstd-on",
		[DECISION_FORECAST] = "forecast",
		[DECISION_WAIT] = "wait",
		[DECISION_GUEST_EVENT] = "guest-event",
		[DECISION_FORCE] = "force",
		[DECISION_ABORT] = "abort",
		[DECISION_POSTCOPY] = "postcopy",
		[DECISION_SWITCHOVER] = "switchover",
	};

	return names[d];
}

void decision_tell(const struct decisions *to, enum decision d, const char *fmt, ...)
{
	char reason[REASON_BYTES];
	va_list args;

	if (!to->tell)
		return;
	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	to->tell(to->arg, d, reason);
}
