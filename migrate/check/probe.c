/*
 * The source's end of a probe: see probe.h. Each round ends with its answer, so that data in
 * buffers do not count as sent. Each has twice the data, so that a slow link never gets more than
 * it carries soon.
 */
#include "migrate/check/probe.h"

#include <inttypes.h>
#include <stdlib.h>

#include "migrate/channel/channel.h"
#include "migrate/channel/pace.h"
#include "migrate/stream/body.h"
#include "migrate/stream/hello.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/base/wake.h"

/* The first round's data. */
#define FIRST_BYTES 65536u

/* A round of that length says enough; one of that length something; and how long it takes in all.
 */
#define ENOUGH_US 150000u
#define SOME_US	  20000u
#define TOTAL_US  500000u

/* How long the destination may be silent. */
#define ANSWER_MS 10000

#define NAP_US 20000u

/* -- the source -- */

struct measure {
	struct writer writer;
	struct reader reader;
	uint64_t bandwidth;
	int stop_fd;
	struct pace pace;
	uint8_t *bytes; /* PROBE_DATA_MAX of them */
	uint32_t round;
};

static int expect(struct measure *m, enum record_type type, struct record *rec, struct err *e)
{
	char text[400];

	channel_set_deadline(m->writer.channel, ANSWER_MS);
	if (reader_expect(&m->reader, type, rec, e))
		return err_context(e, "measuring the link");
	channel_set_deadline(m->writer.channel, -1);
	if (type != RECORD_CHECKED || !rec->body_bytes)
		return 0;
	record_text(rec, text, sizeof(text));
	return err_set(e, "the destination refuses: %s", text);
}

/* Until these bytes may go. */
static int keep_rate(struct measure *m, uint64_t bytes, struct err *e)
{
	uint64_t now = clock_us();
	uint64_t until = now + pace_take(&m->pace, now, m->bandwidth, bytes);

	for (; now < until; now = clock_us())
		if (wake_nap(m->stop_fd, min_u64(until - now, NAP_US), e))
			return -1;
	return 0;
}

/* So many bytes, and the answer to them. */
static int send_round(struct measure *m, uint64_t bytes, uint64_t *us, struct err *e)
{
	const uint64_t most = pace_batch_bytes(m->bandwidth, PROBE_DATA_MAX);
	uint64_t start = clock_us(), n;
	uint8_t number[ROUND_BYTES];
	struct record rec;
	uint32_t answered;

	for (; bytes; bytes -= n) {
		struct iovec data = { m->bytes, n = bytes < most ? bytes : most };

		if (keep_rate(m, n, e))
			return -1;
		channel_set_deadline(m->writer.channel, ANSWER_MS);
		if (writer_record(&m->writer, RECORD_PROBE, NULL, 0, &data, 1, e))
			return -1;
	}
	round_encode(++m->round, number);
	channel_set_deadline(m->writer.channel, ANSWER_MS);
	if (writer_record(&m->writer, RECORD_ROUND, number, sizeof(number), NULL, 0, e) ||
	    expect(m, RECORD_ROUND, &rec, e))
		return -1;
	if (round_decode(&rec, &answered, NULL) || answered != m->round)
		return err_set(e, "%s: the answer to another round than %" PRIu32,
			       m->writer.channel->name, m->round);
	*us = clock_us() - start;
	return 0;
}

/* Rounds that were long enough count together; where none was, the last does. */
static int measure(struct measure *m, struct probe *out, struct err *e)
{
	uint64_t start = clock_us(), bytes = FIRST_BYTES, left = PROBE_BYTES_MAX;
	uint64_t all_bytes = 0, all_us = 0, us;

	if (send_round(m, 0, &out->round_trip_us, e))
		return -1;
	do {
		if (send_round(m, bytes, &us, e))
			return -1;
		us = us > out->round_trip_us ? us - out->round_trip_us : 1;
		if (us >= SOME_US) {
			all_bytes += bytes;
			all_us += us;
		}
		out->rate_bytes = bytes * 1000000 / us;
		left -= bytes;
		bytes *= 2;
	} while (us < ENOUGH_US && clock_us() - start < TOTAL_US && bytes <= left);
	if (all_us)
		out->rate_bytes = all_bytes * 1000000 / all_us;
	if (m->bandwidth && out->rate_bytes > m->bandwidth)
		out->rate_bytes = m->bandwidth;
	return 0;
}

/* What nothing on the way can make smaller. */
static void fill(uint8_t *bytes)
{
	uint64_t x = 88172645463325252ull;

	for (size_t i = 0; i < PROBE_DATA_MAX; i += sizeof(x)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		put_u64(bytes + i, x);
	}
}

int probe_measure(struct channel *ch, uint64_t bandwidth, int stop_fd, struct probe *out,
		  struct err *e)
{
	struct measure m = { .writer = { .channel = ch },
			     .reader = { .channel = ch, .answers = true },
			     .bandwidth = bandwidth,
			     .stop_fd = stop_fd };
	struct hello h = { .role = ROLE_PROBE, .lanes = 1 };
	struct record rec;
	int rc;

	*out = (struct probe){ 0 };
	m.bytes = malloc(PROBE_DATA_MAX);
	if (!m.bytes)
		return err_set(e, "out of memory");
	fill(m.bytes);
	rc = hello_send(&m.writer, &h, e) || expect(&m, RECORD_CHECKED, &rec, e) ||
	     measure(&m, out, e);
	reader_free(&m.reader);
	free(m.bytes);
	return rc ? -1 : 0;
}
