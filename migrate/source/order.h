/*
 * In which order a first round goes through memory: in large pieces, scattered by turning the bits
 * of their numbers round. So a part of what was sent is a part of every region, whatever lies
 * where: pages that are written to all the time show themselves before most of them were sent.
 * Pure.
 */
#ifndef GODWIT_MIGRATE_ORDER_H
#define GODWIT_MIGRATE_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/guest.h"

/* Pieces of the same size, for the last one of a block. */
#define ORDER_PIECES 256u

struct order {
	const struct guest *guest;
	uint64_t piece_pages; /* a multiple of the least */
	uint64_t pieces;      /* of all blocks */
	uint64_t steps;	      /* a power of two, or just the pieces */
	bool scattered;
};

struct order_piece {
	unsigned int block;
	uint64_t first, pages;
};

/* Of about ORDER_PIECES pieces, none smaller than so many pages; or, not scattered, of whole
 * blocks one after the other. */
void order_init(struct order *o, const struct guest *g, uint64_t least_pages, bool scattered);

/* The first piece at or after step *at, which is moved on behind it (0 at first). False: there is
 * none. */
bool order_next(const struct order *o, uint64_t *at, struct order_piece *p);

#endif
