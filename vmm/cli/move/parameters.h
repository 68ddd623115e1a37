/*
 * The parameters of a migration as a user writes them (bandwidth=20M downtime=100, or by their QMP
 * names), and as a VM takes them. Reading them is pure, but that a policy may come from a file.
 */
#ifndef GODWIT_CLI_PARAMETERS_H
#define GODWIT_CLI_PARAMETERS_H

#include <jansson.h>
#include <stdbool.h>

#include "migrate/policy/policy.h"

struct client;
struct err;

/* The capabilities that parameters stand for here: multifd, auto-converge, xbzrle,
 * dirty-limit. */
#define PARAMETERS_CAPABILITIES 4

struct parameters {
	json_t *wanted;				 /* the arguments of migrate-set-parameters */
	int capability[PARAMETERS_CAPABILITIES]; /* 0, 1, or -1 for what it is */
	uint64_t given; /* a bit for each parameter that may not be added again */
	bool has_policy;
	struct policy policy; /* as it was named; in `wanted` without what others overrule */

	json_t *before; /* what they were; NULL: not known */
	int capability_before[PARAMETERS_CAPABILITIES];
};

void parameters_init(struct parameters *p);
void parameters_free(struct parameters *p);

/* Whether anything was added. */
bool parameters_any(const struct parameters *p);

/* -1 with a sentence: an unknown name (with the nearest), a bad value (with the range). */
int parameters_add(struct parameters *p, const char *name, const char *value, struct err *e);

/* For words of which the last would win in silence: -1 when it was added so before. */
int parameters_add_once(struct parameters *p, const char *name, const char *value, struct err *e);

/* Asks for the present values of those that are wanted, to be put back later. */
int parameters_remember(struct parameters *p, struct client *c, struct err *e);

/* All as they are now: an array of {name, qmp, value, unit}; NULL with a sentence. */
json_t *parameters_now(struct client *c, struct err *e);

int parameters_apply(const struct parameters *p, struct client *c, struct err *e);

/* Puts back what was remembered, except where somebody has changed it meanwhile. */
void parameters_put_back(struct parameters *p, struct client *c);

#endif
