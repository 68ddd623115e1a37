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

struct control;
struct control_table;
struct err;
struct loop;

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

#endif
