/*
 * A migration policy as oVirt and RHV have them: which means a migration may use, and what happens
 * when it makes no progress (schedule.h walks through it). Plain data; policy_json.h reads it.
 */
#ifndef GODWIT_MIGRATE_POLICY_POLICY_H
#define GODWIT_MIGRATE_POLICY_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/* Limits of what is read; the downtime is that of the parameter downtime-limit. */
#define POLICY_ITEMS_MAX	 64
#define POLICY_STALLING_MAX	 1000000
#define POLICY_DOWNTIME_MAX_MS	 2000000
#define POLICY_MIGRATIONS_MAX	 64
#define POLICY_NAME_BYTES	 64 /* with the zero at the end, as the next two */
#define POLICY_UUID_BYTES	 37
#define POLICY_DESCRIPTION_BYTES 512

enum policy_action { POLICY_SET_DOWNTIME, POLICY_ABORT, POLICY_POSTCOPY };

struct policy_item {
	enum policy_action action;
	uint32_t downtime_ms; /* setDowntime's, else 0 */
};

/* Fires when so many rounds have stalled. */
struct policy_convergence {
	uint32_t stalling_limit;
	struct policy_item item;
};

struct policy {
	char uuid[POLICY_UUID_BYTES], name[POLICY_NAME_BYTES];
	char description[POLICY_DESCRIPTION_BYTES];
	uint32_t max_migrations; /* that leave this host at once */
	bool auto_convergence, compression, guest_events;
	const char *builtin; /* the word for it, or NULL: read from elsewhere */

	/* setDowntime only: how it begins. */
	struct policy_item initial[POLICY_ITEMS_MAX];
	/* By rising stalling_limit. */
	struct policy_convergence convergence[POLICY_ITEMS_MAX];
	/* Then one for each further stalled round. */
	struct policy_item last[POLICY_ITEMS_MAX];
	unsigned int n_initial, n_convergence, n_last;
};

/* The words for the built-in policies, NULL-terminated. */
extern const char *const policy_builtins[];

/* The JSON text of the built-in policy of that name, or NULL. */
const char *policy_builtin_text(const char *name);

/* As in the JSON: setDowntime, abort, postcopy. */
const char *policy_action_name(enum policy_action a);

/* Whether any of its items is that one. */
bool policy_has(const struct policy *p, enum policy_action a);

#endif
