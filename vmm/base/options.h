/*
 * Reading `--option value`, `--option=value` and operands, one after the other, against a table.
 * Pure; the words are those of the command line.
 */
#ifndef GODWIT_BASE_OPTIONS_H
#define GODWIT_BASE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct err;

struct option_spec {
	const char *name; /* without the dashes; NULL ends a table */
	bool takes_value;
	unsigned int groups; /* bits: who has this option */
	bool repeats;	     /* may be given more than once, each with its value */
};

struct options {
	int argc;
	char **argv;
	int at;				 /* next word */
	bool only_operands;		 /* after "--" */
	unsigned int group;		 /* only options with one of these bits are known */
	const struct option_spec *table; /* of at most 64 */
	uint64_t given;			 /* options with a value, a bit for each */
};

#define OPTION_ERROR   (-1)
#define OPTION_END     (-2)
#define OPTION_OPERAND (-3)

/*
 * The index in the table of the next option, with its value (NULL if it takes none); or
 * OPTION_OPERAND with the operand as value, OPTION_END, or OPTION_ERROR with a sentence: unknown
 * (with the nearest known one), value missing, value not wanted, given twice. "-h" is "--help".
 */
int option_next(struct options *o, const char **value, struct err *e);

#endif
