/*
 * The page cache and the encoder: what is sent makes the other side's memory the same, whatever the
 * cache has, forgets or has no room for, while guests write, and with several workers.
 */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "migrate/codec/encoder.h"
#include "migrate/codec/page_cache.h"
#include "migrate/codec/xbzrle.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

#define MIB 1048576ull

static uint64_t seed;

static uint64_t random_from(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static uint64_t next(void)
{
	return random_from(&seed);
}

static void setup(void)
{
	seed = (uint64_t)time(NULL) * 2654435761u | 1;
	printf("seed %lu\n", seed);
}

/* -- the cache -- */

/* A page full of `value`, of which 64-bit word 0 is `word`. */
static const uint8_t *page_of(uint8_t value, uint64_t word)
{
	static uint8_t page[PAGE_SIZE];

	memset(page, value, sizeof(page));
	memcpy(page, &word, sizeof(word));
	return page;
}

static int ask(struct page_cache *c, unsigned int block, uint64_t page_no, uint32_t round,
	       const uint8_t *page)
{
	uint8_t out[PAGE_SIZE];

	return page_cache_encode(c, block, page_no, round, page, out, sizeof(out));
}

START_TEST(page_is_a_delta_to_what_was_sent_last)
{
	uint8_t out[PAGE_SIZE], there[PAGE_SIZE];
	struct page_cache_stats st;
	struct page_cache c;
	int n;

	ck_assert_int_eq(page_cache_init(&c, MIB, NULL), 0);
	ck_assert_int_eq(ask(&c, 0, 7, 1, page_of(1, 0)), PAGE_CACHE_MISS);
	memcpy(there, page_of(1, 0), PAGE_SIZE);
	for (uint64_t i = 1; i < 5; i++) {
		n = page_cache_encode(&c, 0, 7, 2, page_of(1, i << 32), out, sizeof(out));
		ck_assert_int_eq(n, 2 + 1);
		ck_assert_int_eq(xbzrle_decode(out, (size_t)n, there), 0);
		ck_assert(!memcmp(there, page_of(1, i << 32), PAGE_SIZE));
	}
	ck_assert_int_eq(ask(&c, 0, 7, 3, page_of(1, 4ull << 32)), 0);
	/* Too much is new: but that is what the destination gets, and so the next is a delta. */
	ck_assert_int_eq(page_cache_encode(&c, 0, 7, 3, page_of(9, 0), out, 100),
			 PAGE_CACHE_OVERFLOW);
	ck_assert_int_eq(ask(&c, 0, 7, 3, page_of(9, 1)), 3);
	/* Of other blocks and pages nothing is known. */
	ck_assert_int_eq(ask(&c, 1, 7, 3, page_of(9, 1)), PAGE_CACHE_MISS);
	ck_assert_int_eq(ask(&c, 0, 8, 3, page_of(9, 1)), PAGE_CACHE_MISS);
	page_cache_forget(&c, 0, 7);
	page_cache_forget(&c, 0, 7);
	page_cache_forget(&c, 3, 1ull << 40);
	ck_assert_int_eq(ask(&c, 0, 7, 4, page_of(9, 1)), PAGE_CACHE_MISS);
	page_cache_count(&c, &st);
	ck_assert_uint_eq(st.hits, 6);
	ck_assert_uint_eq(st.unchanged, 1);
	ck_assert_uint_eq(st.overflows, 1);
	ck_assert_uint_eq(st.misses, 4);
	ck_assert_uint_eq(st.in_bytes, 6 * PAGE_SIZE);
	ck_assert_uint_eq(st.out_bytes, 5 * 3);
	page_cache_free(&c);
}
END_TEST

/* How many of the pages from..from + n - 1 it has; each becomes hot in this round, or does not. */
static unsigned int hits(struct page_cache *c, uint64_t from, uint64_t n, uint32_t round)
{
	unsigned int found = 0;
	uint64_t i;

	for (i = 0; i < n; i++)
		found += ask(c, 0, from + i, round, page_of(3, from + i)) >= 0;
	return found;
}

START_TEST(pages_in_a_row_all_have_room)
{
	struct page_cache c;
	uint64_t n;

	ck_assert_int_eq(page_cache_init(&c, (uint64_t)(1 + _i) * MIB, NULL), 0);
	n = page_cache_bytes(&c) / PAGE_SIZE;
	ck_assert_uint_le(page_cache_bytes(&c), (uint64_t)(1 + _i) * MIB);
	ck_assert_uint_eq(hits(&c, 12345, n, 1), 0);
	ck_assert_uint_eq(hits(&c, 12345, n, 2), n);
	page_cache_free(&c);
}
END_TEST

START_TEST(hot_pages_are_not_thrown_out_and_cold_ones_are)
{
	struct page_cache c;
	uint64_t n;

	ck_assert_int_eq(page_cache_init(&c, 3 * MIB, NULL), 0);
	n = page_cache_bytes(&c) / PAGE_SIZE;
	hits(&c, 0, n, 1);
	/* More than there is room for, round after round: the first ones stay, and gain. */
	ck_assert_uint_eq(hits(&c, n, 3 * n, 1), 0);
	ck_assert_uint_eq(hits(&c, 0, n, 2), n);
	ck_assert_uint_eq(hits(&c, n, 3 * n, 2), 0);
	ck_assert_uint_eq(hits(&c, n, n, 3), 0);
	/* Nobody has asked for them for two rounds: room for others, which then stay. */
	ck_assert_uint_eq(hits(&c, n, n, 4), 0);
	ck_assert_uint_eq(hits(&c, n, n, 5), n);
	ck_assert_uint_eq(hits(&c, 0, n, 5), 0);
	page_cache_free(&c);
}
END_TEST

START_TEST(cache_too_large_for_this_host_is_refused)
{
	struct page_cache c;
	struct err e;

	ck_assert_int_eq(page_cache_init(&c, 1ull << 60, &e), -1);
	ck_assert_msg(strstr(e.text, "a page cache of 1099511627776 MiB, this host has"), "%s",
		      e.text);
	ck_assert_int_eq(page_cache_init(&c, ~0ull, &e), -1);
}
END_TEST

/* -- the encoder -- */

#define GUEST_PAGES 1024u

/* A guest, and what a destination makes of what is sent. */
struct pair {
	uint8_t *from, *to;
	struct page_cache cache;
	struct encoder enc;
};

static void pair_make(struct pair *p, uint64_t cache_bytes)
{
	p->from = aligned_alloc(PAGE_SIZE, GUEST_PAGES * PAGE_SIZE);
	p->to = aligned_alloc(PAGE_SIZE, GUEST_PAGES * PAGE_SIZE);
	memset(p->from, 0, GUEST_PAGES * PAGE_SIZE);
	memset(p->to, 0, GUEST_PAGES * PAGE_SIZE);
	ck_assert_int_eq(page_cache_init(&p->cache, cache_bytes, NULL), 0);
	encoder_init(&p->enc, &p->cache);
}

static void pair_unmake(struct pair *p)
{
	encoder_free(&p->enc);
	page_cache_free(&p->cache);
	free(p->from);
	free(p->to);
}

/* As a destination does, without a stream around it. */
static void take(const struct encoded *part, uint8_t *to, uint64_t first)
{
	const uint8_t *at = part->data.iov_base, *end = at + part->data.iov_len;
	const uint64_t n = PAGES_ENCODED_MAX;
	struct iovec out[PAGES_ENCODED_MAX];
	struct decompressor d = { 0 };
	unsigned int n_out = 0;
	uint64_t i;
	struct err e;

	for (i = bitmap_next_set(part->pages, n, 0); i < n;
	     i = bitmap_next_set(part->pages, n, i + 1)) {
		uint8_t *page = to + (first + i) * PAGE_SIZE;
		size_t len;

		out[n_out++] = (struct iovec){ page, PAGE_SIZE };
		if (part->codec == CODEC_PLAIN) {
			memcpy(page, at, PAGE_SIZE);
			at += PAGE_SIZE;
		} else if (part->codec == CODEC_XBZRLE) {
			len = at[0] | (size_t)at[1] << 8;
			ck_assert_int_eq(xbzrle_decode(at + 2, len, page), 0);
			at += 2 + len;
		}
	}
	ck_assert_uint_eq(n_out, part->n_pages);
	if (compression_of(part->codec)) {
		ck_assert_msg(!decompressor_begin(&d, part->codec, out, n_out, &e) &&
				      !decompressor_feed(&d, at, (size_t)(end - at), &e) &&
				      !decompressor_end(&d, &e),
			      "%s", e.text);
		at = end;
		decompressor_free(&d);
	}
	ck_assert_ptr_eq(at, end);
}

/* Sends a set; returns how many pages went out, by codec in `by`. */
static unsigned int send_set(struct pair *p, const struct encode_how *how, struct page_set *set,
			     unsigned int by[CODEC_ZSTD + 1])
{
	struct encoded out[2];
	unsigned int total = 0;
	struct err e;
	int i, n;

	set->host = p->from + set->first * PAGE_SIZE;
	n = encoder_run(&p->enc, how, set, out, &e);
	ck_assert_msg(n >= 0, "%s", e.text);
	for (i = 0; i < n; i++) {
		ck_assert_uint_gt(out[i].n_pages, 0);
		take(&out[i], p->to, set->first);
		total += out[i].n_pages;
		by[out[i].codec] += out[i].n_pages;
	}
	return total;
}

static void fill(uint8_t *page, unsigned int kind)
{
	unsigned int i;

	for (i = 0; i < PAGE_SIZE; i += 8) {
		uint64_t word = kind ? next() : i / 512;

		memcpy(page + i, &word, 8);
	}
}

/* One of the things that happen to a page. */
static void touch(uint8_t *page)
{
	switch (next() % 4) {
	case 0:
		fill(page, 0);
		break;
	case 1:
		fill(page, 1);
		break;
	default:
		page[next() % PAGE_SIZE]++;
	}
}

START_TEST(destination_is_the_same_after_every_round_and_codec)
{
	struct pair p;
	unsigned int by[CODEC_ZSTD + 1] = { 0 };
	uint32_t round;
	uint64_t i;

	/* A cache for less than the guest writes to. */
	pair_make(&p, 2 * MIB);
	for (round = 1; round < 60; round++) {
		const struct encode_how how = {
			.delta = round > 1 && next() % 4,
			.rest = (enum pages_codec[]){ CODEC_PLAIN, CODEC_ZLIB,
						      CODEC_ZSTD }[next() % 3],
			.level = 1 + (int)(next() % 3),
			.round = round,
		};
		struct page_set set = { .block = 0, .first = next() % 2 * PAGES_ENCODED_MAX };

		for (i = 0; i < PAGES_ENCODED_MAX; i++)
			if (round < 3 || next() % 3 == 0) {
				bitmap_set(set.pages, i);
				touch(p.from + (set.first + i) * PAGE_SIZE);
			}
		if (next() % 8 == 0) {
			/* As they are, without the encoder. */
			encoder_forget(&p.enc, &set);
			for (i = 0; i < PAGES_ENCODED_MAX; i++)
				if (bitmap_test(set.pages, i))
					memcpy(p.to + (set.first + i) * PAGE_SIZE,
					       p.from + (set.first + i) * PAGE_SIZE, PAGE_SIZE);
		} else {
			send_set(&p, &how, &set, by);
		}
		ck_assert(!memcmp(p.from, p.to, GUEST_PAGES * PAGE_SIZE));
	}
	for (i = CODEC_PLAIN; i <= CODEC_ZSTD; i++) {
		ck_assert_uint_eq(by[i], p.enc.count[i].pages);
		ck_assert_msg(i == CODEC_ZERO || by[i], "codec %lu was never used", i);
	}
	pair_unmake(&p);
}
END_TEST

START_TEST(unchanged_pages_are_not_sent)
{
	const struct encode_how how = { .delta = true, .rest = CODEC_PLAIN, .round = 1 };
	struct page_set set = { .block = 1 };
	unsigned int by[CODEC_ZSTD + 1] = { 0 };
	struct pair p;

	pair_make(&p, 8 * MIB);
	memset(set.pages, 0xff, sizeof(set.pages));
	ck_assert_uint_eq(send_set(&p, &how, &set, by), PAGES_ENCODED_MAX);
	ck_assert_uint_eq(by[CODEC_PLAIN], PAGES_ENCODED_MAX);
	ck_assert_uint_eq(send_set(&p, &how, &set, by), 0);
	p.from[5 * PAGE_SIZE + 77] = 1;
	ck_assert_uint_eq(send_set(&p, &how, &set, by), 1);
	ck_assert_uint_eq(by[CODEC_XBZRLE], 1);
	ck_assert_uint_eq(p.enc.count[CODEC_XBZRLE].out_bytes, 2 + 2 + 1);
	memset(set.pages, 0, sizeof(set.pages));
	ck_assert_uint_eq(send_set(&p, &how, &set, by), 0);
	pair_unmake(&p);
}
END_TEST

START_TEST(what_gains_nothing_is_plain)
{
	struct encode_how how = { .rest = _i ? CODEC_ZSTD : CODEC_ZLIB, .level = 1, .round = 1 };
	struct page_set set = { .block = 0, .pages = { 0xf } };
	unsigned int by[CODEC_ZSTD + 1] = { 0 };
	struct pair p;
	uint64_t i;

	pair_make(&p, MIB);
	for (i = 0; i < 4; i++)
		fill(p.from + i * PAGE_SIZE, 1);
	send_set(&p, &how, &set, by);
	ck_assert_uint_eq(by[CODEC_PLAIN], 4);
	ck_assert(!memcmp(p.from, p.to, 4 * PAGE_SIZE));
	ck_assert_uint_gt(p.enc.count[how.rest].cpu_ns, 0);
	ck_assert_uint_eq(p.enc.count[how.rest].pages, 0);
	pair_unmake(&p);
}
END_TEST

START_TEST(what_cannot_be_is_refused_before_the_cache_changes)
{
	struct encode_how how = { .delta = true, .rest = CODEC_ZSTD, .level = 21, .round = 1 };
	struct page_set set = { .block = 0, .pages = { 1 } };
	struct page_cache_stats st;
	struct encoded out[2];
	struct encoder none;
	struct pair p;
	struct err e;

	pair_make(&p, MIB);
	set.host = p.from;
	ck_assert_int_eq(encoder_run(&p.enc, &how, &set, out, &e), -1);
	ck_assert_msg(strstr(e.text, "zstd has no level 21, only 1 to 20"), "%s", e.text);
	how.rest = CODEC_ZERO;
	ck_assert_int_eq(encoder_run(&p.enc, &how, &set, out, &e), -1);
	page_cache_count(&p.cache, &st);
	ck_assert_uint_eq(st.misses, 0);
	encoder_init(&none, NULL);
	how.rest = CODEC_PLAIN;
	ck_assert_int_eq(encoder_run(&none, &how, &set, out, &e), -1);
	encoder_forget(&none, &set);
	encoder_free(&none);
	pair_unmake(&p);
}
END_TEST

/* -- at once -- */

#define WORKERS 4u
#define ROUNDS	40u

struct race;

struct worker {
	struct race *r;
	struct encoder enc;
	pthread_t thread;
};

struct race {
	struct pair p;
	struct worker worker[WORKERS];
	pthread_barrier_t barrier;		 /* workers and the test: between rounds */
	bool stop;				 /* atomic */
	bool last;				 /* set between rounds: the guest stands still */
	uint64_t log[BITMAP_WORDS(GUEST_PAGES)]; /* atomic: written to */
};

/* A guest's memory is read while it runs: what is torn is sent once more. */
__attribute__((no_sanitize("thread"))) static void store(uint8_t *at, uint8_t value)
{
	*(volatile uint8_t *)at = value;
}

static void *guest(void *arg)
{
	struct race *r = arg;
	uint64_t s = 88172645463325252ull;

	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		uint64_t v = random_from(&s), page = v % GUEST_PAGES, i;

		for (i = 0; i < v >> 60; i++)
			store(r->p.from + page * PAGE_SIZE + (v >> 20 & 63) * (1 + i) % PAGE_SIZE,
			      (uint8_t)(v + i));
		bitmap_set_atomic(r->log, page);
	}
	return NULL;
}

/* Every fourth word of the log in each round: the pages are another worker's in the next. */
static void *work(void *arg)
{
	struct worker *w = arg;
	struct race *r = w->r;
	const unsigned int me = (unsigned int)(w - r->worker);
	struct encode_how how = { .delta = true };
	struct encoded out[2];
	struct err e;
	bool last;
	uint64_t i;
	int n, k;

	do {
		how.round++;
		how.rest = me % 2 ? CODEC_ZSTD : CODEC_PLAIN;
		how.level = 1;
		last = r->last;
		for (i = (me + how.round) % WORKERS; i < BITMAP_WORDS(GUEST_PAGES); i += WORKERS) {
			struct page_set set = { .first = i * 64,
						.host = r->p.from + i * 64 * PAGE_SIZE };

			set.pages[0] = __atomic_exchange_n(&r->log[i], 0, __ATOMIC_ACQ_REL);
			n = encoder_run(&w->enc, &how, &set, out, &e);
			ck_assert_msg(n >= 0, "%s", e.text);
			for (k = 0; k < n; k++)
				take(&out[k], r->p.to, set.first);
		}
		pthread_barrier_wait(&r->barrier);
		pthread_barrier_wait(&r->barrier);
	} while (!last);
	return NULL;
}

START_TEST(workers_share_a_cache_while_the_guest_writes)
{
	struct race *r = calloc(1, sizeof(*r));
	pthread_t writer;
	unsigned int i;

	pair_make(&r->p, MIB); /* not all of the guest has room */
	memset(r->log, 0xff, sizeof(r->log));
	ck_assert_int_eq(pthread_barrier_init(&r->barrier, NULL, WORKERS + 1), 0);
	ck_assert_int_eq(pthread_create(&writer, NULL, guest, r), 0);
	for (i = 0; i < WORKERS; i++) {
		r->worker[i].r = r;
		encoder_init(&r->worker[i].enc, &r->p.cache);
		ck_assert_int_eq(pthread_create(&r->worker[i].thread, NULL, work, &r->worker[i]),
				 0);
	}
	for (i = 1; i <= ROUNDS + 1; i++) {
		pthread_barrier_wait(&r->barrier);
		if (i == ROUNDS) {
			__atomic_store_n(&r->stop, true, __ATOMIC_RELEASE);
			pthread_join(writer, NULL);
			r->last = true;
		}
		pthread_barrier_wait(&r->barrier);
	}
	for (i = 0; i < WORKERS; i++) {
		pthread_join(r->worker[i].thread, NULL);
		encoder_free(&r->worker[i].enc);
	}
	ck_assert(!memcmp(r->p.from, r->p.to, GUEST_PAGES * PAGE_SIZE));
	pthread_barrier_destroy(&r->barrier);
	pair_unmake(&r->p);
	free(r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("encoder");
	TCase *c = tcase_create("encoder");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_checked_fixture(c, setup, NULL);
	tcase_add_test(c, page_is_a_delta_to_what_was_sent_last);
	tcase_add_loop_test(c, pages_in_a_row_all_have_room, 0, 9);
	tcase_add_test(c, hot_pages_are_not_thrown_out_and_cold_ones_are);
	tcase_add_test(c, cache_too_large_for_this_host_is_refused);
	tcase_add_test(c, destination_is_the_same_after_every_round_and_codec);
	tcase_add_test(c, unchanged_pages_are_not_sent);
	tcase_add_loop_test(c, what_gains_nothing_is_plain, 0, 2);
	tcase_add_test(c, what_cannot_be_is_refused_before_the_cache_changes);
	tcase_add_test(c, workers_share_a_cache_while_the_guest_writes);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
