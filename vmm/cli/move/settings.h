/*
 * The parameters of a migration as a user writes them (bandwidth=20M downtime=100, or by their QMP
 * names), and as a VM takes them. Reading them is pure, but that a policy may come from a file.
 */
#ifndef GODWIT_CLI_SETTINGS_H
#define GODWIT_CLI_SETTINGS_H

#include <jansson.h>
#include <stdbool.h>

#include "migrate/policy/policy.h"

struct client;
struct err;

/* The capabilities that parameters stand for here: multifd, auto-converge, xbzrle,
 * dirty-limit. */
#define SETTINGS_CAPABILITIES 4

struct settings {
	json_t *wanted;			       /* the arguments of migrate-set-parameters */
	int capability[SETTINGS_CAPABILITIES]; /* 0, 1, or -1 for what it is */
	uint64_t given; /* a bit for each parameter that may not be added again */
	bool has_policy;
	struct policy policy; /* as it was named; in `wanted` without what others overrule */

	json_t *before; /* what they were; NULL: not known */
	int capability_before[SETTINGS_CAPABILITIES];
};

void settings_init(struct settings *p);
void settings_free(struct settings *p);

/* Whether anything was added. */
bool settings_any(const struct settings *p);

/* -1 with a sentence: an unknown name (with the nearest), a bad value (with the range). */
int settings_add(struct settings *p, const char *name, const char *value, struct err *e);

/* For words of which the last would win in silence: -1 when it was added so before. */
int settings_add_once(struct settings *p, const char *name, const char *value, struct err *e);

/* Asks for the present values of those that are wanted, to be put back later. */
int settings_remember(struct settings *p, struct client *c, struct err *e);

/* All as they are now: an array of {name, qmp, value, unit}; NULL with a sentence. */
json_t *settings_now(struct client *c, struct err *e);

int settings_apply(const struct settings *p, struct client *c, struct err *e);

/* Puts back what was remembered, except where somebody has changed it meanwhile. */
void settings_put_back(struct settings *p, struct client *c);

#endif
