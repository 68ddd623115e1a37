/*
 * PAGES records into their place: see intake.h. Plain data go straight from the connection into
 * guest memory if the place allows that; nothing is copied on the way.
 */
#include "migrate/destination/intake.h"

#include <inttypes.h>
#include <stdlib.h>

#include "migrate/channel/channel.h"
#include "migrate/destination/ahead.h"
#include "migrate/destination/place.h"
#include "migrate/guest.h"
#include "migrate/stats.h"
#include "migrate/stream/body.h"
#include "migrate/stream/checksum.h"
#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/memory.h"

/* Less than the processor's cache. */
#define PIECE_BYTES (256u << 10)

/* Pages [first, first + n) of the record's block. */
struct run {
	uint64_t first, n;
};

/* Only round 1 has an upper bound of what remains: pages that were never touched do not come. */
static void count_pages(struct stats *st, uint32_t codec, uint64_t n)
{
	uint64_t total = stats_get(&st->total_pages), here;

	stats_add(codec == CODEC_ZERO ? &st->zero_pages : &st->normal_pages, n);
	here = stats_get(&st->zero_pages) + stats_get(&st->normal_pages);
	if (stats_get(&st->round) == 1)
		stats_set(&st->remaining_pages, here < total ? total - here : 0);
}

static int find_run(struct intake *in, const struct pages *p, uint32_t i, struct run *out,
		    struct err *e)
{
	run_decode(p->runs, i, &out->first, &out->n);
	if (!place_has(in->place, p->block, out->first, out->n))
		return err_set(e, "%s: pages outside memory block %" PRIu32,
			       in->reader->channel->name, p->block);
	ahead_reached(in->ahead, p->block, out->first + out->n - 1);
	return 0;
}

static int need_scratch(struct intake *in, struct err *e)
{
	if (!in->scratch)
		in->scratch = aligned_alloc(PAGE_SIZE, INTAKE_SCRATCH_PAGES * PAGE_SIZE);
	return in->scratch ? 0 : err_set(e, "out of memory");
}

/* Reads n pages, in pieces that the checksum still finds in the processor's cache. */
static int read_pages(struct intake *in, uint8_t *to, uint64_t n, struct checksum *sum,
		      struct err *e)
{
	uint64_t left = n * PAGE_SIZE, piece;

	for (; left; left -= piece, to += piece) {
		piece = sum->kind != CHECKSUM_NONE ? min_u64(left, PIECE_BYTES) : left;
		if (reader_data(in->reader, to, piece, e))
			return -1;
		checksum_add(sum, to, piece);
	}
	return 0;
}

static int take_run(struct intake *in, const struct pages *p, const struct run *run,
		    struct checksum *sum, struct err *e)
{
	if (p->codec == CODEC_ZERO)
		return in->place->ops->zero(in->place, p->block, run->first, run->n, e);
	return read_pages(in, in->place->ops->direct(in->place, p->block, run->first, run->n),
			  run->n, sum, e);
}

/* A record with the pages as they are, or without data. */
static int take_plain(struct intake *in, const struct pages *p, struct checksum *sum, struct err *e)
{
	struct run run = { 0 };
	uint32_t i;

	for (i = 0; i < p->n_runs; i++) {
		if (find_run(in, p, i, &run, e) || take_run(in, p, &run, sum, e))
			return -1;
		count_pages(in->stats, p->codec, run.n);
	}
	return 0;
}

/* A record that must be decoded, as a whole. */
static int take_encoded(struct intake *in, const struct pages *p, struct checksum *sum,
			struct err *e)
{
	struct run run = { 0 };
	uint64_t pages = 0;
	uint32_t i;

	/* No more runs than pages, and pages_decode has seen that they are not too many. */
	for (i = 0; i < p->n_runs; i++) {
		if (find_run(in, p, i, &run, e))
			return -1;
		in->decoder.run[i] = (struct iovec){ in->place->ops->direct(in->place, p->block,
									    run.first, run.n),
						     run.n * PAGE_SIZE };
		pages += run.n;
	}
	if (decoder_take(&in->decoder, in->reader, p->codec, p->n_runs, sum, e))
		return -1;
	count_pages(in->stats, p->codec, pages);
	return 0;
}

static int check_sum(const struct intake *in, const struct record *rec, const struct pages *p,
		     const struct checksum *sum, struct err *e)
{
	if (p->codec == CODEC_ZERO || checksum_is(sum, p->data_crc))
		return 0;
	return err_set(e, "%s: the pages of the record at byte %" PRIu64 " are damaged",
		       in->reader->channel->name, rec->offset);
}

/* All pages of a record into the scratch pages, one run behind the other. */
static int fill_scratch(struct intake *in, const struct pages *p, struct checksum *sum,
			struct err *e)
{
	struct run run = { 0 };
	uint64_t pages = 0;
	uint32_t i;

	for (i = 0; i < p->n_runs; i++) {
		if (find_run(in, p, i, &run, e))
			return -1;
		if (run.n > INTAKE_SCRATCH_PAGES - pages)
			return err_set(e, "%s: a record of more than %u pages, which are copied",
				       in->reader->channel->name, INTAKE_SCRATCH_PAGES);
		pages += run.n;
	}
	if (!decoder_wants(p->codec))
		return read_pages(in, in->scratch, pages, sum, e);
	in->decoder.run[0] = (struct iovec){ in->scratch, pages * PAGE_SIZE };
	return decoder_take(&in->decoder, in->reader, p->codec, 1, sum, e);
}

/* A place that takes copies may be one whose guest runs: it never gets a damaged page. */
static int take_by_copy(struct intake *in, const struct record *rec, const struct pages *p,
			struct checksum *sum, struct err *e)
{
	uint64_t first, n, at = 0;
	uint32_t i;

	if (need_scratch(in, e) || fill_scratch(in, p, sum, e) || check_sum(in, rec, p, sum, e))
		return -1;
	for (i = 0; i < p->n_runs; i++, at += n) {
		run_decode(p->runs, i, &first, &n);
		if (in->place->ops->copy(in->place, p->block, first, n,
					 in->scratch + at * PAGE_SIZE, e))
			return -1;
	}
	count_pages(in->stats, p->codec, at);
	return 0;
}

int intake_pages(struct intake *in, const struct record *rec, struct err *e)
{
	const struct guest *g = in->place->guest;
	const char *name = in->reader->channel->name;
	struct checksum sum = checksum_of(rec);
	struct pages p;
	int rc;

	if (pages_decode(rec, &p, e))
		return err_context(e, "%s", name);
	if (p.block >= g->n_blocks)
		return err_set(e, "%s: pages of memory block %" PRIu32 ", the machine has %u", name,
			       p.block, g->n_blocks);
	if (p.codec == CODEC_XBZRLE && !in->place->keeps_old)
		return err_set(e, "%s: pages as changes to older ones (xbzrle), which are not here",
			       name);
	if (p.codec != CODEC_ZERO && !in->place->ops->direct)
		rc = take_by_copy(in, rec, &p, &sum, e);
	else if (decoder_wants(p.codec))
		rc = take_encoded(in, &p, &sum, e);
	else
		rc = take_plain(in, &p, &sum, e);
	if (rc)
		return -1;
	stats_add(&in->stats->data_bytes, rec->data_bytes);
	return check_sum(in, rec, &p, &sum, e);
}

void intake_free(struct intake *in)
{
	free(in->scratch);
	in->scratch = NULL;
	decoder_free(&in->decoder);
}
