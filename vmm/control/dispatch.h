/*
 * From one QMP request to its answer: envelope, capabilities negotiation, the command's row in the
 * tables, its arguments checked against the row. No sockets; the thread of the server.
 */
#ifndef GODWIT_CONTROL_DISPATCH_H
#define GODWIT_CONTROL_DISPATCH_H

#include <jansson.h>
#include <stdbool.h>

struct control_table;
struct err;

/*
 * Runs one request and returns its answer, without the id (a new reference; NULL only when memory
 * is short).
 * *negotiated is the connection's: false until it has executed qmp_capabilities.
 */
json_t *dispatch(const struct control_table *tables, bool *negotiated, json_t *request);

/* The answer to what was no JSON object at all. */
json_t *dispatch_malformed(const struct err *e);

/* {"QMP": ...}: what a connection begins with. */
json_t *dispatch_greeting(void);

/* What query-version returns and the greeting contains (a new reference). */
json_t *dispatch_version(void);

/* A JSON string of any C string; bytes that are no UTF-8 become '?', each. */
json_t *dispatch_text(const char *text);

#endif
