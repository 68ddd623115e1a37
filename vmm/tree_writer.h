/*
 * A flattened device tree written from its beginning to its end, over libfdt's sequential
 * functions: what has been written is never searched nor moved, so that each node and property
 * costs the same however large the tree is. For trees that are large and made at once: the states.
 * (The functions of tree.h change a tree at any place, and look for that place each time.)
 *
 * Errors are sticky: after the first one nothing more is written, and tree_writer_end reports it.
 */
#ifndef GODWIT_TREE_WRITER_H
#define GODWIT_TREE_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct tree;

struct tree_writer {
	void *fdt; /* owned */
	size_t size;
	bool failed;
	uint64_t moved_bytes; /* by growing: for tests */
};

/* Begins with the root node open, and room for so many bytes (0: that is not known), which is more
 * when more is needed. -1: there is nothing to be freed. */
int tree_writer_begin(struct tree_writer *w, size_t bytes, struct err *e);

/* A node below the one that is open, which is open until tree_writer_up. */
int tree_writer_down(struct tree_writer *w, const char *name, struct err *e);
int tree_writer_up(struct tree_writer *w, struct err *e);

/* A property of the node that is open; before the first node below it. */
int tree_writer_bytes(struct tree_writer *w, const char *name, const void *value, size_t len,
		      struct err *e);

/* Closes the root and gives the tree, packed. Frees the writer, also on -1. */
int tree_writer_end(struct tree_writer *w, struct tree *out, struct err *e);
void tree_writer_free(struct tree_writer *w);

#endif
