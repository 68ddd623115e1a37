/*
 * A part of what a migration moves in rounds, and the chunks of it that lanes carry. RAM is a part
 * (ram.h); each disk can be another.
 */
#ifndef GODWIT_MIGRATE_SOURCE_PART_H
#define GODWIT_MIGRATE_SOURCE_PART_H

#include <stdint.h>

#define CHUNK_PAGES 512u
#define CHUNK_WORDS (CHUNK_PAGES / 64)

/* Of one migration. */
#define PARTS_MAX 16u

struct err;
struct part;
struct writer;

enum chunk_priority {
	CHUNK_IN_TURN,
	CHUNK_URGENT, /* goes before all chunks in turn that wait */
};

/* Pages of one block, whose dirty bits have been cleared: they may be read now. */
struct chunk {
	struct part *part;
	enum chunk_priority priority;
	unsigned int block;
	uint64_t first; /* a multiple of CHUNK_PAGES */
	uint64_t pages[CHUNK_WORDS];
};

struct part_ops {
	/* Sends all that is pending, in chunks for the lanes. The first round is 1: all that the
	 * part holds. The migration's thread. */
	int (*round)(struct part *p, uint64_t round, struct err *e);

	/* Between two rounds: what is dirty becomes pending. *bytes: how much. The migration's
	 * thread. */
	int (*fetch)(struct part *p, uint64_t *bytes, struct err *e);

	/*
	 * Sends a chunk as records by `w`, the writer of lane `lane`; may change c->pages. Called
	 * on the lane's thread. No two calls at a time have the same lane, or chunks of the same
	 * part, block and `first`.
	 */
	int (*send)(struct part *p, unsigned int lane, struct writer *w, struct chunk *c,
		    struct err *e);
};

/* Embedded first in each kind's own struct. */
struct part {
	const struct part_ops *ops;
};

#endif
