/*
 * Policies as JSON, in the form of oVirt's `engine-config MigrationPolicies`: one object, or an
 * array of objects. An error is one sentence that begins with the place in the JSON, such as
 * "$.config.lastItems[1].params[0]: ...". Any thread.
 */
#ifndef GODWIT_MIGRATE_POLICY_POLICY_JSON_H
#define GODWIT_MIGRATE_POLICY_POLICY_JSON_H

#include <stddef.h>

#include "migrate/policy/policy.h"

struct err;

/* A larger file is refused. */
#define POLICY_FILE_MAX_BYTES (256u << 10)

/*
 * Reads the policy whose name or uuid is `which`; if that is NULL, the text must hold exactly one.
 * -1: *out is undefined. Pure.
 */
int policy_parse(const char *text, size_t bytes, const char *which, struct policy *out,
		 struct err *e);

/* Reads what the parameter x-godwit-policy takes: a built-in name, or one policy's JSON text. Pure.
 */
int policy_from_text(const char *text, struct policy *out, struct err *e);

/* Reads what a user types: a built-in name, FILE, or FILE#NAME. FILE may contain '#' itself. */
int policy_from_word(const char *word, struct policy *out, struct err *e);

/* The text from which policy_from_text makes this policy again; the caller frees it. NULL: out of
 * memory. */
char *policy_to_text(const struct policy *p);

#endif
