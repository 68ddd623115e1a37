/*
 * The parameters of a migration: their values (struct migration_parameters), and one table of what
 * users may say of each. Defaults, ranges, QMP, `godwit set`, the options of `godwit migrate` and
 * their help come from that table, which is written down in parameter_rows.h. Pure; any thread.
 */
#ifndef GODWIT_MIGRATE_PARAMETERS_H
#define GODWIT_MIGRATE_PARAMETERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/policy/converge.h"
#include "migrate/policy/policy.h"
#include "migrate/policy/timeout.h"
#include "migrate/stream/body.h"

struct err;

#define PARAMETER_BIND_BYTES 64
#define PARAMETER_YEAR_S     31536000

struct migration_parameters {
#define PARAMETER_NUMBER(member, ...) uint64_t member;
#define PARAMETER_SWITCH(member, ...) bool member;
#define PARAMETER_OTHER(member, ...)
#define PARAMETER_FIXED(...)
#include "migrate/parameter_rows.h"

	struct timeout_limits timeout; /* from the start to GO, waiting for a turn included */
	enum timeout_action timeout_action;
	enum pages_codec compression;	 /* CODEC_PLAIN: none */
	char bind[PARAMETER_BIND_BYTES]; /* local address, "": any */
	bool has_policy;
	struct policy policy;

	/* How often the downtime was set. */
	uint32_t downtime_sets;
	/* It was set with the present policy or after it: then it overrules the policy's first
	 * limit. */
	bool downtime_chosen;
};

enum parameter_kind {
	PARAMETER_SWITCH, /* a capability: on or off */
	/* Capabilities without a choice; they have no member. */
	PARAMETER_ALWAYS_ON,
	PARAMETER_NOT_IMPLEMENTED,
	/* Numbers. The kinds differ in how users write them. */
	PARAMETER_PLAIN,
	PARAMETER_MS,	    /* "100" or "100ms" */
	PARAMETER_RATE,	    /* bytes a second, with K, M, G, T */
	PARAMETER_SIZE,	    /* bytes, the same */
	PARAMETER_TIMEOUT,  /* seconds; "N/GiB" means timeout-per-gib */
	PARAMETER_CHANNELS, /* more than 1 also switches multifd on */
	/* Words. */
	PARAMETER_POLICY,
	PARAMETER_ACTION,
	PARAMETER_COMPRESSION, /* for users xbzrle is one more word */
	PARAMETER_TEXT,
};

struct parameter {
	const char *qmp;  /* in QMP */
	const char *name; /* for users, who may say `qmp` as well; NULL: only QMP has it */
	enum parameter_kind kind;
	size_t at;   /* of the member in struct migration_parameters */
	bool live;   /* holds at once for the migration that is under way; others for the next */
	bool option; /* godwit migrate has --NAME */
	uint64_t min, max, preset;
	const char *preset_text; /* of a word; NULL: "" */
	const char *argument;	 /* in help texts: NAME=ARGUMENT */
	const char *unit, *help; /* one line in the list of values; sentences */
};

/* A row with `qmp` NULL ends it. */
extern const struct parameter parameter_table[];

/* How many rows that are, at most. */
#define PARAMETERS_MAX 64

/* By either name; NULL: there is none. */
const struct parameter *parameter_find(const char *name);

bool parameter_is_capability(const struct parameter *r);
bool parameter_is_number(const struct parameter *r);

void parameters_preset(struct migration_parameters *p);

/* The values of one row: by parameter_is_number, of a PARAMETER_SWITCH, and of all others. */
uint64_t *parameter_number(const struct parameter *r, struct migration_parameters *p);
bool *parameter_switch(const struct parameter *r, struct migration_parameters *p);
/* As parameter_set_text takes it; to be freed; NULL: out of memory. */
char *parameter_text(const struct parameter *r, const struct migration_parameters *p);

/* -1, without effect, if a number, a word or a state cannot be had; the sentence names the
 * parameter. */
int parameter_set_number(const struct parameter *r, struct migration_parameters *p, uint64_t n,
			 struct err *e);
int parameter_set_text(const struct parameter *r, struct migration_parameters *p, const char *text,
		       struct err *e);
int parameter_set_switch(const struct parameter *r, struct migration_parameters *p, bool on,
			 struct err *e);

/* -- what parameters and the policy come to together -- */

/* Without the parts of the policy that a parameter overrules. */
struct migration_parameters parameters_effective(const struct migration_parameters *p);
bool parameters_may_throttle(const struct migration_parameters *p);
/* By the throttle, or by a limit of what each vCPU dirties. */
bool parameters_may_slow(const struct migration_parameters *p);
/* What each vCPU may dirty in a second in any case. */
uint64_t parameters_least_dirty_bytes(const struct migration_parameters *p);
/* Of the compression that is set. */
int parameters_level(const struct migration_parameters *p);
bool parameters_may_use_xbzrle(const struct migration_parameters *p);
struct converge_bounds parameters_throttle_bounds(const struct migration_parameters *p);

#endif
