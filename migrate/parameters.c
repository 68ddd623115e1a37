/*
 * The table of parameters, and reading and changing values by its rows.
 */
#include "migrate/parameters.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/codec/page_cache.h"
#include "migrate/handover.h"
#include "migrate/policy/policy_json.h"
#include "vmm/base/err.h"

#define AT(member) .at = offsetof(struct migration_parameters, member)

const struct parameter parameter_table[] = {
#define PARAMETER_NUMBER(member, ...) { AT(member), __VA_ARGS__ },
#define PARAMETER_SWITCH(member, ...) { AT(member), .kind = PARAMETER_SWITCH, __VA_ARGS__ },
#define PARAMETER_OTHER(member, ...)  { AT(member), __VA_ARGS__ },
#define PARAMETER_FIXED(...)	      { __VA_ARGS__ },
#include "migrate/parameter_rows.h"
	{ .qmp = NULL },
};

_Static_assert(sizeof(parameter_table) / sizeof(parameter_table[0]) <= PARAMETERS_MAX,
	       "users of the table keep a bit for each row");

const struct parameter *parameter_find(const char *name)
{
	for (const struct parameter *r = parameter_table; r->qmp; r++)
		if (!strcmp(name, r->qmp) || (r->name && !strcmp(name, r->name)))
			return r;
	return NULL;
}

bool parameter_is_capability(const struct parameter *r)
{
	return r->kind <= PARAMETER_NOT_IMPLEMENTED;
}

bool parameter_is_number(const struct parameter *r)
{
	return r->kind >= PARAMETER_PLAIN && r->kind <= PARAMETER_CHANNELS;
}

uint64_t *parameter_number(const struct parameter *r, struct migration_parameters *p)
{
	return (uint64_t *)((char *)p + r->at);
}

bool *parameter_switch(const struct parameter *r, struct migration_parameters *p)
{
	return (bool *)((char *)p + r->at);
}

void parameters_preset(struct migration_parameters *p)
{
	*p = (struct migration_parameters){ .compression = CODEC_PLAIN };
	for (const struct parameter *r = parameter_table; r->qmp; r++)
		if (parameter_is_number(r))
			*parameter_number(r, p) = r->preset;
		else if (r->preset_text)
			parameter_set_text(r, p, r->preset_text, NULL);
}

/* -- words -- */

static const char *compression_name(enum pages_codec codec)
{
	return codec == CODEC_PLAIN ? "none" : pages_codec_name(codec);
}

static int set_compression(const struct parameter *r, struct migration_parameters *p,
			   const char *text, struct err *e)
{
	static const enum pages_codec known[] = { CODEC_PLAIN, CODEC_ZLIB, CODEC_ZSTD };

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (!strcmp(text, compression_name(known[i]))) {
			p->compression = known[i];
			return 0;
		}
	}
	return err_set(e, "'%s' must be none, zlib or zstd, not '%.64s'", r->qmp, text);
}

static int set_action(const struct parameter *r, struct migration_parameters *p, const char *text,
		      struct err *e)
{
	int action = timeout_action_find(text);

	if (action < 0)
		return err_set(e, "'%s' must be abort, force or post-copy, not '%.64s'", r->qmp,
			       text);
	if (action == TIMEOUT_POSTCOPY)
		return err_set(e, "'%s': post-copy is not implemented", r->qmp);
	p->timeout_action = (enum timeout_action)action;
	return 0;
}

/* "": none. */
static int set_policy(const struct parameter *r, struct migration_parameters *p, const char *text,
		      struct err *e)
{
	struct policy policy;

	if (text[0] && policy_from_text(text, &policy, e))
		return err_context(e, "'%s'", r->qmp);
	if (text[0] && policy_has(&policy, POLICY_POSTCOPY))
		return err_set(e,
			       "'%s': the policy '%s' switches to post-copy, which is not "
			       "implemented",
			       r->qmp, policy.name);
	p->has_policy = text[0];
	if (text[0])
		p->policy = policy;
	return 0;
}

static int set_bind(const struct parameter *r, struct migration_parameters *p, const char *text,
		    struct err *e)
{
	size_t len = strlen(text);

	if (len > r->max)
		return err_set(e, "'%s' is longer than %" PRIu64 " characters", r->qmp, r->max);
	memcpy((char *)p + r->at, text, len + 1);
	return 0;
}

int parameter_set_text(const struct parameter *r, struct migration_parameters *p, const char *text,
		       struct err *e)
{
	switch (r->kind) {
	case PARAMETER_COMPRESSION:
		return set_compression(r, p, text, e);
	case PARAMETER_ACTION:
		return set_action(r, p, text, e);
	case PARAMETER_POLICY:
		return set_policy(r, p, text, e);
	case PARAMETER_TEXT:
		return set_bind(r, p, text, e);
	default:
		return err_set(e, "'%s' is no word", r->qmp);
	}
}

char *parameter_text(const struct parameter *r, const struct migration_parameters *p)
{
	switch (r->kind) {
	case PARAMETER_COMPRESSION:
		return strdup(compression_name(p->compression));
	case PARAMETER_ACTION:
		return strdup(timeout_action_name(p->timeout_action));
	case PARAMETER_POLICY:
		return p->has_policy ? policy_to_text(&p->policy) : strdup("");
	case PARAMETER_TEXT:
		return strdup((const char *)p + r->at);
	default:
		return NULL;
	}
}

/* -- numbers and capabilities -- */

int parameter_set_number(const struct parameter *r, struct migration_parameters *p, uint64_t n,
			 struct err *e)
{
	uint64_t max = r->max;

	/* No size may be larger than this host's memory. */
	if (r->kind == PARAMETER_SIZE)
		max = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGE_SIZE);
	if (n < r->min || n > max)
		return err_set(e, "'%s' is %" PRIu64 " (expected %" PRIu64 " to %" PRIu64 "%s)",
			       r->qmp, n, r->min, max,
			       r->kind == PARAMETER_SIZE ? ", this host's memory" : "");
	*parameter_number(r, p) = n;
	return 0;
}

int parameter_set_switch(const struct parameter *r, struct migration_parameters *p, bool on,
			 struct err *e)
{
	if (r->kind == PARAMETER_ALWAYS_ON && !on)
		return err_set(e, "the capability '%s' is always on", r->qmp);
	if (r->kind == PARAMETER_NOT_IMPLEMENTED && on)
		return err_set(e, "the capability '%s' is not implemented", r->qmp);
	if (r->kind == PARAMETER_SWITCH)
		*parameter_switch(r, p) = on;
	return 0;
}

/* -- parameters and policy together -- */

struct migration_parameters parameters_effective(const struct migration_parameters *p)
{
	struct migration_parameters used = *p;

	if (used.downtime_chosen)
		used.policy.n_initial = 0;
	return used;
}

bool parameters_may_throttle(const struct migration_parameters *p)
{
	return p->auto_converge || (p->has_policy && p->policy.auto_convergence);
}

bool parameters_may_slow(const struct migration_parameters *p)
{
	return parameters_may_throttle(p) || p->dirty_limit;
}

uint64_t parameters_least_dirty_bytes(const struct migration_parameters *p)
{
	return p->vcpu_dirty_limit << 20;
}

int parameters_level(const struct migration_parameters *p)
{
	return (int)(p->compression == CODEC_ZLIB ? p->zlib_level : p->zstd_level);
}

bool parameters_may_use_xbzrle(const struct migration_parameters *p)
{
	return p->xbzrle || (p->has_policy && p->policy.compression);
}

struct converge_bounds parameters_throttle_bounds(const struct migration_parameters *p)
{
	return (struct converge_bounds){ .initial = (unsigned int)p->throttle_initial * 10,
					 .increment = (unsigned int)p->throttle_increment * 10,
					 .max = (unsigned int)p->throttle_max * 10 };
}
