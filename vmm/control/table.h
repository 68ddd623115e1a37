/*
 * A table of commands of the control socket: what each is called, which arguments it takes, and
 * what it does. dispatch.c checks arguments against the row before the command runs.
 */
#ifndef GODWIT_CONTROL_TABLE_H
#define GODWIT_CONTROL_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct err;

enum control_type {
	CONTROL_STRING,
	CONTROL_INTEGER,
	CONTROL_BOOLEAN,
	CONTROL_ARRAY,
	CONTROL_OBJECT
};

struct control_argument {
	const char *name; /* NULL ends the list */
	enum control_type type;
	bool required;
	int64_t min, max; /* integers; both 0: any */
};

/*
 * A command. `run` gets arguments that have been checked against the list (never NULL) and sets
 * *result to a new reference, or leaves it NULL for {}. -1: the sentence becomes the error's desc.
 * Runs on the loop's thread and must not wait for the guest.
 */
struct control_command {
	const char *name;			  /* NULL ends a table */
	const struct control_argument *arguments; /* NULL: none */
	/* Or, for arguments that stand in another table: gets the i-th; false after the last. */
	bool (*argument)(size_t i, struct control_argument *out);
	int (*run)(void *context, json_t *arguments, json_t **result, struct err *e);
};

struct control_table {
	const struct control_command *commands;
	void *context;
};

#endif
