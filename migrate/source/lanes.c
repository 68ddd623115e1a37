/*
 * The queue and the threads of the lanes. Two chunks of the same part, block and `first` may be
 * queued: some pages as an urgent one, the rest in turn. A lane takes neither while another lane
 * sends the other, as they share words of bitmaps.
 */
#include "migrate/source/lanes.h"

#include <stdio.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "migrate/source/limiter.h"
#include "migrate/stream/body.h"
#include "vmm/base/bitmap.h"

/* -- the queue: under lock -- */

static void queue_insert(struct lanes *l, const struct chunk *c)
{
	unsigned int at = c->priority == CHUNK_URGENT ? l->n_urgent++ : l->n_queued;

	memmove(&l->queue[at + 1], &l->queue[at], (l->n_queued - at) * sizeof(l->queue[0]));
	l->queue[at] = *c;
	l->n_queued++;
}

static void queue_remove(struct lanes *l, unsigned int at)
{
	l->n_queued--;
	l->n_urgent -= at < l->n_urgent;
	memmove(&l->queue[at], &l->queue[at + 1], (l->n_queued - at) * sizeof(l->queue[0]));
}

static bool queue_is_full(const struct lanes *l, enum chunk_priority priority)
{
	if (priority == CHUNK_URGENT)
		return l->n_urgent == LANES_URGENT_MAX;
	return l->n_queued - l->n_urgent == l->n * LANES_QUEUE_EACH;
}

static bool is_same_place(const struct chunk *a, const struct chunk *b)
{
	return a->part == b->part && a->block == b->block && a->first == b->first;
}

static bool is_under_way(const struct lanes *l, const struct chunk *c)
{
	unsigned int i;

	for (i = 0; i < l->n; i++)
		if (l->lane[i].busy && is_same_place(&l->lane[i].chunk, c))
			return true;
	return false;
}

/* Gives the lane the next chunk. False: there is none that may be sent now. */
static bool queue_take(struct lanes *l, struct lane *lane)
{
	unsigned int i;

	for (i = 0; i < l->n_queued && is_under_way(l, &l->queue[i]); i++)
		;
	if (i == l->n_queued)
		return false;
	lane->chunk = l->queue[i];
	lane->busy = true;
	l->busy++;
	queue_remove(l, i);
	return true;
}

/* -- threads -- */

/* Under lock. */
static void lanes_fail(struct lanes *l, const struct err *why)
{
	if (!l->failed)
		l->error = *why;
	l->failed = true;
	limiter_end(l->limiter);
}

/* Sends the lane's chunk. */
static int send_by(struct lane *lane, struct err *e)
{
	struct part *p = lane->chunk.part;

	return p->ops->send(p, (unsigned int)(lane - lane->all->lane), &lane->writer, &lane->chunk,
			    e);
}

static void *lane_thread(void *arg)
{
	struct lane *lane = arg;
	struct lanes *l = lane->all;
	struct err e;
	int rc;

	pthread_mutex_lock(&l->lock);
	for (;;) {
		if (!l->failed && queue_take(l, lane)) {
			pthread_cond_broadcast(&l->changed);
			pthread_mutex_unlock(&l->lock);
			rc = send_by(lane, &e);
			pthread_mutex_lock(&l->lock);
			l->busy--;
			lane->busy = false;
			if (rc)
				lanes_fail(l, &e);
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

int lanes_init(struct lanes *l, const struct writer *writers, unsigned int n, struct stats *stats,
	       struct limiter *limiter, struct err *e)
{
	unsigned int i;
	char name[16];
	int rc;

	*l = (struct lanes){ .stats = stats, .limiter = limiter, .n = n };
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->changed, NULL);
	for (i = 0; i < n; i++) {
		l->lane[i].all = l;
		l->lane[i].writer = writers[i];
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
}

void lanes_abort(struct lanes *l)
{
	struct err why;
	unsigned int i;

	if (!l->n)
		return;
	err_set(&why, "given up");
	pthread_mutex_lock(&l->lock);
	lanes_fail(l, &why);
	for (i = 0; i < l->n; i++)
		if (l->lane[i].busy)
			channel_shutdown(l->lane[i].writer.channel);
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

void lanes_free(struct lanes *l)
{
	unsigned int i;

	if (!l->n)
		return;
	pthread_mutex_lock(&l->lock);
	l->end = true;
	l->n_queued = l->n_urgent = 0;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	for (i = 0; i < l->n; i++)
		if (l->lane[i].started)
			pthread_join(l->lane[i].thread, NULL);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	l->n = 0;
}

/* -- the callers -- */

int lanes_send(struct lanes *l, const struct chunk *c, struct err *e)
{
	bool failed;

	if (l->n == 1) {
		l->lane[0].chunk = *c;
		return send_by(&l->lane[0], e);
	}
	pthread_mutex_lock(&l->lock);
	while (queue_is_full(l, c->priority) && !l->failed)
		pthread_cond_wait(&l->changed, &l->lock);
	failed = l->failed;
	if (!failed) {
		queue_insert(l, c);
		pthread_cond_broadcast(&l->changed);
	} else if (e) {
		*e = l->error;
	}
	pthread_mutex_unlock(&l->lock);
	return failed ? -1 : 0;
}

/* Splits those pages off the chunk at that place in the queue, and makes them urgent. */
static unsigned int hurry_queued(struct lanes *l, unsigned int at, const struct chunk *wanted)
{
	struct chunk urgent = l->queue[at];
	uint64_t *rest = l->queue[at].pages, left = 0;
	unsigned int i;

	urgent.priority = CHUNK_URGENT;
	for (i = 0; i < CHUNK_WORDS; i++) {
		urgent.pages[i] = rest[i] & wanted->pages[i];
		rest[i] &= ~wanted->pages[i];
		left |= rest[i];
	}
	if (!left)
		queue_remove(l, at);
	queue_insert(l, &urgent);
	return (unsigned int)bitmap_count(urgent.pages, CHUNK_PAGES);
}

unsigned int lanes_hurry(struct lanes *l, const struct chunk *c)
{
	unsigned int i, j, n = 0;

	if (l->n == 1)
		return 0;
	pthread_mutex_lock(&l->lock);
	while (queue_is_full(l, CHUNK_URGENT) && !l->failed)
		pthread_cond_wait(&l->changed, &l->lock);
	for (i = l->n_urgent; i < l->n_queued && !n && !l->failed; i++)
		for (j = 0; j < CHUNK_WORDS && !n && is_same_place(&l->queue[i], c); j++)
			if (l->queue[i].pages[j] & c->pages[j])
				n = hurry_queued(l, i, c);
	if (n)
		pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	return n;
}

int lanes_drain(struct lanes *l, struct err *e)
{
	bool failed;

	pthread_mutex_lock(&l->lock);
	while ((l->n_queued || l->busy) && !l->failed)
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
