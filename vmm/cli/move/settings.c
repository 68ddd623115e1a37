/*
 * Parameters of a migration: see settings.h. Main thread of a short-lived process.
 */
#include "vmm/cli/move/settings.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "migrate/policy/policy_json.h"
#include "migrate/policy/timeout.h"
#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/words.h"
#include "vmm/cli/client.h"

enum kind {
	KIND_RATE,
	KIND_MS,
	KIND_NUMBER,
	KIND_CHANNELS,
	KIND_TEXT,
	KIND_TIMEOUT,
	KIND_ACTION,
	KIND_POLICY,
	KIND_SWITCH,
	KIND_COMPRESS
};

/* As in capability_names. */
enum { MULTIFD, AUTO_CONVERGE, XBZRLE, DIRTY_LIMIT };

static const char *const capability_names[SETTINGS_CAPABILITIES] = { "multifd", "auto-converge",
								     "xbzrle", "dirty-limit" };

#define YEAR_S	 31536000
#define MONTH_MS (31ull * 24 * 3600 * 1000)

/* The ranges are those that the VM keeps to (migrate/commands.c); a switch has its capability. */
static const struct row {
	const char *name, *qmp;
	enum kind kind;
	uint64_t min, max;
	const char *unit;
} rows[] = {
	{ "bandwidth", "max-bandwidth", KIND_RATE, 0, INT64_MAX, "bytes a second, 0: no limit" },
	{ "downtime", "downtime-limit", KIND_MS, 0, 2000000, "ms" },
	{ "policy", "x-godwit-policy", KIND_POLICY, 0, 0, "name or FILE[#NAME], empty: none" },
	{ "timeout", "x-godwit-timeout", KIND_TIMEOUT, 0, YEAR_S, "s, or s/GiB; 0: none" },
	{ "timeout-per-gib", "x-godwit-timeout-per-gib", KIND_NUMBER, 0, YEAR_S,
	  "s for each GiB of RAM, 0: none" },
	{ "progress-timeout", "x-godwit-progress-timeout", KIND_NUMBER, 0, YEAR_S,
	  "s without progress, 0: none" },
	{ "switchover-timeout", "x-godwit-switchover-timeout", KIND_MS, 0, MONTH_MS,
	  "ms, 0: it follows from the downtime" },
	{ "timeout-action", "x-godwit-timeout-action", KIND_ACTION, 0, 0, "abort or force" },
	{ "auto-converge", "auto-converge", KIND_SWITCH, AUTO_CONVERGE, 0, "on or off" },
	{ "dirty-limit", "dirty-limit", KIND_SWITCH, DIRTY_LIMIT, 0, "on or off" },
	{ "vcpu-dirty-limit", "vcpu-dirty-limit", KIND_NUMBER, 1, 1 << 20,
	  "MiB a second that each vCPU may dirty in any case" },
	{ "max-cpu-throttle", "max-cpu-throttle", KIND_NUMBER, 0, 99,
	  "% of the vCPUs' time at most, 0: what is needed" },
	{ "cpu-throttle-initial", "cpu-throttle-initial", KIND_NUMBER, 0, 99,
	  "% to begin with, 0: what is needed" },
	{ "cpu-throttle-increment", "cpu-throttle-increment", KIND_NUMBER, 0, 99,
	  "% more at a time at most, 0: what is needed" },
	{ "compress", "multifd-compression", KIND_COMPRESS, 0, 0, "none, xbzrle, zlib or zstd" },
	{ "xbzrle-cache-size", "xbzrle-cache-size", KIND_RATE, 1 << 20, INT64_MAX, "bytes" },
	{ "zlib-level", "multifd-zlib-level", KIND_NUMBER, 1, 9, "1 to 9" },
	{ "zstd-level", "multifd-zstd-level", KIND_NUMBER, 1, 20, "1 to 20" },
	{ "announce-rounds", "announce-rounds", KIND_NUMBER, 0, 1000, "times" },
	{ "announce-initial", "announce-initial", KIND_NUMBER, 0, 100000, "ms" },
	{ "announce-step", "announce-step", KIND_NUMBER, 1, 10000, "ms" },
	{ "announce-max", "announce-max", KIND_NUMBER, 0, 100000, "ms" },
	{ "channels", "multifd-channels", KIND_CHANNELS, 1, 16, "connections" },
	{ "bind", "x-godwit-bind", KIND_TEXT, 0, 63, "local address, empty: any" },
};

#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

void settings_init(struct settings *p)
{
	*p = (struct settings){ .wanted = json_object() };
	for (int i = 0; i < SETTINGS_CAPABILITIES; i++)
		p->capability[i] = p->capability_before[i] = -1;
}

void settings_free(struct settings *p)
{
	json_decref(p->wanted);
	json_decref(p->before);
}

bool settings_any(const struct settings *p)
{
	for (int i = 0; i < SETTINGS_CAPABILITIES; i++)
		if (p->capability[i] >= 0)
			return true;
	return json_object_size(p->wanted) > 0;
}

static const struct row *find(const char *name, struct err *e)
{
	const char *known[2 * N_ROWS + 1], *nearest;
	size_t i, n = 0;

	for (i = 0; i < N_ROWS; i++) {
		if (!strcmp(name, rows[i].name) || !strcmp(name, rows[i].qmp))
			return &rows[i];
		known[n++] = rows[i].name;
		known[n++] = rows[i].qmp;
	}
	known[n] = NULL;
	nearest = word_nearest(name, known);
	if (nearest)
		err_set(e, "unknown parameter '%s' (did you mean %s?)", name, nearest);
	else
		err_set(e, "unknown parameter '%s' (godwit set VM lists them)", name);
	return NULL;
}

static int read_number(const struct row *r, const char *value, uint64_t *n, struct err *e)
{
	char digits[32];
	size_t len = strlen(value);

	if (r->kind == KIND_RATE) {
		if (parse_size(value, n, e))
			return -1;
		if (*n < r->min)
			return err_set(e, "'%s' is less than %llu bytes", value,
				       (unsigned long long)r->min);
		return *n > r->max ? err_set(e, "'%s' is too large for a %s", value,
					     strcmp(r->name, "bandwidth") ? "size" : "rate")
				   : 0;
	}
	/* "100ms" is as good as "100". */
	if (r->kind == KIND_MS && len > 2 && len < sizeof(digits) &&
	    !strcmp(value + len - 2, "ms")) {
		snprintf(digits, sizeof(digits), "%.*s", (int)len - 2, value);
		value = digits;
	}
	return parse_number(value, r->min, r->max, n, e);
}

static int add_number(struct settings *p, const char *qmp, uint64_t n)
{
	return json_object_set_new(p->wanted, qmp, json_integer((json_int_t)n));
}

/* "600", or "800/GiB"; one takes the place of the other. */
static int add_timeout(struct settings *p, const struct row *r, const char *value, struct err *e)
{
	const char *slash = strchr(value, '/');
	char digits[32];
	uint64_t n;

	if (!slash) {
		if (parse_number(value, r->min, r->max, &n, e))
			return -1;
		add_number(p, "x-godwit-timeout-per-gib", 0);
		return add_number(p, r->qmp, n);
	}
	snprintf(digits, sizeof(digits), "%.*s", (int)(slash - value), value);
	if (strcasecmp(slash, "/GiB") || (size_t)(slash - value) >= sizeof(digits) ||
	    parse_number(digits, 1, r->max, &n, NULL))
		return err_set(e,
			       "'%s' is neither a number of seconds nor one for each GiB (800/GiB)",
			       value);
	add_number(p, r->qmp, 0);
	return add_number(p, "x-godwit-timeout-per-gib", n);
}

/* The policy that is wanted, but for what was switched off beside it. */
static int want_policy(struct settings *p, struct err *e)
{
	struct policy policy = p->policy;
	char *text;

	if (!p->has_policy)
		return 0;
	if (p->capability[XBZRLE] == 0 && policy.compression) {
		policy.compression = false;
		policy.builtin = NULL;
	}
	if (p->capability[AUTO_CONVERGE] == 0 && policy.auto_convergence) {
		policy.auto_convergence = false;
		policy.builtin = NULL;
	}
	text = policy_to_text(&policy);
	if (!text)
		return err_set(e, "out of memory");
	json_object_set_new(p->wanted, "x-godwit-policy", json_string(text));
	free(text);
	return 0;
}

static int add_policy(struct settings *p, const struct row *r, const char *value, struct err *e)
{
	p->has_policy = value[0];
	if (!value[0])
		return json_object_set_new(p->wanted, r->qmp, json_string(""));
	return policy_from_word(value, &p->policy, e) || want_policy(p, e) ? -1 : 0;
}

static int add_action(struct settings *p, const struct row *r, const char *value, struct err *e)
{
	if (timeout_action_find(value) < 0)
		return err_set(e, "'%s' is not abort, force or post-copy", value);
	return json_object_set_new(p->wanted, r->qmp, json_string(value));
}

static int add_switch(struct settings *p, const struct row *r, const char *value, struct err *e)
{
	bool on = !strcmp(value, "on");

	if (!on && strcmp(value, "off"))
		return err_set(e, "'%s' is neither on nor off", value);
	p->capability[r->min] = on;
	return want_policy(p, e);
}

/* XBZRLE is a capability, the others are values of the parameter; here they are one choice. */
static int add_compress(struct settings *p, const struct row *r, const char *value, struct err *e)
{
	bool xbzrle = !strcmp(value, "xbzrle");

	if (!xbzrle && strcmp(value, "none") && strcmp(value, "zlib") && strcmp(value, "zstd"))
		return err_set(e, "'%s' is not none, xbzrle, zlib or zstd", value);
	p->capability[XBZRLE] = xbzrle;
	json_object_set_new(p->wanted, r->qmp, json_string(xbzrle ? "none" : value));
	return want_policy(p, e);
}

int settings_add(struct settings *p, const char *name, const char *value, struct err *e)
{
	const struct row *r = find(name, e);
	uint64_t n = 0;
	json_t *text;

	if (!r)
		return -1;
	if (r->kind == KIND_POLICY)
		return add_policy(p, r, value, e);
	if (r->kind == KIND_ACTION)
		return add_action(p, r, value, e);
	if (r->kind == KIND_SWITCH)
		return add_switch(p, r, value, e);
	if (r->kind == KIND_COMPRESS)
		return add_compress(p, r, value, e);
	/* By its QMP name it is that parameter alone. */
	if (r->kind == KIND_TIMEOUT && !strcmp(name, r->name))
		return add_timeout(p, r, value, e);
	if (r->kind == KIND_TEXT) {
		text = json_string(value);
		if (!text || strlen(value) > r->max) {
			json_decref(text);
			return err_set(e, "the value has more than %d characters, or is not UTF-8",
				       (int)r->max);
		}
		json_object_set_new(p->wanted, r->qmp, text);
		return 0;
	}
	if (read_number(r, value, &n, e))
		return -1;
	json_object_set_new(p->wanted, r->qmp, json_integer((json_int_t)n));
	/* By QEMU's name it is QEMU's parameter, which counts only with its capability. */
	if (r->kind == KIND_CHANNELS && !strcmp(name, r->name))
		p->capability[MULTIFD] = n > 1;
	return 0;
}

int settings_add_once(struct settings *p, const char *name, const char *value, struct err *e)
{
	const struct row *r = find(name, e);

	if (!r)
		return -1;
	if (p->given >> (r - rows) & 1)
		return err_set(e, "it is given twice");
	p->given |= 1ull << (r - rows);
	return settings_add(p, name, value, e);
}

/* The capabilities as they are: 0 or 1; -1: the VM knows no such thing. */
static int capabilities_now(struct client *c, int now[SETTINGS_CAPABILITIES], struct err *e)
{
	json_t *list, *item;
	size_t i;
	int k;

	for (k = 0; k < SETTINGS_CAPABILITIES; k++)
		now[k] = -1;
	if (client_execute(c, "query-migrate-capabilities", NULL, &list, e))
		return -1;
	json_array_foreach(list, i, item)
	{
		const char *name = json_string_value(json_object_get(item, "capability"));

		for (k = 0; k < SETTINGS_CAPABILITIES; k++)
			if (name && !strcmp(name, capability_names[k]))
				now[k] = json_is_true(json_object_get(item, "state"));
	}
	json_decref(list);
	return 0;
}

int settings_remember(struct settings *p, struct client *c, struct err *e)
{
	int now[SETTINGS_CAPABILITIES], i;

	for (i = 0; i < SETTINGS_CAPABILITIES && p->capability[i] < 0; i++)
		;
	if (i < SETTINGS_CAPABILITIES) {
		if (capabilities_now(c, now, e))
			return -1;
		for (; i < SETTINGS_CAPABILITIES; i++) {
			if (p->capability[i] < 0)
				continue;
			if (now[i] < 0)
				return err_set(e, "'%s' knows no capability '%s'", c->name,
					       capability_names[i]);
			p->capability_before[i] = now[i];
		}
	}
	json_decref(p->before);
	p->before = NULL;
	if (json_object_size(p->wanted) == 0)
		return 0;
	return client_execute(c, "query-migrate-parameters", NULL, &p->before, e);
}

/* Those that are not -1, as migrate-set-capabilities takes them. */
static json_t *capability_list(const int state[SETTINGS_CAPABILITIES])
{
	json_t *list = json_array();

	for (int i = 0; i < SETTINGS_CAPABILITIES; i++)
		if (state[i] >= 0)
			json_array_append_new(list,
					      json_pack("{s:s,s:b}", "capability",
							capability_names[i], "state", state[i]));
	return list;
}

int settings_apply(const struct settings *p, struct client *c, struct err *e)
{
	json_t *list = capability_list(p->capability), *all;

	if (json_array_size(list) == 0 || json_object_size(p->wanted) == 0) {
		all = json_array_size(list) ? json_pack("{s:O}", "capabilities", list)
					    : json_incref(p->wanted);
		json_decref(list);
		if (json_object_size(all) == 0) {
			json_decref(all);
			return 0;
		}
		return client_execute(c,
				      json_object_size(p->wanted) ? "migrate-set-parameters"
								  : "migrate-set-capabilities",
				      all, NULL, e);
	}
	/* Both in one command: all is set, or nothing. */
	all = json_copy(p->wanted);
	json_object_set_new(all, "x-godwit-capabilities", list);
	return client_execute(c, "migrate-set-parameters", all, NULL, e);
}

/* A downtime that is put back was not chosen: the policy that stays goes before it again. */
static void put_back_policy(const struct settings *p, struct client *c, const json_t *back)
{
	const char *policy = json_string_value(json_object_get(p->before, "x-godwit-policy"));
	struct err e;

	if (json_object_get(back, "downtime-limit") && policy && policy[0] &&
	    !json_is_true(json_object_get(p->before, "x-godwit-downtime-chosen")))
		client_execute(c, "migrate-set-parameters",
			       json_pack("{s:s}", "x-godwit-policy", policy), NULL, &e);
}

void settings_put_back(struct settings *p, struct client *c)
{
	json_t *now = NULL, *back = json_object(), *value, *old, *list;
	const char *name;
	struct err e;

	list = capability_list(p->capability_before);
	if (json_array_size(list))
		client_execute(c, "migrate-set-capabilities",
			       json_pack("{s:O}", "capabilities", list), NULL, &e);
	json_decref(list);
	if (p->before && client_execute(c, "query-migrate-parameters", NULL, &now, &e) == 0) {
		json_object_foreach(p->wanted, name, value)
		{
			old = json_object_get(p->before, name);
			if (old && json_equal(json_object_get(now, name), value))
				json_object_set(back, name, old);
		}
		if (json_object_size(back) > 0)
			client_execute(c, "migrate-set-parameters", json_incref(back), NULL, &e);
		put_back_policy(p, c, back);
	}
	json_decref(now);
	json_decref(back);
}

json_t *settings_now(struct client *c, struct err *e)
{
	int capability[SETTINGS_CAPABILITIES];
	json_t *now, *list, *value;

	if (capabilities_now(c, capability, e) ||
	    client_execute(c, "query-migrate-parameters", NULL, &now, e))
		return NULL;
	list = json_array();
	for (size_t i = 0; i < N_ROWS; i++) {
		const struct row *r = &rows[i];

		value = json_object_get(now, r->qmp);
		/* The number counts only with the capability. */
		if (r->kind == KIND_CHANNELS && capability[MULTIFD] <= 0)
			value = json_integer(1);
		else if (r->kind == KIND_SWITCH)
			value = json_string(capability[r->min] > 0 ? "on" : "off");
		else if (r->kind == KIND_COMPRESS && capability[XBZRLE] > 0)
			value = json_string("xbzrle");
		else
			json_incref(value);
		json_array_append_new(list, json_pack("{s:s,s:s,s:o?,s:s}", "name", r->name, "qmp",
						      r->qmp, "value", value, "unit", r->unit));
	}
	json_decref(now);
	return list;
}
