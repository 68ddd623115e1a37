/*
 * The verbs of the command line that talk to a running VM over its control socket, and the help
 * texts of all verbs. All of it runs on the main thread of a short-lived process. It may print, and
 * returns exit codes.
 */
#ifndef GODWIT_CLI_VERB_H
#define GODWIT_CLI_VERB_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;
struct err;

enum verb_exit {
	VERB_DONE = 0,
	VERB_FAILED = 1,
	VERB_USAGE = 2,
	VERB_CANCELLED = 3,
	VERB_UNDECIDED = 4 /* it is not known where the guest runs */
};

/* `run` gets the words after the verb and returns the exit code. */
struct verb {
	const char *name; /* NULL ends a table */
	int (*run)(int argc, char **argv);
};

/* list status pause resume reset resize shutdown quit save migrate cancel set doctor */
extern const struct verb cli_verbs[];

/* The row of cli_verbs with that name, or NULL. */
const struct verb *verb_find(const char *name);

/* Prints "godwit: SENTENCE" to stderr, without control characters; returns `code`. */
int verb_fail(const struct err *e, int code);

/*
 * Flushes stdout. True, with a sentence on stderr, if output was lost: the program does this at its
 * end, and then exits with 1. A verb whose exit code says where the guest is calls it earlier, so
 * that its code stays.
 */
bool verb_output_lost(const char *verb);
/* A long text at once; VERB_FAILED with the sentence that says why it was lost. */
int verb_print_text(const char *verb, const char *text);

/* Prints an answer for scripts, in ASCII; NULL prints an empty line. */
void verb_print_json(const json_t *o);

/* The words after a verb. */
struct verb_args {
	const char *vm;	  /* first operand, or NULL */
	const char *file; /* second operand, or NULL */
	bool json, force, help;
	uint64_t timeout_s; /* preset by the caller */
};

/*
 * Parses the words after `verb`, which takes exactly `operands` operands and the options in
 * `groups`. Returns -1 if the verb is to go on, else the exit code: 0 after printing help, 2 after
 * a sentence on wrong words.
 */
#define VERB_JSON    1u
#define VERB_FORCE   2u
#define VERB_TIMEOUT 4u
int verb_parse(const char *verb, unsigned int groups, unsigned int operands, int argc, char **argv,
	       struct verb_args *args);

/*
 * Runs a verb that takes a VM and asks it one thing: parses the words as verb_parse, connects,
 * calls `ask`, and says why if it returns -1. Returns the exit code.
 */
int verb_ask(const char *verb, unsigned int groups, int argc, char **argv, struct verb_args *args,
	     int (*ask)(struct client *c, const struct verb_args *args, struct err *e));

/* Makes a file's name absolute, as the VM has another directory; -1 with a sentence. */
int verb_absolute_path(const char *file, char *path, size_t size, struct err *e);

/* A descriptor that becomes readable by Ctrl-C and SIGTERM, which have no other effect now. */
int verb_watch_interrupts(struct err *e);

/*
 * Whether there was an interrupt. Only the first counts: *fd becomes -1, and output does not wait
 * for its reader any more.
 */
bool verb_take_interrupt(int *fd);

/* From now on an interrupt ends waits of stdout and stderr: text that they do not take is lost. */
void verb_print_patiently(int interrupt_fd);

/*
 * Prints the help of a verb, or with NULL the overview. For a word that is no verb: prints a
 * sentence with the nearest verb to stderr, and returns 2.
 */
int help_print(const char *verb);

int verb_list(int argc, char **argv);
int verb_status(int argc, char **argv);
int verb_pause(int argc, char **argv);
int verb_resume(int argc, char **argv);
int verb_reset(int argc, char **argv);
int verb_resize(int argc, char **argv);
int verb_shutdown(int argc, char **argv);
int verb_quit(int argc, char **argv);
int verb_save(int argc, char **argv);
int verb_migrate(int argc, char **argv);
int verb_cancel(int argc, char **argv);
int verb_set(int argc, char **argv);
int verb_doctor(int argc, char **argv);

#endif
