/*
 * Settings as words, and as QMP arguments. Main thread of a short-lived process.
 */
#include "vmm/cli/move/settings.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "migrate/parameters.h"
#include "migrate/policy/policy_json.h"
#include "migrate/policy/timeout.h"
#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/words.h"
#include "vmm/cli/client.h"

/* Rows that belong to another row: what a user says of one of them sets both. */
#define QMP_TIMEOUT_PER_GIB "x-godwit-timeout-per-gib"
#define QMP_POLICY	    "x-godwit-policy"
#define CAPABILITY_CHANNELS "multifd"
#define CAPABILITY_XBZRLE   "xbzrle"
#define CAPABILITY_THROTTLE "auto-converge"

void settings_init(struct settings *s)
{
	*s = (struct settings){ .wanted = json_object(), .capabilities = json_object() };
}

void settings_free(struct settings *s)
{
	json_decref(s->wanted);
	json_decref(s->capabilities);
	json_decref(s->before);
	json_decref(s->capabilities_before);
}

bool settings_any(const struct settings *s)
{
	return json_object_size(s->wanted) > 0 || json_object_size(s->capabilities) > 0;
}

/* -- reading -- */

static const struct parameter *find(const char *name, struct err *e)
{
	const struct parameter *r = parameter_find(name);
	const char *known[2 * PARAMETERS_MAX + 1], *nearest;
	size_t n = 0;

	if (r && r->name)
		return r;
	for (r = parameter_table; r->qmp; r++) {
		if (r->name) {
			known[n++] = r->name;
			known[n++] = r->qmp;
		}
	}
	known[n] = NULL;
	nearest = word_nearest(name, known);
	if (nearest)
		err_set(e, "unknown parameter '%s' (did you mean %s?)", name, nearest);
	else
		err_set(e, "unknown parameter '%s' (godwit set VM lists them)", name);
	return NULL;
}

static int read_bytes(const struct parameter *r, const char *value, uint64_t *n, struct err *e)
{
	if (parse_size(value, n, e))
		return -1;
	if (*n < r->min)
		return err_set(e, "'%s' is less than %" PRIu64 " bytes", value, r->min);
	if (*n > r->max)
		return err_set(e, "'%s' is too large for a %s", value,
			       r->kind == PARAMETER_RATE ? "rate" : "size");
	return 0;
}

static int read_number(const struct parameter *r, const char *value, uint64_t *n, struct err *e)
{
	size_t len = strlen(value);
	char digits[32];

	if (r->kind == PARAMETER_RATE || r->kind == PARAMETER_SIZE)
		return read_bytes(r, value, n, e);
	/* "100ms" is as good as "100". */
	if (r->kind == PARAMETER_MS && len > 2 && len < sizeof(digits) &&
	    !strcmp(value + len - 2, "ms")) {
		snprintf(digits, sizeof(digits), "%.*s", (int)len - 2, value);
		value = digits;
	}
	return parse_number(value, r->min, r->max, n, e);
}

static int want_number(struct settings *s, const char *qmp, uint64_t n)
{
	return json_object_set_new(s->wanted, qmp, json_integer((json_int_t)n));
}

static void want_capability(struct settings *s, const char *name, bool on)
{
	json_object_set_new(s->capabilities, name, json_boolean(on));
}

static bool switched_off(const struct settings *s, const char *capability)
{
	return json_is_false(json_object_get(s->capabilities, capability));
}

/* The policy that was named, without what was switched off beside it. */
static int want_policy(struct settings *s, struct err *e)
{
	struct policy policy = s->policy;
	char *text;

	if (!s->has_policy)
		return 0;
	if (switched_off(s, CAPABILITY_XBZRLE) && policy.compression) {
		policy.compression = false;
		policy.builtin = NULL;
	}
	if (switched_off(s, CAPABILITY_THROTTLE) && policy.auto_convergence) {
		policy.auto_convergence = false;
		policy.builtin = NULL;
	}
	text = policy_to_text(&policy);
	if (!text)
		return err_set(e, "out of memory");
	json_object_set_new(s->wanted, QMP_POLICY, json_string(text));
	free(text);
	return 0;
}

/* "600", or "800/GiB"; each replaces the other. */
static int add_timeout(struct settings *s, const struct parameter *r, const char *value,
		       struct err *e)
{
	const char *slash = strchr(value, '/');
	char digits[32];
	uint64_t n;

	if (!slash) {
		if (parse_number(value, r->min, r->max, &n, e))
			return -1;
		want_number(s, QMP_TIMEOUT_PER_GIB, 0);
		return want_number(s, r->qmp, n);
	}
	snprintf(digits, sizeof(digits), "%.*s", (int)(slash - value), value);
	if (strcasecmp(slash, "/GiB") || (size_t)(slash - value) >= sizeof(digits) ||
	    parse_number(digits, 1, r->max, &n, NULL))
		return err_set(e,
			       "'%s' is neither a number of seconds nor one for each GiB (800/GiB)",
			       value);
	want_number(s, r->qmp, 0);
	return want_number(s, QMP_TIMEOUT_PER_GIB, n);
}

static int add_number(struct settings *s, const struct parameter *r, const char *name,
		      const char *value, struct err *e)
{
	bool by_qmp_name = strcmp(name, r->name);
	uint64_t n;

	/* By its QMP name it is that parameter alone. */
	if (r->kind == PARAMETER_TIMEOUT && !by_qmp_name)
		return add_timeout(s, r, value, e);
	if (read_number(r, value, &n, e))
		return -1;
	/* By QEMU's name it is QEMU's parameter, which counts only with its capability. */
	if (r->kind == PARAMETER_CHANNELS && !by_qmp_name)
		want_capability(s, CAPABILITY_CHANNELS, n > 1);
	return want_number(s, r->qmp, n);
}

static int add_switch(struct settings *s, const struct parameter *r, const char *value,
		      struct err *e)
{
	bool on = !strcmp(value, "on");

	if (!on && strcmp(value, "off"))
		return err_set(e, "'%s' is neither on nor off", value);
	want_capability(s, r->qmp, on);
	return want_policy(s, e);
}

static int add_policy(struct settings *s, const struct parameter *r, const char *value,
		      struct err *e)
{
	s->has_policy = value[0];
	if (!value[0])
		return json_object_set_new(s->wanted, r->qmp, json_string(""));
	return policy_from_word(value, &s->policy, e) || want_policy(s, e) ? -1 : 0;
}

static int add_action(struct settings *s, const struct parameter *r, const char *value,
		      struct err *e)
{
	if (timeout_action_find(value) < 0)
		return err_set(e, "'%s' is not abort, force or post-copy", value);
	return json_object_set_new(s->wanted, r->qmp, json_string(value));
}

/* XBZRLE is a capability, the others are values of the parameter; here they are one choice. */
static int add_compression(struct settings *s, const struct parameter *r, const char *value,
			   struct err *e)
{
	bool xbzrle = !strcmp(value, "xbzrle");

	if (!xbzrle && strcmp(value, "none") && strcmp(value, "zlib") && strcmp(value, "zstd"))
		return err_set(e, "'%s' is not none, xbzrle, zlib or zstd", value);
	want_capability(s, CAPABILITY_XBZRLE, xbzrle);
	json_object_set_new(s->wanted, r->qmp, json_string(xbzrle ? "none" : value));
	return want_policy(s, e);
}

static int add_text(struct settings *s, const struct parameter *r, const char *value, struct err *e)
{
	json_t *text = json_string(value);

	if (!text || strlen(value) > r->max) {
		json_decref(text);
		return err_set(e, "the value has more than %d characters, or is not UTF-8",
			       (int)r->max);
	}
	return json_object_set_new(s->wanted, r->qmp, text);
}

static int add(struct settings *s, const struct parameter *r, const char *name, const char *value,
	       struct err *e)
{
	switch (r->kind) {
	case PARAMETER_SWITCH:
		return add_switch(s, r, value, e);
	case PARAMETER_POLICY:
		return add_policy(s, r, value, e);
	case PARAMETER_ACTION:
		return add_action(s, r, value, e);
	case PARAMETER_COMPRESSION:
		return add_compression(s, r, value, e);
	case PARAMETER_TEXT:
		return add_text(s, r, value, e);
	default:
		return add_number(s, r, name, value, e);
	}
}

int settings_add(struct settings *s, const char *name, const char *value, struct err *e)
{
	const struct parameter *r = find(name, e);

	return r ? add(s, r, name, value, e) : -1;
}

int settings_add_once(struct settings *s, const char *name, const char *value, struct err *e)
{
	const struct parameter *r = find(name, e);

	if (!r)
		return -1;
	if (s->given >> (r - parameter_table) & 1)
		return err_set(e, "it is given twice");
	s->given |= 1ull << (r - parameter_table);
	return add(s, r, name, value, e);
}

/* -- asking and telling the VM -- */

/* The capabilities of now, name: true or false; NULL with a sentence. */
static json_t *capabilities_now(struct client *c, struct err *e)
{
	json_t *list, *item, *now;
	size_t i;

	if (client_execute(c, "query-migrate-capabilities", NULL, &list, e))
		return NULL;
	now = json_object();
	json_array_foreach(list, i, item)
	{
		const char *name = json_string_value(json_object_get(item, "capability"));

		if (name)
			json_object_set(now, name, json_object_get(item, "state"));
	}
	json_decref(list);
	return now;
}

static int remember_capabilities(struct settings *s, struct client *c, struct err *e)
{
	json_t *now = capabilities_now(c, e), *on, *before;
	const char *name;

	if (!now)
		return -1;
	json_object_foreach(s->capabilities, name, on)
	{
		before = json_object_get(now, name);
		if (!before) {
			json_decref(now);
			return err_set(e, "'%s' knows no capability '%s'", c->name, name);
		}
		json_object_set(s->capabilities_before, name, before);
	}
	json_decref(now);
	return 0;
}

int settings_remember(struct settings *s, struct client *c, struct err *e)
{
	json_decref(s->before);
	json_decref(s->capabilities_before);
	s->before = NULL;
	s->capabilities_before = json_object();
	if (json_object_size(s->capabilities) > 0 && remember_capabilities(s, c, e))
		return -1;
	if (json_object_size(s->wanted) == 0)
		return 0;
	return client_execute(c, "query-migrate-parameters", NULL, &s->before, e);
}

/* As migrate-set-capabilities takes them. */
static json_t *capability_list(json_t *states)
{
	json_t *list = json_array(), *on;
	const char *name;

	json_object_foreach(states, name, on) json_array_append_new(
		list, json_pack("{s:s,s:O}", "capability", name, "state", on));
	return list;
}

int settings_apply(const struct settings *s, struct client *c, struct err *e)
{
	json_t *arguments, *list;

	if (!settings_any(s))
		return 0;
	list = capability_list(s->capabilities);
	if (json_object_size(s->wanted) == 0)
		return client_execute(c, "migrate-set-capabilities",
				      json_pack("{s:o}", "capabilities", list), NULL, e);
	arguments = json_copy(s->wanted);
	/* Both in one command: all is set, or nothing. */
	if (json_array_size(list) > 0)
		json_object_set(arguments, "x-godwit-capabilities", list);
	json_decref(list);
	return client_execute(c, "migrate-set-parameters", arguments, NULL, e);
}

/* A downtime that is put back was not chosen: the policy that stays overrules it again. */
static void put_back_policy(const struct settings *s, struct client *c, const json_t *back)
{
	const char *policy = json_string_value(json_object_get(s->before, QMP_POLICY));
	struct err e;

	if (json_object_get(back, "downtime-limit") && policy && policy[0] &&
	    !json_is_true(json_object_get(s->before, "x-godwit-downtime-chosen")))
		client_execute(c, "migrate-set-parameters", json_pack("{s:s}", QMP_POLICY, policy),
			       NULL, &e);
}

void settings_put_back(struct settings *s, struct client *c)
{
	json_t *now = NULL, *back = json_object(), *value, *old;
	const char *name;
	struct err e;

	if (json_object_size(s->capabilities_before) > 0)
		client_execute(
			c, "migrate-set-capabilities",
			json_pack("{s:o}", "capabilities", capability_list(s->capabilities_before)),
			NULL, &e);
	if (s->before && client_execute(c, "query-migrate-parameters", NULL, &now, &e) == 0) {
		json_object_foreach(s->wanted, name, value)
		{
			old = json_object_get(s->before, name);
			if (old && json_equal(json_object_get(now, name), value))
				json_object_set(back, name, old);
		}
		if (json_object_size(back) > 0)
			client_execute(c, "migrate-set-parameters", json_incref(back), NULL, &e);
		put_back_policy(s, c, back);
	}
	json_decref(now);
	json_decref(back);
}

/* The value as a user would write it. */
static json_t *shown_value(const struct parameter *r, const json_t *now, const json_t *capabilities)
{
	/* The number counts only with the capability. */
	if (r->kind == PARAMETER_CHANNELS &&
	    !json_is_true(json_object_get(capabilities, CAPABILITY_CHANNELS)))
		return json_integer(1);
	if (r->kind == PARAMETER_SWITCH)
		return json_string(json_is_true(json_object_get(capabilities, r->qmp)) ? "on"
										       : "off");
	if (r->kind == PARAMETER_COMPRESSION &&
	    json_is_true(json_object_get(capabilities, CAPABILITY_XBZRLE)))
		return json_string("xbzrle");
	return json_incref(json_object_get(now, r->qmp));
}

json_t *settings_now(struct client *c, struct err *e)
{
	json_t *capabilities = capabilities_now(c, e), *now, *list;

	if (!capabilities)
		return NULL;
	if (client_execute(c, "query-migrate-parameters", NULL, &now, e)) {
		json_decref(capabilities);
		return NULL;
	}
	list = json_array();
	for (const struct parameter *r = parameter_table; r->qmp; r++)
		if (r->name)
			json_array_append_new(list, json_pack("{s:s,s:s,s:o?,s:s}", "name", r->name,
							      "qmp", r->qmp, "value",
							      shown_value(r, now, capabilities),
							      "unit", r->unit));
	json_decref(now);
	json_decref(capabilities);
	return list;
}
