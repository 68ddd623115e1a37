/*
 * Prints help texts: those of verbs as they are, those of parameters from their table
 * (migrate/parameters.h). Main thread of a short-lived process.
 */
#include "vmm/cli/help.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/parameters.h"
#include "vmm/base/err.h"
#include "vmm/base/words.h"
#include "vmm/cli/verb.h"

/* The column in which the texts of options begin, and the first that is too far right. */
#define TEXT_COLUMN 22
#define WIDTH	    80

#define HELPS_MAX 32

/* Words in lines of at most WIDTH columns; `column` is where the first one goes. */
static void print_words(FILE *out, const char *text, size_t column, size_t indent)
{
	size_t word;

	for (; *text; text += word + (text[word] == ' ')) {
		word = strcspn(text, " ");
		if (column > indent && column + 1 + word > WIDTH)
			column = (size_t)fprintf(out, "\n%*s", (int)indent, "") - 1;
		else if (column > indent)
			column += (size_t)fprintf(out, " ");
		column += (size_t)fprintf(out, "%.*s", (int)word, text);
	}
	fputc('\n', out);
}

/* An option, and its text in the column beside it. */
static void print_item(FILE *out, const char *name, const char *text)
{
	size_t n = (size_t)fprintf(out, "  %s", name);

	if (n < TEXT_COLUMN)
		fprintf(out, "%*s", (int)(TEXT_COLUMN - n), "");
	else
		fprintf(out, "\n%*s", TEXT_COLUMN, "");
	print_words(out, text, TEXT_COLUMN, TEXT_COLUMN);
}

/* The range and the preset of a parameter; "": it has neither. */
static void describe_values(const struct parameter *r, char *text, size_t size)
{
	/* One connection is used until `channels` says more. */
	uint64_t preset = r->kind == PARAMETER_CHANNELS ? 1 : r->preset;

	text[0] = '\0';
	if (r->kind == PARAMETER_RATE || r->kind == PARAMETER_SIZE)
		snprintf(text, size, "default: %" PRIu64 "%s", preset >> 20,
			 preset >> 20 ? "M" : "");
	else if (parameter_is_number(r))
		snprintf(text, size, "%" PRIu64 " to %" PRIu64 ", default: %" PRIu64, r->min,
			 r->max, preset);
	else if (r->preset_text)
		snprintf(text, size, "default: %s", r->preset_text);
}

/* `left` and the row's text, with what is known of its values and its QMP name in parentheses. */
static void print_parameter(FILE *out, const struct parameter *r, const char *left, bool with_qmp)
{
	const char *qmp = with_qmp && strcmp(r->name, r->qmp) ? r->qmp : "";
	char values[80], text[768];

	describe_values(r, values, sizeof(values));
	if (values[0] || qmp[0])
		snprintf(text, sizeof(text), "%s (%s%s%s%s)", r->help, values,
			 values[0] && qmp[0] ? "; " : "", qmp[0] ? "QMP: " : "", qmp);
	else
		snprintf(text, sizeof(text), "%s", r->help);
	print_item(out, left, text);
}

/* As `--name ARGUMENT`. */
void help_migrate_options(FILE *out)
{
	char left[80];

	for (const struct parameter *r = parameter_table; r->qmp; r++) {
		if (!r->option)
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", r->name, r->argument ? " " : "",
			 r->argument ? r->argument : "");
		print_parameter(out, r, left, false);
	}
}

/* Which parameters hold at once, as one sentence. */
static void print_live_parameters(FILE *out)
{
	char text[768] = "";
	size_t n = 0;

	for (const struct parameter *r = parameter_table; r->qmp; r++)
		if (r->name && r->live)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", n ? ", " : "",
					      r->name);
	snprintf(text + n, sizeof(text) - n,
		 " also hold for a migration that is under way, the others for the next one.");
	print_words(out, text, 0, 0);
}

/* As `name=ARGUMENT`. */
void help_set_parameters(FILE *out)
{
	char left[80];

	print_live_parameters(out);
	fputc('\n', out);
	for (const struct parameter *r = parameter_table; r->qmp; r++) {
		if (!r->name)
			continue;
		snprintf(left, sizeof(left), "%s=%s", r->name,
			 r->argument ? r->argument : "on|off");
		print_parameter(out, r, left, true);
	}
}

/* In one piece: the reason why output was lost is known only right after it was written. */
static int print_help(const struct help *h)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	struct err e;
	int rc;

	if (out) {
		fputs(h->text, out);
		if (h->more)
			h->more(out);
		if (h->rest)
			fputs(h->rest, out);
	}
	if (!out || fclose(out)) {
		free(text);
		err_set(&e, "%s: out of memory", h->verb);
		return verb_fail(&e, VERB_FAILED);
	}
	rc = verb_print_text(h->verb, text);
	free(text);
	return rc;
}

int help_print(const char *verb)
{
	const char *names[HELPS_MAX + 1];
	const char *nearest;
	size_t n = 0;
	struct err e;

	if (!verb) {
		fputs(help_overview, stdout);
		return VERB_DONE;
	}
	for (const struct help *h = help_texts; h->verb && n < HELPS_MAX; h++) {
		names[n++] = h->verb;
		if (strcmp(h->verb, verb))
			continue;
		return print_help(h);
	}
	names[n] = NULL;
	nearest = word_nearest(verb, names);
	if (nearest)
		err_set(&e, "unknown verb '%s' (did you mean %s?)", verb, nearest);
	else
		err_set(&e, "unknown verb '%s' (godwit --help lists them)", verb);
	return verb_fail(&e, VERB_USAGE);
}
