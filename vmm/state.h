/*
 * State is plain data with one field list. What migrates of a thing is one plain struct, without
 * pointers, fds and threads; one function lists its fields and serves both directions:
 *
 *     static void serial_fields(struct state *s, void *p)
 *     {
 *             struct serial_state *st = p;
 *
 *             state_u8(s, "lcr", &st->lcr);
 *             state_u8_optional(s, "scratch", &st->scratch, 0);   -- added later: its default
 *     }
 *
 * The encoding is a flattened device tree: a node per thing, under the path it has in the machine
 * tree, and a big endian property per field, so fields are keyed by name and not by order.
 *
 * Errors are sticky: after the first one the visitor does nothing more, and state_save/state_load
 * report it. Loading fills a zeroed struct and refuses what is missing, unknown or of a wrong
 * length, then `check` looks across fields. Only a caller that got 0 may apply the struct.
 */
#ifndef GODWIT_STATE_H
#define GODWIT_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct tree;
struct tree_writer;
struct state; /* the visitor */

/* How a kind of thing is saved. Constant; one for each kind. */
struct state_desc {
	size_t size; /* of the plain struct */
	void (*fields)(struct state *s, void *st);
	/* Values that no well-behaved source can have sent; may be NULL. Pure. */
	int (*check)(const void *st, struct err *e);
};

void state_u8(struct state *s, const char *name, uint8_t *v);
void state_u16(struct state *s, const char *name, uint16_t *v);
void state_u32(struct state *s, const char *name, uint32_t *v);
void state_u64(struct state *s, const char *name, uint64_t *v);
void state_bool(struct state *s, const char *name, bool *v);
/* Added later: not written while it has the value that it is loaded with when it is not there, so
 * that versions which do not know it take the rest. */
void state_u8_optional(struct state *s, const char *name, uint8_t *v, uint8_t missing);
void state_u32_optional(struct state *s, const char *name, uint32_t *v, uint32_t missing);
void state_u64_optional(struct state *s, const char *name, uint64_t *v, uint64_t missing);

/* Exactly `len` bytes, as they are (formats fixed elsewhere: XSAVE areas, LAPIC pages). */
void state_bytes(struct state *s, const char *name, void *v, size_t len);

/* `*len` bytes, at most `max`; for buffers whose fill varies. */
void state_buffer(struct state *s, const char *name, void *v, uint32_t *len, uint32_t max);

/* `*n` numbers, at most `max`. */
void state_u32_array(struct state *s, const char *name, uint32_t *v, uint32_t *n, uint32_t max);
/* None at all where it is missing; and none is not written, so that others need not know it. */
void state_u32_array_optional(struct state *s, const char *name, uint32_t *v, uint32_t *n,
			      uint32_t max);
void state_u64_array(struct state *s, const char *name, uint64_t *v, uint32_t *n, uint32_t max);

/*
 * A list of like things inside one (the queues of a device): a sub-node "NAME@i" for each of the
 * `n` elements of `size` bytes from `first`. `n` is known to both sides (from the machine tree).
 */
void state_list(struct state *s, const char *name, void *first, size_t size, uint32_t n,
		void (*fields)(struct state *s, void *element));

/*
 * Writes the fields of `st` as a node below the one that is open: the last name of `path`, which is
 * its path in the tree.
 */
int state_save(struct tree_writer *w, const char *path, const struct state_desc *d, const void *st,
	       struct err *e);

/*
 * Fills `st` (d->size bytes, zeroed first) from below `path`, checked. On -1 the error names the
 * node and the field, and what is in `st` must not be used.
 */
int state_load(const struct tree *states, const char *path, const struct state_desc *d, void *st,
	       struct err *e);

/* The same where the node has been found already (its offset, for libfdt). `steps`, if not NULL, is
 * added to: what it took, in tags of the tree and names compared. */
int state_load_at(const struct tree *states, int node, const char *path, const struct state_desc *d,
		  void *st, uint64_t *steps, struct err *e);

#endif
