/*
 * Streams made by hand, and what a destination makes of them: see stream_maker.h. No threads.
 */
#include "tests/unit/lib/stream_maker.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "migrate/codec/crc32c.h"
#include "migrate/destination/destination.h"
#include "vmm/memory.h"

static const uint64_t block_pages[] = { MAKER_PAGES_0, MAKER_PAGES_1 };

struct fake *maker_guest(void)
{
	return fake_new(NULL, 2, block_pages);
}

void maker_make(struct maker *m)
{
	memory_channel(&m->ch, NULL, 0, NULL);
	m->w = (struct writer){ .channel = m->ch };
	m->f = maker_guest();
}

void maker_unmake(struct maker *m)
{
	channel_close(m->ch);
	fake_free(m->f);
}

void maker_record(struct maker *m, int type, const void *body, size_t len)
{
	ck_assert_int_eq(writer_record(&m->w, (enum record_type)type, body, len, NULL, 0, NULL), 0);
}

struct hello maker_good_hello(void)
{
	struct hello h = { .version = STREAM_VERSION, .role = ROLE_MAIN, .lanes = 1 };
	struct utsname u;

	uname(&u);
	memcpy(h.arch, u.machine, strnlen(u.machine, sizeof(h.arch) - 1));
	h.page_bytes = PAGE_SIZE;
	return h;
}

void maker_hello(struct maker *m, const struct hello *h)
{
	uint8_t body[HELLO_BYTES];

	hello_encode(h, body);
	maker_record(m, RECORD_HELLO, body, sizeof(body));
}

void maker_machine(struct maker *m)
{
	maker_record(m, RECORD_MACHINE, m->f->tree.fdt, tree_bytes_used(&m->f->tree));
}

void maker_begin(struct maker *m)
{
	struct hello h = maker_good_hello();

	maker_hello(m, &h);
	maker_machine(m);
}

void maker_pages(struct maker *m, uint32_t block, uint32_t codec, uint32_t n_runs,
		 const uint64_t (*runs)[2], uint32_t written_runs, size_t data_bytes)
{
	uint8_t *body = calloc(1, PAGES_HEAD_BYTES + written_runs * RUN_BYTES);
	uint8_t *data = calloc(1, data_bytes + 1);
	struct iovec iov = { data, data_bytes };
	uint32_t i;

	put_u32(body, block);
	put_u32(body + 4, codec);
	put_u32(body + 8, n_runs);
	for (i = 0; i < written_runs; i++) {
		put_u64(body + 16 + i * 16, runs[i][0]);
		put_u64(body + 24 + i * 16, runs[i][1]);
	}
	memset(data, 0x5a, data_bytes);
	ck_assert_int_eq(writer_flagged(&m->w, RECORD_PAGES, RECORD_UNCHECKED, body,
					PAGES_HEAD_BYTES + written_runs * RUN_BYTES, &iov,
					data_bytes ? 1 : 0, NULL),
			 0);
	free(data);
	free(body);
}

void maker_encoded(struct maker *m, uint16_t flags, uint32_t block, uint32_t codec, uint32_t n_runs,
		   const uint64_t (*runs)[2], const void *data, size_t data_bytes)
{
	struct iovec iov = { (void *)(uintptr_t)data, data_bytes };
	uint8_t body[PAGES_HEAD_BYTES + 16 * RUN_BYTES];
	uint32_t i;

	ck_assert_uint_le(n_runs, 16);
	put_u32(body, block);
	put_u32(body + 4, codec);
	put_u32(body + 8, n_runs);
	put_u32(body + 12, flags ? 0 : crc32c(0, data, data_bytes));
	for (i = 0; i < n_runs; i++) {
		put_u64(body + 16 + i * 16, runs[i][0]);
		put_u64(body + 24 + i * 16, runs[i][1]);
	}
	ck_assert_int_eq(writer_flagged(&m->w, RECORD_PAGES, flags, body,
					PAGES_HEAD_BYTES + n_runs * RUN_BYTES, &iov, 1, NULL),
			 0);
}

void maker_run(struct maker *m, uint32_t block, uint32_t codec, uint64_t first, uint64_t n)
{
	const uint64_t runs[1][2] = { { first, n } };

	maker_pages(m, block, codec, 1, runs, 1, codec == CODEC_PLAIN ? n * PAGE_SIZE : 0);
}

void maker_round_end(struct maker *m, uint32_t round)
{
	uint8_t body[4];

	put_u32(body, round);
	maker_record(m, RECORD_ROUND, body, sizeof(body));
}

void maker_states(struct maker *m, uint64_t pause_ns)
{
	uint8_t body[8192];
	struct tree t;

	ck_assert(!tree_init(&t, NULL) && !tree_set_u32(&t, "/vm", "value", 7, NULL));
	tree_pack(&t);
	put_u64(body, pause_ns);
	put_u64(body + 8, 1);
	memcpy(body + STATES_HEAD_BYTES, t.fdt, tree_bytes_used(&t));
	maker_record(m, RECORD_STATES, body, STATES_HEAD_BYTES + tree_bytes_used(&t));
	tree_free(&t);
}

/* -- taking them in -- */

int maker_take_into(struct fake *f, const uint8_t *bytes, size_t len, bool cold, char answers[32],
		    struct err *e)
{
	struct stats stats = { 0 };
	struct reader back = { 0 };
	struct destination d;
	struct record rec;
	struct channel *ch, *said;
	struct tree t;
	unsigned int n = 0;
	int rc;

	ck_assert_int_eq(memory_channel(&ch, bytes, len, NULL), 0);
	rc = destination_open(&d, ch, cold, -1, &t, e);
	if (!rc) {
		tree_free(&t);
		rc = destination_answer(&d, NULL, e) ||
		     destination_receive(&d, &f->guest, &stats, e) ||
		     destination_start(&d, false, e);
		ck_assert_int_eq(f->runs, !rc);
		if (rc)
			ck_assert_uint_eq(f->starts, 0);
		memory_channel(&said, memory_channel_written(ch), ch->bytes, NULL);
		back = (struct reader){ .channel = said, .answers = true };
		while (answers && n < 31 && reader_record(&back, &rec, NULL) == 0)
			answers[n++] = (char)('A' + rec.type);
		channel_close(said);
		reader_free(&back);
		destination_free(&d);
	}
	if (answers)
		answers[n] = 0;
	return rc ? -1 : 0;
}

int maker_take(const uint8_t *bytes, size_t len, bool cold, char answers[32], struct err *e)
{
	struct fake *f = maker_guest();
	int rc = maker_take_into(f, bytes, len, cold, answers, e);

	fake_free(f);
	return rc;
}
