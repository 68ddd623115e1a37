/* Policies from JSON and back. */
#include "migrate/policy/policy_json.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/io.h"

/* A place in the JSON: "$.config.lastItems[1]". */
struct path {
	char text[160];
};

static struct path member(const struct path *at, const char *name)
{
	struct path p;

	snprintf(p.text, sizeof(p.text), "%.110s.%.40s", at->text, name);
	return p;
}

static struct path element(const struct path *at, size_t i)
{
	struct path p;

	snprintf(p.text, sizeof(p.text), "%.120s[%zu]", at->text, i);
	return p;
}

static int wrong(struct err *e, const struct path *at, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int wrong(struct err *e, const struct path *at, const char *fmt, ...)
{
	char what[400];
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	return err_set(e, "%s: %s", at->text, what);
}

static const char *type_name(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a fraction";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
		break;
	}
	return "null";
}

/* -- one value -- */

static bool is_word_of(const char *words, const char *word)
{
	size_t n = strlen(word), len;

	for (; *words; words += len + (words[len] == ' ')) {
		len = strcspn(words, " ");
		if (len == n && !strncmp(words, word, n))
			return true;
	}
	return false;
}

/* Refuses what is no object, and members other than the words of `known`, separated by blanks. */
static int check_object(const json_t *o, const struct path *at, const char *known, struct err *e)
{
	const char *name;
	json_t *v;

	if (!json_is_object(o))
		return wrong(e, at, "%s where an object was expected", type_name(o));
	json_object_foreach((json_t *)o, name, v)
	{
		if (!is_word_of(known, name))
			return wrong(e, at, "unknown field '%.64s' (known: %s)", name, known);
	}
	return 0;
}

/* NULL, with the error set, if it is missing. */
static json_t *get(const json_t *o, const struct path *at, const char *name, struct err *e)
{
	json_t *v = json_object_get(o, name);

	if (!v)
		wrong(e, at, "the field '%s' is missing", name);
	return v;
}

static int get_boolean(const json_t *o, const struct path *at, const char *name, bool *out,
		       struct err *e)
{
	struct path p = member(at, name);
	json_t *v = get(o, at, name, e);

	if (!v)
		return -1;
	if (!json_is_boolean(v))
		return wrong(e, &p, "%s where true or false was expected", type_name(v));
	*out = json_is_true(v);
	return 0;
}

static int get_number(const json_t *o, const struct path *at, const char *name, uint32_t max,
		      uint32_t *out, struct err *e)
{
	struct path p = member(at, name);
	json_t *v = get(o, at, name, e);
	json_int_t n;

	if (!v)
		return -1;
	if (!json_is_integer(v))
		return wrong(e, &p, "%s where an integer was expected", type_name(v));
	n = json_integer_value(v);
	if (n < 1 || n > max)
		return wrong(e, &p, "%" JSON_INTEGER_FORMAT " is not from 1 to %u", n, max);
	*out = (uint32_t)n;
	return 0;
}

static int get_string(const json_t *o, const struct path *at, const char *name, char *out,
		      size_t size, struct err *e)
{
	struct path p = member(at, name);
	json_t *v = get(o, at, name, e);

	if (!v)
		return -1;
	if (!json_is_string(v))
		return wrong(e, &p, "%s where a string was expected", type_name(v));
	if (json_string_length(v) >= size)
		return wrong(e, &p, "%zu bytes where at most %zu were expected",
			     json_string_length(v), size - 1);
	memcpy(out, json_string_value(v), json_string_length(v) + 1);
	return 0;
}

/* NULL, with the error set, if it is no array or has too many elements. */
static json_t *get_array(const json_t *o, const struct path *at, const char *name, struct err *e)
{
	struct path p = member(at, name);
	json_t *v = get(o, at, name, e);

	if (!v)
		return NULL;
	if (!json_is_array(v)) {
		wrong(e, &p, "%s where an array was expected", type_name(v));
		return NULL;
	}
	if (json_array_size(v) > POLICY_ITEMS_MAX) {
		wrong(e, &p, "%zu items, but at most %d are allowed", json_array_size(v),
		      POLICY_ITEMS_MAX);
		return NULL;
	}
	return v;
}

/* -- items -- */

static int read_downtime(const json_t *params, const struct path *at, uint32_t *ms, struct err *e)
{
	const struct path p = element(at, 0);
	const json_t *v = json_array_get(params, 0);
	uint64_t n;

	if (!json_is_string(v))
		return wrong(e, &p, "%s where a string of digits was expected (ms)", type_name(v));
	if (parse_number(json_string_value(v), 1, POLICY_DOWNTIME_MAX_MS, &n, NULL))
		return wrong(e, &p, "'%.64s' is not a number of ms from 1 to %d",
			     json_string_value(v), POLICY_DOWNTIME_MAX_MS);
	*ms = (uint32_t)n;
	return 0;
}

static int read_action(const json_t *o, const struct path *at, struct policy_item *item,
		       struct err *e)
{
	const struct path p = member(at, "action");
	const json_t *v = get(o, at, "action", e);
	unsigned int a;

	if (!v)
		return -1;
	if (!json_is_string(v))
		return wrong(e, &p, "%s where a string was expected", type_name(v));
	for (a = POLICY_SET_DOWNTIME; a <= POLICY_POSTCOPY; a++)
		if (!strcmp(json_string_value(v), policy_action_name(a)))
			break;
	if (a > POLICY_POSTCOPY)
		return wrong(e, &p, "unknown action '%.64s' (known: setDowntime, abort, postcopy)",
			     json_string_value(v));
	item->action = a;
	return 0;
}

static int read_item(const json_t *o, const struct path *at, struct policy_item *item,
		     struct err *e)
{
	const struct path p = member(at, "params");
	size_t wanted;
	json_t *params;

	if (check_object(o, at, "action params", e) || read_action(o, at, item, e))
		return -1;
	params = get_array(o, at, "params", e);
	if (!params)
		return -1;
	wanted = item->action == POLICY_SET_DOWNTIME;
	if (json_array_size(params) != wanted)
		return wrong(e, &p, "%zu parameters where '%s' takes %s", json_array_size(params),
			     policy_action_name(item->action), wanted ? "one" : "none");
	return wanted ? read_downtime(params, &p, &item->downtime_ms, e) : 0;
}

/* What came before an item, in all three lists together. */
struct walk {
	uint32_t downtime_ms; /* the highest so far */
	bool postcopy;
	bool ends; /* an item of this list gives up */
};

/* Refuses an item that makes no sense after those before it. */
static int check_order(struct walk *w, const struct policy_item *item, const struct path *at,
		       struct err *e)
{
	if (w->ends)
		return wrong(e, at, "it is never reached: 'abort' comes before it");
	if (w->postcopy && item->action != POLICY_ABORT)
		return wrong(e, at, "only 'abort' makes sense after 'postcopy'");
	if (item->action == POLICY_SET_DOWNTIME) {
		if (item->downtime_ms <= w->downtime_ms)
			return wrong(e, at, "a downtime of %u ms after one of %u ms: it must rise",
				     item->downtime_ms, w->downtime_ms);
		w->downtime_ms = item->downtime_ms;
	}
	w->postcopy |= item->action == POLICY_POSTCOPY;
	w->ends |= item->action == POLICY_ABORT;
	return 0;
}

static int read_items(const json_t *config, const struct path *config_at, const char *name,
		      struct walk *w, struct policy_item *items, unsigned int *n, struct err *e)
{
	const struct path list_at = member(config_at, name);
	json_t *list = get_array(config, config_at, name, e), *o;
	size_t i;

	if (!list)
		return -1;
	json_array_foreach(list, i, o)
	{
		const struct path at = element(&list_at, i);

		if (read_item(o, &at, &items[i], e) || check_order(w, &items[i], &at, e))
			return -1;
	}
	*n = (unsigned int)json_array_size(list);
	return 0;
}

static int read_initial(const json_t *config, const struct path *at, struct walk *w,
			struct policy *out, struct err *e)
{
	const struct path list_at = member(at, "initialItems");
	unsigned int i;

	if (read_items(config, at, "initialItems", w, out->initial, &out->n_initial, e))
		return -1;
	for (i = 0; i < out->n_initial; i++)
		if (out->initial[i].action != POLICY_SET_DOWNTIME) {
			const struct path p = element(&list_at, i);

			return wrong(e, &p, "a migration cannot begin with '%s'",
				     policy_action_name(out->initial[i].action));
		}
	return 0;
}

static int read_convergence(const json_t *config, const struct path *config_at, struct walk *w,
			    struct policy *out, struct err *e)
{
	const struct path list_at = member(config_at, "convergenceItems");
	json_t *list = get_array(config, config_at, "convergenceItems", e), *o, *inner;
	uint32_t before = 0;
	size_t i;

	if (!list)
		return -1;
	json_array_foreach(list, i, o)
	{
		const struct path at = element(&list_at, i);
		const struct path limit_at = member(&at, "stallingLimit");
		const struct path inner_at = member(&at, "convergenceItem");
		struct policy_convergence *c = &out->convergence[i];

		if (check_object(o, &at, "stallingLimit convergenceItem", e) ||
		    get_number(o, &at, "stallingLimit", POLICY_STALLING_MAX, &c->stalling_limit, e))
			return -1;
		if (c->stalling_limit <= before)
			return wrong(e, &limit_at, "%u after %u: it must rise", c->stalling_limit,
				     before);
		before = c->stalling_limit;
		inner = get(o, &at, "convergenceItem", e);
		if (!inner || read_item(inner, &inner_at, &c->item, e) ||
		    check_order(w, &c->item, &inner_at, e))
			return -1;
	}
	out->n_convergence = (unsigned int)json_array_size(list);
	return 0;
}

static int read_config(const json_t *o, const struct path *at, struct policy *out, struct err *e)
{
	const struct path last_at = member(at, "lastItems");
	struct walk w = { 0 };
	bool ends;

	if (check_object(o, at, "initialItems convergenceItems lastItems", e) ||
	    read_initial(o, at, &w, out, e) || read_convergence(o, at, &w, out, e))
		return -1;
	ends = w.ends;
	w.ends = false; /* a policy may end before its last items: they do no harm */
	if (read_items(o, at, "lastItems", &w, out->last, &out->n_last, e))
		return -1;
	if (!ends && !w.ends && !w.postcopy)
		return wrong(e, &last_at,
			     "neither 'abort' nor 'postcopy': a migration that makes no progress "
			     "would never end");
	return 0;
}

/* -- the whole -- */

static bool is_uuid(const char *s)
{
	for (unsigned int i = 0; i < POLICY_UUID_BYTES - 1; i++)
		if (i == 8 || i == 13 || i == 18 || i == 23 ? s[i] != '-'
							    : !isxdigit((unsigned char)s[i]))
			return false;
	return !s[POLICY_UUID_BYTES - 1];
}

static int read_id(const json_t *o, const struct path *at, struct policy *out, struct err *e)
{
	const struct path id_at = member(at, "id"), uuid_at = member(&id_at, "uuid");
	json_t *id = get(o, at, "id", e);

	if (!id || check_object(id, &id_at, "uuid", e) ||
	    get_string(id, &id_at, "uuid", out->uuid, sizeof(out->uuid), e))
		return -1;
	if (!is_uuid(out->uuid))
		return wrong(e, &uuid_at,
			     "'%s' is no uuid (such as 80554327-0569-496b-bdeb-fcbbf52b827b)",
			     out->uuid);
	return 0;
}

static int read_policy(const json_t *o, const struct path *at, struct policy *out, struct err *e)
{
	const struct path config_at = member(at, "config"), name_at = member(at, "name");
	json_t *config;

	*out = (struct policy){ 0 };
	if (check_object(o, at,
			 "id name description maxMigrations autoConvergence migrationCompression "
			 "enableGuestEvents config",
			 e) ||
	    read_id(o, at, out, e) || get_string(o, at, "name", out->name, sizeof(out->name), e))
		return -1;
	if (!out->name[0])
		return wrong(e, &name_at, "it is empty");
	/* No program needs it, and newer versions of oVirt keep it elsewhere. */
	if (json_object_get(o, "description") &&
	    get_string(o, at, "description", out->description, sizeof(out->description), e))
		return -1;
	if (get_number(o, at, "maxMigrations", POLICY_MIGRATIONS_MAX, &out->max_migrations, e) ||
	    get_boolean(o, at, "autoConvergence", &out->auto_convergence, e) ||
	    get_boolean(o, at, "migrationCompression", &out->compression, e) ||
	    get_boolean(o, at, "enableGuestEvents", &out->guest_events, e))
		return -1;
	config = get(o, at, "config", e);
	return config ? read_config(config, &config_at, out, e) : -1;
}

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s ? s : "";
}

static bool is_meant(const json_t *o, const char *which)
{
	return !strcmp(which, text_of(o, "name")) ||
	       !strcasecmp(which, text_of(json_object_get(o, "id"), "uuid"));
}

/* Says that there is no policy of that name, and which there are. */
static int not_found(const json_t *list, const char *which, struct err *e)
{
	char names[200] = "";
	size_t i, n = 0;
	json_t *o;

	json_array_foreach((json_t *)list, i, o) if (n < sizeof(names)) n += (size_t)snprintf(
		names + n, sizeof(names) - n, "%s%.63s", i ? ", " : "", text_of(o, "name"));
	if (which)
		return err_set(e, "$: no policy is called '%.64s' (there are: %s)", which, names);
	return err_set(e, "$: there are %zu policies; choose one by its name or uuid (%s)",
		       json_array_size(list), names);
}

static int choose(json_t *root, const char *which, struct policy *out, struct err *e)
{
	const struct path top = { "$" };
	struct path at = top;
	json_t *found = NULL, *o;
	size_t i;

	if (!json_is_array(root)) {
		if (json_is_object(root) && which && !is_meant(root, which))
			return err_set(e, "$: the policy is called '%.64s', not '%.64s'",
				       text_of(root, "name"), which);
		return read_policy(root, &top, out, e);
	}
	if (!which && json_array_size(root) != 1)
		return not_found(root, NULL, e);
	json_array_foreach(root, i, o)
	{
		const struct path here = element(&top, i);

		if (which && !is_meant(o, which))
			continue;
		if (found)
			return wrong(e, &here, "a second policy is called '%.64s' (the first: %s)",
				     which, at.text);
		found = o;
		at = here;
	}
	return found ? read_policy(found, &at, out, e) : not_found(root, which, e);
}

int policy_parse(const char *text, size_t bytes, const char *which, struct policy *out,
		 struct err *e)
{
	json_error_t why;
	json_t *root;
	int rc;

	if (bytes > POLICY_FILE_MAX_BYTES)
		return err_set(e, "it has more than %u bytes, which is no policy",
			       POLICY_FILE_MAX_BYTES);
	root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
	if (!root)
		return err_set(e, "line %d, column %d: %s", why.line, why.column, why.text);
	rc = choose(root, which, out, e);
	json_decref(root);
	return rc;
}

int policy_from_text(const char *text, struct policy *out, struct err *e)
{
	const char *builtin = policy_builtin_text(text);
	unsigned int i;

	if (!builtin && text[strspn(text, " \t\r\n")] != '{')
		return err_set(e,
			       "'%.64s' is no policy (expected minimal-downtime, "
			       "suspend-workload-if-needed, post-copy or an object as JSON text)",
			       text);
	if (!builtin)
		return policy_parse(text, strlen(text), NULL, out, e);
	if (policy_parse(builtin, strlen(builtin), NULL, out, e))
		return -1;
	for (i = 0; strcmp(policy_builtins[i], text); i++)
		;
	out->builtin = policy_builtins[i];
	return 0;
}

/* Reads the whole file, but no more than the buffer holds. -1: errno is set. */
static ssize_t read_file(const char *file, char *text, size_t size)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK), why;
	ssize_t n;

	if (fd < 0)
		return -1;
	n = io_read_full(fd, text, size);
	why = errno;
	close(fd);
	errno = why;
	return n;
}

int policy_from_word(const char *word, struct policy *out, struct err *e)
{
	const size_t size = POLICY_FILE_MAX_BYTES + 1;
	char file[4096], *text, *hash = NULL;
	ssize_t n;
	int rc;

	if (policy_builtin_text(word))
		return policy_from_text(word, out, e);
	if (strlen(word) >= sizeof(file))
		return err_set(e, "the name '%.64s...' is longer than a file's may be", word);
	memcpy(file, word, strlen(word) + 1);
	if (access(file, F_OK) && (hash = strrchr(file, '#')))
		*hash++ = '\0';
	text = malloc(size);
	if (!text)
		return err_set(e, "out of memory");
	n = read_file(file, text, size);
	if (n < 0 && errno == ENOENT && !strchr(file, '/'))
		rc = err_set(e,
			     "'%.200s' is neither a policy (minimal-downtime, "
			     "suspend-workload-if-needed, post-copy) nor a file",
			     file);
	else if (n < 0)
		rc = err_errno(e, errno, "cannot read the policy %.300s", file);
	else if ((rc = policy_parse(text, (size_t)n, hash && *hash ? hash : NULL, out, e)))
		err_context(e, "%.200s", file);
	free(text);
	return rc;
}

/* -- and back -- */

static json_t *item_json(const struct policy_item *item)
{
	json_t *params = json_array();
	char ms[16];

	snprintf(ms, sizeof(ms), "%u", item->downtime_ms);
	if (item->action == POLICY_SET_DOWNTIME)
		json_array_append_new(params, json_string(ms));
	return json_pack("{s:s,s:o}", "action", policy_action_name(item->action), "params", params);
}

static json_t *items_json(const struct policy_item *items, unsigned int n)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < n; i++)
		json_array_append_new(list, item_json(&items[i]));
	return list;
}

char *policy_to_text(const struct policy *p)
{
	json_t *convergence, *o;
	char *text;

	if (p->builtin)
		return strdup(p->builtin);
	convergence = json_array();
	for (unsigned int i = 0; i < p->n_convergence; i++)
		json_array_append_new(convergence,
				      json_pack("{s:I,s:o}", "stallingLimit",
						(json_int_t)p->convergence[i].stalling_limit,
						"convergenceItem",
						item_json(&p->convergence[i].item)));
	o = json_pack("{s:{s:s},s:s,s:s,s:I,s:b,s:b,s:b,s:{s:o,s:o,s:o}}", "id", "uuid", p->uuid,
		      "name", p->name, "description", p->description, "maxMigrations",
		      (json_int_t)p->max_migrations, "autoConvergence", (int)p->auto_convergence,
		      "migrationCompression", (int)p->compression, "enableGuestEvents",
		      (int)p->guest_events, "config", "initialItems",
		      items_json(p->initial, p->n_initial), "convergenceItems", convergence,
		      "lastItems", items_json(p->last, p->n_last));
	text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	return text;
}
