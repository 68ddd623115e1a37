/*
 * Policies as JSON, in the form of oVirt's `engine-config MigrationPolicies`: one object, or an
 * array of them. Everything that is wrong is refused by one sentence with the path of the place,
 * such as "$.config.lastItems[1].params[0]: ...". Any thread.
 */
#ifndef GODWIT_MIGRATE_POLICY_POLICY_JSON_H
#define GODWIT_MIGRATE_POLICY_POLICY_JSON_H

#include <stddef.h>

#include "migrate/policy/policy.h"

struct err;

/* More than this is no policy. */
#define POLICY_FILE_MAX_BYTES (256u << 10)

/*
 * Pure. `which` (NULL: there must be only one) is the name or the uuid of the one that is meant. On
 * -1 *out is not to be used.
 */
int policy_parse(const char *text, size_t bytes, const char *which, struct policy *out,
		 struct err *e);

/* Pure. A built-in name, or one policy's JSON text: what the parameter x-godwit-policy takes. */
int policy_from_text(const char *text, struct policy *out, struct err *e);

/* What a person types: a built-in name, FILE, or FILE#NAME (# may be part of a file's name). */
int policy_from_word(const char *word, struct policy *out, struct err *e);

/* What policy_from_text makes this policy of again; to be freed. NULL when memory is short. */
char *policy_to_text(const struct policy *p);

#endif
