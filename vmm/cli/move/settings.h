/*
 * What a user sets of a migration's parameters (bandwidth=20M downtime=100, or by their QMP names),
 * and how a VM is told. Names, ranges and units are those of migrate/parameters.h. Reading is pure,
 * except that a policy may come from a file.
 */
#ifndef GODWIT_CLI_SETTINGS_H
#define GODWIT_CLI_SETTINGS_H

#include <jansson.h>
#include <stdbool.h>

#include "migrate/policy/policy.h"

struct client;
struct err;

struct settings {
	json_t *wanted;	      /* the arguments of migrate-set-parameters */
	json_t *capabilities; /* name: true or false, of those that are to be set */
	uint64_t given;	      /* a bit for each row of the table that may not be added again */
	bool has_policy;
	struct policy policy; /* as it was named; in `wanted` without what others overrule */

	/* What they were before; NULL: not known. */
	json_t *before, *capabilities_before;
};

void settings_init(struct settings *s);
void settings_free(struct settings *s);

/* Whether anything was added. */
bool settings_any(const struct settings *s);

/* -1 with a sentence: an unknown name (with the nearest), a bad value (with the range). */
int settings_add(struct settings *s, const char *name, const char *value, struct err *e);

/* The same, but -1 if that parameter was added so before: the last one would win in silence. */
int settings_add_once(struct settings *s, const char *name, const char *value, struct err *e);

/* Asks for the present values of those that will be set, so that they can be put back. */
int settings_remember(struct settings *s, struct client *c, struct err *e);

/* All values of now: an array of {name, qmp, value, unit}; NULL with a sentence. */
json_t *settings_now(struct client *c, struct err *e);

int settings_apply(const struct settings *s, struct client *c, struct err *e);

/* Puts back what was remembered, except values that somebody has changed since. */
void settings_put_back(struct settings *s, struct client *c);

#endif
