/*
 * Decisions of a migration: what was decided, by the name that users see, and why. Whoever decides
 * tells one sink; it ends in the event GODWIT_DECISION, a line of `godwit migrate` and the report.
 */
#ifndef GODWIT_MIGRATE_DECISIONS_H
#define GODWIT_MIGRATE_DECISIONS_H

/* Their names are in decisions.c; godwit-migrate.1 explains the same ones. */
enum decision {
	DECISION_THROTTLE,
	DECISION_DIRTY_LIMIT,
	DECISION_DOWNTIME,
	DECISION_DOWNTIME_LIMIT,
	DECISION_FREE_PAGES,
	DECISION_XBZRLE_OFF,
	DECISION_XBZRLE_ON,
	DECISION_ZLIB_OFF,
	DECISION_ZLIB_ON,
	DECISION_ZSTD_OFF,
	DECISION_ZSTD_ON,
	DECISION_FORECAST,
	DECISION_WAIT,
	DECISION_GUEST_EVENT,
	DECISION_FORCE,
	DECISION_ABORT,
	DECISION_POSTCOPY,
	DECISION_SWITCHOVER,
	DECISIONS
};

const char *decision_name(enum decision d);

/* Who is told; NULL: nobody. `reason` is a sentence, valid during the call. */
struct decisions {
	void (*tell)(void *arg, enum decision d, const char *reason);
	void *arg;
};

/* On the caller's thread, which the sink's owner must allow. */
void decision_tell(const struct decisions *to, enum decision d, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
