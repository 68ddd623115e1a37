/*
 * godwit set VM PARAM=VALUE...: sets parameters of the migration that is under way and of later
 * ones, all or none. Without any: lists them. Main thread of a short-lived process.
 */
#include <stdio.h>
#include <string.h>

#include "migrate/policy/policy_json.h"
#include "vmm/base/err.h"
#include "vmm/base/options.h"
#include "vmm/base/print.h"
#include "vmm/base/words.h"
#include "vmm/cli/client.h"
#include "vmm/cli/move/settings.h"
#include "vmm/cli/verb.h"

enum { OPT_HELP, OPT_JSON };

static const struct option_spec set_options[] = {
	[OPT_HELP] = { "help", false, 1 },
	[OPT_JSON] = { "json", false, 1 },
	{ NULL, false, 0 },
};

static int take_pair(struct settings *p, const char *word, struct err *e)
{
	const char *equals = strchr(word, '=');
	char name[40];
	size_t n;

	if (!equals || equals == word)
		return err_set(e, "set: expected PARAM=VALUE instead of '%s'", word);
	n = (size_t)(equals - word);
	if (n >= sizeof(name))
		return err_set(e, "set: unknown parameter '%.*s...'", (int)sizeof(name), word);
	memcpy(name, word, n);
	name[n] = '\0';
	return settings_add_once(p, name, equals + 1, e) ? err_context(e, "%s", name) : 0;
}

/* 1: --help was given. */
static int parse(struct settings *p, const char **vm, bool *json, int argc, char **argv,
		 struct err *e)
{
	struct options o = { .argc = argc, .argv = argv, .group = 1, .table = set_options };
	const char *value;

	*vm = NULL;
	*json = false;
	for (;;) {
		switch (option_next(&o, &value, e)) {
		case OPTION_ERROR:
			return err_context(e, "set");
		case OPTION_END:
			if (!*vm)
				return err_set(e, "set: the VM's name is missing (see godwit set "
						  "--help)");
			if (*json && settings_any(p))
				return err_set(e,
					       "set: --json is for the list, without PARAM=VALUE");
			return 0;
		case OPTION_OPERAND:
			if (!*vm)
				*vm = value;
			else if (take_pair(p, value, e))
				return -1;
			break;
		case OPT_JSON:
			*json = true;
			break;
		default:
			return 1;
		}
	}
}

/* The name of a policy that is not built in, instead of its long text. */
static const char *shown(const char *value, struct policy *p)
{
	return value[0] == '{' && !policy_from_text(value, p, NULL) ? p->name : value;
}

static void print_table(const json_t *list)
{
	struct policy policy;
	char value[80];
	size_t i;
	json_t *p;

	print_line(stdout, "%-16s %-26s %s", "PARAM", "VALUE", "UNIT");
	json_array_foreach(list, i, p)
	{
		const json_t *v = json_object_get(p, "value");

		if (json_is_integer(v))
			snprintf(value, sizeof(value), "%" JSON_INTEGER_FORMAT,
				 json_integer_value(v));
		else
			word_printable(value, sizeof(value),
				       json_string_length(v) ? shown(json_string_value(v), &policy)
							     : "-");
		print_line(stdout, "%-16s %-26s %s", json_string_value(json_object_get(p, "name")),
			   value, json_string_value(json_object_get(p, "unit")));
	}
}

static int list(struct client *c, bool json, struct err *e)
{
	json_t *now = settings_now(c, e);

	if (!now)
		return -1;
	if (json) {
		verb_print_json(now);
	} else {
		print_table(now);
	}
	json_decref(now);
	return 0;
}

static int set(const struct settings *p, const char *vm, bool json, struct err *e)
{
	struct client c;
	int rc = client_open(&c, vm, CLIENT_TIMEOUT_MS, e);

	if (!rc)
		rc = settings_any(p) ? settings_apply(p, &c, e) : list(&c, json, e);
	client_close(&c);
	return rc ? VERB_FAILED : VERB_DONE;
}

int verb_set(int argc, char **argv)
{
	struct settings p;
	const char *vm;
	struct err e;
	bool json;
	int rc;

	settings_init(&p);
	rc = parse(&p, &vm, &json, argc, argv, &e);
	if (rc > 0)
		rc = help_print("set");
	else if (rc < 0)
		rc = verb_fail(&e, VERB_USAGE);
	else if (set(&p, vm, json, &e))
		rc = verb_fail(&e, VERB_FAILED);
	settings_free(&p);
	return rc;
}
