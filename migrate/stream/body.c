/* What is inside records: see body.h. Pure. */
#include "migrate/stream/body.h"

#include <inttypes.h>

#include "vmm/base/err.h"
#include "vmm/memory.h"

/* -- runs -- */

void run_encode(uint8_t *runs, uint32_t i, uint64_t first, uint64_t n)
{
	put_u64(runs + (size_t)i * RUN_BYTES, first);
	put_u64(runs + (size_t)i * RUN_BYTES + 8, n);
}

void run_decode(const uint8_t *runs, uint32_t i, uint64_t *first, uint64_t *n)
{
	*first = get_u64(runs + (size_t)i * RUN_BYTES);
	*n = get_u64(runs + (size_t)i * RUN_BYTES + 8);
}

/* -- PAGES -- */

const char *pages_codec_name(uint32_t codec)
{
	static const char *const names[] = {
		[CODEC_PLAIN] = "plain", [CODEC_ZERO] = "zero", [CODEC_XBZRLE] = "xbzrle",
		[CODEC_ZLIB] = "zlib",	 [CODEC_ZSTD] = "zstd",
	};

	return codec < sizeof(names) / sizeof(names[0]) && names[codec] ? names[codec] : "unknown";
}

void pages_encode(const struct pages *p, uint8_t head[PAGES_HEAD_BYTES])
{
	put_u32(head, p->block);
	put_u32(head + 4, p->codec);
	put_u32(head + 8, p->n_runs);
	put_u32(head + 12, p->data_crc);
}

/* How many bytes of data a number of pages may have. */
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

/* How many pages the runs hold. */
static int count_pages(const struct pages *p, uint64_t *pages, struct err *e)
{
	uint64_t first, n;
	uint32_t i;

	*pages = 0;
	for (i = 0; i < p->n_runs; i++) {
		run_decode(p->runs, i, &first, &n);
		if (!n || n > RECORD_DATA_MAX / PAGE_SIZE)
			return err_set(e, "a PAGES record with a run of %" PRIu64 " pages", n);
		*pages += n;
	}
	/* Zero pages have no data whose length would bound the work. */
	if (*pages > RECORD_DATA_MAX / PAGE_SIZE ||
	    (p->codec >= CODEC_XBZRLE && *pages > PAGES_ENCODED_MAX))
		return err_set(e, "a PAGES record of %" PRIu64 " pages (%s)", *pages,
			       pages_codec_name(p->codec));
	return 0;
}

int pages_decode(const struct record *r, struct pages *out, struct err *e)
{
	uint64_t pages, min, max;

	if (r->body_bytes < PAGES_HEAD_BYTES)
		return err_set(e, "a PAGES record of %" PRIu32 " bytes is too short",
			       r->body_bytes);
	*out = (struct pages){ .block = get_u32(r->body),
			       .codec = get_u32(r->body + 4),
			       .n_runs = get_u32(r->body + 8),
			       .data_crc = get_u32(r->body + 12),
			       .runs = r->body + PAGES_HEAD_BYTES };
	if (out->codec < CODEC_PLAIN || out->codec > CODEC_ZSTD)
		return err_set(e, "a PAGES record with the unknown codec %" PRIu32, out->codec);
	if (!out->n_runs || out->n_runs > PAGES_RUNS_MAX ||
	    r->body_bytes != PAGES_HEAD_BYTES + out->n_runs * RUN_BYTES)
		return err_set(e, "a PAGES record with %" PRIu32 " runs in %" PRIu32 " bytes",
			       out->n_runs, r->body_bytes);
	if (count_pages(out, &pages, e))
		return -1;
	data_bounds(out->codec, pages, &min, &max);
	if (r->data_bytes < min || r->data_bytes > max)
		return err_set(e, "a PAGES record of %" PRIu64 " pages with %" PRIu64 " bytes (%s)",
			       pages, r->data_bytes, pages_codec_name(out->codec));
	return 0;
}

/* -- AHEAD -- */

void ahead_runs_encode(const struct ahead_runs *a, uint8_t head[AHEAD_HEAD_BYTES])
{
	put_u32(head, a->block);
	put_u32(head + 4, a->n);
}

int ahead_runs_decode(const struct record *r, struct ahead_runs *out, struct err *e)
{
	uint64_t first, n, end = 0;
	uint32_t i;

	if (r->body_bytes < AHEAD_HEAD_BYTES)
		return err_set(e, "an AHEAD record of %" PRIu32 " bytes", r->body_bytes);
	*out = (struct ahead_runs){ get_u32(r->body), get_u32(r->body + 4),
				    r->body + AHEAD_HEAD_BYTES };
	if (out->n > AHEAD_RUNS_MAX || r->body_bytes != AHEAD_HEAD_BYTES + out->n * RUN_BYTES)
		return err_set(e, "an AHEAD record of %" PRIu32 " runs of memory block %" PRIu32,
			       out->n, out->block);
	for (i = 0; i < out->n; i++, end = first + n) {
		run_decode(out->runs, i, &first, &n);
		if (first % AHEAD_UNIT_PAGES || first < end || !n || n > UINT64_MAX - first)
			return err_set(e,
				       "an AHEAD record of pages outside memory block, or out of "
				       "order: %" PRIu32,
				       out->block);
	}
	return 0;
}

/* -- ROUND -- */

void round_encode(uint32_t round, uint8_t out[ROUND_BYTES])
{
	put_u32(out, round);
}

int round_decode(const struct record *r, uint32_t *round, struct err *e)
{
	if (r->body_bytes != ROUND_BYTES)
		return err_set(e, "a ROUND record of %" PRIu32 " bytes", r->body_bytes);
	*round = get_u32(r->body);
	return *round ? 0 : err_set(e, "a ROUND record with the number 0");
}

/* -- STATES -- */

#define STATES_RAN  1u
#define STATES_TELL 2u

void states_encode(const struct states_head *h, uint8_t out[STATES_HEAD_BYTES])
{
	put_u64(out, h->pause_ns);
	put_u64(out + 8, (h->ran ? STATES_RAN : 0) | (h->ran && h->tell ? STATES_TELL : 0));
}

int states_decode(const struct record *r, struct states_head *out, struct err *e)
{
	uint64_t bits;

	if (r->body_bytes < STATES_HEAD_BYTES)
		return err_set(e, "the states are cut short");
	bits = get_u64(r->body + 8);
	*out = (struct states_head){ .pause_ns = get_u64(r->body),
				     .ran = bits & STATES_RAN,
				     .tell = bits & STATES_TELL };
	if (bits & ~(uint64_t)(STATES_RAN | STATES_TELL) || (out->tell && !out->ran))
		return err_set(e, "states with the bits 0x%" PRIx64 ", which mean nothing", bits);
	/* By force a pause may take days. A longer one is no pause that a clock could make good. */
	if (out->pause_ns > STATES_PAUSE_MAX_NS)
		return err_set(e, "a pause of %" PRIu64 " s, more than a year",
			       out->pause_ns / 1000000000);
	return 0;
}

/* -- PROBE -- */

bool probe_is_good(const struct record *r)
{
	return !r->body_bytes && r->data_bytes && r->data_bytes <= PROBE_DATA_MAX;
}
