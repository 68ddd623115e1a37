/*
 * The rounds of a source: all pages that are dirty are sent once. On the migration's thread.
 */
#ifndef GODWIT_MIGRATE_RAM_H
#define GODWIT_MIGRATE_RAM_H

#include <stdint.h>

struct err;
struct source;

/* Before the first round: see rounds.c. */
int rounds_look_ahead(struct source *s, struct err *e);

/* One round, with its figures; the guest may be parked in it, by force. */
int rounds_send(struct source *s, uint64_t round, struct err *e);

/* The destination has taken in that round. */
int rounds_await(struct source *s, uint64_t round, struct err *e);

/* What is dirty becomes what is to be sent in the next round: how many pages. */
int rounds_fetch(struct source *s, uint64_t *count, struct err *e);

#endif
