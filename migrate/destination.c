/*
 * The destination: see destination.h. The main connection is read on the caller's thread, each
 * further one on a thread of its own; at the end of a round all wait for the slowest. The peer is
 * hostile until proven otherwise: every number is checked before it is used.
 */
#include "migrate/destination.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zlib.h>

#include "migrate/channel/channel.h"
#include "migrate/channel/uri.h"
#include "migrate/codec/zero.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/memory.h"

/* Who connects must say HELLO within this, and further lanes must come within it. */
#define HELLO_MS 10000

/* -- the beginning -- */

static int read_hello(struct reader *r, struct hello *h, struct err *e)
{
	char here[sizeof(h->arch)] = "";
	struct utsname u;
	struct record rec;
	int rc = channel_wait(r->channel, HELLO_MS, e);

	if (rc == 0)
		return err_set(e, "%s: nothing came within %d s", r->channel->name,
			       HELLO_MS / 1000);
	if (rc < 0 || reader_record(r, &rec, e))
		return -1;
	if (hello_decode(&rec, h, e))
		return err_context(e, "%s", r->channel->name);
	if (uname(&u) == 0)
		memcpy(here, u.machine, strnlen(u.machine, sizeof(here) - 1));
	if (strcmp(h->arch, here))
		return err_set(e, "%s: made on %s, this host is %s", r->channel->name, h->arch,
			       here);
	return 0;
}

int destination_begin(struct reader *r, struct hello *hello, struct tree *machine, struct err *e)
{
	struct record rec;

	if (read_hello(r, hello, e))
		return -1;
	if (hello->role != ROLE_MAIN || !hello->lanes || hello->lanes > LANES_MAX)
		return err_set(e, "%s: not the beginning of a migration", r->channel->name);
	if (reader_expect(r, RECORD_MACHINE, &rec, e))
		return -1;
	if (tree_copy(machine, rec.body, rec.body_bytes, e))
		return err_context(e, "%s: the machine", r->channel->name);
	return 0;
}

static void init(struct destination *d, int stop_fd)
{
	unsigned int i;

	*d = (struct destination){ .listen_fd = -1, .stop_fd = stop_fd };
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->changed, NULL);
	for (i = 0; i < LANES_MAX; i++)
		d->lane[i].all = d;
}

int destination_open(struct destination *d, struct channel *ch, bool cold, int stop_fd,
		     struct tree *machine, struct err *e)
{
	init(d, stop_fd);
	d->cold = cold;
	d->lane[0].reader.channel = ch;
	d->writer.channel = ch;
	d->n_lanes = 1;
	if (destination_begin(&d->lane[0].reader, &d->hello, machine, e)) {
		destination_free(d);
		return -1;
	}
	return 0;
}

int destination_accept(struct destination *d, int listen_fd, int stop_fd, struct tree *machine,
		       struct err *e)
{
	struct channel *ch;
	int fd;

	for (;;) {
		fd = uri_accept(listen_fd, stop_fd, e);
		if (fd < 0)
			return -1;
		if (socket_channel(&ch, fd, "source", stop_fd, e)) {
			close(fd);
			return -1;
		}
		if (destination_open(d, ch, false, stop_fd, machine, e) == 0) {
			d->listen_fd = listen_fd;
			return 0;
		}
		if (!strcmp(e->text, "source: cancelled"))
			return -1;
		log_warn("a connection that is no migration was closed: %s", e->text);
	}
}

void destination_set_stop(struct destination *d, int stop_fd)
{
	d->stop_fd = stop_fd;
	channel_set_stop(d->lane[0].reader.channel, stop_fd);
}

int destination_answer(struct destination *d, const char *refusal, struct err *e)
{
	struct writer *w = &d->writer;

	if (d->cold)
		return 0;
	return writer_record(w, RECORD_CHECKED, refusal ? refusal : "",
			     refusal ? strnlen(refusal, 500) : 0, NULL, 0, e);
}

/* -- lanes -- */

/* A lane has read all of a round: waits until the others have too. */
static int round_barrier(struct destination_lane *lane, uint32_t round, struct err *e)
{
	struct destination *d = lane->all;
	unsigned int i;
	bool failed;

	pthread_mutex_lock(&d->lock);
	if (round != lane->round + 1) {
		pthread_mutex_unlock(&d->lock);
		return err_set(e, "%s: round %" PRIu32 " after round %" PRIu32,
			       lane->reader.channel->name, round, lane->round);
	}
	lane->round = round;
	pthread_cond_broadcast(&d->changed);
	for (i = 0; i < d->n_lanes && !d->failed;)
		if (d->lane[i].round < round)
			pthread_cond_wait(&d->changed, &d->lock);
		else
			i++;
	failed = d->failed;
	if (failed && e)
		*e = d->error;
	pthread_mutex_unlock(&d->lock);
	return failed ? -1 : 0;
}

static void lane_failed(struct destination *d, const struct err *e)
{
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	if (!d->failed) {
		d->failed = true;
		d->error = *e;
	}
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
	/* Others may be waiting for bytes that will not come. */
	for (i = 1; i < d->n_lanes; i++)
		channel_shutdown(d->lane[i].reader.channel);
}

static int take_run(struct reader *r, const struct pages *p, uint8_t *host, uint64_t n, uLong *crc,
		    bool checked, struct err *e)
{
	uint64_t i;

	if (p->codec == CODEC_ZERO) {
		for (i = 0; i < n; i++, host += PAGE_SIZE)
			if (!zero_page(host))
				memset(host, 0, PAGE_SIZE);
		return 0;
	}
	if (reader_data(r, host, n * PAGE_SIZE, e))
		return -1;
	if (checked)
		*crc = crc32(*crc, host, (uInt)(n * PAGE_SIZE));
	return 0;
}

static int take_pages(struct destination *d, struct reader *r, const struct record *rec,
		      struct err *e)
{
	bool checked = !(rec->flags & RECORD_UNCHECKED);
	uLong crc = crc32(0, NULL, 0);
	const struct guest *g = d->guest;
	struct pages p;
	uint32_t i;

	if (pages_decode(rec, &p, e))
		return err_context(e, "%s", r->channel->name);
	if (p.block >= g->n_blocks)
		return err_set(e, "%s: pages of memory block %" PRIu32 ", the machine has %u",
			       r->channel->name, p.block, g->n_blocks);
	for (i = 0; i < p.n_runs; i++) {
		const struct guest_block *block = &g->blocks[p.block];
		uint64_t first, n;

		pages_run(&p, i, &first, &n);
		if (first >= block->pages || n > block->pages - first)
			return err_set(e, "%s: pages outside memory block %" PRIu32,
				       r->channel->name, p.block);
		if (take_run(r, &p, block->host + first * PAGE_SIZE, n, &crc, checked, e))
			return -1;
		stats_add(p.codec == CODEC_ZERO ? &d->stats->zero_pages : &d->stats->normal_pages,
			  n);
	}
	stats_add(&d->stats->data_bytes, rec->data_bytes);
	if (checked && p.codec == CODEC_PLAIN && (uint32_t)crc != p.data_crc)
		return err_set(e, "%s: the pages of the record at byte %" PRIu64 " are damaged",
			       r->channel->name, rec->offset);
	return 0;
}

/* PAGES and ROUND records, up to the first other one, which is left in `rec`. */
static int take_rounds(struct destination_lane *lane, struct record *rec, struct err *e)
{
	struct destination *d = lane->all;

	for (;;) {
		if (reader_record(&lane->reader, rec, e))
			return -1;
		if (rec->type == RECORD_PAGES) {
			if (take_pages(d, &lane->reader, rec, e))
				return -1;
		} else if (rec->type == RECORD_ROUND && rec->body_bytes == 4 && !d->cold) {
			if (round_barrier(lane, get_u32(rec->body), e))
				return -1;
		} else {
			return 0;
		}
	}
}

static void *lane_thread(void *arg)
{
	struct destination_lane *lane = arg;
	struct destination *d = lane->all;
	struct record rec;
	struct err e;
	bool finished;
	int rc = take_rounds(lane, &rec, &e);

	pthread_mutex_lock(&d->lock);
	finished = d->finished;
	pthread_mutex_unlock(&d->lock);
	if (finished) /* the source has closed it: that is how a lane ends */
		return NULL;
	if (!rc)
		err_set(&e, "%s: a %s record on a further connection", lane->reader.channel->name,
			record_name(rec.type));
	lane_failed(d, &e);
	return NULL;
}

static int accept_lane(struct destination *d, struct destination_lane *lane, struct err *e)
{
	char name[16];
	struct hello h;
	int fd, rc;

	for (;;) {
		fd = uri_accept(d->listen_fd, d->stop_fd, e);
		if (fd < 0)
			return -1;
		if (socket_channel(&lane->reader.channel, fd, "source", d->stop_fd, e)) {
			close(fd);
			return -1;
		}
		rc = read_hello(&lane->reader, &h, e);
		if (!rc && h.role == ROLE_PAGES && !memcmp(h.id, d->hello.id, sizeof(h.id)))
			break;
		channel_close(lane->reader.channel);
		reader_free(&lane->reader);
		memset(&lane->reader, 0, sizeof(lane->reader));
		if (rc && !strcmp(e->text, "source: cancelled"))
			return -1;
		log_warn("a connection that is none of this migration was closed");
	}
	rc = pthread_create(&lane->thread, NULL, lane_thread, lane);
	if (rc)
		return err_errno(e, rc, "cannot start a thread");
	lane->started = true;
	snprintf(name, sizeof(name), "migrate%u", (unsigned int)(lane - d->lane));
	pthread_setname_np(lane->thread, name);
	return 0;
}

static int accept_lanes(struct destination *d, struct err *e)
{
	unsigned int i;

	/* All are there before the first thread looks how many there are: see round_barrier. */
	d->n_lanes = d->hello.lanes;
	if (d->n_lanes > 1 && d->listen_fd < 0)
		return err_set(e, "further connections cannot come in on this one");
	for (i = 1; i < d->n_lanes; i++)
		if (accept_lane(d, &d->lane[i], e))
			return -1;
	return 0;
}

/* -- the end -- */

static int take_states(struct destination *d, const struct record *rec, struct err *e)
{
	struct reader *r = &d->lane[0].reader;

	if (rec->type == RECORD_FAILED)
		return err_set(e, "the source gave up: %.*s", (int)rec->body_bytes,
			       (const char *)rec->body);
	if (rec->type != RECORD_STATES || rec->body_bytes < STATES_HEAD_BYTES)
		return err_set(e, "%s: a %s record where the states should be", r->channel->name,
			       record_name(rec->type));
	d->states_at_us = clock_us();
	d->advance_ns = get_u64(rec->body);
	d->run = get_u64(rec->body + 8) != 0;
	if (d->advance_ns > 3600ull * 1000000000)
		return err_set(e, "%s: a pause of more than an hour", r->channel->name);
	if (tree_copy(&d->states, rec->body + STATES_HEAD_BYTES,
		      rec->body_bytes - STATES_HEAD_BYTES, e))
		return err_context(e, "%s: the states", r->channel->name);
	return 0;
}

static int load(struct destination *d, struct err *e)
{
	struct reader *r = &d->lane[0].reader;
	uint64_t advance_ns = d->cold ? 0 : d->advance_ns + (clock_us() - d->states_at_us) * 1000;
	struct record rec;

	/* A file must be whole before anything of it is believed. */
	if (d->cold && reader_expect(r, RECORD_END, &rec, e))
		return -1;
	if (d->guest->ops->states_load(d->guest, &d->states, advance_ns, e))
		return err_context(e, "%s", r->channel->name);
	if (d->cold)
		return 0;
	if (writer_record(&d->writer, RECORD_READY, NULL, 0, NULL, 0, e))
		return -1;
	return reader_expect(r, RECORD_GO, &rec, e);
}

static void tell_failed(struct destination *d, const struct err *e)
{
	if (!d->cold)
		writer_record(&d->writer, RECORD_FAILED, e->text, strlen(e->text), NULL, 0, NULL);
}

int destination_receive(struct destination *d, struct guest *g, struct stats *stats, struct err *e)
{
	struct record rec;
	unsigned int i;
	int rc;

	d->guest = g;
	d->stats = stats;
	for (i = 0; i < g->n_blocks; i++)
		stats_add(&stats->total_pages, g->blocks[i].pages);
	rc = (d->cold ? 0 : accept_lanes(d, e)) || take_rounds(&d->lane[0], &rec, e) ||
	     take_states(d, &rec, e) || load(d, e);
	if (rc) {
		pthread_mutex_lock(&d->lock);
		if (d->failed) /* the first cause is worth more than what followed from it */
			*e = d->error;
		pthread_mutex_unlock(&d->lock);
		tell_failed(d, e);
	}
	return rc ? -1 : 0;
}

int destination_start(struct destination *d, bool paused, struct err *e)
{
	if (d->guest->ops->start(d->guest, d->run && !paused, e)) {
		tell_failed(d, e);
		return -1;
	}
	/* The guest runs here, whether or not the source hears of it. */
	if (!d->cold && writer_record(&d->writer, RECORD_RUNNING, NULL, 0, NULL, 0, NULL))
		log_warn("the source could not be told that the guest runs here");
	return 0;
}

void destination_free(struct destination *d)
{
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	d->finished = true;
	pthread_mutex_unlock(&d->lock);
	for (i = 1; i < LANES_MAX; i++)
		if (d->lane[i].reader.channel)
			channel_shutdown(d->lane[i].reader.channel);
	for (i = 0; i < LANES_MAX; i++) {
		if (d->lane[i].started)
			pthread_join(d->lane[i].thread, NULL);
		channel_close(d->lane[i].reader.channel);
		reader_free(&d->lane[i].reader);
	}
	tree_free(&d->states);
	pthread_cond_destroy(&d->changed);
	pthread_mutex_destroy(&d->lock);
}
