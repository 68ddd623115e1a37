/*
 * QMP requests and answers: see dispatch.h. The loop's thread. Invariant: a command runs only with
 * arguments that fit its row, so commands need not check types.
 */
#include "vmm/control/dispatch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/words.h"
#include "vmm/control/table.h"
#include "vmm/version.h"

/* The QEMU whose dialect is spoken: clients decide by it what they may ask for. */
#define DIALECT_MAJOR 7
#define DIALECT_MINOR 2
#define DIALECT_MICRO 0

static const char class_generic[] = "GenericError";
static const char class_not_found[] = "CommandNotFound";

json_t *dispatch_text(const char *text)
{
	size_t len = strlen(text);
	uint32_t code;
	char *plain;
	json_t *s;

	s = json_stringn(text, len);
	if (s)
		return s;
	plain = strdup(text);
	if (!plain)
		return NULL;
	for (size_t i = 0, n; i < len; i += n) {
		n = word_utf8(plain + i, len - i, &code);
		if (n == 0) {
			plain[i] = '?';
			n = 1;
		}
	}
	s = json_string(plain);
	free(plain);
	return s;
}

json_t *dispatch_version(void)
{
	json_t *package = NULL, *version;
	char text[128] = "godwit ";

	strncat(text, godwit_version(), sizeof(text) - strlen(text) - 1);
	package = dispatch_text(text);
	version = json_pack("{s:{s:i,s:i,s:i},s:o}", "qemu", "micro", DIALECT_MICRO, "minor",
			    DIALECT_MINOR, "major", DIALECT_MAJOR, "package", package);
	return version;
}

json_t *dispatch_greeting(void)
{
	return json_pack("{s:{s:o,s:[]}}", "QMP", "version", dispatch_version(), "capabilities");
}

static json_t *failure(const char *class, const struct err *e)
{
	return json_pack("{s:{s:s,s:o}}", "error", "class", class, "desc", dispatch_text(e->text));
}

json_t *dispatch_malformed(const struct err *e)
{
	return failure(class_generic, e);
}

static json_t *success(json_t *result)
{
	return json_pack("{s:o}", "return", result ? result : json_object());
}

/* What the server itself answers. */
static const struct control_argument capabilities_arguments[] = {
	{ .name = "enable", .type = CONTROL_ARRAY },
	{ .name = NULL },
};

static int run_capabilities(void *context, json_t *arguments, json_t **result, struct err *e)
{
	bool *negotiated = context;
	json_t *enable = json_object_get(arguments, "enable");

	(void)result;
	if (json_array_size(enable) > 0) {
		const char *name = json_string_value(json_array_get(enable, 0));

		return err_set(e, "capability '%.40s' is not offered (none is)",
			       name ? name : "(not a string)");
	}
	*negotiated = true;
	return 0;
}

static int run_commands(void *context, json_t *arguments, json_t **result, struct err *e);

static const struct control_command own_commands[] = {
	{ .name = "qmp_capabilities",
	  .arguments = capabilities_arguments,
	  .run = run_capabilities },
	{ .name = "query-commands", .run = run_commands },
	{ .name = NULL },
};

static int list_commands(json_t *list, const struct control_command *c)
{
	for (; c->name; c++)
		if (json_array_append_new(list, json_pack("{s:s}", "name", c->name)))
			return -1;
	return 0;
}

static int run_commands(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const struct control_table *t = context;
	json_t *list = json_array();
	int rc = list ? list_commands(list, own_commands) : -1;

	(void)arguments;
	for (; rc == 0 && t->commands; t++)
		rc = list_commands(list, t->commands);
	if (rc) {
		json_decref(list);
		return err_set(e, "out of memory");
	}
	*result = list;
	return 0;
}

static const struct control_command *find(const struct control_command *c, const char *name)
{
	for (; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

static bool type_fits(enum control_type type, const json_t *v)
{
	switch (type) {
	case CONTROL_STRING:
		return json_is_string(v);
	case CONTROL_INTEGER:
		return json_is_integer(v);
	case CONTROL_BOOLEAN:
		return json_is_boolean(v);
	case CONTROL_ARRAY:
		return json_is_array(v);
	case CONTROL_OBJECT:
		return json_is_object(v);
	}
	return false;
}

static const char *type_name(enum control_type type)
{
	static const char *const names[] = {
		[CONTROL_STRING] = "a string",	     [CONTROL_INTEGER] = "an integer",
		[CONTROL_BOOLEAN] = "true or false", [CONTROL_ARRAY] = "an array",
		[CONTROL_OBJECT] = "an object",
	};

	return names[type];
}

/* The i-th argument of a command; false after the last. */
static bool argument_at(const struct control_command *c, size_t i, struct control_argument *out)
{
	if (c->argument)
		return c->argument(i, out);
	if (!c->arguments || !c->arguments[i].name)
		return false;
	*out = c->arguments[i];
	return true;
}

static bool find_argument(const struct control_command *c, const char *name,
			  struct control_argument *out)
{
	for (size_t i = 0; argument_at(c, i, out); i++)
		if (!strcmp(out->name, name))
			return true;
	return false;
}

static bool has_range(const struct control_argument *a)
{
	return a->min || a->max;
}

/* Integers above 63 bits are reals (framing.h), and then so are those beside them. */
static int check_sizes(const struct control_command *c, json_t *arguments, struct err *e)
{
	struct control_argument a;
	const char *key;
	json_t *value;

	json_object_foreach(arguments, key, value)
	{
		double real = json_real_value(value);

		if (!find_argument(c, key, &a) || a.type != CONTROL_INTEGER ||
		    (real < 0x1p63 && real > -0x1p63))
			continue;
		return err_set(e, "argument '%s' of %s is %g (expected %" PRId64 " to %" PRId64 ")",
			       a.name, c->name, real, has_range(&a) ? a.min : INT64_MIN,
			       has_range(&a) ? a.max : INT64_MAX);
	}
	return 0;
}

static int check_value(const struct control_command *c, const struct control_argument *a,
		       const json_t *value, struct err *e)
{
	if (!type_fits(a->type, value))
		return err_set(e, "argument '%s' of %s is not %s", a->name, c->name,
			       type_name(a->type));
	if (a->type == CONTROL_INTEGER && has_range(a) &&
	    (json_integer_value(value) < a->min || json_integer_value(value) > a->max))
		return err_set(e,
			       "argument '%s' of %s is %" JSON_INTEGER_FORMAT " (expected %" PRId64
			       " to %" PRId64 ")",
			       a->name, c->name, json_integer_value(value), a->min, a->max);
	return 0;
}

static int check_arguments(const struct control_command *c, json_t *arguments, struct err *e)
{
	struct control_argument a;
	const char *key;
	json_t *value;

	if (check_sizes(c, arguments, e))
		return -1;
	json_object_foreach(arguments, key, value)
	{
		if (!find_argument(c, key, &a))
			return err_set(e, "%s has no argument '%.60s'", c->name, key);
		if (check_value(c, &a, value, e))
			return -1;
	}
	for (size_t i = 0; argument_at(c, i, &a); i++)
		if (a.required && !json_object_get(arguments, a.name))
			return err_set(e, "argument '%s' of %s is missing", a.name, c->name);
	return 0;
}

static int check_envelope(json_t *request, struct err *e)
{
	const char *key;
	json_t *value;

	json_object_foreach(request, key, value)
	{
		if (!strcmp(key, "execute")) {
			if (!json_is_string(value))
				return err_set(e, "'execute' is not a string");
		} else if (!strcmp(key, "arguments")) {
			if (!json_is_object(value))
				return err_set(e, "'arguments' is not an object");
		} else if (strcmp(key, "id")) {
			return err_set(e, "a request has no member '%.60s'", key);
		}
	}
	if (!json_object_get(request, "execute"))
		return err_set(e, "a request has no 'execute'");
	return 0;
}

static json_t *run(const struct control_command *c, void *context, json_t *request)
{
	json_t *given = json_object_get(request, "arguments");
	json_t *arguments = given ? json_incref(given) : json_object();
	json_t *result = NULL;
	struct err e = { "the command failed" };
	int rc;

	rc = check_arguments(c, arguments, &e);
	if (rc == 0)
		rc = c->run(context, arguments, &result, &e);
	json_decref(arguments);
	if (rc == 0)
		return success(result);
	json_decref(result);
	return failure(class_generic, &e);
}

json_t *dispatch(const struct control_table *tables, bool *negotiated, json_t *request)
{
	const struct control_command *c;
	const char *name;
	struct err e;

	if (check_envelope(request, &e))
		return failure(class_generic, &e);
	name = json_string_value(json_object_get(request, "execute"));
	c = find(own_commands, name);
	if (!*negotiated && (!c || c->run != run_capabilities)) {
		err_set(&e,
			"'%.60s' before capabilities were negotiated: execute qmp_capabilities "
			"first",
			name);
		return failure(class_not_found, &e);
	}
	if (c && c->run == run_capabilities) {
		if (*negotiated) {
			err_set(&e, "capabilities have been negotiated already");
			return failure(class_not_found, &e);
		}
		return run(c, negotiated, request);
	}
	if (c)
		return run(c, (void *)tables, request);
	for (const struct control_table *t = tables; t->commands; t++) {
		c = find(t->commands, name);
		if (c)
			return run(c, t->context, request);
	}
	err_set(&e, "there is no command '%.60s'", name);
	return failure(class_not_found, &e);
}
