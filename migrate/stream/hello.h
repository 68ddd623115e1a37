/*
 * How a stream begins, both directions side by side: HELLO, with which a connection says what it
 * is; MACHINE, which follows on the main one; and CHECKED, the destination's answer to the two.
 */
#ifndef GODWIT_MIGRATE_STREAM_HELLO_H
#define GODWIT_MIGRATE_STREAM_HELLO_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/stream/record.h"
#include "vmm/tree.h"

/* -- HELLO -- */

#define HELLO_BYTES 64u

/* Connections of one migration, at most. */
#define LANES_MAX 16

enum hello_role {
	ROLE_MAIN = 1,	/* the connection that everything begins with */
	ROLE_PAGES = 2, /* a further one of the same migration: PAGES and ROUND only */
	ROLE_PROBE = 3, /* measures the link, and no migration: PROBE and ROUND only */
};

struct hello {
	uint32_t version;
	char arch[12]; /* "x86_64" */
	uint32_t role; /* enum hello_role */
	uint32_t page_bytes;
	uint8_t id[16];	  /* random: which migration */
	char program[12]; /* version of the program, for messages */
	uint8_t features; /* of the source: */
	uint32_t lanes;	  /* connections of this migration, the main one included */
};

#define HELLO_HEARS_COSTS 1u /* CHECKED may bring what the pause costs at the destination */

void hello_encode(const struct hello *h, uint8_t out[HELLO_BYTES]);
/* Refuses what is no godwit stream, a newer version, another page size. */
int hello_decode(const struct record *r, struct hello *out, struct err *e);

/* Whether a stream begins like this. */
bool hello_begins_stream(const uint8_t first[RECORD_HEAD_BYTES + HELLO_BYTES]);

/* Sends it. What it says of this host and this program is filled in, except a program that is
 * there. */
int hello_send(struct writer *w, struct hello *h, struct err *e);
/* Takes it from a channel, as every connection and file begins with it. Refuses another
 * architecture, too. */
int hello_take(struct reader *r, struct hello *out, struct err *e);

/* What follows HELLO at the beginning of a migration or file: MACHINE. On 0 `machine` is the
 * caller's, to be freed. */
int hello_take_machine(struct reader *r, const struct hello *h, struct tree *machine,
		       struct err *e);

/* -- CHECKED -- */

/*
 * To a source that hears costs: u32 0 (no text begins so), and three u32, each in us: what the
 * machine took to be made, what its states take to be loaded, and its vCPUs to be started.
 */
#define CHECKED_COSTS_BYTES 16u

struct checked_costs {
	uint32_t build_us, load_us, start_us;
};

void checked_encode(const struct checked_costs *c, uint8_t out[CHECKED_COSTS_BYTES]);
/* False: there are none in it. */
bool checked_decode(const struct record *r, struct checked_costs *out);
/* Whether it is a refusal, with a text. */
bool checked_refuses(const struct record *r);

#endif
