/*
 * What is inside records, and their names: see record.h. Pure.
 */
#include "migrate/stream/record.h"

#include <inttypes.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/words.h"
#include "vmm/memory.h"

static const uint8_t magic[8] = { 'G', 'O', 'D', 'W', 'I', 'T', '\r', '\n' };

void put_u32(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)v;
	at[1] = (uint8_t)(v >> 8);
	at[2] = (uint8_t)(v >> 16);
	at[3] = (uint8_t)(v >> 24);
}

void put_u64(uint8_t *at, uint64_t v)
{
	put_u32(at, (uint32_t)v);
	put_u32(at + 4, (uint32_t)(v >> 32));
}

uint32_t get_u32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
	       (uint32_t)at[3] << 24;
}

uint64_t get_u64(const uint8_t *at)
{
	return get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}

const char *record_name(uint16_t type)
{
	switch (type) {
	case RECORD_HELLO:
		return "HELLO";
	case RECORD_MACHINE:
		return "MACHINE";
	case RECORD_PAGES:
		return "PAGES";
	case RECORD_STATES:
		return "STATES";
	case RECORD_END:
		return "END";
	case RECORD_CHECKED:
		return "CHECKED";
	case RECORD_ROUND:
		return "ROUND";
	case RECORD_READY:
		return "READY";
	case RECORD_GO:
		return "GO";
	case RECORD_RUNNING:
		return "RUNNING";
	case RECORD_FAILED:
		return "FAILED";
	case RECORD_AHEAD:
		return "AHEAD";
	case RECORD_PROBE:
		return "PROBE";
	default:
		return "unknown";
	}
}

/* `len` bytes at most, as text; `out` has one more. */
static void copy_text(char *out, const void *from, size_t len)
{
	char text[512];

	if (len >= sizeof(text))
		len = sizeof(text) - 1;
	memcpy(text, from, len);
	text[len] = 0;
	word_printable(out, len + 1, text);
}

void checked_encode(const struct checked_costs *c, uint8_t out[CHECKED_COSTS_BYTES])
{
	put_u32(out, 0);
	put_u32(out + 4, c->build_us);
	put_u32(out + 8, c->load_us);
	put_u32(out + 12, c->start_us);
}

bool checked_decode(const struct record *r, struct checked_costs *out)
{
	if (r->body_bytes != CHECKED_COSTS_BYTES || get_u32(r->body))
		return false;
	*out = (struct checked_costs){ get_u32(r->body + 4), get_u32(r->body + 8),
				       get_u32(r->body + 12) };
	return true;
}

bool checked_refuses(const struct record *r)
{
	struct checked_costs c;

	return r->body_bytes && !checked_decode(r, &c);
}

uint32_t record_body_max(uint16_t type, uint32_t n_vcpus)
{
	if (type != RECORD_STATES)
		return RECORD_BODY_MAX;
	return RECORD_BODY_MAX +
	       (n_vcpus < RECORD_VCPUS_MAX ? n_vcpus : RECORD_VCPUS_MAX) * RECORD_VCPU_MAX;
}

void record_text(const struct record *r, char *out, size_t size)
{
	copy_text(out, r->body, r->body_bytes < size - 1 ? r->body_bytes : size - 1);
}

bool record_begins_stream(const uint8_t first[RECORD_HEAD_BYTES + HELLO_BYTES])
{
	return first[0] == RECORD_HELLO && !first[1] &&
	       !memcmp(first + RECORD_HEAD_BYTES, magic, sizeof(magic));
}

void hello_encode(const struct hello *h, uint8_t out[HELLO_BYTES])
{
	memset(out, 0, HELLO_BYTES);
	memcpy(out, magic, sizeof(magic));
	put_u32(out + 8, h->version);
	put_u32(out + 12, h->page_bytes);
	memcpy(out + 16, h->arch, strnlen(h->arch, 11));
	put_u32(out + 28, h->role);
	memcpy(out + 32, h->id, 16);
	memcpy(out + 48, h->program, strnlen(h->program, 11));
	out[59] = h->features;
	put_u32(out + 60, h->lanes);
}

int hello_decode(const struct record *r, struct hello *out, struct err *e)
{
	const uint8_t *b = r->body;

	if (r->type != RECORD_HELLO || r->body_bytes < 12 || memcmp(b, magic, sizeof(magic)))
		return err_set(e, "this is not a godwit stream");
	memset(out, 0, sizeof(*out));
	out->version = get_u32(b + 8);
	if (out->version > STREAM_VERSION)
		return err_set(e,
			       "made by a newer godwit (stream version %" PRIu32
			       ", this one reads up to %u)",
			       out->version, STREAM_VERSION);
	if (out->version == 0 || r->body_bytes != HELLO_BYTES)
		return err_set(e, "the stream's HELLO record is damaged");
	out->page_bytes = get_u32(b + 12);
	copy_text(out->arch, b + 16, sizeof(out->arch) - 1);
	out->role = get_u32(b + 28);
	if (out->role < ROLE_MAIN || out->role > ROLE_PROBE)
		return err_set(e, "a connection in the unknown role %" PRIu32, out->role);
	memcpy(out->id, b + 32, 16);
	copy_text(out->program, b + 48, sizeof(out->program) - 1);
	out->features = b[59];
	out->lanes = get_u32(b + 60);
	if (out->page_bytes != PAGE_SIZE)
		return err_set(e, "made with pages of %" PRIu32 " bytes, here they have %u",
			       out->page_bytes, PAGE_SIZE);
	return 0;
}

const char *pages_codec_name(uint32_t codec)
{
	static const char *const names[] = {
		[CODEC_PLAIN] = "plain", [CODEC_ZERO] = "zero", [CODEC_XBZRLE] = "xbzrle",
		[CODEC_ZLIB] = "zlib",	 [CODEC_ZSTD] = "zstd",
	};

	return codec < sizeof(names) / sizeof(names[0]) && names[codec] ? names[codec] : "unknown";
}

/* How many bytes of data so many pages may have. */
static void data_bounds(uint32_t codec, uint64_t pages, uint64_t *min, uint64_t *max)
{
	const uint64_t bytes = pages * PAGE_SIZE;

	switch (codec) {
	case CODEC_PLAIN:
		*min = *max = bytes;
		break;
	case CODEC_XBZRLE:
		*min = pages * PAGES_XBZRLE_HEAD_BYTES;
		*max = *min + bytes;
		break;
	case CODEC_ZLIB:
	case CODEC_ZSTD:
		*min = 1;
		*max = bytes; /* what gains nothing is sent plain */
		break;
	default:
		*min = *max = 0;
	}
}

int pages_decode(const struct record *r, struct pages *out, struct err *e)
{
	uint64_t pages = 0, min, max;
	uint32_t i;

	if (r->body_bytes < PAGES_HEAD_BYTES)
		return err_set(e, "a PAGES record of %" PRIu32 " bytes is too short",
			       r->body_bytes);
	out->block = get_u32(r->body);
	out->codec = get_u32(r->body + 4);
	out->n_runs = get_u32(r->body + 8);
	out->data_crc = get_u32(r->body + 12);
	out->runs = r->body + PAGES_HEAD_BYTES;
	if (out->codec < CODEC_PLAIN || out->codec > CODEC_ZSTD)
		return err_set(e, "a PAGES record with the unknown codec %" PRIu32, out->codec);
	if (!out->n_runs || out->n_runs > PAGES_RUNS_MAX ||
	    r->body_bytes != PAGES_HEAD_BYTES + out->n_runs * PAGES_RUN_BYTES)
		return err_set(e, "a PAGES record with %" PRIu32 " runs in %" PRIu32 " bytes",
			       out->n_runs, r->body_bytes);
	for (i = 0; i < out->n_runs; i++) {
		uint64_t first, n;

		pages_run(out, i, &first, &n);
		if (!n || n > RECORD_DATA_MAX / PAGE_SIZE)
			return err_set(e, "a PAGES record with a run of %" PRIu64 " pages", n);
		pages += n;
	}
	/* Zero pages have no data whose length would bound the work. */
	if (pages > RECORD_DATA_MAX / PAGE_SIZE ||
	    (out->codec >= CODEC_XBZRLE && pages > PAGES_ENCODED_MAX))
		return err_set(e, "a PAGES record of %" PRIu64 " pages (%s)", pages,
			       pages_codec_name(out->codec));
	data_bounds(out->codec, pages, &min, &max);
	if (r->data_bytes < min || r->data_bytes > max)
		return err_set(e, "a PAGES record of %" PRIu64 " pages with %" PRIu64 " bytes (%s)",
			       pages, r->data_bytes, pages_codec_name(out->codec));
	return 0;
}

void pages_run(const struct pages *p, uint32_t i, uint64_t *first, uint64_t *n)
{
	*first = get_u64(p->runs + (size_t)i * PAGES_RUN_BYTES);
	*n = get_u64(p->runs + (size_t)i * PAGES_RUN_BYTES + 8);
}
