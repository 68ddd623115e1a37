/*
 * From a stream of bytes to JSON objects, one after the other, with or without newlines between
 * them. The peer is hostile: a request has a bound in length and in nesting, and after anything
 * that is no JSON object the stream goes on at the next line. Pure; one thread at a time.
 */
#ifndef GODWIT_CONTROL_FRAMING_H
#define GODWIT_CONTROL_FRAMING_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define FRAMING_REQUEST_MAX (1u << 20) /* bytes of one object */
#define FRAMING_DEPTH_MAX   64	       /* objects and arrays inside each other */

/* All zero is empty. Bytes [start, len) of buf are not used up; [start, scan) have been looked at.
 */
struct framing {
	char *buf; /* owned */
	size_t start, scan, len, capacity;
	bool inside; /* `start` is the '{' of an object that has not ended yet */
	bool in_string, escaped;
	bool fresh_line; /* only spaces since a newline inside the object */
	char last;	 /* the last character outside strings that was no space */
	unsigned int depth;
	uint64_t kinds; /* a bit for each open bracket, innermost lowest: 1 = '{', 0 = '[' */
	bool skipping;	/* everything up to the next newline is dropped */
};

void framing_free(struct framing *f);

/* Appends bytes. -1 when memory is short. The caller takes objects out before it feeds more. */
int framing_feed(struct framing *f, const void *bytes, size_t len);

/*
 * 1: *out is the next object (a new reference). 0: more bytes are needed. -1: something was no JSON
 * object; it has been passed over, ask again.
 */
int framing_next(struct framing *f, json_t **out, struct err *e);

#endif
