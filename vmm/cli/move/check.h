/*
 * godwit migrate --check: follows a check that has begun, and tells what it found.
 */
#ifndef GODWIT_CLI_CHECK_H
#define GODWIT_CLI_CHECK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

struct client;
struct err;

/*
 * Stays until the check is over (Ctrl-C, by c->interrupt_fd, cancels it) and prints what it found
 * to stdout. The exit code: VERB_DONE: it can be moved; VERB_FAILED, VERB_CANCELLED: why not is in
 * `e`.
 */
int check_follow(struct client *c, const char *uri, bool json, struct err *e);

/* The answer to x-godwit-query-check of a completed check as text. Pure but for `out`. */
void check_print(const json_t *answer, FILE *out);

#endif
