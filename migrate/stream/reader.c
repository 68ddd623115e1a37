/*
 * Records from a channel: see record.h. One thread at a time. Nothing is allocated before a length
 * was checked against its limit, and the body is checked before anybody sees it.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "migrate/channel/channel.h"
#include "migrate/stream/record.h"
#include "vmm/base/err.h"

static int bad_head(const struct reader *r, const struct record *out, struct err *e)
{
	/* The first record decides whether it is a stream at all. */
	if (r->sequence == 0)
		return err_set(e, "%s: this is not a godwit stream", r->channel->name);
	return err_set(e, "%s: the record at byte %" PRIu64 " is damaged", r->channel->name,
		       out->offset);
}

static int reserve_body(struct reader *r, size_t len, struct err *e)
{
	uint8_t *bigger;

	if (len <= r->body_size)
		return 0;
	bigger = realloc(r->body, len);
	if (!bigger)
		return err_set(e, "out of memory");
	r->body = bigger;
	r->body_size = len;
	return 0;
}

static int read_bytes(struct reader *r, void *to, size_t len, struct err *e)
{
	if (channel_read(r->channel, to, len, e))
		return -1;
	r->bytes += len;
	return 0;
}

static bool is_implemented(uint16_t type)
{
	return type >= RECORD_HELLO && type <= RECORD_PROBE;
}

/* Whether the head may begin the next record. */
static bool is_good(const struct reader *r, const uint8_t *head, const struct record *out)
{
	const uint16_t allowed = RECORD_SKIPPABLE |
				 (out->type == RECORD_PAGES ? RECORD_UNCHECKED : 0);

	if (!out->type || out->flags & ~allowed || get_u64(head + 8) != r->sequence)
		return false;
	if (out->body_bytes > record_body_max(out->type, r->n_vcpus) ||
	    get_u32(head + 20) > RECORD_PAD_MAX || out->data_bytes > RECORD_DATA_MAX)
		return false;
	if (out->data_bytes && is_implemented(out->type) && out->type != RECORD_PAGES &&
	    out->type != RECORD_PROBE)
		return false;
	return (r->sequence == 0) == (out->type == (r->answers ? RECORD_CHECKED : RECORD_HELLO));
}

static int skip_padding(struct reader *r, uint32_t pad, struct err *e)
{
	uint8_t skipped[256];

	while (pad) {
		size_t n = pad < sizeof(skipped) ? pad : sizeof(skipped);

		if (read_bytes(r, skipped, n, e))
			return -1;
		pad -= (uint32_t)n;
	}
	return 0;
}

/* The next record, of any type. */
static int next_record(struct reader *r, struct record *out, struct err *e)
{
	uint8_t head[RECORD_HEAD_BYTES];
	uint32_t crc, pad;
	uLong actual;

	out->offset = r->bytes;
	if (read_bytes(r, head, sizeof(head), e))
		return -1;
	out->type = (uint16_t)(head[0] | head[1] << 8);
	out->flags = (uint16_t)(head[2] | head[3] << 8);
	out->crc32c = r->version >= 2;
	crc = get_u32(head + 4);
	out->body_bytes = get_u32(head + 16);
	pad = get_u32(head + 20);
	out->data_bytes = get_u64(head + 24);
	if (!is_good(r, head, out))
		return bad_head(r, out, e);
	if (reserve_body(r, out->body_bytes ? out->body_bytes : 1, e) ||
	    read_bytes(r, r->body, out->body_bytes, e))
		return -1;
	put_u32(head + 4, 0);
	actual = crc32(0, head, sizeof(head));
	actual = crc32(actual, r->body, out->body_bytes);
	if (actual != crc)
		return bad_head(r, out, e);
	if (skip_padding(r, pad, e))
		return -1;
	out->body = r->body;
	r->data_left = out->data_bytes;
	r->sequence++;
	return 0;
}

static int refuse_type(const struct reader *r, const struct record *rec, struct err *e)
{
	if (rec->type <= RECORD_DISCARD_DISK)
		return err_set(e, "%s: a %s record (type %u) at byte %" PRIu64 ": not implemented",
			       r->channel->name, record_name(rec->type), rec->type, rec->offset);
	return err_set(e, "%s: a record of the unknown type %u at byte %" PRIu64, r->channel->name,
		       rec->type, rec->offset);
}

int reader_record(struct reader *r, struct record *out, struct err *e)
{
	uint64_t start = r->bytes;
	unsigned int skips;

	for (skips = 0;; skips++) {
		if (next_record(r, out, e))
			return -1;
		if (is_implemented(out->type))
			return 0;
		if (!(out->flags & RECORD_SKIPPABLE))
			return refuse_type(r, out, e);
		if (skips == RECORD_SKIPS_MAX ||
		    r->bytes - start + out->data_bytes > RECORD_SKIP_BYTES_MAX)
			return err_set(e, "%s: too many records of unknown types, at byte %" PRIu64,
				       r->channel->name, out->offset);
		if (reader_skip(r, e))
			return -1;
	}
}

int reader_data(struct reader *r, void *to, size_t len, struct err *e)
{
	if (len > r->data_left)
		return err_set(e, "%s: a record has less data than its runs say", r->channel->name);
	r->data_left -= len;
	return read_bytes(r, to, len, e);
}

int reader_skip(struct reader *r, struct err *e)
{
	uint8_t buf[65536];

	while (r->data_left) {
		size_t n = r->data_left < sizeof(buf) ? (size_t)r->data_left : sizeof(buf);

		if (reader_data(r, buf, n, e))
			return -1;
	}
	return 0;
}

void reader_free(struct reader *r)
{
	free(r->body);
	r->body = NULL;
	r->body_size = 0;
}

int reader_expect(struct reader *r, enum record_type type, struct record *out, struct err *e)
{
	char text[400];

	if (reader_record(r, out, e))
		return -1;
	if (out->type == type)
		return 0;
	if (out->type == RECORD_FAILED) {
		record_text(out, text, sizeof(text));
		return err_set(e, "%s: %s", r->channel->name, text);
	}
	return err_set(e, "%s: a %s record where %s was expected", r->channel->name,
		       record_name(out->type), record_name((uint16_t)type));
}

int reader_ended(struct reader *r, const struct record *end, struct err *e)
{
	if (end->body_bytes)
		return err_set(e, "%s: an END record of %" PRIu32 " bytes", r->channel->name,
			       end->body_bytes);
	return channel_expect_end(r->channel, e);
}

int reader_end(struct reader *r, struct err *e)
{
	struct record rec;

	return reader_expect(r, RECORD_END, &rec, e) || reader_ended(r, &rec, e) ? -1 : 0;
}
