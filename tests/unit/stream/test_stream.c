/*
 * Streams that no source of ours would send, given to a destination: each is refused with the
 * reason, the guest never runs, nothing outside its memory is written (the address sanitizer
 * watches), and it ends. Without sockets and threads: over memory.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "migrate/destination/destination.h"
#include "tests/unit/lib/stream_maker.h"
#include "vmm/memory.h"

#define N(a) ((int)(sizeof(a) / sizeof((a)[0])))

static const char say_failed[] = { 'A' + RECORD_CHECKED, 'A' + RECORD_FAILED, 0 };
static const char say_all[] = { 'A' + RECORD_CHECKED, 'A' + RECORD_ROUND,   'A' + RECORD_ROUND,
				'A' + RECORD_READY,   'A' + RECORD_RUNNING, 0 };
static const char say_ready[] = { 'A' + RECORD_CHECKED, 'A' + RECORD_READY, 'A' + RECORD_FAILED,
				  0 };

/* How many rounds were taken in is no matter of some tests. */
static void forget_rounds(char *answers)
{
	char *to = answers;

	for (; *answers; answers++)
		if (*answers != 'A' + RECORD_ROUND)
			*to++ = *answers;
	*to = 0;
}

static void whole(struct maker *m)
{
	maker_begin(m);
	maker_run(m, 0, CODEC_PLAIN, 0, 40);
	maker_run(m, 1, CODEC_PLAIN, 8, 1);
	maker_round_end(m, 1);
	maker_run(m, 0, CODEC_ZERO, 3, 5);
	maker_round_end(m, 2);
	maker_states(m, 1000);
	maker_record(m, RECORD_GO, NULL, 0);
}

START_TEST(whole_stream_is_taken)
{
	char answers[32];
	struct maker m;
	struct err e;

	maker_make(&m);
	whole(&m);
	ck_assert_msg(maker_take(memory_channel_written(m.ch), m.ch->bytes, false, answers, &e) ==
			      0,
		      "%s", e.text);
	ck_assert_str_eq(answers, say_all);
	maker_unmake(&m);
}
END_TEST

/* -- the beginning -- */

static void bad_begin(struct maker *m, int which)
{
	struct hello h = maker_good_hello();
	uint8_t tree[4096] = { 0 };

	switch (which) {
	case 0:
		h.version = STREAM_VERSION + 1;
		break;
	case 1:
		h.version = 0;
		break;
	case 2:
		h.page_bytes = 65536;
		break;
	case 3:
		memcpy(h.arch, "pdp\033[11", 8);
		break;
	case 4:
		h.role = 7;
		break;
	case 5:
		h.role = ROLE_PAGES;
		break;
	case 6:
		h.lanes = 0;
		break;
	case 7:
		h.lanes = LANES_MAX + 1;
		break;
	case 8:
		maker_record(m, RECORD_HELLO, "GODWIT\r\n", 8);
		return;
	case 9:
		maker_record(m, RECORD_HELLO, "GODWIT\r\n\1\0\0\0", 12);
		return;
	case 10:
		maker_record(m, RECORD_MACHINE, tree, sizeof(tree));
		return;
	default:
		break;
	}
	maker_hello(m, &h);
	if (which == 11)
		maker_record(m, RECORD_STATES, tree, 64);
	else if (which == 12)
		maker_hello(m, &h);
	else if (which == 13)
		maker_record(m, RECORD_MACHINE, tree, sizeof(tree));
	else if (which == 14)
		maker_record(m, RECORD_MACHINE, NULL, 0);
	else if (which == 15)
		maker_record(m, RECORD_MACHINE, m->f->tree.fdt, tree_bytes_used(&m->f->tree) - 4);
	else
		maker_machine(m);
}

START_TEST(bad_beginning_is_refused_with_the_reason)
{
	static const char *const expected[] = {
		"made by a newer godwit (stream version 3, this one reads versions 1 to 2)",
		"HELLO record is damaged",
		"pages of 65536 bytes",
		"made on pdp?[11",
		"unknown role 7",
		"not the beginning of a migration",
		"not the beginning of a migration",
		"not the beginning of a migration",
		"this is not a godwit stream",
		"HELLO record is damaged",
		"this is not a godwit stream",
		"a STATES record where MACHINE was expected",
		"damaged",
		"the machine: not a valid tree",
		"the machine: not a valid tree",
		"the machine: not a valid tree",
	};
	struct maker m;
	struct err e;

	maker_make(&m);
	bad_begin(&m, _i);
	ck_assert_int_eq(maker_take(memory_channel_written(m.ch), m.ch->bytes, false, NULL, &e),
			 -1);
	ck_assert_msg(strstr(e.text, expected[_i]), "%s", e.text);
	ck_assert_int_eq(maker_take(memory_channel_written(m.ch), m.ch->bytes, true, NULL, &e), -1);
	maker_unmake(&m);
}
END_TEST

START_TEST(version_that_is_not_known_is_told_to_its_source)
{
	struct hello h = maker_good_hello();
	struct reader r = { .answers = true };
	int pair[2];
	struct destination d;
	struct channel *ch;
	struct record rec;
	char text[200];
	struct maker m;
	struct tree t;
	struct err e;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	maker_make(&m);
	h.version = STREAM_VERSION + 1;
	maker_hello(&m, &h);
	maker_machine(&m);
	ck_assert_int_eq(write(pair[0], memory_channel_written(m.ch), m.ch->bytes), m.ch->bytes);
	socket_channel(&r.channel, pair[0], "destination", -1, NULL);
	socket_channel(&ch, pair[1], "source", -1, NULL);
	ck_assert_int_eq(destination_open(&d, ch, false, -1, &t, &e), -1);
	ck_assert_int_eq(reader_record(&r, &rec, NULL), 0);
	record_text(&rec, text, sizeof(text));
	ck_assert_int_eq(rec.type, RECORD_CHECKED);
	ck_assert_msg(strstr(text, "made by a newer godwit"), "%s", text);
	channel_close(r.channel);
	reader_free(&r);
	maker_unmake(&m);
}
END_TEST

/* -- what follows -- */

static const uint64_t two[2][2] = { { 1, 2 }, { 39, 2 } };

static void bad_pages(struct maker *m, int which)
{
	static const uint64_t many[40][2] = { { 0, RECORD_DATA_MAX / PAGE_SIZE } };

	switch (which) {
	case 0:
		maker_run(m, 2, CODEC_PLAIN, 0, 1);
		break;
	case 1:
		maker_run(m, 0, CODEC_PLAIN, 40, 1);
		break;
	case 2:
		maker_run(m, 1, CODEC_PLAIN, 8, 2);
		break;
	case 3:
		maker_run(m, 0, CODEC_ZERO, ~0ull, 1);
		break;
	case 4:
		maker_pages(m, 0, CODEC_PLAIN, 2, two, 2, 4 * PAGE_SIZE);
		break;
	case 5:
		maker_pages(m, 0, CODEC_PLAIN, 1, two, 1, PAGE_SIZE); /* less than the runs say */
		break;
	case 6:
		maker_pages(m, 0, CODEC_PLAIN, 1, two, 1, 3 * PAGE_SIZE);
		break;
	case 7:
		maker_pages(m, 0, CODEC_ZERO, 1, two, 1, PAGE_SIZE); /* zeros with data */
		break;
	case 8:
		maker_pages(m, 0, 6, 1, two, 1, 2 * PAGE_SIZE);
		break;
	case 9:
		maker_pages(m, 0, CODEC_PLAIN, 0, NULL, 0, 0);
		break;
	case 10:
		maker_pages(m, 0, CODEC_PLAIN, 5, two, 2, 4 * PAGE_SIZE);
		break;
	case 11:
		maker_pages(m, 0, CODEC_PLAIN, ~0u, two, 1, PAGE_SIZE);
		break;
	case 12:
		maker_run(m, 0, CODEC_ZERO, 0, 0);
		break;
	case 13:
		maker_run(m, 0, CODEC_ZERO, 0, ~0ull);
		break;
	case 14: /* little bytes, much work */
		maker_pages(m, 0, CODEC_ZERO, 40, many, 40, 0);
		break;
	case 15:
		maker_record(m, RECORD_PAGES, "short", 5);
		break;
	default:
		break;
	}
}

static void bad_rounds(struct maker *m, int which)
{
	switch (which) {
	case 16:
		maker_round_end(m, 2);
		break;
	case 17:
		maker_round_end(m, 0);
		break;
	case 18:
		maker_round_end(m, 1);
		maker_round_end(m, 1);
		break;
	case 19:
		maker_record(m, RECORD_ROUND, "123", 3);
		break;
	case 20: /* no round was finished */
		maker_states(m, 0);
		break;
	case 21:
		maker_round_end(m, 1);
		maker_run(m, 0, CODEC_ZERO, 0, 1);
		maker_states(m, 0);
		break;
	case 22:
		maker_round_end(m, 1);
		maker_record(m, RECORD_STATES, "not even a head", 15);
		break;
	case 23:
		maker_round_end(m, 1);
		maker_record(m, RECORD_STATES, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0no tree", 23);
		break;
	case 24:
		maker_round_end(m, 1);
		maker_states(m, 366ull * 24 * 3600 * 1000000000);
		break;
	default:
		break;
	}
}

static void bad_rest(struct maker *m, int which)
{
	uint8_t head[STATES_HEAD_BYTES] = { 0 };

	switch (which) {
	case 25:
		maker_record(m, RECORD_GO, NULL, 0);
		break;
	case 26:
		maker_record(m, RECORD_END, NULL, 0);
		break;
	case 27:
		maker_record(m, RECORD_READY, NULL, 0);
		break;
	case 28:
		maker_record(m, 99, NULL, 0);
		break;
	case 29:
		maker_record(m, 0, NULL, 0);
		break;
	case 30:
		maker_record(m, RECORD_FAILED, "out of \033 coffee", 15);
		break;
	case 31:
		maker_machine(m);
		break;
	case 32:
	case 33:
		head[8] = which == 32 ? 2 : 4; /* tell, without having run; unknown */
		maker_round_end(m, 1);
		maker_record(m, RECORD_STATES, head, sizeof(head));
		break;
	default:
		bad_pages(m, which);
		bad_rounds(m, which);
		break;
	}
}

static const char *const bad_rest_errors[] = {
	"pages of memory block 2, the machine has 2",
	"pages outside memory block 0",
	"pages outside memory block 1",
	"pages outside memory block 0",
	"pages outside memory block 0",
	"of 2 pages with 4096 bytes",
	"of 2 pages with 12288 bytes",
	"of 2 pages with 4096 bytes (zero)",
	"unknown codec 6",
	"with 0 runs",
	"with 5 runs in 48 bytes",
	"with 4294967295 runs",
	"a run of 0 pages",
	"a run of 18446744073709551615 pages",
	"a run of 0 pages",
	"a PAGES record of 5 bytes is too short",
	"round 2 after round 0",
	"a ROUND record with the number 0",
	"round 1 after round 1",
	"a ROUND record of 3 bytes",
	"the states came before the end of a round",
	"the states came before the end of a round",
	"the states are cut short",
	"the states: not a valid tree",
	"a pause of 31622400 s, more than a year",
	"a GO record where the states should be",
	"a END record where the states should be",
	"a READY record where the states should be",
	"a record of the unknown type 99 at byte",
	"is damaged",
	"the source gave up: out of ? coffee",
	"a MACHINE record where the states should be",
	"states with the bits 0x2, which mean nothing",
	"states with the bits 0x4, which mean nothing",
};

START_TEST(bad_record_is_refused_with_the_reason)
{
	char answers[32];
	struct maker m;
	struct err e;

	maker_make(&m);
	maker_begin(&m);
	bad_rest(&m, _i);
	ck_assert_int_eq(maker_take(memory_channel_written(m.ch), m.ch->bytes, false, answers, &e),
			 -1);
	ck_assert_msg(strstr(e.text, bad_rest_errors[_i]), "%s", e.text);
	forget_rounds(answers);
	ck_assert_str_eq(answers, say_failed);
	maker_unmake(&m);
}
END_TEST

START_TEST(many_zero_pages_in_one_record_are_too_many)
{
	uint64_t runs[40][2];
	struct maker m;
	struct err e;
	int i;

	/* Each run is within the block, if a block were so large; together they are too much. */
	for (i = 0; i < 40; i++) {
		runs[i][0] = 0;
		runs[i][1] = RECORD_DATA_MAX / PAGE_SIZE;
	}
	maker_make(&m);
	maker_begin(&m);
	maker_pages(&m, 0, CODEC_ZERO, 40, (const uint64_t(*)[2])runs, 40, 0);
	ck_assert_int_eq(maker_take(memory_channel_written(m.ch), m.ch->bytes, false, NULL, &e),
			 -1);
	ck_assert_msg(strstr(e.text, "a PAGES record of 655360 pages"), "%s", e.text);
	maker_unmake(&m);
}
END_TEST

START_TEST(anything_but_go_keeps_the_guest_from_running)
{
	static const int types[] = { RECORD_ROUND,
				     RECORD_PAGES,
				     RECORD_STATES,
				     RECORD_END,
				     RECORD_READY,
				     RECORD_RUNNING,
				     99 };
	char answers[32];
	struct maker m;
	struct err e;

	maker_make(&m);
	maker_begin(&m);
	maker_round_end(&m, 1);
	maker_states(&m, 0);
	if (_i < N(types))
		maker_record(&m, types[_i], NULL, 0);
	ck_assert_int_eq(maker_take(memory_channel_written(m.ch), m.ch->bytes, false, answers, &e),
			 -1);
	forget_rounds(answers);
	ck_assert_str_eq(answers, say_ready);
	maker_unmake(&m);
}
END_TEST

START_TEST(more_lanes_than_can_come_are_refused)
{
	struct hello h = maker_good_hello();
	struct maker m;
	struct err e;

	maker_make(&m);
	h.lanes = 2;
	maker_hello(&m, &h);
	maker_machine(&m);
	ck_assert_int_eq(maker_take(memory_channel_written(m.ch), m.ch->bytes, false, NULL, &e),
			 -1);
	ck_assert_msg(strstr(e.text, "further connections cannot come"), "%s", e.text);
	maker_unmake(&m);
}
END_TEST

START_TEST(endless_rounds_end_with_the_stream)
{
	struct maker m;
	struct err e;
	uint32_t i;

	maker_make(&m);
	maker_begin(&m);
	for (i = 1; i <= 100000; i++)
		maker_round_end(&m, i);
	ck_assert_int_eq(maker_take(memory_channel_written(m.ch), m.ch->bytes, false, NULL, &e),
			 -1);
	ck_assert_msg(strstr(e.text, "ends early"), "%s", e.text);
	maker_unmake(&m);
}
END_TEST

/* A head that promises more than there may be, with a right checksum of its own. */
START_TEST(lengths_are_checked_before_anything_is_done)
{
	static const struct {
		uint16_t type;
		uint8_t flags;
		uint32_t body, pad;
		uint64_t data;
	} heads[] = {
		/* The fake has one vCPU. */
		{ RECORD_STATES, 0, RECORD_BODY_MAX + RECORD_VCPU_MAX + 1, 0, 0 },
		{ RECORD_ROUND, 0, RECORD_BODY_MAX + 1, 0, 0 },
		{ RECORD_STATES, 0, ~0u, 0, 0 },
		{ RECORD_PAGES, 0, 32, RECORD_PAD_MAX + 1, PAGE_SIZE },
		{ RECORD_PAGES, 0, 32, 0, RECORD_DATA_MAX + 1 },
		{ RECORD_PAGES, 0, 32, 0, ~0ull },
		{ RECORD_STATES, 0, 32, 0, PAGE_SIZE },
		{ RECORD_ROUND, RECORD_UNCHECKED, 4, 0, 0 },
		{ RECORD_PAGES, 2, 32, 0, PAGE_SIZE },
	};
	uint8_t *stream, *head;
	struct maker m;
	struct err e;

	maker_make(&m);
	maker_begin(&m);
	stream = calloc(1, m.ch->bytes + 4096);
	memcpy(stream, memory_channel_written(m.ch), m.ch->bytes);
	head = stream + m.ch->bytes;
	head[0] = (uint8_t)heads[_i].type;
	head[2] = heads[_i].flags;
	put_u64(head + 8, 2);
	put_u32(head + 16, heads[_i].body);
	put_u32(head + 20, heads[_i].pad);
	put_u64(head + 24, heads[_i].data);
	ck_assert_int_eq(maker_take(stream, m.ch->bytes + 4096, false, NULL, &e), -1);
	ck_assert_msg(strstr(e.text, "is damaged"), "%s", e.text);
	free(stream);
	maker_unmake(&m);
}
END_TEST

/* One record of that length from a writer to a reader that know of so many vCPUs. */
static int carry(enum record_type type, size_t len, uint32_t writes, uint32_t reads, struct err *e)
{
	uint8_t *body = calloc(1, len), hello[HELLO_BYTES] = { 0 };
	struct writer w = { .n_vcpus = writes };
	struct reader r = { .n_vcpus = reads };
	struct channel *there, *here;
	struct record rec;
	int rc;

	memory_channel(&there, NULL, 0, NULL);
	w.channel = there;
	ck_assert(!writer_record(&w, RECORD_HELLO, hello, sizeof(hello), NULL, 0, NULL));
	rc = writer_record(&w, type, body, len, NULL, 0, e);
	if (!rc) {
		memory_channel(&here, memory_channel_written(there), there->bytes, NULL);
		r.channel = here;
		ck_assert_int_eq(reader_record(&r, &rec, NULL), 0);
		rc = reader_record(&r, &rec, e);
		ck_assert(rc || (rec.body_bytes == len && rec.type == type));
		reader_free(&r);
		channel_close(here);
	}
	channel_close(there);
	free(body);
	return rc;
}

START_TEST(states_may_be_longer_for_each_vcpu_of_the_machine)
{
	static const uint32_t n = 254;
	const size_t most = RECORD_BODY_MAX + n * (size_t)RECORD_VCPU_MAX;
	struct err e;

	ck_assert_int_eq(carry(RECORD_STATES, most, n, n, NULL), 0);
	ck_assert_int_eq(carry(RECORD_STATES, most, n, n - 1, &e), -1);
	ck_assert_msg(strstr(e.text, "is damaged"), "%s", e.text);
	ck_assert_int_eq(carry(RECORD_STATES, most + 1, n, n, &e), -1);
	ck_assert_msg(strstr(e.text, "more than the stream allows"), "%s", e.text);
	ck_assert_int_eq(carry(RECORD_MACHINE, RECORD_BODY_MAX + 1, n, n, NULL), -1);
	ck_assert_uint_eq(record_body_max(RECORD_STATES, ~0u),
			  RECORD_BODY_MAX + RECORD_VCPUS_MAX * RECORD_VCPU_MAX);
}
END_TEST

/* -- chance -- */

static uint64_t next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void random_record(struct maker *m, uint64_t *seed)
{
	const uint64_t runs[2][2] = { { next(seed) % 42, next(seed) % 4 },
				      { next(seed) % 42, next(seed) % 4 } };
	uint8_t body[64];
	unsigned int i;
	int type;

	switch (next(seed) % 8) {
	case 0:
	case 1:
	case 2:
		maker_pages(m, next(seed) % 3, next(seed) % 4, 1 + next(seed) % 2, runs, 2,
			    next(seed) % 8 * PAGE_SIZE);
		break;
	case 3:
		maker_round_end(m, next(seed) % 3);
		break;
	case 4:
		maker_states(m, next(seed) % 2000);
		break;
	default:
		for (i = 0; i < sizeof(body); i++)
			body[i] = (uint8_t)next(seed);
		type = (int)(next(seed) % 13);
		maker_record(m, type == RECORD_GO ? 0 : type, body, next(seed) % sizeof(body));
	}
}

START_TEST(random_records_never_make_a_guest_run)
{
	uint64_t seed = (uint64_t)time(NULL) * 2654435761u | 1, first;
	struct maker m;
	struct err e;
	int i, k;

	for (i = 0; i < 2000; i++) {
		first = seed;
		maker_make(&m);
		maker_begin(&m);
		for (k = 0; k < 6; k++)
			random_record(&m, &seed);
		/* There is no GO among them. */
		ck_assert_msg(maker_take(memory_channel_written(m.ch), m.ch->bytes, false, NULL,
					 &e) == -1,
			      "seed %lu", first);
		maker_unmake(&m);
	}
}
END_TEST

START_TEST(flipped_bytes_never_make_a_wrong_guest_run)
{
	uint64_t seed = (uint64_t)time(NULL) * 2654435761u | 1;
	uint8_t *stream;
	struct maker m;
	struct err e;
	size_t at;
	int i;

	maker_make(&m);
	whole(&m);
	stream = malloc(m.ch->bytes);
	for (i = 0; i < 4000; i++) {
		memcpy(stream, memory_channel_written(m.ch), m.ch->bytes);
		at = next(&seed) % m.ch->bytes;
		stream[at] ^= (uint8_t)(1 + next(&seed) % 255);
		if (next(&seed) % 4 == 0)
			ck_assert_int_eq(maker_take(stream, at, false, NULL, &e), -1);
		/* Page data is not covered on a connection: TCP and TLS do that. */
		else if (maker_take(stream, m.ch->bytes, false, NULL, &e) == 0)
			ck_assert_msg(memory_channel_written(m.ch)[at] == 0x5a, "byte %zu", at);
	}
	free(stream);
	maker_unmake(&m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("stream");
	TCase *c = tcase_create("stream");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_test(c, whole_stream_is_taken);
	tcase_add_loop_test(c, bad_beginning_is_refused_with_the_reason, 0, 16);
	tcase_add_test(c, version_that_is_not_known_is_told_to_its_source);
	tcase_add_loop_test(c, bad_record_is_refused_with_the_reason, 0, N(bad_rest_errors));
	tcase_add_test(c, many_zero_pages_in_one_record_are_too_many);
	tcase_add_loop_test(c, anything_but_go_keeps_the_guest_from_running, 0, 8);
	tcase_add_test(c, more_lanes_than_can_come_are_refused);
	tcase_add_test(c, endless_rounds_end_with_the_stream);
	tcase_add_loop_test(c, lengths_are_checked_before_anything_is_done, 0, 9);
	tcase_add_test(c, states_may_be_longer_for_each_vcpu_of_the_machine);
	tcase_add_test(c, random_records_never_make_a_guest_run);
	tcase_add_test(c, flipped_bytes_never_make_a_wrong_guest_run);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
