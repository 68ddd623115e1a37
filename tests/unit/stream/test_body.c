/*
 * What is inside records goes out and comes back the same; what is cut short, too long or out of
 * range is refused, whatever else is right about it.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "migrate/stream/body.h"
#include "migrate/stream/hello.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

/* A record as the reader gives it out, whose body is a heap block of just that size: a read behind
 * it is seen by the address sanitizer. */
struct held {
	struct record rec;
	uint8_t *body;
};

static struct held hold(enum record_type type, const void *body, size_t len, uint64_t data_bytes)
{
	struct held h = { .body = malloc(len ? len : 1) };

	if (len)
		memcpy(h.body, body, len);
	h.rec = (struct record){ .type = (uint16_t)type,
				 .body = h.body,
				 .body_bytes = (uint32_t)len,
				 .data_bytes = data_bytes };
	return h;
}

/* -- PAGES -- */

#define N_RUNS 3u

static const uint64_t runs[N_RUNS][2] = { { 0, 1 }, { 7, 2 }, { 1ull << 40, 5 } };

static size_t make_pages(uint8_t *body, const struct pages *p)
{
	pages_encode(p, body);
	for (uint32_t i = 0; i < N_RUNS; i++)
		run_encode(body + PAGES_HEAD_BYTES, i, runs[i][0], runs[i][1]);
	return PAGES_HEAD_BYTES + N_RUNS * RUN_BYTES;
}

static int decode_pages(const uint8_t *body, size_t len, uint64_t data_bytes, struct pages *out)
{
	struct held h = hold(RECORD_PAGES, body, len, data_bytes);
	struct err e = { "" };
	int rc = pages_decode(&h.rec, out, &e);

	ck_assert_int_eq(!rc, !e.text[0]);
	for (uint32_t i = 0; !rc && i < out->n_runs; i++) {
		uint64_t first, n;

		run_decode(out->runs, i, &first, &n);
		ck_assert(first == runs[i][0] && n == runs[i][1]);
	}
	free(h.body);
	return rc;
}

START_TEST(pages_come_back_as_they_went_out)
{
	static const uint64_t least[] = { 0, 8 * PAGE_SIZE, 0, 16, 1, 1 };
	static const uint64_t most[] = {
		0, 8 * PAGE_SIZE, 0, 16 + 8 * PAGE_SIZE, 8 * PAGE_SIZE, 8 * PAGE_SIZE
	};
	const struct pages in = {
		.block = 0xfffffffe, .codec = (uint32_t)_i, .n_runs = N_RUNS, .data_crc = 0x89abcdef
	};
	uint8_t body[PAGES_HEAD_BYTES + N_RUNS * RUN_BYTES];
	size_t len = make_pages(body, &in), cut;
	struct pages out;

	ck_assert_int_eq(decode_pages(body, len, least[_i], &out), 0);
	ck_assert(out.block == in.block && out.codec == in.codec && out.n_runs == in.n_runs &&
		  out.data_crc == in.data_crc);
	ck_assert_int_eq(decode_pages(body, len, most[_i], &out), 0);
	ck_assert_int_eq(decode_pages(body, len, most[_i] + 1, &out), -1);
	if (least[_i])
		ck_assert_int_eq(decode_pages(body, len, least[_i] - 1, &out), -1);
	for (cut = 0; cut < len; cut++)
		ck_assert_int_eq(decode_pages(body, cut, least[_i], &out), -1);
}
END_TEST

START_TEST(pages_out_of_range_are_refused)
{
	const struct pages good = { .codec = CODEC_ZERO, .n_runs = N_RUNS };
	uint8_t body[PAGES_HEAD_BYTES + N_RUNS * RUN_BYTES];
	size_t len = make_pages(body, &good);
	struct pages bad = good, out;

	ck_assert_int_eq(decode_pages(body, len, 0, &out), 0);
	for (bad.codec = CODEC_ZSTD + 1; bad.codec; bad.codec <<= 1) {
		pages_encode(&bad, body);
		ck_assert_int_eq(decode_pages(body, len, 0, &out), -1);
	}
	pages_encode(&bad, body); /* codec 0 */
	ck_assert_int_eq(decode_pages(body, len, 0, &out), -1);
	bad = good;
	for (bad.n_runs = 0; bad.n_runs < 70000; bad.n_runs++) {
		pages_encode(&bad, body);
		if (bad.n_runs != N_RUNS)
			ck_assert_int_eq(decode_pages(body, len, 0, &out), -1);
	}
	pages_encode(&good, body);
	run_encode(body + PAGES_HEAD_BYTES, 1, 7, 0);
	ck_assert_int_eq(decode_pages(body, len, 0, &out), -1);
	run_encode(body + PAGES_HEAD_BYTES, 1, 7, UINT64_MAX);
	ck_assert_int_eq(decode_pages(body, len, 0, &out), -1);
}
END_TEST

/* -- AHEAD -- */

static int decode_ahead(const uint8_t *body, size_t len, struct ahead_runs *out)
{
	struct held h = hold(RECORD_AHEAD, body, len, 0);
	struct err e = { "" };
	int rc = ahead_runs_decode(&h.rec, out, &e);

	ck_assert_int_eq(!rc, !e.text[0]);
	free(h.body);
	return rc;
}

START_TEST(ahead_comes_back_as_it_went_out)
{
	const struct ahead_runs in = { .block = 3, .n = 2 };
	uint8_t body[AHEAD_HEAD_BYTES + 2 * RUN_BYTES];
	struct ahead_runs out;
	size_t cut;

	ahead_runs_encode(&in, body);
	run_encode(body + AHEAD_HEAD_BYTES, 0, AHEAD_UNIT_PAGES, 2 * AHEAD_UNIT_PAGES);
	run_encode(body + AHEAD_HEAD_BYTES, 1, 4 * AHEAD_UNIT_PAGES, 1);
	ck_assert_int_eq(decode_ahead(body, sizeof(body), &out), 0);
	ck_assert(out.block == 3 && out.n == 2);
	for (cut = 0; cut < sizeof(body); cut++)
		ck_assert_int_eq(decode_ahead(body, cut, &out), -1);
}
END_TEST

START_TEST(ahead_out_of_order_or_range_is_refused)
{
	static const uint64_t bad[][2] = {
		{ AHEAD_UNIT_PAGES, 0 },		  /* nothing */
		{ AHEAD_UNIT_PAGES + 1, 1 },		  /* within a unit */
		{ 0, 1 },				  /* before the one before */
		{ -(uint64_t)AHEAD_UNIT_PAGES, 1u << 20 } /* beyond all numbers */
	};
	const struct ahead_runs in = { .block = 0, .n = 2 };
	uint8_t body[AHEAD_HEAD_BYTES + 2 * RUN_BYTES];
	struct ahead_runs out;

	ahead_runs_encode(&in, body);
	run_encode(body + AHEAD_HEAD_BYTES, 0, 0, AHEAD_UNIT_PAGES);
	run_encode(body + AHEAD_HEAD_BYTES, 1, bad[_i][0], bad[_i][1]);
	ck_assert_int_eq(decode_ahead(body, sizeof(body), &out), -1);
}
END_TEST

/* -- ROUND -- */

START_TEST(round_comes_back_as_it_went_out)
{
	static const uint32_t numbers[] = { 1, 0x01020304, UINT32_MAX, 0 };
	uint8_t body[ROUND_BYTES + 1] = { 0 };
	struct err e;

	for (unsigned int i = 0; i < 4; i++) {
		uint32_t out;

		round_encode(numbers[i], body);
		for (size_t len = 0; len <= sizeof(body); len++) {
			struct held h = hold(RECORD_ROUND, body, len, 0);
			bool good = len == ROUND_BYTES && numbers[i];

			ck_assert_int_eq(round_decode(&h.rec, &out, &e), good ? 0 : -1);
			if (good)
				ck_assert_uint_eq(out, numbers[i]);
			free(h.body);
		}
	}
}
END_TEST

/* -- STATES -- */

static int decode_states(const uint8_t *body, size_t len, struct states_head *out)
{
	struct held h = hold(RECORD_STATES, body, len, 0);
	struct err e = { "" };
	int rc = states_decode(&h.rec, out, &e);

	ck_assert_int_eq(!rc, !e.text[0]);
	free(h.body);
	return rc;
}

START_TEST(states_come_back_as_they_went_out)
{
	static const struct states_head heads[] = { { 0, false, false },
						    { 1, true, false },
						    { STATES_PAUSE_MAX_NS, true, true } };
	uint8_t body[STATES_HEAD_BYTES + 8] = { 0 };
	struct states_head out;
	size_t cut;

	for (unsigned int i = 0; i < 3; i++) {
		states_encode(&heads[i], body);
		ck_assert_int_eq(decode_states(body, sizeof(body), &out), 0);
		ck_assert(out.pause_ns == heads[i].pause_ns && out.ran == heads[i].ran &&
			  out.tell == heads[i].tell);
		for (cut = 0; cut < STATES_HEAD_BYTES; cut++)
			ck_assert_int_eq(decode_states(body, cut, &out), -1);
	}
}
END_TEST

START_TEST(states_out_of_range_are_refused)
{
	struct states_head head = { STATES_PAUSE_MAX_NS + 1, true, false }, out;
	uint8_t body[STATES_HEAD_BYTES];

	states_encode(&head, body);
	ck_assert_int_eq(decode_states(body, sizeof(body), &out), -1);
	for (unsigned int bit = 1; bit < 64; bit++) {
		put_u64(body, 0);
		put_u64(body + 8, 1ull << bit); /* 2: to be told, but did not run */
		ck_assert_int_eq(decode_states(body, sizeof(body), &out), -1);
	}
	/* A guest that did not run cannot be told anything: it is not said. */
	head = (struct states_head){ 0, false, true };
	states_encode(&head, body);
	ck_assert_int_eq(decode_states(body, sizeof(body), &out), 0);
	ck_assert(!out.tell);
}
END_TEST

/* -- PROBE -- */

START_TEST(probe_has_data_within_bounds_and_no_body)
{
	struct record rec = { .type = RECORD_PROBE, .data_bytes = 1 };

	ck_assert(probe_is_good(&rec));
	rec.data_bytes = PROBE_DATA_MAX;
	ck_assert(probe_is_good(&rec));
	rec.data_bytes++;
	ck_assert(!probe_is_good(&rec));
	rec.data_bytes = 0;
	ck_assert(!probe_is_good(&rec));
	rec.data_bytes = rec.body_bytes = 1;
	ck_assert(!probe_is_good(&rec));
}
END_TEST

/* -- texts -- */

/* What arrives of a text that is said in a record of that type. */
static void send_text(enum record_type type, const char *text, char *out, size_t size)
{
	struct channel *there, *back;
	struct writer w = { 0 };
	struct reader r = { .answers = true };
	struct record rec;

	memory_channel(&there, NULL, 0, NULL);
	w.channel = there;
	if (type != RECORD_CHECKED) /* with which this direction begins */
		writer_record(&w, RECORD_CHECKED, NULL, 0, NULL, 0, NULL);
	ck_assert_int_eq(writer_text(&w, type, text, NULL), 0);
	memory_channel(&back, memory_channel_written(there), there->bytes, NULL);
	r.channel = back;
	do
		ck_assert_int_eq(reader_record(&r, &rec, NULL), 0);
	while (rec.type != type);
	record_text(&rec, out, size);
	reader_free(&r);
	channel_close(there);
	channel_close(back);
}

START_TEST(text_arrives_without_what_upsets_a_terminal)
{
	char longest[RECORD_TEXT_MAX + 200], out[RECORD_TEXT_MAX + 200];

	send_text(RECORD_FAILED, "no \033[31mcoffee", out, sizeof(out));
	ck_assert_str_eq(out, "no ?[31mcoffee");
	send_text(RECORD_FAILED, "no coffee", out, 5);
	ck_assert_str_eq(out, "no c");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	send_text(RECORD_FAILED, longest, out, sizeof(out));
	ck_assert_uint_eq(strlen(out), RECORD_TEXT_MAX);
	/* An empty one would be a yes. */
	send_text(RECORD_CHECKED, "", out, sizeof(out));
	ck_assert_str_eq(out, "it does not say why");
}
END_TEST

/* -- HELLO -- */

static int decode_hello(const uint8_t *body, size_t len, struct hello *out)
{
	struct held h = hold(RECORD_HELLO, body, len, 0);
	struct err e = { "" };
	int rc = hello_decode(&h.rec, out, &e);

	ck_assert_int_eq(!rc, !e.text[0]);
	free(h.body);
	return rc;
}

START_TEST(hello_comes_back_as_it_went_out)
{
	struct hello in = { .version = STREAM_VERSION,
			    .arch = "riscv64",
			    .role = ROLE_PROBE,
			    .page_bytes = PAGE_SIZE,
			    .id = { 1, 2, 3, [15] = 16 },
			    .program = "eleven char",
			    .lanes = LANES_MAX,
			    .wanted = 0x0123456789abcdef,
			    .needed = FEATURE_CHECKSUMS };
	uint8_t body[HELLO_BYTES + 1] = { 0 };
	struct hello out;
	size_t len;

	hello_encode(&in, body);
	ck_assert_int_eq(decode_hello(body, HELLO_BYTES, &out), 0);
	ck_assert_mem_eq(&in, &out, sizeof(in));
	for (len = 0; len <= sizeof(body); len++)
		if (len != HELLO_BYTES)
			ck_assert_int_eq(decode_hello(body, len, &out), -1);
	for (in.role = ROLE_PROBE + 1; in.role < ROLE_RECOVER + 2; in.role++) {
		hello_encode(&in, body);
		ck_assert_int_eq(decode_hello(body, HELLO_BYTES, &out), -1);
	}
	in.role = 0;
	hello_encode(&in, body);
	ck_assert_int_eq(decode_hello(body, HELLO_BYTES, &out), -1);
}
END_TEST

/* -- CHECKED -- */

START_TEST(checked_comes_back_as_it_went_out)
{
	const struct checked in = { FEATURE_COSTS | 1ull << 63, { 1, UINT32_MAX, 3 } };
	uint8_t body[CHECKED_BYTES + 1] = { 0 };
	struct checked out;

	ck_assert_uint_eq(checked_encode(&in, STREAM_VERSION, body), CHECKED_BYTES);
	for (size_t len = 0; len <= sizeof(body); len++) {
		struct held h = hold(RECORD_CHECKED, body, len, 0);

		/* Anything else is a text, which refuses; nothing accepts nothing. */
		ck_assert_int_eq(checked_decode(&h.rec, &out), !len || len == CHECKED_BYTES);
		if (len == CHECKED_BYTES)
			ck_assert_mem_eq(&in, &out, sizeof(in));
		else if (!len)
			ck_assert_uint_eq(out.features, 0);
		free(h.body);
	}
}
END_TEST

/* Version 1 had the costs alone, and only for a source that heard them. */
START_TEST(checked_for_a_source_of_version_1_is_as_it_was)
{
	const struct checked costs = { FEATURE_COSTS, { 1, 2, 0x01020304 } }, none = { 0 };
	uint8_t body[CHECKED_BYTES];

	ck_assert_uint_eq(checked_encode(&costs, 1, body), 16);
	ck_assert_mem_eq(body, "\0\0\0\0\1\0\0\0\2\0\0\0\4\3\2\1", 16);
	ck_assert_uint_eq(checked_encode(&none, 1, body), 0);
}
END_TEST

START_TEST(features_are_accepted_of_those_asked_for_with_all_needed)
{
	const struct hello h = { .wanted = 2, .needed = 4 };
	static const struct {
		uint64_t accepted;
		bool good;
	} answers[] = { { 6, true }, { 4, true }, { 2, false }, { 0, false }, { 7, false } };
	struct err e;

	for (unsigned int i = 0; i < 5; i++) {
		struct checked c = { .features = answers[i].accepted };

		ck_assert_int_eq(checked_fits(&c, &h, &e), answers[i].good ? 0 : -1);
	}
}
END_TEST

/* -- records and features of versions to come -- */

START_TEST(feature_that_is_needed_and_not_known_is_refused_by_name)
{
	static const struct {
		uint64_t wanted, needed;
		const char *why;
	} asked[] = { { UINT64_MAX, FEATURES_IMPLEMENTED, NULL },
		      { 0, FEATURE_POSTCOPY, "post-copy (feature 2): not implemented" },
		      { 0, FEATURE_DISKS | 1ull << 40, "disks (feature 3): not implemented" },
		      { 0, 1ull << 63, "feature 63, which this version does not know" } };
	struct hello out, h = {
		.version = STREAM_VERSION, .role = ROLE_MAIN, .lanes = 1, .page_bytes = PAGE_SIZE
	};
	uint8_t body[HELLO_BYTES];

	for (unsigned int i = 0; i < 4; i++) {
		struct held held;
		struct err e = { "" };

		h.wanted = asked[i].wanted;
		h.needed = asked[i].needed;
		hello_encode(&h, body);
		held = hold(RECORD_HELLO, body, sizeof(body), 0);
		ck_assert_int_eq(hello_decode(&held.rec, &out, &e), asked[i].why ? -1 : 0);
		ck_assert_msg(!asked[i].why || strstr(e.text, asked[i].why), "%s", e.text);
		free(held.body);
	}
}
END_TEST

/* A source's stream with one odd record behind HELLO, and then a known one. */
static int read_odd(uint16_t type, uint16_t flags, unsigned int times, size_t data_bytes,
		    struct err *e)
{
	static uint8_t bytes[65536];
	struct iovec data = { bytes, data_bytes };
	struct channel *there, *back;
	struct writer w = { 0 };
	struct reader r = { 0 };
	struct hello h = { .role = ROLE_MAIN, .lanes = 1 };
	struct record rec;
	int rc;

	memory_channel(&there, NULL, 0, NULL);
	w.channel = there;
	hello_send(&w, &h, NULL);
	for (unsigned int i = 0; i < times; i++)
		ck_assert_int_eq(writer_flagged(&w, (enum record_type)type, flags, "body", 4, &data,
						data_bytes ? 1 : 0, NULL),
				 0);
	ck_assert_int_eq(writer_record(&w, RECORD_GO, NULL, 0, NULL, 0, NULL), 0);
	memory_channel(&back, memory_channel_written(there), there->bytes, NULL);
	r.channel = back;
	ck_assert_int_eq(hello_take(&r, &h, e), 0);
	rc = reader_record(&r, &rec, e);
	ck_assert(rc || rec.type == RECORD_GO);
	reader_free(&r);
	channel_close(there);
	channel_close(back);
	return rc;
}

START_TEST(record_of_an_unknown_type_is_skipped_if_it_says_so)
{
	static const uint16_t types[] = { RECORD_WANT, RECORD_DISCARD_DISK, 20, 99, UINT16_MAX };
	const uint16_t type = types[_i];
	char number[32];
	struct err e;

	ck_assert_int_eq(read_odd(type, RECORD_SKIPPABLE, 1, 0, &e), 0);
	ck_assert_int_eq(read_odd(type, RECORD_SKIPPABLE, RECORD_SKIPS_MAX, 65536, &e), 0);
	ck_assert_int_eq(read_odd(type, RECORD_SKIPPABLE, RECORD_SKIPS_MAX + 1, 0, &e), -1);
	ck_assert_msg(strstr(e.text, "too many records"), "%s", e.text);
	ck_assert_int_eq(read_odd(type, 0, 1, 0, &e), -1);
	snprintf(number, sizeof(number), "type %u", type);
	ck_assert_msg(strstr(e.text, number), "%s", e.text);
	ck_assert_msg(type > RECORD_DISCARD_DISK || (strstr(e.text, record_name(type)) &&
						     strstr(e.text, "not implemented")),
		      "%s", e.text);
	/* A flag that nobody knows may mean anything. */
	ck_assert_int_eq(read_odd(type, RECORD_SKIPPABLE | 4, 1, 0, &e), -1);
	ck_assert_int_eq(read_odd(type, RECORD_SKIPPABLE | 0x8000, 1, 0, &e), -1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("body");
	TCase *c = tcase_create("body");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_loop_test(c, pages_come_back_as_they_went_out, CODEC_PLAIN, CODEC_ZSTD + 1);
	tcase_add_test(c, pages_out_of_range_are_refused);
	tcase_add_test(c, ahead_comes_back_as_it_went_out);
	tcase_add_loop_test(c, ahead_out_of_order_or_range_is_refused, 0, 4);
	tcase_add_test(c, round_comes_back_as_it_went_out);
	tcase_add_test(c, states_come_back_as_they_went_out);
	tcase_add_test(c, states_out_of_range_are_refused);
	tcase_add_test(c, probe_has_data_within_bounds_and_no_body);
	tcase_add_test(c, text_arrives_without_what_upsets_a_terminal);
	tcase_add_test(c, hello_comes_back_as_it_went_out);
	tcase_add_test(c, checked_comes_back_as_it_went_out);
	tcase_add_test(c, checked_for_a_source_of_version_1_is_as_it_was);
	tcase_add_test(c, features_are_accepted_of_those_asked_for_with_all_needed);
	tcase_add_test(c, feature_that_is_needed_and_not_known_is_refused_by_name);
	tcase_add_loop_test(c, record_of_an_unknown_type_is_skipped_if_it_says_so, 0, 5);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
