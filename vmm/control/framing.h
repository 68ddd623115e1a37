/*
 * From a stream of bytes to QMP requests, one after the other, with or without newlines between
 * them. As in QEMU's docs/interop/qmp-spec, strings may be single-quoted, and a control character
 * or a byte 0xFE or 0xFF ends whatever was begun. The peer is hostile: a request has a bound in
 * length and in nesting. Pure; one thread at a time.
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

enum framing_state {
	FRAMING_BETWEEN, /* no value has begun */
	FRAMING_VALUE,	 /* one has, and has not ended yet */
	FRAMING_LOST,	 /* after broken input: looks for where a request may begin */
};

/* Bytes; all zero is empty. */
struct framing_bytes {
	char *at; /* owned */
	size_t len, capacity;
};

/* All zero is empty. */
struct framing {
	struct framing_bytes in; /* as they came; [start, in.len) are not looked at yet */
	size_t start;
	struct framing_bytes text; /* the value under way as plain JSON: double quotes, no \' */
	char *id;		   /* see framing_next(); owned */

	/* The value under way. */
	enum framing_state state;
	bool dropped;	 /* its end is looked for, and no more: it is refused already */
	char quote;	 /* of the string under way; 0: outside strings */
	bool escaped;	 /* after a backslash, which is not in `text` yet */
	bool fresh_line; /* only spaces since a newline */
	char last;	 /* the last character that was no space; '"' after a string */
	size_t depth;
	uint64_t kinds; /* a bit for each open bracket, innermost lowest: 1 = '{', 0 = '[' */
	/* In `text`: the last string of the outermost level, and the value of "id"; 0: none. */
	size_t string_at, string_end, id_at, id_end;
};

void framing_free(struct framing *f);

/* Appends bytes. -1 when memory is short. The caller takes objects out before it feeds more. */
int framing_feed(struct framing *f, const void *bytes, size_t len);

/*
 * 1: *out is the next object (a new reference), and f->id the JSON text of its member "id", in
 * ASCII, every digit as it was sent (NULL: it has none); in *out a number stands in its place.
 * An integer above 63 bits makes all numbers of its object reals. 0: more bytes are needed. -1:
 * something was no JSON object; it is passed over, ask again.
 */
int framing_next(struct framing *f, json_t **out, struct err *e);

#endif
