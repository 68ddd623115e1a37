/*
 * Options of the command line: see options.h. Pure; it keeps pointers into argv, never copies.
 */
#include "vmm/base/options.h"

#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/words.h"

#define OPTIONS_MAX 40

static int option_unknown(const struct options *o, const char *word, const char *name,
			  struct err *e)
{
	const char *known[OPTIONS_MAX + 1];
	const char *nearest;
	unsigned int n = 0;

	for (const struct option_spec *s = o->table; s->name && n < OPTIONS_MAX; s++)
		if (s->groups & o->group)
			known[n++] = s->name;
	known[n] = NULL;
	nearest = word_nearest(name, known);
	if (nearest)
		return err_set(e, "unknown option '%s' (did you mean --%s?)", word, nearest);
	return err_set(e, "unknown option '%s'", word);
}

int option_next(struct options *o, const char **value, struct err *e)
{
	const char *word, *equals;
	size_t n;

	*value = NULL;
	if (o->at >= o->argc)
		return OPTION_END;
	word = o->argv[o->at++];
	if (!o->only_operands && !strcmp(word, "--")) {
		o->only_operands = true;
		if (o->at >= o->argc)
			return OPTION_END;
		word = o->argv[o->at++];
	}
	/* A lone "-" is an operand everywhere. */
	if (o->only_operands || word[0] != '-' || !word[1]) {
		*value = word;
		return OPTION_OPERAND;
	}
	if (!strcmp(word, "-h"))
		word = "--help";
	equals = strchr(word, '=');
	n = equals ? (size_t)(equals - word) : strlen(word);
	if (strncmp(word, "--", 2) || n > 2 + 64)
		return option_unknown(o, word, word + 1, e);
	for (int i = 0; o->table[i].name; i++) {
		const struct option_spec *s = &o->table[i];

		if (!(s->groups & o->group) || strlen(s->name) != n - 2 ||
		    strncmp(s->name, word + 2, n - 2))
			continue;
		if (!s->takes_value) {
			if (equals)
				return err_set(e, "option '--%s' takes no value", s->name);
			return i;
		}
		/* The last one would win in silence. */
		if (o->given >> i & 1 && !s->repeats)
			return err_set(e, "option '--%s' is given twice", s->name);
		o->given |= 1ull << i;
		if (equals) {
			*value = equals + 1;
		} else {
			if (o->at >= o->argc)
				return err_set(e, "option '--%s' needs a value", s->name);
			*value = o->argv[o->at++];
		}
		return i;
	}

	char shown[80], name[80];

	/* Without the value, which may be long. */
	memcpy(shown, word, n);
	shown[n] = '\0';
	memcpy(name, word + 2, n - 2);
	name[n - 2] = '\0';
	return option_unknown(o, shown, name, e);
}
