/* Pieces are numbered over all blocks; in scattered order by the reversed bits of the step. */
#include "migrate/source/order.h"

#include "vmm/base/math.h"

static uint64_t pieces_of(const struct order *o, unsigned int block)
{
	return (o->guest->blocks[block].pages + o->piece_pages - 1) / o->piece_pages;
}

void order_init(struct order *o, const struct guest *g, uint64_t least_pages, bool scattered)
{
	uint64_t pages = 0, largest = 0;
	unsigned int i;

	*o = (struct order){ .guest = g, .scattered = scattered };
	for (i = 0; i < g->n_blocks; i++) {
		pages += g->blocks[i].pages;
		largest = max_u64(largest, g->blocks[i].pages);
	}
	o->piece_pages = scattered ? pages / ORDER_PIECES : largest;
	o->piece_pages += least_pages - 1;
	o->piece_pages -= o->piece_pages % least_pages;
	if (!o->piece_pages)
		o->piece_pages = least_pages;
	for (i = 0; i < g->n_blocks; i++)
		o->pieces += pieces_of(o, i);
	o->steps = scattered ? 1 : o->pieces;
	while (o->steps < o->pieces)
		o->steps *= 2;
}

static uint64_t reversed(uint64_t n, uint64_t steps)
{
	uint64_t turned = 0;

	for (; steps > 1; steps /= 2, n /= 2)
		turned = turned * 2 + n % 2;
	return turned;
}

bool order_next(const struct order *o, uint64_t *at, struct order_piece *p)
{
	while (*at < o->steps) {
		uint64_t n = o->scattered ? reversed(*at, o->steps) : *at, pages;

		++*at;
		if (n >= o->pieces)
			continue;
		for (p->block = 0; n >= pieces_of(o, p->block); p->block++)
			n -= pieces_of(o, p->block);
		p->first = n * o->piece_pages;
		pages = o->guest->blocks[p->block].pages - p->first;
		p->pages = min_u64(pages, o->piece_pages);
		return true;
	}
	return false;
}
