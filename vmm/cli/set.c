/*
 * godwit set VM PARAM=VALUE...: parameters of the migration that is under way, and of later ones.
 * All or none of them. Main thread of a short-lived process.
 */
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/options.h"
#include "vmm/cli/client.h"
#include "vmm/cli/parameters.h"
#include "vmm/cli/verb.h"

static const struct option_spec set_options[] = {
	{ "help", false, 1 },
	{ NULL, false, 0 },
};

static int take_pair(struct parameters *p, const char *word, struct err *e)
{
	const char *equals = strchr(word, '=');
	char name[40];
	size_t n;

	if (!equals || equals == word)
		return err_set(e, "set: expected PARAM=VALUE in place of '%s'", word);
	n = (size_t)(equals - word);
	if (n >= sizeof(name))
		return err_set(e, "set: unknown parameter '%.*s...'", (int)sizeof(name), word);
	memcpy(name, word, n);
	name[n] = '\0';
	return parameters_add(p, name, equals + 1, e) ? err_context(e, "%s", name) : 0;
}

/* 1: help is wanted. */
static int parse(struct parameters *p, const char **vm, int argc, char **argv, struct err *e)
{
	struct options o = { .argc = argc, .argv = argv, .group = 1, .table = set_options };
	const char *value;

	*vm = NULL;
	for (;;) {
		switch (option_next(&o, &value, e)) {
		case OPTION_ERROR:
			return err_context(e, "set");
		case OPTION_END:
			if (*vm && json_object_size(p->wanted) > 0)
				return 0;
			return err_set(e, "set: %s is missing (see godwit set --help)",
				       *vm ? "PARAM=VALUE" : "the VM's name");
		case OPTION_OPERAND:
			if (!*vm)
				*vm = value;
			else if (take_pair(p, value, e))
				return -1;
			break;
		default:
			return 1;
		}
	}
}

static int set(const struct parameters *p, const char *vm, struct err *e)
{
	struct client c;
	int rc = client_open(&c, vm, CLIENT_TIMEOUT_MS, e) || parameters_apply(p, &c, e);

	client_close(&c);
	return rc ? VERB_FAILED : VERB_DONE;
}

int verb_set(int argc, char **argv)
{
	struct parameters p;
	const char *vm;
	struct err e;
	int rc;

	parameters_init(&p);
	rc = parse(&p, &vm, argc, argv, &e);
	if (rc > 0)
		rc = help_print("set");
	else if (rc < 0)
		rc = verb_fail(&e, VERB_USAGE);
	else if (set(&p, vm, &e))
		rc = verb_fail(&e, VERB_FAILED);
	parameters_free(&p);
	return rc;
}
