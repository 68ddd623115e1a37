/* Memory is made ready where the source has data, a little ahead of them, and nowhere else. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "migrate/destination/ahead.h"
#include "migrate/destination/place.h"
#include "migrate/source/ahead.h"
#include "migrate/stream/body.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

#define UNITS 200u
#define PAGES (UNITS * AHEAD_UNIT_PAGES - 100) /* the last unit is short */

static struct guest guest;
static uint64_t touched[BITMAP_WORDS(PAGES) + 1];
static uint8_t body[AHEAD_BODY_MAX];

static void setup(void)
{
	unsigned int i;

	guest = (struct guest){ .n_blocks = 2 };
	for (i = 0; i < 2; i++) {
		guest.blocks[i].pages = PAGES;
		guest.blocks[i].host = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		ck_assert_ptr_ne(guest.blocks[i].host, MAP_FAILED);
		madvise(guest.blocks[i].host, PAGES * PAGE_SIZE, MADV_NOHUGEPAGE);
	}
	memset(touched, 0, sizeof(touched));
}

static void teardown(void)
{
	unsigned int i;

	for (i = 0; i < 2; i++)
		munmap(guest.blocks[i].host, PAGES * PAGE_SIZE);
}

static void touch(uint64_t first, uint64_t n, bool data)
{
	uint64_t i;

	for (i = first; i < first + n; i++) {
		bitmap_set(touched, i);
		guest.blocks[0].host[i * PAGE_SIZE + 77] = data;
	}
}

static void check_run(unsigned int i, uint64_t first, uint64_t n)
{
	const uint8_t *run = body + AHEAD_HEAD_BYTES + i * RUN_BYTES;

	ck_assert_uint_eq(get_u64(run), first * AHEAD_UNIT_PAGES);
	ck_assert_uint_eq(get_u64(run + 8), n);
}

START_TEST(dense_units_with_data_are_told)
{
	uint64_t at = 0;

	touch(0, 3 * AHEAD_UNIT_PAGES, true);
	touch(10 * AHEAD_UNIT_PAGES + 5, 20, true);	       /* sparse */
	touch(20 * AHEAD_UNIT_PAGES, AHEAD_UNIT_PAGES, false); /* zero */
	touch(30 * AHEAD_UNIT_PAGES + 200, 312, true);	       /* more than half */
	touch((UNITS - 1) * AHEAD_UNIT_PAGES, AHEAD_UNIT_PAGES - 100, true);
	ck_assert_uint_eq(ahead_encode(&guest.blocks[0], 7, touched, &at, UNITS, body),
			  AHEAD_HEAD_BYTES + 3 * RUN_BYTES);
	ck_assert_uint_eq(get_u32(body), 7);
	ck_assert_uint_eq(get_u32(body + 4), 3);
	check_run(0, 0, 3 * AHEAD_UNIT_PAGES);
	check_run(1, 30, AHEAD_UNIT_PAGES);
	check_run(2, UNITS - 1, AHEAD_UNIT_PAGES - 100);
	ck_assert_uint_eq(ahead_encode(&guest.blocks[0], 7, touched, &at, UNITS, body), 0);
	/* A part of them. */
	at = 2;
	ck_assert_uint_eq(ahead_encode(&guest.blocks[0], 7, touched, &at, 20, body),
			  AHEAD_HEAD_BYTES + RUN_BYTES);
	check_run(0, 2, AHEAD_UNIT_PAGES);
	ck_assert_uint_eq(at, 20);
}
END_TEST

static int take(struct ahead *a, uint32_t block, uint64_t first, uint64_t n, struct err *e)
{
	struct record rec = { .type = RECORD_AHEAD,
			      .body = body,
			      .body_bytes = AHEAD_HEAD_BYTES + RUN_BYTES };

	put_u32(body, block);
	put_u32(body + 4, 1);
	put_u64(body + AHEAD_HEAD_BYTES, first);
	put_u64(body + AHEAD_HEAD_BYTES + 8, n);
	return ahead_take(a, &rec, e);
}

START_TEST(damaged_records_are_refused)
{
	static const uint64_t bad[][3] = { { 2, 0, 512 },	  { 0, 1, 512 },
					   { 0, PAGES, 512 },	  { 0, UNITS * 512, 1 },
					   { 0, 512, 0 },	  { 0, 512, PAGES - 511 },
					   { 0, 512, UINT64_MAX } };
	struct record rec = { .type = RECORD_AHEAD, .body = body };
	struct place place;
	struct ahead a;
	struct err e;
	uint32_t i;

	place_memory_init(&place, &guest);
	ahead_init(&a, &place);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_int_eq(take(&a, (uint32_t)bad[i][0], bad[i][1], bad[i][2], &e), -1);
	put_u32(body, 0);
	put_u32(body + 4, 1);
	for (rec.body_bytes = 0; rec.body_bytes < 2 * RUN_BYTES; rec.body_bytes++)
		if (rec.body_bytes != AHEAD_HEAD_BYTES + RUN_BYTES)
			ck_assert_int_eq(ahead_take(&a, &rec, &e), -1);
	put_u32(body + 4, UINT32_MAX);
	rec.body_bytes = AHEAD_BODY_MAX;
	ck_assert_int_eq(ahead_take(&a, &rec, &e), -1);
	ahead_free(&a);
}
END_TEST

static bool is_ready(unsigned int block, uint64_t unit)
{
	unsigned char there[AHEAD_UNIT_PAGES];
	uint64_t n = unit == UNITS - 1 ? AHEAD_UNIT_PAGES - 100 : AHEAD_UNIT_PAGES, i;

	ck_assert_int_eq(mincore(guest.blocks[block].host + unit * AHEAD_UNIT_PAGES * PAGE_SIZE,
				 n * PAGE_SIZE, there),
			 0);
	for (i = 0; i < n; i++)
		if (!(there[i] & 1))
			return false;
	return true;
}

static void await_ready(unsigned int block, uint64_t unit)
{
	while (!is_ready(block, unit))
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

START_TEST(memory_is_ready_ahead_of_the_data)
{
	struct place place;
	struct ahead a;

	/* An older kernel: the data touch the memory themselves. */
	if (madvise(guest.blocks[1].host, PAGE_SIZE, 23 /* MADV_POPULATE_WRITE */))
		return;
	place_memory_init(&place, &guest);
	ahead_init(&a, &place);
	ck_assert_int_eq(take(&a, 0, 0, PAGES, NULL), 0);
	ck_assert_int_eq(take(&a, 1, 512, 512, NULL), 0);
	await_ready(0, AHEAD_WINDOW_UNITS);
	/* Not further: the data have not come that far. */
	ck_assert(!is_ready(0, AHEAD_WINDOW_UNITS + 1));
	ck_assert_int_eq(guest.blocks[0].host[4 * PAGE_SIZE], 0);
	ahead_reached(&a, 0, 100 * AHEAD_UNIT_PAGES);
	await_ready(0, 100 + AHEAD_WINDOW_UNITS);
	/* What the data have overtaken is left to them. */
	ck_assert(!is_ready(0, AHEAD_WINDOW_UNITS + 1));
	ahead_reached(&a, 0, PAGES - 1);
	await_ready(0, UNITS - 1);
	await_ready(1, 1);
	ck_assert(!is_ready(1, 2));
	/* In the order in which they were told, and each once. */
	ck_assert_int_eq(take(&a, 1, 3 * 512, 512, NULL), 0);
	ck_assert_int_eq(take(&a, 1, 0, 512, NULL), 0);
	ck_assert_int_eq(take(&a, 1, 0, 1024, NULL), 0);
	await_ready(1, 3);
	await_ready(1, 0);
	ck_assert_uint_eq(a.n_told, UNITS + 3);
	ahead_free(&a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ahead");
	TCase *c = tcase_create("ahead");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, dense_units_with_data_are_told);
	tcase_add_test(c, damaged_records_are_refused);
	tcase_add_test(c, memory_is_ready_ahead_of_the_data);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
