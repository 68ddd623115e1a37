/*
 * The control socket: a QMP server (greeting, qmp_capabilities, execute/arguments/id, return,
 * error{class,desc}, events) on a unix socket, run by a loop. It knows framing and checks
 * arguments; what the commands do is in tables that main.c hands to it.
 *
 * Format: QEMU's docs/interop/qmp-spec. Unknown commands, missing, unknown and ill-typed arguments
 * are answered with an error that names them, and the connection stays open.
 */
#ifndef GODWIT_CONTROL_SERVER_H
#define GODWIT_CONTROL_SERVER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct control;
struct err;
struct loop;

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

/*
 * Listens at `path` (mode 0600). A path that is too long for a socket, or where somebody answers,
 * is refused with a sentence (errno is EADDRINUSE for the latter); a stale socket is replaced.
 * `tables` ends with commands == NULL and must live as long as the server. On the loop's thread,
 * or before the loop runs.
 */
int control_open(struct control **out, struct loop *loop, const char *path,
		 const struct control_table *tables, struct err *e);

/*
 * Listens at another path in place of its own; connections stay. -1 as control_open: when
 * somebody answers there, nothing has changed. On the loop's thread, or when the loop does not run.
 */
int control_move(struct control *c, const char *path, struct err *e);

/*
 * Closes all connections after their last answers and events were tried, and removes the socket if
 * it is still ours. On the loop's thread or when it does not run; not from inside a command; when
 * no other thread can call control_event() any more. NULL does nothing.
 */
void control_close(struct control *c);

const char *control_path(const struct control *c);

/*
 * Any thread: an event to every client that has negotiated. Takes the reference of `data` (may be
 * NULL). Events keep their order, and an event that a command caused comes before its answer.
 */
void control_event(struct control *c, const char *event, json_t *data);

/* What query-version returns and the greeting contains (a new reference). */
json_t *control_version(void);

#endif
