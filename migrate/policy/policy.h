/*
 * A migration policy, as oVirt and RHV define it: what a migration may use, and what happens when
 * it makes no progress. Plain data; policy_json.h reads it, schedule.h applies it.
 */
#ifndef GODWIT_MIGRATE_POLICY_POLICY_H
#define GODWIT_MIGRATE_POLICY_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/* Limits of what is read. POLICY_DOWNTIME_MAX_MS is also that of the parameter downtime-limit. */
#define POLICY_ITEMS_MAX	 64
#define POLICY_STALLING_MAX	 1000000
#define POLICY_DOWNTIME_MAX_MS	 2000000
#define POLICY_MIGRATIONS_MAX	 64
#define POLICY_NAME_BYTES	 64 /* this and the next two include the final zero byte */
#define POLICY_UUID_BYTES	 37
#define POLICY_DESCRIPTION_BYTES 512

enum policy_action { POLICY_SET_DOWNTIME, POLICY_ABORT, POLICY_POSTCOPY };

struct policy_item {
	enum policy_action action;
	uint32_t downtime_ms; /* of POLICY_SET_DOWNTIME; else 0 */
};

/* An item that fires when `stalling_limit` rounds have stalled. */
struct policy_convergence {
	uint32_t stalling_limit;
	struct policy_item item;
};

struct policy {
	char uuid[POLICY_UUID_BYTES], name[POLICY_NAME_BYTES];
	char description[POLICY_DESCRIPTION_BYTES];
	uint32_t max_migrations; /* outgoing ones of this host at the same time */
	bool auto_convergence, compression, guest_events;
	const char *builtin; /* its name among the built-in policies; NULL: it is none */

	/* Only setDowntime: applied before the first round. */
	struct policy_item initial[POLICY_ITEMS_MAX];
	/* Sorted by rising stalling_limit. */
	struct policy_convergence convergence[POLICY_ITEMS_MAX];
	/* After those, one for each further stalled round. */
	struct policy_item last[POLICY_ITEMS_MAX];
	unsigned int n_initial, n_convergence, n_last;
};

/* The names of the built-in policies, NULL-terminated. */
extern const char *const policy_builtins[];

/* The JSON text of the built-in policy of that name, or NULL. */
const char *policy_builtin_text(const char *name);

/* The name in the JSON: setDowntime, abort, postcopy. */
const char *policy_action_name(enum policy_action a);

/* Whether the policy has an item with that action. */
bool policy_has(const struct policy *p, enum policy_action a);

#endif
