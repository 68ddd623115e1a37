/*
 * What a stream holds, as text: for `godwit inspect`. Reads everything and checks every checksum.
 */
#ifndef GODWIT_MIGRATE_INSPECT_H
#define GODWIT_MIGRATE_INSPECT_H

#include <stdio.h>

struct channel;
struct err;

enum inspect_what {
	INSPECT_SUMMARY,
	INSPECT_TREE,	/* the machine tree as DTS */
	INSPECT_STATES, /* the states as DTS */
	INSPECT_PAGES,	/* the runs of pages */
};

int inspect_stream(struct channel *ch, enum inspect_what what, FILE *out, struct err *e);

#endif
