/* The order of a first round: every page once, and early on a part of every region. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/source/order.h"
#include "vmm/base/bitmap.h"

#define LEAST 512u

static const struct {
	unsigned int n_blocks;
	uint64_t pages[3];
} guests[] = {
	{ 1, { 1 } },
	{ 1, { LEAST } },
	{ 2, { 3, 5 } },
	{ 1, { 262144 } },	    /* 1 GiB */
	{ 2, { 786432, 1310721 } }, /* 8 GiB and a page */
	{ 3, { 100, 300000, 7 } },
	{ 2, { 786432, 1 << 28 } }, /* 1 TiB */
};

#define N_GUESTS ((int)(sizeof(guests) / sizeof(guests[0])))

static struct guest make(int i)
{
	struct guest g = { .n_blocks = guests[i].n_blocks };

	for (unsigned int b = 0; b < g.n_blocks; b++)
		g.blocks[b].pages = guests[i].pages[b];
	return g;
}

START_TEST(every_page_comes_once)
{
	struct guest g = make(_i / 2);
	uint64_t *seen[3], at = 0, n = 0, pages = 0;
	struct order_piece p;
	struct order o;

	for (unsigned int b = 0; b < g.n_blocks; b++) {
		seen[b] = calloc(BITMAP_WORDS(g.blocks[b].pages), sizeof(uint64_t));
		pages += g.blocks[b].pages;
	}
	order_init(&o, &g, LEAST, _i % 2);
	while (order_next(&o, &at, &p)) {
		ck_assert_uint_lt(p.block, g.n_blocks);
		ck_assert_uint_eq(p.first % LEAST, 0);
		ck_assert(p.pages && p.pages <= o.piece_pages);
		ck_assert_uint_le(p.first + p.pages, g.blocks[p.block].pages);
		for (uint64_t i = p.first; i < p.first + p.pages; i += LEAST) {
			ck_assert(!bitmap_test(seen[p.block], i));
			bitmap_set(seen[p.block], i);
		}
		pages -= p.pages;
		n++;
	}
	ck_assert_uint_eq(pages, 0);
	ck_assert_uint_eq(n, o.pieces);
	ck_assert_uint_le(n, ORDER_PIECES + g.n_blocks);
	ck_assert(!order_next(&o, &at, &p));
	for (unsigned int b = 0; b < g.n_blocks; b++)
		free(seen[b]);
}
END_TEST

START_TEST(first_quarter_is_a_quarter_of_every_region)
{
	struct guest g = make(3);
	uint64_t at = 0, in_region[8] = { 0 }, n = 0;
	struct order_piece p;
	struct order o;

	order_init(&o, &g, LEAST, true);
	while (n++ < o.pieces / 4 && order_next(&o, &at, &p))
		in_region[p.first / (g.blocks[0].pages / 8)] += p.pages;
	for (int i = 0; i < 8; i++)
		ck_assert_uint_eq(in_region[i], g.blocks[0].pages / 8 / 4);
}
END_TEST

START_TEST(file_is_in_order)
{
	struct guest g = make(4);
	uint64_t at = 0;
	struct order_piece p;
	struct order o;

	order_init(&o, &g, LEAST, false);
	for (unsigned int b = 0; b < g.n_blocks; b++) {
		ck_assert(order_next(&o, &at, &p));
		ck_assert(p.block == b && p.first == 0 && p.pages == g.blocks[b].pages);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("order");
	TCase *c = tcase_create("order");
	SRunner *r;
	int failed;

	tcase_add_loop_test(c, every_page_comes_once, 0, 2 * N_GUESTS);
	tcase_add_test(c, first_quarter_is_a_quarter_of_every_region);
	tcase_add_test(c, file_is_in_order);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
