/*
 * The help texts of verbs (help_texts.c), and the part of them that comes from the table of
 * parameters. Everybody else prints them by help_print (verb.h).
 */
#ifndef GODWIT_CLI_HELP_H
#define GODWIT_CLI_HELP_H

#include <stdio.h>

struct help {
	const char *verb; /* NULL ends the list */
	const char *text;
	void (*more)(FILE *out); /* prints what comes from a table; may be NULL */
	const char *rest;	 /* comes after that; may be NULL */
};

extern const struct help help_texts[];
extern const char help_overview[];

/* Print to stdout: the parameters that are options of migrate; those of set. */
void help_migrate_options(FILE *out);
void help_set_parameters(FILE *out);

#endif
