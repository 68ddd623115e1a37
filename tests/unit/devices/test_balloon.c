/*
 * The memory balloon: what the guest gives away, reports or names as free, what that does to its
 * memory and to nothing else, and drivers that break the rules. Memory is two blocks of 1 MiB that
 * touch each other.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/models.h"
#include "tests/unit/lib/vring.h"
#include "tests/unit/lib/one_state.h"
#include "vmm/base/bitmap.h"

#define F_STATS	   (1ull << 1)
#define F_HINT	   (1ull << 3)
#define F_POISON   (1ull << 4)
#define F_REPORT   (1ull << 5)
#define F_INDIRECT (1ull << 28)
#define F_EVENT	   (1ull << 29)
#define F_V1	   (1ull << 32)
#define F_LINUX	   (F_STATS | F_HINT | F_REPORT | F_INDIRECT | F_EVENT | F_V1)
#define F_OLD	   (F_LINUX & ~F_REPORT) /* Linux before 5.7 */

enum { INFLATE, DEFLATE, STATS, HINTS, REPORTS, QUEUES };

#define CONFIG_WANTED 0x100
#define CONFIG_ACTUAL 0x104
#define CONFIG_HINT   0x108
#define CONFIG_POISON 0x10c

#define RING(q) (0x2000ull + 0x2000 * (q))
#define NUMBERS 0x10000ull /* what chains are read from */
#define PAGES	(GUEST_BYTES / PAGE_SIZE)

/* From here on memory is filled; below it are rings. */
#define FILLED 0x20u

static struct bench b;
static struct vring ring[QUEUES];
static struct err e;

static void setup(void)
{
	ck_assert_msg(!bench_init(&b, "virtio-balloon", "balloon0", &e), "%s", e.text);
	ck_assert_msg(!bench_create(&b, &virtio_balloon_model, &e), "%s", e.text);
	memset(memory_host(&b.memory, FILLED * PAGE_SIZE, GUEST_BLOCK - FILLED * PAGE_SIZE), 0xaa,
	       GUEST_BLOCK - FILLED * PAGE_SIZE);
	memset(memory_host(&b.memory, GUEST_BLOCK, GUEST_BLOCK), 0xaa, GUEST_BLOCK);
	b.memory.marking = true;
	ck_assert_msg(!bench_run(&b, &e), "%s", e.text);
}

static void teardown(void)
{
	bench_park(&b);
	bench_free(&b);
}

/* As Linux does it; with what to write to poison_val, or 0. */
static void drive(uint64_t features, uint32_t poison)
{
	unsigned int q;

	ck_assert_uint_ne(bench_negotiate(&b, features) & VIRTIO_STATUS_FEATURES_OK, 0);
	for (q = 0; q < QUEUES; q++) {
		vring_init(&ring[q], &b.memory, RING(q), 64);
		bench_queue(&b, q, &ring[q]);
	}
	if (poison)
		bench_write(&b, CONFIG_POISON, poison);
	bench_driver_ok(&b);
}

/* A chain that the device gives back. */
static void offer(unsigned int q, const struct vring_buffer *buffers, unsigned int n)
{
	uint16_t at = vring_add(&ring[q], buffers, n);
	uint32_t head, written;

	bench_ring(&b, q);
	ck_assert_msg(bench_wait_used(&b, &ring[q], &head, &written), "queue %u", q);
	ck_assert_uint_eq(head, at);
	ck_assert_uint_eq(written, 0);
}

static void say(unsigned int q, const uint32_t *numbers, unsigned int n)
{
	struct vring_buffer out = { NUMBERS, n * 4, false };

	ck_assert_int_eq(memory_write(&b.memory, NUMBERS, numbers, n * 4), 0);
	offer(q, &out, 1);
}

static const struct memory_block *block_of(unsigned int page)
{
	return &b.memory.blocks[page >= PAGES / 2];
}

static bool is_marked(unsigned int page)
{
	unsigned int at = page % (PAGES / 2);
	const uint64_t *dirty = block_of(page)->dirty;

	return __atomic_load_n(&dirty[at / 64], __ATOMIC_ACQUIRE) >> at % 64 & 1;
}

/* Zero, never touched, and marked for a migration. */
static bool is_gone(unsigned int page)
{
	static const uint8_t zeros[PAGE_SIZE];
	uint64_t touched = 0, at = page % (PAGES / 2);

	ck_assert_int_eq(memory_touched(&b.memory, block_of(page), at, 1, &touched, &e), 0);
	return !touched && is_marked(page) &&
	       !memcmp(memory_host(&b.memory, page * PAGE_SIZE, PAGE_SIZE), zeros, PAGE_SIZE);
}

static bool is_whole(unsigned int page)
{
	const uint8_t *p = memory_host(&b.memory, page * PAGE_SIZE, PAGE_SIZE);
	unsigned int i;

	for (i = 0; i < PAGE_SIZE && p[i] == 0xaa; i++)
		;
	return i == PAGE_SIZE && !is_marked(page);
}

/* Of the filled pages [first, first + n) and no others are gone. */
static void only_gone(unsigned int first, unsigned int n)
{
	unsigned int page;

	for (page = FILLED; page < PAGES; page++)
		ck_assert_msg(page - first < n ? is_gone(page) : is_whole(page), "page %u", page);
}

START_TEST(pages_given_away_are_discarded_in_any_order)
{
	/* Down over the border of the blocks, one twice, two that are no RAM, one by itself. */
	static const uint32_t numbers[] = {
		0x103, 0x102, 0x101, 0x100,	 0xff,	     0xfe,
		0x100, 0x200, 0x104, 0xffffffff, 0xfffffffe, 0x80000000
	};

	drive(F_LINUX, 0);
	say(INFLATE, numbers, sizeof(numbers) / 4);
	only_gone(0xfe, 7);
	/* That they are in use again is no news. */
	memset(memory_host(&b.memory, 0x100000, 64), 0xbb, 64);
	say(DEFLATE, numbers, 4);
	ck_assert_int_eq(*(uint8_t *)memory_host(&b.memory, 0x100000, 1), 0xbb);
	ck_assert_uint_eq(bench_read(&b, 0x70) & VIRTIO_STATUS_NEEDS_RESET, 0);
}
END_TEST

START_TEST(chain_of_many_numbers_takes_turns_and_comes_back_once)
{
	struct vring_buffer out[16];
	uint32_t numbers[1024], i;

	drive(F_LINUX, 0);
	for (i = 0; i < 1024; i++)
		numbers[i] = FILLED + i * 11 % (0x100 - FILLED);
	memory_write(&b.memory, GUEST_BLOCK, numbers, sizeof(numbers));
	for (i = 0; i < 16; i++)
		out[i] = (struct vring_buffer){ GUEST_BLOCK, sizeof(numbers), false };
	bitmap_clear(b.memory.blocks[1].dirty, 0);
	offer(INFLATE, out, 16);
	for (i = FILLED; i < 0x100; i++)
		ck_assert_msg(is_gone(i), "page %u", i);
	for (i = 0x101; i < PAGES; i++)
		ck_assert_msg(is_whole(i), "page %u", i);
	ck_assert_uint_eq(vring_used_idx(&ring[INFLATE]), 1);
}
END_TEST

START_TEST(reported_pages_are_discarded_and_no_part_of_others)
{
	struct vring_buffer in[] = { { 0x30000 + 1, 3 * PAGE_SIZE, true },
				     { 0x40000, 16 * PAGE_SIZE - 1, true } };
	unsigned int page;

	drive(F_LINUX, 0);
	offer(REPORTS, in, 2);
	for (page = FILLED; page < PAGES; page++)
		ck_assert_msg((page > 0x30 && page < 0x33) || (page >= 0x40 && page < 0x4f)
				      ? is_gone(page)
				      : is_whole(page),
			      "page %u", page);
}
END_TEST

START_TEST(report_larger_than_a_turn_comes_back_whole)
{
	uint32_t head, written;
	unsigned int i;

	drive(F_LINUX, 0);
	for (i = 0; i < 256; i++)
		vring_desc_at(&b.memory, NUMBERS, i, GUEST_BLOCK, GUEST_BLOCK,
			      VRING_WRITE | (i < 255 ? VRING_NEXT : 0), (uint16_t)(i + 1));
	vring_desc(&ring[REPORTS], 0, NUMBERS, 256 * 16, VRING_INDIRECT, 0);
	vring_offer(&ring[REPORTS], 0);
	ring[REPORTS].next_desc = 1;
	bench_ring(&b, REPORTS);
	ck_assert(bench_wait_used(&b, &ring[REPORTS], &head, &written));
	ck_assert_uint_eq(head, 0);
	only_gone(PAGES / 2, PAGES / 2);
	/* The next one begins at its beginning. */
	offer(REPORTS, &(struct vring_buffer){ 0x30000, PAGE_SIZE, true }, 1);
	ck_assert(is_gone(0x30));
}
END_TEST

START_TEST(pages_are_kept_that_must_hold_another_value)
{
	struct vring_buffer in = { 0x40000, PAGE_SIZE, true };
	const uint32_t number = 0x50;

	drive(F_LINUX | F_POISON, 0xaaaaaaaa);
	ck_assert_uint_eq(bench_read(&b, CONFIG_POISON), 0xaaaaaaaa);
	bench_write(&b, CONFIG_POISON, 0); /* too late */
	offer(REPORTS, &in, 1);
	only_gone(0, 0);
	/* What is given away is written by the driver when it has it again. */
	say(INFLATE, &number, 1);
	only_gone(0x50, 1);
	/* Zero is what they become. */
	drive(F_LINUX | F_POISON, 0);
	offer(REPORTS, &in, 1);
	ck_assert(is_gone(0x40));
}
END_TEST

static struct device_balloon ask(void)
{
	struct device_balloon now;

	b.device->model->balloon->ask(b.device, &now);
	return now;
}

START_TEST(wish_is_told_and_what_became_of_it)
{
	uint64_t wide = 0xffffffffffffffff;

	drive(F_LINUX, 0);
	b.device->model->balloon->set(b.device, 5 * 4096 + 1);
	ck_assert_uint_eq(bench_read(&b, CONFIG_WANTED), 5);
	ck_assert_uint_eq(bench_read(&b, 0x60), 2);
	bench_write(&b, 0x64, 2);
	b.device->model->balloon->set(b.device, 5 * 4096);
	ck_assert_uint_eq(bench_read(&b, 0x60), 0); /* no news */
	ck_assert_uint_eq(ask().wanted_bytes, 5 * 4096);
	bench_write(&b, CONFIG_ACTUAL, 3);
	ck_assert_uint_eq(ask().actual_bytes, 3 * 4096);
	/* Only that is the driver's, and only whole. */
	bench_write(&b, CONFIG_WANTED, 7);
	bench_write(&b, CONFIG_HINT, 7);
	bench_write(&b, CONFIG_POISON, 7);
	bench_write(&b, 0x110, 7);
	bus_access(&b.mmio, BENCH_GPA + CONFIG_ACTUAL, &wide, 8, true);
	bus_access(&b.mmio, BENCH_GPA + CONFIG_ACTUAL, &wide, 1, true);
	bus_access(&b.mmio, BENCH_GPA + CONFIG_ACTUAL + 2, &wide, 4, true);
	ck_assert_uint_eq(bench_read(&b, CONFIG_WANTED), 5);
	ck_assert_uint_eq(bench_read(&b, CONFIG_ACTUAL), 3);
	ck_assert_uint_eq(bench_read(&b, CONFIG_HINT), 0);
	ck_assert_uint_eq(bench_read(&b, CONFIG_POISON), 0);
	/* The next driver has all of its memory, and hears of the wish. */
	bench_write(&b, 0x70, 0);
	ck_assert_uint_eq(bench_read(&b, CONFIG_WANTED), 5);
	ck_assert_uint_eq(ask().actual_bytes, 0);
	b.device->model->balloon->set(b.device, UINT64_MAX);
	ck_assert_uint_eq(bench_read(&b, CONFIG_WANTED), UINT32_MAX);
}
END_TEST

/* -- hints -- */

static uint64_t named[2]; /* bits: of the second block's pages */
static unsigned int named_wrong;

static void on_found(void *arg, uint64_t gpa, uint64_t len)
{
	ck_assert_ptr_eq(arg, named);
	for (; len; gpa += PAGE_SIZE, len -= PAGE_SIZE)
		if (gpa / PAGE_SIZE - PAGES / 2 < 128)
			bitmap_set(named, gpa / PAGE_SIZE - PAGES / 2);
		else
			named_wrong++;
}

static uint32_t step(enum free_pages_step s)
{
	struct free_pages f = { s, s == FREE_PAGES_NAME ? on_found : NULL, named };

	memset(named, 0, sizeof(named));
	b.device->model->balloon->free_pages(b.device, &f);
	return bench_read(&b, CONFIG_HINT);
}

/* Names `n` pages from page `first` of the second block on. */
static void name(unsigned int first, unsigned int n)
{
	offer(HINTS, &(struct vring_buffer){ GUEST_BLOCK + first * PAGE_SIZE, n * PAGE_SIZE, true },
	      1);
}

static bool names(void)
{
	return b.device->model->balloon->names_free_pages(b.device);
}

START_TEST(pages_are_named_under_the_present_command_only)
{
	uint32_t first, second, stop = 0;

	drive(F_OLD, 0);
	ck_assert(names());
	name(1, 1); /* unasked */
	first = step(FREE_PAGES_NAME);
	ck_assert_uint_ge(first, 2);
	ck_assert_uint_eq(bench_read(&b, 0x60) & 2, 2);
	name(2, 1); /* before the command was taken up */
	say(HINTS, &first, 1);
	name(3, 4);
	say(HINTS, &stop, 1);
	name(8, 1);
	ck_assert_uint_eq(named[0], 0x78);
	/* A command that comes late is not the present one. */
	ck_assert_uint_eq(step(FREE_PAGES_STOP), 0);
	second = step(FREE_PAGES_NAME);
	ck_assert_uint_ne(second, first);
	say(HINTS, &first, 1);
	name(3, 1);
	ck_assert_uint_eq(named[0], 0);
	say(HINTS, &second, 1);
	name(9, 1);
	ck_assert_uint_eq(named[0], 1 << 9);
	ck_assert_uint_eq(step(FREE_PAGES_DONE), 1);
	name(10, 1);
	ck_assert_uint_eq(named[0], 0);
	ck_assert_uint_eq(named_wrong, 0);
	/* Nothing happens to what they hold. */
	only_gone(0, 0);
}
END_TEST

START_TEST(who_reports_is_not_asked_for_names)
{
	drive(F_LINUX, 0);
	ck_assert(!names());
	drive(F_OLD & ~F_HINT, 0);
	ck_assert(!names());
	bench_write(&b, 0x70, 0);
	ck_assert(!names());
	drive(F_OLD, 0);
	ck_assert(names());
}
END_TEST

START_TEST(odd_names_name_whole_pages_or_nothing)
{
	struct vring_buffer part = { GUEST_BLOCK + 1, 2 * PAGE_SIZE, true };
	struct vring_buffer small = { GUEST_BLOCK, PAGE_SIZE - 1, true };
	struct vring_buffer cut = { NUMBERS, 2, false };
	struct vring_buffer both[] = { { NUMBERS, 4, false }, { 0x180000, PAGE_SIZE, true } };
	uint32_t id;

	drive(F_OLD, 0);
	id = step(FREE_PAGES_NAME);
	memory_write(&b.memory, NUMBERS, &id, 4);
	offer(HINTS, &cut, 1);
	name(1, 1);
	ck_assert_uint_eq(named[0], 0);
	say(HINTS, &id, 1);
	offer(HINTS, &part, 1);
	offer(HINTS, &small, 1);
	ck_assert_uint_eq(named[0], 1 << 1);
	offer(HINTS, both, 2);
	ck_assert_uint_eq(named_wrong, 1); /* page 0x180, as it says */
}
END_TEST

START_TEST(reset_of_the_driver_ends_its_naming)
{
	uint32_t id, next;

	drive(F_OLD, 0);
	id = step(FREE_PAGES_NAME);
	say(HINTS, &id, 1);
	drive(F_OLD, 0);
	ck_assert_uint_eq(bench_read(&b, CONFIG_HINT), 0);
	name(1, 1);
	say(HINTS, &id, 1);
	name(1, 1);
	ck_assert_uint_eq(named[0], 0);
	ck_assert_uint_eq(step(FREE_PAGES_DONE), 1);
	next = step(FREE_PAGES_NAME);
	ck_assert_uint_gt(next, id);
}
END_TEST

/* -- moved, and broken -- */

START_TEST(moved_device_goes_on_where_it_was)
{
	const struct device_model *m = &virtio_balloon_model;
	const uint32_t number = 0x60;
	uint32_t id, head, written;
	void *st = calloc(1, m->state->size);

	drive(F_OLD | F_POISON, 0xaaaaaaaa);
	m->balloon->set(b.device, 9 * 4096);
	bench_write(&b, CONFIG_ACTUAL, 4);
	id = step(FREE_PAGES_NAME);
	say(HINTS, &id, 1);
	bench_park(&b);
	/* What is offered to one that stands still waits, on either side. */
	memory_write(&b.memory, NUMBERS, &number, 4);
	vring_add(&ring[INFLATE], &(struct vring_buffer){ NUMBERS, 4, false }, 1);
	m->save(b.device, st);
	m->destroy(b.device);
	ck_assert(is_whole(0x60));
	ck_assert_int_eq(bench_create(&b, m, &e), 0);
	ck_assert_int_eq(m->fits(b.device, st, &e), 0);
	m->load(b.device, st);
	free(st);
	ck_assert_int_eq(bench_run(&b, &e), 0);
	ck_assert(bench_wait_used(&b, &ring[INFLATE], &head, &written));
	ck_assert(is_gone(0x60));
	ck_assert_uint_eq(bench_read(&b, CONFIG_WANTED), 9);
	ck_assert_uint_eq(ask().actual_bytes, 4 * 4096);
	ck_assert_uint_eq(bench_read(&b, CONFIG_POISON), 0xaaaaaaaa);
	/* Nobody listens to these names here; the next to ask has a command of his own. */
	ck_assert_uint_eq(bench_read(&b, CONFIG_HINT), id);
	name(1, 1);
	say(HINTS, &id, 1);
	name(1, 1);
	ck_assert_uint_eq(named[0], 0);
	ck_assert_uint_eq(step(FREE_PAGES_NAME), id + 1);
}
END_TEST

START_TEST(numbers_of_commands_come_round)
{
	const struct device_model *m = &virtio_balloon_model;
	void *st = calloc(1, m->state->size);
	struct tree t;

	m->save(b.device, st);
	ck_assert_int_eq(save_one(&t, BENCH_PATH, m->state, st, &e), 0);
	tree_set_u32(&t, BENCH_PATH, "last-hint-id", 0, &e);
	ck_assert_int_eq(state_load(&t, BENCH_PATH, m->state, st, &e), -1);
	tree_set_u32(&t, BENCH_PATH, "last-hint-id", UINT32_MAX, &e);
	ck_assert_msg(!state_load(&t, BENCH_PATH, m->state, st, &e), "%s", e.text);
	bench_park(&b);
	m->load(b.device, st);
	ck_assert_uint_eq(step(FREE_PAGES_NAME), 2);
	ck_assert_int_eq(bench_run(&b, &e), 0);
	tree_free(&t);
	free(st);
}
END_TEST

/* What no driver does, on each queue: the device asks for a reset, or gives the chain back. */
START_TEST(broken_rings_ask_for_a_reset)
{
	struct vring *r = &ring[_i];
	unsigned int i;

	if (_i == STATS)
		return;
	for (i = 0; i < 6; i++) {
		drive(F_LINUX, 0);
		switch (i) {
		case 0: /* in a circle */
			vring_desc(r, 0, 0x40000, PAGE_SIZE, VRING_NEXT, 0);
			break;
		case 1: /* no RAM */
			vring_desc(r, 0, GUEST_BYTES, PAGE_SIZE, VRING_WRITE, 0);
			break;
		case 2: /* not all of it */
			vring_desc(r, 0, GUEST_BYTES - PAGE_SIZE, 2 * PAGE_SIZE, 0, 0);
			break;
		case 3: /* a length that runs over */
			vring_desc(r, 0, 0xfffffffffffff000, 0x2000, VRING_WRITE, 0);
			break;
		case 4: /* no table */
			vring_desc(r, 0, 0x40000, 17, VRING_INDIRECT, 0);
			break;
		case 5: /* no such descriptor */
			vring_desc(r, 0, 0x40000, 4, VRING_NEXT, 200);
			break;
		}
		vring_offer(r, 0);
		bench_ring(&b, (unsigned int)_i);
		ck_assert_msg(bench_wait_needs_reset(&b), "case %u", i);
		only_gone(0, 0);
	}
	drive(F_LINUX, 0);
	vring_set_avail_idx(r, 1000);
	bench_ring(&b, (unsigned int)_i);
	ck_assert(bench_wait_needs_reset(&b));
	/* And works again after it. */
	drive(F_LINUX, 0);
	say((unsigned int)_i, &(const uint32_t){ 0x1000000 }, 1);
}
END_TEST

START_TEST(odd_chains_come_back_and_change_nothing)
{
	static const struct vring_buffer odd[] = {
		{ 0x40000, 3, false },	      { 0x40000, 0, false },
		{ 0x40000, 0, true },	      { 0x40000, PAGE_SIZE - 1, true },
		{ 0x40001, PAGE_SIZE, true },
	};
	unsigned int i;

	drive(F_LINUX, 0);
	for (i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		offer((unsigned int)_i, &odd[i], 1);
	only_gone(0, 0);
	/* What one queue is for is nothing to another. */
	if (_i != REPORTS)
		offer((unsigned int)_i, &(struct vring_buffer){ 0x40000, PAGE_SIZE, true }, 1);
	only_gone(0, 0);
}
END_TEST

START_TEST(statistics_are_left_where_they_are)
{
	uint32_t head, written;

	drive(F_LINUX, 0);
	vring_add(&ring[STATS], &(struct vring_buffer){ NUMBERS, 100, false }, 1);
	bench_ring(&b, STATS);
	say(DEFLATE, &(const uint32_t){ 0x50 }, 1); /* the device has had its turn */
	ck_assert(!vring_used(&ring[STATS], &head, &written));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("balloon");
	TCase *t = tcase_create("balloon");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, pages_given_away_are_discarded_in_any_order);
	tcase_add_test(t, chain_of_many_numbers_takes_turns_and_comes_back_once);
	tcase_add_test(t, reported_pages_are_discarded_and_no_part_of_others);
	tcase_add_test(t, report_larger_than_a_turn_comes_back_whole);
	tcase_add_test(t, pages_are_kept_that_must_hold_another_value);
	tcase_add_test(t, wish_is_told_and_what_became_of_it);
	tcase_add_test(t, pages_are_named_under_the_present_command_only);
	tcase_add_test(t, who_reports_is_not_asked_for_names);
	tcase_add_test(t, odd_names_name_whole_pages_or_nothing);
	tcase_add_test(t, reset_of_the_driver_ends_its_naming);
	tcase_add_test(t, moved_device_goes_on_where_it_was);
	tcase_add_test(t, numbers_of_commands_come_round);
	tcase_add_loop_test(t, broken_rings_ask_for_a_reset, 0, QUEUES);
	tcase_add_loop_test(t, odd_chains_come_back_and_change_nothing, HINTS, QUEUES);
	tcase_add_loop_test(t, odd_chains_come_back_and_change_nothing, INFLATE, STATS);
	tcase_add_test(t, statistics_are_left_where_they_are);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
