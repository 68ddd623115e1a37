/*
 * The lanes: see lanes.h. A lane's thread takes a chunk from the queue, sends it, takes the next.
 * The bits in `sent` that belong to a chunk are touched only by the lane that has it: chunks begin
 * at word boundaries and are in flight once.
 */
#include "migrate/source/lanes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "migrate/channel/channel.h"
#include "migrate/codec/zero.h"
#include "migrate/policy/rate.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/clock.h"
#include "vmm/base/math.h"
#include "vmm/base/wake.h"
#include "vmm/memory.h"

/* The longest sleep without a look at the rate. */
#define NAP_US 50000u

/* A PAGES record on the way. */
struct batch {
	uint8_t body[PAGES_HEAD_BYTES + CHUNK_PAGES * RUN_BYTES];
	struct iovec data[CHUNK_PAGES];
	uint32_t n_runs;
	uint64_t pages;
};

/* -- the rate -- */

/* Sleeps `us`, or fails when stopped. */
static int nap(struct lanes *l, uint64_t us, struct err *e)
{
	return wake_nap(l->stop_fd, us, e);
}

int lanes_check(struct lanes *l, struct err *e)
{
	return nap(l, 0, e);
}

static bool has_failed(struct lanes *l)
{
	bool failed;

	pthread_mutex_lock(&l->lock);
	failed = l->failed;
	pthread_mutex_unlock(&l->lock);
	return failed;
}

/* Bytes a second that may go now; 0: as fast as it can. By force the guest stands, or is about to:
 * then nothing is held back. */
static uint64_t rate_now(const struct lanes *l)
{
	if (l->force && __atomic_load_n(l->force, __ATOMIC_RELAXED))
		return 0;
	return __atomic_load_n(l->rate, __ATOMIC_RELAXED);
}

/* Sleeps until `bytes` may go; in short naps, since the rate may change meanwhile. */
static int keep_rate(struct lanes *l, uint64_t bytes, struct err *e)
{
	uint64_t rate = rate_now(l), now = clock_us(), wait, until;

	pthread_mutex_lock(&l->lock);
	wait = pace_take(&l->pace, now, rate, bytes);
	pthread_mutex_unlock(&l->lock);
	for (until = now + wait; now < until; now = clock_us()) {
		uint64_t actual = rate_now(l);

		if (has_failed(l))
			return err_set(e, "another connection has failed");
		if (!actual || actual > rate)
			until = now + pace_rescale(until - now, rate, actual);
		rate = actual;
		if (nap(l, until - now < NAP_US ? until - now : NAP_US, e))
			return -1;
	}
	return 0;
}

/* -- one chunk -- */

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

static uint32_t checksum(const struct batch *b)
{
	uLong crc = crc32(0, NULL, 0);
	uint32_t i;

	for (i = 0; i < b->n_runs; i++)
		crc = crc32(crc, b->data[i].iov_base, (uInt)b->data[i].iov_len);
	return (uint32_t)crc;
}

/* One PAGES record, when it may go; and what the link took for it. */
static int send_paced(struct lane *lane, const void *body, size_t body_bytes, struct iovec *data,
		      int n_data, uint64_t data_bytes, struct err *e)
{
	struct lanes *l = lane->all;
	uint64_t start = clock_us();

	if (keep_rate(l, RECORD_HEAD_BYTES + body_bytes + data_bytes, e) ||
	    writer_flagged(&lane->writer, RECORD_PAGES, l->checksums ? 0 : RECORD_UNCHECKED, body,
			   body_bytes, data, n_data, e))
		return -1;
	if (lane->link_bytes >= RATE_SAMPLE_BYTES) {
		lane->link_bytes /= 2;
		lane->link_ns /= 2;
	}
	lane->link_bytes += data_bytes;
	lane->link_ns += (clock_us() - start) * 1000;
	return 0;
}

/* How many pages may go into one record under the present rate. */
static uint64_t batch_pages(const struct lanes *l)
{
	return pace_batch_bytes(rate_now(l), CHUNK_PAGES * PAGE_SIZE) / PAGE_SIZE;
}

static int write_batch(struct lane *lane, unsigned int block, enum pages_codec codec, struct err *e)
{
	struct lanes *l = lane->all;
	struct batch *b = lane->batch;
	bool plain = codec == CODEC_PLAIN;
	size_t body = PAGES_HEAD_BYTES + (size_t)b->n_runs * RUN_BYTES;
	uint64_t data = plain ? b->pages * PAGE_SIZE : 0;
	uint64_t before = lane->writer.channel->bytes;
	struct pages head;

	if (!b->n_runs)
		return 0;
	head = (struct pages){ .block = block,
			       .codec = codec,
			       .n_runs = b->n_runs,
			       .data_crc = plain && l->checksums ? checksum(b) : 0 };
	pages_encode(&head, b->body);
	if (send_paced(lane, b->body, body, b->data, plain ? (int)b->n_runs : 0, data, e))
		return -1;
	stats_add(plain ? &l->stats->normal_pages : &l->stats->zero_pages, b->pages);
	stats_add(&l->stats->data_bytes, data);
	stats_add(&l->stats->meta_bytes, lane->writer.channel->bytes - before - data);
	b->n_runs = 0;
	b->pages = 0;
	return 0;
}

/* Takes the zero pages out of the chunk into `zero`; those the destination has as zero already
 * into neither. */
static uint64_t split_zero(struct lanes *l, struct chunk *c, uint64_t zero[CHUNK_WORDS])
{
	const struct guest_block *block = &l->guest->blocks[c->block];
	uint64_t *sent = l->sent[c->block] + c->first / 64, i, skipped = 0;

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

static int send_runs(struct lane *lane, const struct chunk *c, const uint64_t *pages,
		     enum pages_codec codec, struct err *e)
{
	struct lanes *l = lane->all;
	const struct guest_block *block = &l->guest->blocks[c->block];
	uint64_t max = batch_pages(l), at, n;

	for (at = 0; bitmap_next_run(pages, CHUNK_PAGES, &at, &n); at += n) {
		n = min_u64(n, max - lane->batch->pages);
		add_run(lane->batch, block, c->first + at, n, codec == CODEC_PLAIN);
		if (lane->batch->pages >= max && write_batch(lane, c->block, codec, e))
			return -1;
	}
	return write_batch(lane, c->block, codec, e);
}

/* -- encoded -- */

/* Picoseconds for a byte on this lane; 0: not known yet. */
static uint64_t link_byte_ps(const struct lane *lane)
{
	uint64_t rate = __atomic_load_n(lane->all->rate, __ATOMIC_RELAXED);
	uint64_t seen, allowed = rate ? 1000000000000 / rate : 0;

	if (lane->link_bytes < RATE_SAMPLE_BYTES / 4)
		return allowed;
	seen = lane->link_ns * 1000 / lane->link_bytes;
	return seen > allowed ? seen : allowed;
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

static void say_choice(struct lanes *l, enum pages_codec codec, enum choice_change change,
		       const struct choice *c)
{
	bool on = change == CHOICE_SWITCHED_ON;
	const char *name = pages_codec_name(codec);

	if (change == CHOICE_AS_BEFORE)
		return;
	decision_tell(&l->codecs.decisions, choice_decision(codec, on),
		      "a page becomes %" PRIu64 " bytes and takes %" PRIu64 ".%" PRIu64
		      " us with %s, %" PRIu64 ".%" PRIu64 " us without%s",
		      c->page_bytes, c->with_ns / 1000, c->with_ns % 1000 / 100, name,
		      c->without_ns / 1000, c->without_ns % 1000 / 100,
		      on ? "" : ": it is left out, and tried again later");
}

/* What a set of pages became says whether the codecs gain. */
static void judge(struct lane *lane, const struct encode_how *how, uint64_t rest_pages,
		  uint64_t rest_bytes, uint64_t delta_ns, uint64_t rest_ns)
{
	struct lanes *l = lane->all;
	uint64_t byte_ps = link_byte_ps(lane);
	enum choice_change delta = CHOICE_AS_BEFORE, rest = CHOICE_AS_BEFORE;
	struct choice delta_now, rest_now;

	pthread_mutex_lock(&l->lock);
	if (how->delta && lane->encoder.known_pages)
		delta = choice_add(&l->delta, lane->encoder.known_pages, lane->encoder.known_bytes,
				   delta_ns, byte_ps);
	if (how->rest != CODEC_PLAIN && rest_pages)
		rest = choice_add(&l->rest, rest_pages, rest_bytes, rest_ns, byte_ps);
	delta_now = l->delta;
	rest_now = l->rest;
	pthread_mutex_unlock(&l->lock);
	say_choice(l, CODEC_XBZRLE, delta, &delta_now);
	say_choice(l, how->rest, rest, &rest_now);
}

static int write_encoded(struct lane *lane, const struct page_set *set, struct encoded *out,
			 struct err *e)
{
	struct lanes *l = lane->all;
	uint64_t before = lane->writer.channel->bytes, at, n;
	struct pages head = { .block = set->block, .codec = out->codec };
	uint8_t *body = lane->batch->body;

	for (at = 0; bitmap_next_run(out->pages, CHUNK_PAGES, &at, &n); at += n)
		run_encode(body + PAGES_HEAD_BYTES, head.n_runs++, set->first + at, n);
	pages_encode(&head, body);
	if (send_paced(lane, body, PAGES_HEAD_BYTES + (size_t)head.n_runs * RUN_BYTES, &out->data,
		       1, out->data.iov_len, e))
		return -1;
	if (out->codec == CODEC_XBZRLE) {
		stats_add(&l->stats->xbzrle_pages, out->n_pages);
		stats_add(&l->stats->xbzrle_bytes, out->data.iov_len);
	} else {
		stats_add(&l->stats->normal_pages, out->n_pages);
	}
	if (out->codec == CODEC_ZLIB || out->codec == CODEC_ZSTD) {
		stats_add(&l->stats->compressed_pages, out->n_pages);
		stats_add(&l->stats->compressed_bytes, out->data.iov_len);
	}
	stats_add(&l->stats->data_bytes, out->data.iov_len);
	stats_add(&l->stats->meta_bytes, lane->writer.channel->bytes - before - out->data.iov_len);
	return 0;
}

static int encode_set(struct lane *lane, const struct encode_how *how, const struct page_set *set,
		      struct err *e)
{
	const struct encoder_count *count = lane->encoder.count;
	uint64_t delta_ns = count[CODEC_XBZRLE].cpu_ns, rest_ns = count[how->rest].cpu_ns;
	uint64_t rest_pages = 0, rest_bytes = 0, unchanged = bitmap_count(set->pages, CHUNK_PAGES);
	struct encoded out[2];
	int n = encoder_run(&lane->encoder, how, set, out, e), i;

	if (n < 0)
		return -1;
	for (i = 0; i < n; i++) {
		unchanged -= out[i].n_pages;
		if (out[i].codec == CODEC_XBZRLE)
			continue;
		rest_pages += out[i].n_pages;
		rest_bytes += out[i].data.iov_len;
	}
	judge(lane, how, rest_pages, rest_bytes, count[CODEC_XBZRLE].cpu_ns - delta_ns,
	      count[how->rest].cpu_ns - rest_ns);
	for (i = 0; i < n; i++)
		if (write_encoded(lane, set, &out[i], e))
			return -1;
	stats_add(&lane->all->stats->xbzrle_pages, unchanged);
	if (!how->delta)
		return 0;
	stats_add(&lane->all->stats->xbzrle_overflows, lane->encoder.overflows);
	stats_add(&lane->all->stats->xbzrle_misses,
		  bitmap_count(set->pages, CHUNK_PAGES) - lane->encoder.known_pages);
	return 0;
}

/* Which codecs the next pages go through. */
static struct encode_how how_to_encode(struct lanes *l, uint64_t pages)
{
	struct encode_how how = { .rest = CODEC_PLAIN,
				  .level = l->codecs.level,
				  .round = l->round };

	if (l->checksums) /* a file: as it is */
		return how;
	pthread_mutex_lock(&l->lock);
	if (l->codecs.cache && choice_wants(&l->delta, pages))
		how.delta = true;
	if (l->codecs.rest != CODEC_PLAIN && choice_wants(&l->rest, pages))
		how.rest = l->codecs.rest;
	pthread_mutex_unlock(&l->lock);
	return how;
}

static void set_up_set(struct page_set *set, const struct lanes *l, const struct chunk *c)
{
	*set = (struct page_set){ .block = c->block,
				  .first = c->first,
				  .host = l->guest->blocks[c->block].host + c->first * PAGE_SIZE };
}

/* The cache believes nothing of these pages any more. */
static void forget(struct lane *lane, const struct chunk *c, const uint64_t *pages)
{
	struct page_set set;

	if (!lane->encoder.cache)
		return;
	set_up_set(&set, lane->all, c);
	memcpy(set.pages, pages, sizeof(set.pages));
	encoder_forget(&lane->encoder, &set);
}

/* As many pages at once as the rate allows. */
static int send_encoded(struct lane *lane, const struct encode_how *how, const struct chunk *c,
			struct err *e)
{
	uint64_t max = batch_pages(lane->all), i, n;
	struct page_set set;

	for (i = bitmap_next_set(c->pages, CHUNK_PAGES, 0); i < CHUNK_PAGES;) {
		set_up_set(&set, lane->all, c);
		for (n = 0; i < CHUNK_PAGES && n < max;
		     i = bitmap_next_set(c->pages, CHUNK_PAGES, i + 1), n++)
			bitmap_set(set.pages, i);
		if (encode_set(lane, how, &set, e))
			return -1;
	}
	return 0;
}

/* -- a chunk -- */

static int send_data(struct lane *lane, const struct chunk *c, struct err *e)
{
	uint64_t pages = bitmap_count(c->pages, CHUNK_PAGES);
	struct encode_how how = how_to_encode(lane->all, pages);

	if (!pages)
		return 0;
	if (how.delta || how.rest != CODEC_PLAIN)
		return send_encoded(lane, &how, c, e);
	forget(lane, c, c->pages);
	return send_runs(lane, c, c->pages, CODEC_PLAIN, e);
}

static int send_chunk(struct lane *lane, struct chunk *c, struct err *e)
{
	uint64_t zero[CHUNK_WORDS], pages = bitmap_count(c->pages, CHUNK_PAGES);

	stats_add(&lane->all->stats->zero_pages, split_zero(lane->all, c, zero));
	forget(lane, c, zero);
	if (send_data(lane, c, e) || send_runs(lane, c, zero, CODEC_ZERO, e))
		return -1;
	stats_add(&lane->all->stats->remaining_pages, -pages);
	return 0;
}

/* -- threads -- */

static void *lane_thread(void *arg)
{
	struct lane *lane = arg;
	struct lanes *l = lane->all;
	struct chunk c;
	struct err e;

	pthread_mutex_lock(&l->lock);
	for (;;) {
		if (l->queue_n && !l->failed) {
			c = l->queue[l->queue_at];
			l->queue_at = (l->queue_at + 1) % LANES_QUEUE;
			l->queue_n--;
			l->busy++;
			lane->busy = true;
			pthread_cond_broadcast(&l->changed);
			pthread_mutex_unlock(&l->lock);
			int rc = send_chunk(lane, &c, &e);
			pthread_mutex_lock(&l->lock);
			l->busy--;
			lane->busy = false;
			if (rc && !l->failed) {
				l->failed = true;
				l->error = e;
			}
			pthread_cond_broadcast(&l->changed);
		} else if (l->end) {
			break;
		} else {
			pthread_cond_wait(&l->changed, &l->lock);
		}
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

int lanes_init(struct lanes *l, struct guest *g, struct stats *stats, const uint64_t *rate,
	       int stop_fd, struct channel **channels, unsigned int n,
	       const struct lanes_codecs *codecs, struct err *e)
{
	unsigned int i;
	char name[16];
	int rc;

	*l = (struct lanes){ .guest = g, .stats = stats, .rate = rate, .stop_fd = stop_fd, .n = n };
	l->codecs = codecs ? *codecs : (struct lanes_codecs){ .rest = CODEC_PLAIN };
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->changed, NULL);
	for (i = 0; i < g->n_blocks; i++) {
		l->sent[i] = calloc(BITMAP_WORDS(g->blocks[i].pages) + CHUNK_WORDS,
				    sizeof(uint64_t));
		if (!l->sent[i])
			goto no_memory;
	}
	for (i = 0; i < n; i++) {
		l->lane[i].all = l;
		l->lane[i].writer.channel = channels[i];
		encoder_init(&l->lane[i].encoder, l->codecs.cache);
		l->lane[i].batch = calloc(1, sizeof(*l->lane[i].batch));
		if (!l->lane[i].batch)
			goto no_memory;
	}
	for (i = 0; n > 1 && i < n; i++) {
		rc = pthread_create(&l->lane[i].thread, NULL, lane_thread, &l->lane[i]);
		if (rc) {
			lanes_free(l);
			return err_errno(e, rc, "cannot start a thread");
		}
		l->lane[i].started = true;
		snprintf(name, sizeof(name), "migrate%u", i);
		pthread_setname_np(l->lane[i].thread, name);
	}
	return 0;
no_memory:
	lanes_free(l);
	return err_set(e, "out of memory");
}

void lanes_abort(struct lanes *l)
{
	unsigned int i;

	if (!l->guest)
		return;
	pthread_mutex_lock(&l->lock);
	if (!l->failed)
		err_set(&l->error, "given up");
	l->failed = true;
	for (i = 0; i < l->n; i++)
		if (l->lane[i].busy)
			channel_shutdown(l->lane[i].writer.channel);
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

void lanes_free(struct lanes *l)
{
	unsigned int i;

	if (!l->guest)
		return;
	pthread_mutex_lock(&l->lock);
	l->end = true;
	l->queue_n = 0;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	for (i = 0; i < l->n; i++) {
		if (l->lane[i].started)
			pthread_join(l->lane[i].thread, NULL);
		free(l->lane[i].batch);
		encoder_free(&l->lane[i].encoder);
	}
	for (i = 0; i < l->guest->n_blocks; i++)
		free(l->sent[i]);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	l->guest = NULL;
}

int lanes_send(struct lanes *l, const struct chunk *c, struct err *e)
{
	struct chunk copy = *c;
	bool failed;

	if (l->n == 1)
		return send_chunk(&l->lane[0], &copy, e);
	pthread_mutex_lock(&l->lock);
	while (l->queue_n == l->n * LANES_QUEUE_EACH && !l->failed)
		pthread_cond_wait(&l->changed, &l->lock);
	failed = l->failed;
	if (!failed) {
		l->queue[(l->queue_at + l->queue_n++) % LANES_QUEUE] = copy;
		pthread_cond_broadcast(&l->changed);
	} else if (e) {
		*e = l->error;
	}
	pthread_mutex_unlock(&l->lock);
	return failed ? -1 : 0;
}

int lanes_drain(struct lanes *l, struct err *e)
{
	bool failed;

	pthread_mutex_lock(&l->lock);
	while ((l->queue_n || l->busy) && !l->failed)
		pthread_cond_wait(&l->changed, &l->lock);
	failed = l->failed;
	if (failed && e)
		*e = l->error;
	pthread_mutex_unlock(&l->lock);
	return failed ? -1 : 0;
}

int lanes_end_round(struct lanes *l, uint32_t round, struct err *e)
{
	uint8_t body[ROUND_BYTES];
	unsigned int i;

	if (lanes_drain(l, e))
		return -1;
	round_encode(round, body);
	for (i = 0; i < l->n; i++) {
		if (writer_record(&l->lane[i].writer, RECORD_ROUND, body, sizeof(body), NULL, 0, e))
			return -1;
		stats_add(&l->stats->meta_bytes, RECORD_HEAD_BYTES + sizeof(body));
	}
	return 0;
}

struct writer *lanes_main(struct lanes *l)
{
	return &l->lane[0].writer;
}
