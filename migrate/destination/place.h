/*
 * The place of a guest that comes in: the only way by which pages enter its memory. Whatever brings
 * pages asks here, so that a guest can also come into memory that is not there yet.
 *
 * A place is asked for pages of a block that are within it (place_has). Any thread; two threads
 * never bring the same page at once.
 */
#ifndef GODWIT_MIGRATE_DESTINATION_PLACE_H
#define GODWIT_MIGRATE_DESTINATION_PLACE_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct guest;
struct place;

/* Each is about the pages [first, first + n) of a block. */
struct place_ops {
	/* Where their data can be written as they are read, one page behind the other. NULL:
	 * nowhere, all pages come by copy. */
	uint8_t *(*direct)(struct place *p, unsigned int block, uint64_t first, uint64_t n);
	/* Copies them in. The guest never sees half a page. */
	int (*copy)(struct place *p, unsigned int block, uint64_t first, uint64_t n,
		    const void *pages, struct err *e);
	/* Makes them zero. */
	int (*zero)(struct place *p, unsigned int block, uint64_t first, uint64_t n, struct err *e);
	/* A hint: data for them will come. -1: no use here, so it need not be given again. */
	int (*prepare)(struct place *p, unsigned int block, uint64_t first, uint64_t n);
};

/* Embedded first in each kind's own struct. Constant while pages come. */
struct place {
	const struct place_ops *ops;
	const struct guest *guest;
	/* Only with `direct`: what it returns holds the older pages, so deltas (XBZRLE) can be
	 * applied to it. */
	bool keeps_old;
};

/* Memory that is there as a whole and that nothing uses before the guest has arrived. */
void place_memory_init(struct place *p, const struct guest *g);

/* Whether the guest has these pages. Any numbers may be asked for. */
bool place_has(const struct place *p, uint64_t block, uint64_t first, uint64_t n);

#endif
