/*
 * The report of a migration: its history as JSON, or as one HTML file with a picture. Pure except
 * for the stream that it writes to. Text from elsewhere is escaped.
 */
#ifndef GODWIT_CLI_REPORT_H
#define GODWIT_CLI_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "vmm/cli/move/history.h"

struct report {
	const char *vm, *uri, *result; /* "moved", "failed", "cancelled", "undecided" */
	const struct history *history;
	json_t *answer; /* the last one to query-migrate, or NULL; not taken */
};

/* A new reference, or NULL. */
json_t *report_json(const struct report *r);

void report_html(const struct report *r, FILE *to);

/* The picture alone, an <svg> element. */
void report_picture(const struct history *h, FILE *to);

/* Writes text so that it can stand in an element or in an attribute's quotes. */
void report_escape(const char *text, FILE *to);

#endif
