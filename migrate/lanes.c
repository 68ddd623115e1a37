/*
 * The lanes: see lanes.h. A lane's thread takes a chunk from the queue, sends it, takes the next.
 * The bits in `sent` that belong to a chunk are touched only by the lane that has it: chunks begin
 * at word boundaries and are in flight once.
 */
#include "migrate/lanes.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "migrate/channel/channel.h"
#include "migrate/codec/zero.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/clock.h"
#include "vmm/memory.h"

/* The longest sleep without a look at the rate. */
#define NAP_US 50000u

/* A PAGES record on the way. */
struct batch {
	uint8_t body[PAGES_HEAD_BYTES + CHUNK_PAGES * PAGES_RUN_BYTES];
	struct iovec data[CHUNK_PAGES];
	uint32_t n_runs;
	uint64_t pages;
};

/* -- the rate -- */

/* Sleeps `us`, or fails when stopped. */
static int nap(struct lanes *l, uint64_t us, struct err *e)
{
	struct pollfd fd = { l->stop_fd, POLLIN, 0 };
	struct timespec t = { .tv_sec = (time_t)(us / 1000000),
			      .tv_nsec = (long)(us % 1000000) * 1000 };
	int n = ppoll(&fd, l->stop_fd >= 0 ? 1 : 0, &t, NULL);

	return n > 0 ? err_set(e, "cancelled") : 0;
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

/* Sleeps until `bytes` may go; in short naps, since the rate may change meanwhile. */
static int keep_rate(struct lanes *l, uint64_t bytes, struct err *e)
{
	uint64_t rate = __atomic_load_n(l->rate, __ATOMIC_RELAXED), now = clock_us(), wait, until;

	pthread_mutex_lock(&l->lock);
	wait = pace_take(&l->pace, now, rate, bytes);
	pthread_mutex_unlock(&l->lock);
	for (until = now + wait; now < until; now = clock_us()) {
		uint64_t actual = __atomic_load_n(l->rate, __ATOMIC_RELAXED);

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
	uint8_t *run = b->body + PAGES_HEAD_BYTES + b->n_runs * PAGES_RUN_BYTES;

	put_u64(run, first);
	put_u64(run + 8, n);
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

static int write_batch(struct lane *lane, unsigned int block, enum pages_codec codec, struct err *e)
{
	struct lanes *l = lane->all;
	struct batch *b = lane->batch;
	bool plain = codec == CODEC_PLAIN;
	size_t body = PAGES_HEAD_BYTES + (size_t)b->n_runs * PAGES_RUN_BYTES;
	uint64_t data = plain ? b->pages * PAGE_SIZE : 0;
	uint64_t before = lane->writer.channel->bytes;

	if (!b->n_runs)
		return 0;
	put_u32(b->body, block);
	put_u32(b->body + 4, codec);
	put_u32(b->body + 8, b->n_runs);
	put_u32(b->body + 12, plain && l->checksums ? checksum(b) : 0);
	if (keep_rate(l, RECORD_HEAD_BYTES + body + data, e) ||
	    writer_flagged(&lane->writer, RECORD_PAGES, l->checksums ? 0 : RECORD_UNCHECKED,
			   b->body, body, b->data, plain ? (int)b->n_runs : 0, e))
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
	uint64_t max = pace_batch_bytes(__atomic_load_n(l->rate, __ATOMIC_RELAXED),
					CHUNK_PAGES * PAGE_SIZE) /
		       PAGE_SIZE;
	uint64_t from, to;

	for (from = bitmap_next_set(pages, CHUNK_PAGES, 0); from < CHUNK_PAGES;
	     from = bitmap_next_set(pages, CHUNK_PAGES, to)) {
		to = bitmap_next_clear(pages, CHUNK_PAGES, from);
		if (to - from > max - lane->batch->pages)
			to = from + max - lane->batch->pages;
		add_run(lane->batch, block, c->first + from, to - from, codec == CODEC_PLAIN);
		if (lane->batch->pages >= max && write_batch(lane, c->block, codec, e))
			return -1;
	}
	return write_batch(lane, c->block, codec, e);
}

static int send_chunk(struct lane *lane, struct chunk *c, struct err *e)
{
	uint64_t zero[CHUNK_WORDS], pages = bitmap_count(c->pages, CHUNK_PAGES);

	stats_add(&lane->all->stats->zero_pages, split_zero(lane->all, c, zero));
	if (send_runs(lane, c, c->pages, CODEC_PLAIN, e) || send_runs(lane, c, zero, CODEC_ZERO, e))
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
	       int stop_fd, struct channel **channels, unsigned int n, struct err *e)
{
	unsigned int i;
	char name[16];
	int rc;

	*l = (struct lanes){ .guest = g, .stats = stats, .rate = rate, .stop_fd = stop_fd, .n = n };
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
	while (l->queue_n == LANES_QUEUE && !l->failed)
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
	uint8_t body[4];
	unsigned int i;

	if (lanes_drain(l, e))
		return -1;
	put_u32(body, round);
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
