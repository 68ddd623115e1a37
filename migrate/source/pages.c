/*
 * Chunks to records. Plain pages go straight from guest memory, unless they need a checksum while
 * the guest runs. A codec only ever sees copies.
 */
#include "migrate/source/pages.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "migrate/codec/crc32c.h"
#include "migrate/codec/zero.h"
#include "migrate/policy/rate.h"
#include "migrate/source/limiter.h"
#include "migrate/stream/body.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/memory.h"

/* Pages that are copied for one record: few enough to stay in the processor's cache. */
#define COPIES_PAGES 64u

/* A PAGES record that is being made. */
struct batch {
	uint8_t body[PAGES_HEAD_BYTES + CHUNK_PAGES * RUN_BYTES];
	struct iovec data[CHUNK_PAGES];
	uint32_t n_runs;
	uint64_t pages;
	/* Of pages that get a checksum while the guest runs. */
	uint8_t copies[COPIES_PAGES * PAGE_SIZE];
};

/* -- as they are -- */

static void add_run(struct batch *b, const struct guest_block *block, uint64_t first, uint64_t n,
		    bool with_data)
{
	run_encode(b->body + PAGES_HEAD_BYTES, b->n_runs, first, n);
	if (with_data)
		b->data[b->n_runs] = (struct iovec){ block->host + first * PAGE_SIZE,
						     n * PAGE_SIZE };
	b->n_runs++;
	b->pages += n;
}

/*
 * Computes the checksum of the batch's data, and returns how many pieces they are in. A guest that
 * runs may write to a page at any moment. The checksum must be of the same copy that is sent, or
 * the destination would find sound data damaged.
 */
static int checksum_batch(const struct pages_sender *p, struct batch *b, uint32_t *crc)
{
	uint8_t *copy = b->copies, *from;
	uint64_t at;
	uint32_t i;

	for (i = 0; i < b->n_runs; i++) {
		from = b->data[i].iov_base;
		if (p->still) {
			*crc = crc32c(*crc, from, b->data[i].iov_len);
			continue;
		}
		for (at = 0; at < b->data[i].iov_len; at += PAGE_SIZE, copy += PAGE_SIZE) {
			memcpy(copy, from + at, PAGE_SIZE);
			*crc = crc32c(*crc, copy, PAGE_SIZE);
		}
	}
	if (p->still)
		return (int)b->n_runs;
	b->data[0] = (struct iovec){ b->copies, (size_t)(copy - b->copies) };
	return 1;
}

/* Sends a PAGES record as soon as the bandwidth allows it, and keeps how long the link took. */
static int send_paced(struct pages_worker *w, const void *body, size_t body_bytes,
		      struct iovec *data, int n_data, uint64_t data_bytes, struct err *e)
{
	struct pages_sender *p = w->all;
	uint64_t start = clock_us();

	if (limiter_wait(p->limiter, RECORD_HEAD_BYTES + body_bytes + data_bytes, e) ||
	    writer_flagged(w->writer, RECORD_PAGES, p->checksums ? 0 : RECORD_UNCHECKED, body,
			   body_bytes, data, n_data, e))
		return -1;
	if (w->link_bytes >= RATE_SAMPLE_BYTES) {
		w->link_bytes /= 2;
		w->link_ns /= 2;
	}
	w->link_bytes += data_bytes;
	w->link_ns += (clock_us() - start) * 1000;
	return 0;
}

/* How many pages, at most `most`, may go into one record under the present bandwidth. */
static uint64_t batch_pages(const struct pages_sender *p, uint64_t most)
{
	return pace_batch_bytes(limiter_rate(p->limiter), most * PAGE_SIZE) / PAGE_SIZE;
}

static int write_batch(struct pages_worker *w, unsigned int block, enum pages_codec codec,
		       struct err *e)
{
	struct pages_sender *p = w->all;
	struct batch *b = w->batch;
	bool plain = codec == CODEC_PLAIN;
	size_t body = PAGES_HEAD_BYTES + (size_t)b->n_runs * RUN_BYTES;
	uint64_t data = plain ? b->pages * PAGE_SIZE : 0;
	uint64_t before = w->writer->channel->bytes;
	struct pages head = { .block = block, .codec = codec, .n_runs = b->n_runs };
	int n_data = plain ? (int)b->n_runs : 0;

	if (!b->n_runs)
		return 0;
	if (plain && p->checksums)
		n_data = checksum_batch(p, b, &head.data_crc);
	pages_encode(&head, b->body);
	if (send_paced(w, b->body, body, b->data, n_data, data, e))
		return -1;
	stats_add(plain ? &p->stats->normal_pages : &p->stats->zero_pages, b->pages);
	stats_add(&p->stats->data_bytes, data);
	stats_add(&p->stats->meta_bytes, w->writer->channel->bytes - before - data);
	b->n_runs = 0;
	b->pages = 0;
	return 0;
}

/* Moves the zero pages from the chunk to `zero`, except those that the destination has as zero
 * already: returns how many these are. */
static uint64_t split_zero(struct pages_sender *p, struct chunk *c, uint64_t zero[CHUNK_WORDS])
{
	const struct guest_block *block = &p->guest->blocks[c->block];
	uint64_t *sent = p->sent[c->block] + c->first / 64, i, skipped = 0;

	memset(zero, 0, CHUNK_WORDS * sizeof(zero[0]));
	for (i = bitmap_next_set(c->pages, CHUNK_PAGES, 0); i < CHUNK_PAGES;
	     i = bitmap_next_set(c->pages, CHUNK_PAGES, i + 1)) {
		if (!zero_page(block->host + (c->first + i) * PAGE_SIZE)) {
			bitmap_set(sent, i);
			continue;
		}
		bitmap_clear(c->pages, i);
		if (bitmap_test(sent, i))
			bitmap_set(zero, i);
		else
			skipped++;
		bitmap_clear(sent, i);
	}
	return skipped;
}

static int send_runs(struct pages_worker *w, const struct chunk *c, const uint64_t *pages,
		     enum pages_codec codec, struct err *e)
{
	struct pages_sender *p = w->all;
	const struct guest_block *block = &p->guest->blocks[c->block];
	bool copied = codec == CODEC_PLAIN && p->checksums && !p->still;
	uint64_t max = batch_pages(p, copied ? COPIES_PAGES : CHUNK_PAGES), at, n;

	for (at = 0; bitmap_next_run(pages, CHUNK_PAGES, &at, &n); at += n) {
		n = min_u64(n, max - w->batch->pages);
		add_run(w->batch, block, c->first + at, n, codec == CODEC_PLAIN);
		if (w->batch->pages >= max && write_batch(w, c->block, codec, e))
			return -1;
	}
	return write_batch(w, c->block, codec, e);
}

/* -- encoded -- */

/* Picoseconds that this worker's link takes for a byte; 0: not known yet. */
static uint64_t link_byte_ps(const struct pages_worker *w)
{
	uint64_t rate = __atomic_load_n(w->all->limiter->bandwidth, __ATOMIC_RELAXED);
	uint64_t seen, allowed = rate ? 1000000000000 / rate : 0;

	if (w->link_bytes < RATE_SAMPLE_BYTES / 4)
		return allowed;
	seen = w->link_ns * 1000 / w->link_bytes;
	return max_u64(seen, allowed);
}

static enum decision choice_decision(enum pages_codec codec, bool on)
{
	switch (codec) {
	case CODEC_ZLIB:
		return on ? DECISION_ZLIB_ON : DECISION_ZLIB_OFF;
	case CODEC_ZSTD:
		return on ? DECISION_ZSTD_ON : DECISION_ZSTD_OFF;
	default:
		return on ? DECISION_XBZRLE_ON : DECISION_XBZRLE_OFF;
	}
}

static void say_choice(struct pages_sender *p, enum pages_codec codec, enum choice_change change,
		       const struct choice *c)
{
	bool on = change == CHOICE_SWITCHED_ON;
	const char *name = pages_codec_name(codec);

	if (change == CHOICE_AS_BEFORE)
		return;
	decision_tell(&p->codecs.decisions, choice_decision(codec, on),
		      "a page becomes %" PRIu64 " bytes and takes %" PRIu64 ".%" PRIu64
		      " us with %s, %" PRIu64 ".%" PRIu64 " us without%s",
		      c->page_bytes, c->with_ns / 1000, c->with_ns % 1000 / 100, name,
		      c->without_ns / 1000, c->without_ns % 1000 / 100,
		      on ? "" : ": it is left out, and tried again later");
}

/* Judges whether the codecs gain, by the size that a set of pages became and the time it took. */
static void judge(struct pages_worker *w, const struct encode_how *how, uint64_t rest_pages,
		  uint64_t rest_bytes, uint64_t delta_ns, uint64_t rest_ns)
{
	struct pages_sender *p = w->all;
	uint64_t byte_ps = link_byte_ps(w);
	enum choice_change delta = CHOICE_AS_BEFORE, rest = CHOICE_AS_BEFORE;
	struct choice delta_now, rest_now;

	pthread_mutex_lock(&p->lock);
	if (how->delta && w->encoder.known_pages)
		delta = choice_add(&p->delta, w->encoder.known_pages, w->encoder.known_bytes,
				   delta_ns, byte_ps);
	if (how->rest != CODEC_PLAIN && rest_pages)
		rest = choice_add(&p->rest, rest_pages, rest_bytes, rest_ns, byte_ps);
	delta_now = p->delta;
	rest_now = p->rest;
	pthread_mutex_unlock(&p->lock);
	say_choice(p, CODEC_XBZRLE, delta, &delta_now);
	say_choice(p, how->rest, rest, &rest_now);
}

static int write_encoded(struct pages_worker *w, const struct page_set *set, struct encoded *out,
			 struct err *e)
{
	struct pages_sender *p = w->all;
	uint64_t before = w->writer->channel->bytes, at, n;
	struct pages head = { .block = set->block, .codec = out->codec };
	uint8_t *body = w->batch->body;

	for (at = 0; bitmap_next_run(out->pages, CHUNK_PAGES, &at, &n); at += n)
		run_encode(body + PAGES_HEAD_BYTES, head.n_runs++, set->first + at, n);
	/* The encoder gives out copies, which the guest cannot write to. */
	if (p->checksums)
		head.data_crc = crc32c(0, out->data.iov_base, out->data.iov_len);
	pages_encode(&head, body);
	if (send_paced(w, body, PAGES_HEAD_BYTES + (size_t)head.n_runs * RUN_BYTES, &out->data, 1,
		       out->data.iov_len, e))
		return -1;
	if (out->codec == CODEC_XBZRLE) {
		stats_add(&p->stats->xbzrle_pages, out->n_pages);
		stats_add(&p->stats->xbzrle_bytes, out->data.iov_len);
	} else {
		stats_add(&p->stats->normal_pages, out->n_pages);
	}
	if (out->codec == CODEC_ZLIB || out->codec == CODEC_ZSTD) {
		stats_add(&p->stats->compressed_pages, out->n_pages);
		stats_add(&p->stats->compressed_bytes, out->data.iov_len);
	}
	stats_add(&p->stats->data_bytes, out->data.iov_len);
	stats_add(&p->stats->meta_bytes, w->writer->channel->bytes - before - out->data.iov_len);
	return 0;
}

static int encode_set(struct pages_worker *w, const struct encode_how *how,
		      const struct page_set *set, struct err *e)
{
	const struct encoder_count *count = w->encoder.count;
	uint64_t delta_ns = count[CODEC_XBZRLE].cpu_ns, rest_ns = count[how->rest].cpu_ns;
	uint64_t rest_pages = 0, rest_bytes = 0, unchanged = bitmap_count(set->pages, CHUNK_PAGES);
	struct encoded out[2];
	int n = encoder_run(&w->encoder, how, set, out, e), i;

	if (n < 0)
		return -1;
	for (i = 0; i < n; i++) {
		unchanged -= out[i].n_pages;
		if (out[i].codec == CODEC_XBZRLE)
			continue;
		rest_pages += out[i].n_pages;
		rest_bytes += out[i].data.iov_len;
	}
	judge(w, how, rest_pages, rest_bytes, count[CODEC_XBZRLE].cpu_ns - delta_ns,
	      count[how->rest].cpu_ns - rest_ns);
	for (i = 0; i < n; i++)
		if (write_encoded(w, set, &out[i], e))
			return -1;
	stats_add(&w->all->stats->xbzrle_pages, unchanged);
	if (!how->delta)
		return 0;
	stats_add(&w->all->stats->xbzrle_overflows, w->encoder.overflows);
	stats_add(&w->all->stats->xbzrle_misses,
		  bitmap_count(set->pages, CHUNK_PAGES) - w->encoder.known_pages);
	return 0;
}

/* Chooses the codecs for the next pages. */
static struct encode_how how_to_encode(struct pages_sender *p, uint64_t pages)
{
	struct encode_how how = { .rest = CODEC_PLAIN,
				  .level = p->codecs.level,
				  .round = p->round };

	if (!p->codecs.cache && p->codecs.rest == CODEC_PLAIN)
		return how;
	pthread_mutex_lock(&p->lock);
	if (p->codecs.cache && choice_wants(&p->delta, pages))
		how.delta = true;
	if (p->codecs.rest != CODEC_PLAIN && choice_wants(&p->rest, pages))
		how.rest = p->codecs.rest;
	pthread_mutex_unlock(&p->lock);
	return how;
}

static void set_up_set(struct page_set *set, const struct pages_sender *p, const struct chunk *c)
{
	*set = (struct page_set){ .block = c->block,
				  .first = c->first,
				  .host = p->guest->blocks[c->block].host + c->first * PAGE_SIZE };
}

/* The cache knows nothing about these pages any more. */
static void forget(struct pages_worker *w, const struct chunk *c, const uint64_t *pages)
{
	struct page_set set;

	if (!w->encoder.cache)
		return;
	set_up_set(&set, w->all, c);
	memcpy(set.pages, pages, sizeof(set.pages));
	encoder_forget(&w->encoder, &set);
}

/* Encodes and sends as many pages at once as the bandwidth allows. */
static int send_encoded(struct pages_worker *w, const struct encode_how *how, const struct chunk *c,
			struct err *e)
{
	uint64_t max = batch_pages(w->all, CHUNK_PAGES), i, n;
	struct page_set set;

	for (i = bitmap_next_set(c->pages, CHUNK_PAGES, 0); i < CHUNK_PAGES;) {
		set_up_set(&set, w->all, c);
		for (n = 0; i < CHUNK_PAGES && n < max;
		     i = bitmap_next_set(c->pages, CHUNK_PAGES, i + 1), n++)
			bitmap_set(set.pages, i);
		if (encode_set(w, how, &set, e))
			return -1;
	}
	return 0;
}

/* -- a chunk -- */

static int send_data(struct pages_worker *w, const struct chunk *c, struct err *e)
{
	uint64_t pages = bitmap_count(c->pages, CHUNK_PAGES);
	struct encode_how how = how_to_encode(w->all, pages);

	if (!pages)
		return 0;
	if (how.delta || how.rest != CODEC_PLAIN)
		return send_encoded(w, &how, c, e);
	forget(w, c, c->pages);
	return send_runs(w, c, c->pages, CODEC_PLAIN, e);
}

int pages_send(struct pages_sender *p, unsigned int worker, struct writer *writer, struct chunk *c,
	       struct err *e)
{
	struct pages_worker *w = &p->worker[worker];
	uint64_t zero[CHUNK_WORDS], pages = bitmap_count(c->pages, CHUNK_PAGES);

	w->writer = writer;
	stats_add(&p->stats->zero_pages, split_zero(p, c, zero));
	forget(w, c, zero);
	if (send_data(w, c, e) || send_runs(w, c, zero, CODEC_ZERO, e))
		return -1;
	stats_add(&p->stats->remaining_pages, -pages);
	return 0;
}

int pages_init(struct pages_sender *p, const struct guest *g, struct stats *stats,
	       struct limiter *limiter, unsigned int n, const struct pages_codecs *codecs,
	       struct err *e)
{
	unsigned int i;

	*p = (struct pages_sender){
		.guest = g, .stats = stats, .limiter = limiter, .codecs = *codecs, .n = n
	};
	pthread_mutex_init(&p->lock, NULL);
	for (i = 0; i < n; i++) {
		p->worker[i].all = p;
		encoder_init(&p->worker[i].encoder, codecs->cache);
		p->worker[i].batch = calloc(1, sizeof(*p->worker[i].batch));
		if (!p->worker[i].batch)
			return err_set(e, "out of memory");
	}
	for (i = 0; i < g->n_blocks; i++) {
		p->sent[i] = calloc(BITMAP_WORDS(g->blocks[i].pages) + CHUNK_WORDS,
				    sizeof(uint64_t));
		if (!p->sent[i])
			return err_set(e, "out of memory");
	}
	return 0;
}

void pages_free(struct pages_sender *p)
{
	unsigned int i;

	if (!p->guest)
		return;
	for (i = 0; i < p->n; i++) {
		free(p->worker[i].batch);
		encoder_free(&p->worker[i].encoder);
	}
	for (i = 0; i < GUEST_BLOCKS_MAX; i++)
		free(p->sent[i]);
	pthread_mutex_destroy(&p->lock);
	*p = (struct pages_sender){ 0 };
}
