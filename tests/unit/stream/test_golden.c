/*
 * Streams, byte for byte, as they were written once. Those of the present version and of the one
 * before must load, and the same guest must give the same bytes of the present version. Whoever
 * changes the stream makes a new version, with golden streams of its own.
 *
 *     golden/stream-v2.bin             a saved machine
 *     golden/stream-v2-live.bin        what a connection carries to the destination
 *     golden/stream-v1.bin             the same of version 1
 *     golden/stream-v1-live.bin
 *     golden/stream-v1-live-costs.bin  of a source that says in HELLO that it hears costs
 *
 * GODWIT_GOLDEN=write in the environment writes those of the present version anew.
 */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <zlib.h>

#include "migrate/channel/channel.h"
#include "migrate/destination/destination.h"
#include "migrate/source/source.h"
#include "tests/unit/lib/fake_guest.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

static const uint64_t pages[] = { 14, 5 };
static const uint8_t id[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };

/* The first two are written today. */
enum { COLD, LIVE, COLD_V1, LIVE_V1, LIVE_V1_COSTS, N_GOLDEN };

static const char *path(int which)
{
	static const char *const paths[] = {
		[COLD] = "tests/unit/golden/stream-v2.bin",
		[LIVE] = "tests/unit/golden/stream-v2-live.bin",
		[COLD_V1] = "tests/unit/golden/stream-v1.bin",
		[LIVE_V1] = "tests/unit/golden/stream-v1-live.bin",
		[LIVE_V1_COSTS] = "tests/unit/golden/stream-v1-live-costs.bin",
	};

	return paths[which];
}

static uint8_t *golden(int which, size_t *len)
{
	FILE *f = fopen(path(which), "rb");
	uint8_t *bytes = malloc(1u << 20);

	ck_assert_msg(f != NULL, "%s: run this from the top of the source tree", path(which));
	*len = fread(bytes, 1, 1u << 20, f);
	fclose(f);
	return bytes;
}

/* -- a connection whose other end says yes to everything, when it is asked -- */

struct yes {
	struct channel ch;     /* first */
	struct channel *there; /* what was written */
	struct channel *said;  /* the answers */
	struct writer answers; /* onto it */
	size_t heard;	       /* of them: read by the source */
	bool closed;
	pthread_mutex_t lock; /* all of the above but `there` */
	pthread_cond_t changed;
};

/* Each write is one record, with its head and its body first. */
static void answer(struct yes *y, const struct iovec *iov)
{
	const struct checked all = { FEATURES_IMPLEMENTED, { 1, 2, 3 } };
	const uint8_t *head = iov[0].iov_base;
	uint8_t body[CHECKED_BYTES];

	if (head[0] == RECORD_MACHINE)
		writer_record(&y->answers, RECORD_CHECKED, body,
			      checked_encode(&all, STREAM_VERSION, body), NULL, 0, NULL);
	else if (head[0] == RECORD_ROUND)
		writer_record(&y->answers, RECORD_ROUND, iov[1].iov_base, iov[1].iov_len, NULL, 0,
			      NULL);
	else if (head[0] == RECORD_STATES)
		writer_record(&y->answers, RECORD_READY, NULL, 0, NULL, 0, NULL);
	else if (head[0] == RECORD_GO)
		writer_record(&y->answers, RECORD_RUNNING, NULL, 0, NULL, 0, NULL);
}

static int yes_write(struct channel *ch, struct iovec *iov, int n, struct err *e)
{
	struct yes *y = (struct yes *)ch;
	int rc = channel_write(y->there, iov, n, e);

	pthread_mutex_lock(&y->lock);
	ch->bytes = y->there->bytes;
	answer(y, iov);
	pthread_cond_broadcast(&y->changed);
	pthread_mutex_unlock(&y->lock);
	return rc;
}

static int yes_read(struct channel *ch, void *buf, size_t len, struct err *e)
{
	struct yes *y = (struct yes *)ch;
	int rc = 0;

	pthread_mutex_lock(&y->lock);
	while (y->said->bytes - y->heard < len && !y->closed)
		pthread_cond_wait(&y->changed, &y->lock);
	if (y->said->bytes - y->heard < len) {
		rc = err_set(e, "closed");
	} else if (len) {
		memcpy(buf, memory_channel_written(y->said) + y->heard, len);
		y->heard += len;
	}
	pthread_mutex_unlock(&y->lock);
	return rc;
}

static void yes_shutdown(struct channel *ch, bool writes_too)
{
	struct yes *y = (struct yes *)ch;

	(void)writes_too;
	pthread_mutex_lock(&y->lock);
	y->closed = true;
	pthread_cond_broadcast(&y->changed);
	pthread_mutex_unlock(&y->lock);
}

static const struct channel_ops yes_ops = { .write = yes_write,
					    .read = yes_read,
					    .shutdown = yes_shutdown };

/* -- writing -- */

/* What the guest writes in the first round, for the second: new content, zeros, the last page. */
static void write_more(struct fake *f, unsigned int block)
{
	if (block != 1)
		return;
	fake_write(f, 0, 1, 100, 0x1122334455667788);
	fake_clear(f, 0, 2);
	fake_write(f, 0, 9, 0, 1);
	fake_clear(f, 0, 12);
	fake_write(f, 1, 4, 511, 2);
}

static struct fake *guest(bool live)
{
	struct fake *f = fake_new(NULL, 2, pages);

	fake_fill(f, 1);
	f->value = 0xfeed;
	if (live)
		f->on_touched = write_more;
	return f;
}

/* How long it took to collect the states is the one thing that is not the same each time. */
static void forget_time(uint8_t *stream, size_t len)
{
	uint64_t at = 0;

	while (at + RECORD_HEAD_BYTES <= len) {
		uint8_t *head = stream + at;
		uint32_t body = get_u32(head + 16);

		if (head[0] == RECORD_STATES) {
			put_u64(head + RECORD_HEAD_BYTES, 0);
			put_u32(head + 4, 0);
			put_u32(head + 4, (uint32_t)crc32(crc32(0, head, RECORD_HEAD_BYTES),
							  head + RECORD_HEAD_BYTES, body));
		}
		at += RECORD_HEAD_BYTES + body + get_u32(head + 20) + get_u64(head + 24);
	}
}

static uint8_t *written(bool live, size_t *len)
{
	struct channel *there;
	struct source_limits limits = { .downtime_us = 300000 };
	struct stats stats = { 0 };
	struct fake *f = guest(live);
	struct yes y = { .ch = { .ops = &yes_ops, .name = "yes" },
			 .lock = PTHREAD_MUTEX_INITIALIZER,
			 .changed = PTHREAD_COND_INITIALIZER };
	struct source_job job = { .guest = &f->guest,
				  .n_lanes = 1,
				  .cold = !live,
				  .stop_fd = -1,
				  .limits = &limits,
				  .stats = &stats,
				  .fixed_id = id,
				  .program = "golden" };
	struct source *s;
	uint8_t *bytes;
	struct err e = { "" };

	memory_channel(&there, NULL, 0, NULL);
	memory_channel(&y.said, NULL, 0, NULL);
	y.answers.channel = y.said;
	y.there = there;
	/* As a file has it. */
	there->page_aligned = !live;
	s = source_new(&job, NULL);
	fake_run(f);
	if (!s || source_run(s, live ? &y.ch : there,
			     &e)) { /* also outside a test, where Check cannot be asked */
		fprintf(stderr, "%s\n", e.text);
		abort();
	}
	source_free(s);
	*len = there->bytes;
	bytes = malloc(*len);
	memcpy(bytes, memory_channel_written(there), *len);
	if (live)
		forget_time(bytes, *len);
	channel_close(there);
	channel_close(y.said);
	fake_free(f);
	return bytes;
}

START_TEST(same_guest_gives_the_same_bytes)
{
	size_t len, golden_len, i;
	uint8_t *now = written(_i, &len), *then = golden(_i, &golden_len);

	for (i = 0; i < len && i < golden_len && now[i] == then[i]; i++)
		;
	ck_assert_msg(len == golden_len && i == len,
		      "%s: %zu bytes, now %zu; the first other one is at %zu", path(_i), golden_len,
		      len, i);
	free(now);
	free(then);
}
END_TEST

START_TEST(golden_stream_loads)
{
	struct fake *f = fake_new(NULL, 2, pages), *expected = guest(false);
	struct stats stats = { 0 };
	struct destination d;
	struct channel *ch;
	struct tree t;
	const char *name;
	size_t len;
	uint8_t *bytes = golden(_i, &len);
	bool cold = _i == COLD || _i == COLD_V1;
	uint64_t wanted = _i == LIVE		? FEATURES_IMPLEMENTED
			  : _i == LIVE_V1_COSTS ? FEATURE_COSTS
						: 0;
	struct err e;

	if (!cold)
		write_more(expected, 1);
	memory_channel(&ch, bytes, len, NULL);
	ck_assert_msg(destination_open(&d, ch, cold, -1, &t, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(d.hello.version, _i < COLD_V1 ? 2 : 1);
	ck_assert_str_eq(d.hello.program, "golden");
	ck_assert_mem_eq(d.hello.id, id, sizeof(id));
	ck_assert(d.hello.wanted == wanted && !d.hello.needed);
	ck_assert_int_eq(tree_str(&t, "/", "name", &name, &e), 0);
	ck_assert_str_eq(name, "fake");
	ck_assert_msg(destination_answer(&d, NULL, &e) == 0 &&
			      destination_receive(&d, &f->guest, &stats, &e) == 0 &&
			      destination_start(&d, false, &e) == 0,
		      "%s", e.text);
	ck_assert(f->runs && f->value == 0xfeed);
	ck_assert(fake_same(f, expected));
	ck_assert_uint_eq(stats.data_bytes + stats.meta_bytes, len);
	destination_free(&d);
	tree_free(&t);
	free(bytes);
	fake_free(f);
	fake_free(expected);
}
END_TEST

static void write_anew(void)
{
	int live;

	for (live = 0; live < 2; live++) {
		size_t len;
		uint8_t *bytes = written(live, &len);
		FILE *f = fopen(path(live), "wb");

		if (!f || fwrite(bytes, 1, len, f) != len || fclose(f))
			perror(path(live));
		free(bytes);
	}
}

int main(void)
{
	const char *wish = getenv("GODWIT_GOLDEN");
	Suite *s = suite_create("golden");
	TCase *c = tcase_create("golden");
	SRunner *r = srunner_create(s);
	struct utsname u;
	int failed;

	if (wish && !strcmp(wish, "write"))
		write_anew();
	/* HELLO names the architecture; elsewhere these streams are rightly refused. */
	if (uname(&u) == 0 && !strcmp(u.machine, "x86_64")) {
		tcase_add_loop_test(c, same_guest_gives_the_same_bytes, 0, 2);
		tcase_add_loop_test(c, golden_stream_loads, 0, N_GOLDEN);
	} else {
		printf("skipped: the golden streams are of x86_64, this is %s\n", u.machine);
	}
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
