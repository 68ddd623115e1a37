/*
 * All connections of a migration, up to GO: see receive.h. The peer is hostile until proven
 * otherwise: every number is checked before it is used.
 */
#include "migrate/destination/receive.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "migrate/channel/channel.h"
#include "migrate/destination/door.h"
#include "migrate/destination/place.h"
#include "migrate/guest.h"
#include "migrate/stats.h"
#include "vmm/base/clock.h"
#include "vmm/base/wake.h"

/* How long what the source said last may take to be read, when the connection is lost. */
#define LAST_WORDS_MS 200u

static void enter(struct receive *r, enum receive_phase phase)
{
	pthread_mutex_lock(&r->lock);
	r->phase = phase;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

static bool is_closed(struct receive *r)
{
	bool closed;

	pthread_mutex_lock(&r->lock);
	closed = r->phase >= RECEIVE_CLOSED;
	pthread_mutex_unlock(&r->lock);
	return closed;
}

/* -- rounds -- */

/* A connection has brought all of a round: waits until the others have, too. */
static int round_barrier(struct receive_lane *lane, uint32_t round, struct err *e)
{
	struct receive *r = lane->all;
	uint32_t round_before;
	bool failed, alone = false;
	unsigned int i;

	pthread_mutex_lock(&r->lock);
	round_before = lane->round;
	if (round != round_before + 1) {
		pthread_mutex_unlock(&r->lock);
		return err_set(e, "%s: round %" PRIu32 " after round %" PRIu32,
			       lane->reader.channel->name, round, round_before);
	}
	lane->round = round;
	lane->in_round = false;
	pthread_cond_broadcast(&r->changed);
	for (i = 0; i < r->n_lanes && !r->failed && !alone;)
		if (r->lane[i].round >= round)
			i++;
		else if (r->lane[i].gone)
			alone = true;
		else
			pthread_cond_wait(&r->changed, &r->lock);
	failed = r->failed;
	if (failed && e)
		*e = r->error;
	pthread_mutex_unlock(&r->lock);
	if (!failed && alone)
		return err_set(e, "%s: one of the connections ended too early",
			       lane->reader.channel->name);
	return failed ? -1 : 0;
}

/*
 * A connection failed: wakes all readers, also those that wait for bytes. The source can still be
 * told why, on the main connection. Called only once all connections are there, and none is added.
 */
static void lane_failed(struct receive *r, const struct err *e)
{
	bool first;
	unsigned int i;

	pthread_mutex_lock(&r->lock);
	first = !r->failed;
	r->failed = true;
	if (first)
		r->error = *e;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	if (!first)
		return;
	channel_end_reads(r->lane[0].reader.channel);
	for (i = 1; i < r->n_lanes; i++)
		channel_shutdown(r->lane[i].reader.channel);
}

/* Once the guest's states are here its memory is whole, and no page comes any more. */
static int check_open(struct receive_lane *lane, struct err *e)
{
	lane->in_round = true;
	if (!is_closed(lane->all))
		return 0;
	return err_set(e, "%s: pages after the states", lane->reader.channel->name);
}

/* The source learns that all of a round is in guest memory. */
static int say_round(struct receive *r, struct err *e)
{
	uint8_t body[ROUND_BYTES];

	round_encode(r->lane[0].round, body);
	return writer_record(r->writer, RECORD_ROUND, body, sizeof(body), NULL, 0, e);
}

/* The main connection begins a round when all have ended the one before. */
static void note_round(struct receive_lane *lane)
{
	struct stats *st = lane->all->stats;

	if (lane == &lane->all->lane[0] && stats_get(&st->round) != lane->round + 1u)
		stats_begin_round(st, lane->round + 1u, clock_us());
}

/* Takes PAGES and ROUND records, up to the first other one, which is left in `rec`. */
static int take_rounds(struct receive_lane *lane, struct record *rec, struct err *e)
{
	struct receive *r = lane->all;
	uint64_t before;
	uint32_t round;

	for (;;) {
		before = lane->reader.bytes;
		/* If data always come, from a file above all, no wait would notice a stop. */
		if (wake_is_set(r->stop_fd))
			return err_set(e, "%s: cancelled", lane->reader.channel->name);
		if (reader_record(&lane->reader, rec, e)) {
			lane->ended = !lane->in_round && lane->reader.bytes == before;
			return -1;
		}
		stats_add(&r->stats->meta_bytes, lane->reader.bytes - before);
		if (rec->type == RECORD_PAGES) {
			note_round(lane);
			if (check_open(lane, e) || intake_pages(&lane->intake, rec, e))
				return -1;
		} else if (rec->type == RECORD_ROUND && !r->cold) {
			if (round_decode(rec, &round, e))
				return err_context(e, "%s", lane->reader.channel->name);
			note_round(lane);
			if (round_barrier(lane, round, e) ||
			    (lane == &r->lane[0] && say_round(r, e)))
				return -1;
			stats_set(&r->stats->remaining_pages, 0);
		} else if (rec->type == RECORD_AHEAD && lane == &r->lane[0] && !r->cold &&
			   !lane->in_round && !lane->round) {
			if (ahead_take(&r->ahead, rec, e))
				return err_context(e, "%s", lane->reader.channel->name);
		} else {
			return 0;
		}
	}
}

static void *lane_thread(void *arg)
{
	struct receive_lane *lane = arg;
	struct receive *r = lane->all;
	struct record rec;
	struct err e;
	bool over;
	int rc = take_rounds(lane, &rec, &e);

	/* Once the states are here its end does not matter. Between two rounds it is too early to
	 * say: the main connection tells, or the end of the next round. */
	pthread_mutex_lock(&r->lock);
	lane->gone = lane->ended;
	over = r->phase >= RECEIVE_CLOSED || (lane->gone && !r->failed);
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	if (over)
		return NULL;
	if (!rc)
		err_set(&e, "%s: a %s record on a further connection", lane->reader.channel->name,
			record_name(rec.type));
	lane_failed(r, &e);
	return NULL;
}

/* The next connection of this migration, before `deadline_us`. */
static int accept_lane(struct receive *r, struct receive_lane *lane, uint64_t deadline_us,
		       struct err *e)
{
	struct heard h;

	if (door_lane(r->door, r->id, deadline_us, &h, e))
		return err_context(e, "further connections");
	lane->reader = h.reader;
	stats_add(&r->stats->meta_bytes, lane->reader.bytes);
	return 0;
}

static int start_lane(struct receive_lane *lane, void *(*thread)(void *), struct err *e)
{
	char name[16];
	int rc = pthread_create(&lane->thread, NULL, thread, lane);

	if (rc)
		return err_errno(e, rc, "cannot start a thread");
	lane->started = true;
	snprintf(name, sizeof(name), "migrate%u", (unsigned int)(lane - lane->all->lane));
	pthread_setname_np(lane->thread, name);
	return 0;
}

/* The door asks whether the arrival gets on. */
static uint64_t received(void *arg)
{
	const struct receive *r = arg;
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < r->n_lanes; i++)
		bytes += __atomic_load_n(&r->lane[i].reader.channel->received, __ATOMIC_RELAXED);
	return bytes;
}

/* Once the states are here only GO is missing, and that has a time limit of its own. */
static void give_up(void *arg, const char *why)
{
	struct receive *r = arg;
	struct err e;

	if (is_closed(r))
		return;
	err_set(&e, "%s", why);
	lane_failed(r, &e);
}

static int accept_lanes(struct receive *r, struct err *e)
{
	uint64_t deadline_us = clock_us() + (uint64_t)r->lanes_ms * 1000;
	const struct door_arrival arrival = { received, give_up, r };
	unsigned int i;

	if (r->lanes_wanted > 1 && !r->door)
		return err_set(e, "further connections cannot come in on this one");
	if (!r->door)
		return 0;
	if (door_enter(r->door, r->stop_fd, r->lanes_ms, e))
		return -1;
	for (i = 1; i < r->lanes_wanted; i++)
		if (accept_lane(r, &r->lane[i], deadline_us, e))
			return -1;
	/* All are there before the first thread looks at them (round_barrier, lane_failed). */
	r->n_lanes = r->lanes_wanted;
	for (i = 1; i < r->n_lanes; i++)
		if (start_lane(&r->lane[i], lane_thread, e))
			return -1;
	return door_watch(r->door, &arrival, e);
}

/* -- states and GO -- */

static int take_states(struct receive *r, const struct record *rec, struct err *e)
{
	struct reader *main = &r->lane[0].reader;
	struct states_head head;
	char text[400];

	if (rec->type == RECORD_FAILED) {
		record_text(rec, text, sizeof(text));
		r->told = true;
		return err_set(e, "the source gave up: %s", text);
	}
	if (rec->type != RECORD_STATES)
		return err_set(e, "%s: a %s record where the states should be", main->channel->name,
			       record_name(rec->type));
	if (!r->cold && (r->lane[0].in_round || !r->lane[0].round))
		return err_set(e, "%s: the states came before the end of a round",
			       main->channel->name);
	enter(r, RECEIVE_CLOSED);
	stats_set(&r->stats->remaining_pages, 0);
	r->states_at_us = clock_us();
	if (states_decode(rec, &head, e))
		return err_context(e, "%s", main->channel->name);
	r->advance_ns = head.pause_ns;
	r->run = head.ran;
	r->tell = head.tell;
	if (tree_copy(&r->states, rec->body + STATES_HEAD_BYTES,
		      rec->body_bytes - STATES_HEAD_BYTES, e))
		return err_context(e, "%s: the states", main->channel->name);
	return 0;
}

/* A file must be whole before anything of it is believed. */
static int take_end(struct receive *r, struct err *e)
{
	struct reader *main = &r->lane[0].reader;
	uint64_t before = main->bytes;

	if (reader_end(main, e))
		return -1;
	stats_add(&r->stats->meta_bytes, main->bytes - before);
	return 0;
}

static int take_go(struct receive *r, struct err *e)
{
	struct reader *main = &r->lane[0].reader;
	uint64_t before = main->bytes;
	struct record rec = { 0 };

	if (reader_expect(main, RECORD_GO, &rec, e)) {
		r->told = rec.type == RECORD_FAILED;
		return err_context(e, "waiting for GO");
	}
	stats_add(&r->stats->meta_bytes, main->bytes - before);
	return 0;
}

/* If an answer could not be sent the source has gone, and may have said why before. */
static void hear_why(struct receive *r, struct err *e)
{
	struct reader *main = &r->lane[0].reader;
	uint64_t end_us = clock_us() + LAST_WORDS_MS * 1000;
	struct record rec;
	char text[400];

	if (r->told || !r->writer->broken)
		return;
	channel_set_deadline(main->channel, LAST_WORDS_MS);
	while (clock_us() < end_us && reader_record(main, &rec, NULL) == 0) {
		if (rec.type == RECORD_FAILED) {
			record_text(&rec, text, sizeof(text));
			r->told = true;
			err_set(e, "the source gave up: %s", text);
			return;
		}
		if (reader_skip(main, NULL))
			return;
	}
}

static int read_main(struct receive_lane *lane, struct err *e)
{
	struct receive *r = lane->all;
	struct record rec;

	if (take_rounds(lane, &rec, e) || take_states(r, &rec, e) || (r->cold && take_end(r, e))) {
		hear_why(r, e);
		return -1;
	}
	enter(r, RECEIVE_STATES);
	if (r->cold)
		return 0;
	if (take_go(r, e))
		return -1;
	enter(r, RECEIVE_GO);
	return 0;
}

static void *main_thread(void *arg)
{
	struct receive_lane *lane = arg;
	struct receive *r = lane->all;
	struct err e = { "" };

	read_main(lane, &e);
	pthread_mutex_lock(&r->lock);
	r->over = true;
	r->why = e;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* -- the caller's side -- */

void receive_init(struct receive *r)
{
	pthread_condattr_t attr;

	*r = (struct receive){ .n_lanes = 1 };
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->changed, &attr);
	pthread_condattr_destroy(&attr);
	for (unsigned int i = 0; i < LANES_MAX; i++)
		r->lane[i].all = r;
}

int receive_begin(struct receive *r, struct err *e)
{
	ahead_init(&r->ahead, r->place);
	r->lane[0].reader.n_vcpus = r->place->guest->n_vcpus;
	stats_add(&r->stats->meta_bytes, r->lane[0].reader.bytes);
	for (unsigned int i = 0; i < LANES_MAX; i++)
		r->lane[i].intake = (struct intake){ .reader = &r->lane[i].reader,
						     .place = r->place,
						     .ahead = &r->ahead,
						     .stats = r->stats };
	if (!r->cold && accept_lanes(r, e))
		return -1;
	return start_lane(&r->lane[0], main_thread, e);
}

int receive_await(struct receive *r, enum receive_phase phase, struct err *e)
{
	bool there;

	pthread_mutex_lock(&r->lock);
	while (r->phase < phase && !r->over)
		pthread_cond_wait(&r->changed, &r->lock);
	there = r->phase >= phase;
	if (!there && e)
		*e = r->why;
	pthread_mutex_unlock(&r->lock);
	return there ? 0 : -1;
}

void receive_await_end(struct receive *r, unsigned int timeout_ms)
{
	struct timespec end = clock_timespec(clock_ns_of(CLOCK_MONOTONIC) +
					     timeout_ms * 1000000ull);

	pthread_mutex_lock(&r->lock);
	while (r->lane[0].started && !r->over &&
	       pthread_cond_timedwait(&r->changed, &r->lock, &end) == 0)
		;
	pthread_mutex_unlock(&r->lock);
}

void receive_stop(struct receive *r)
{
	struct receive_lane *lane = &r->lane[0];
	bool over;

	if (!lane->started)
		return;
	pthread_mutex_lock(&r->lock);
	over = r->over || r->phase == RECEIVE_GO;
	pthread_mutex_unlock(&r->lock);
	if (!over)
		channel_end_reads(lane->reader.channel);
	pthread_join(lane->thread, NULL);
	lane->started = false;
}

void receive_explain(struct receive *r, struct err *e)
{
	pthread_mutex_lock(&r->lock);
	if (r->told)
		*e = r->why;
	else if (r->failed)
		*e = r->error;
	pthread_mutex_unlock(&r->lock);
}

void receive_free(struct receive *r)
{
	unsigned int i;

	/* Before anything that it looks at goes. */
	if (r->door)
		door_unwatch(r->door);
	pthread_mutex_lock(&r->lock);
	/* Nothing more is read: a thread that waits for the end of a round goes now. */
	r->failed = true;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	for (i = 1; i < LANES_MAX; i++)
		if (r->lane[i].reader.channel)
			channel_shutdown(r->lane[i].reader.channel);
	receive_stop(r);
	for (i = 1; i < LANES_MAX; i++)
		if (r->lane[i].started)
			pthread_join(r->lane[i].thread, NULL);
	/* Only now: each thread may have shut down all other connections. */
	for (i = 0; i < LANES_MAX; i++) {
		channel_close(r->lane[i].reader.channel);
		reader_free(&r->lane[i].reader);
		intake_free(&r->lane[i].intake);
	}
	ahead_free(&r->ahead);
	tree_free(&r->states);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
}
