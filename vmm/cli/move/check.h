/*
 * godwit migrate --check: follows a check that has begun, and prints what it found.
 */
#ifndef GODWIT_CLI_CHECK_H
#define GODWIT_CLI_CHECK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

struct client;
struct err;

/*
 * Waits for the end of the check and prints what it found to stdout. Ctrl-C (c->interrupt_fd)
 * cancels it. Returns the exit code. VERB_DONE: the guest can be moved. VERB_FAILED,
 * VERB_CANCELLED: `e` says why not.
 */
int check_follow(struct client *c, const char *uri, bool json, struct err *e);

/* The answer to x-godwit-query-check of a completed check as text. Pure except for `out`. */
void check_print(const json_t *answer, FILE *out);

#endif
