/*
 * The order in which a first round goes through memory: in large pieces, which are scattered by
 * reversing the bits of their numbers. So each part of the round has a part of every region, and
 * pages that are written all the time are found before most of them are sent. Pure.
 */
#ifndef GODWIT_MIGRATE_ORDER_H
#define GODWIT_MIGRATE_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/guest.h"

/* About how many pieces. All have the same size, except the last one of each block. */
#define ORDER_PIECES 256u

struct order {
	const struct guest *guest;
	uint64_t piece_pages; /* a multiple of `least_pages` */
	uint64_t pieces;      /* of all blocks */
	uint64_t steps;	      /* if scattered: the next power of two, some without a piece */
	bool scattered;
};

struct order_piece {
	unsigned int block;
	uint64_t first, pages;
};

/* Scattered: about ORDER_PIECES pieces of at least `least_pages`. Else the pieces are the blocks,
 * in their order. */
void order_init(struct order *o, const struct guest *g, uint64_t least_pages, bool scattered);

/* The next piece from step *at on. *at is 0 at first, and is moved on. False: there is none. */
bool order_next(const struct order *o, uint64_t *at, struct order_piece *p);

#endif
