/*
 * The destination: see destination.h. The main connection is read on the caller's thread, each
 * further one on a thread of its own; at the end of a round all wait for the slowest. The peer is
 * hostile until proven otherwise: every number is checked before it is used.
 */
#include "migrate/destination/destination.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "migrate/destination/door.h"
#include "migrate/handover.h"
#include "migrate/agent/teller.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/base/wake.h"
#include "vmm/memory.h"

/* All further connections must be there, and have said HELLO, within this. */
#define LANES_MS 10000

/* How long what the source said last may take to be read, when the connection is lost. */
#define LAST_WORDS_MS 200u

/* -- the beginning -- */

static void init(struct destination *d, int stop_fd)
{
	unsigned int i;

	*d = (struct destination){ .stop_fd = stop_fd,
				   .lanes_ms = LANES_MS,
				   .go_ms = HANDOVER_GO_MS,
				   .heard_us = clock_us() };
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
	channel_set_deadline(ch, DOOR_HELLO_MS);
	if (hello_take(&d->lane[0].reader, &d->hello, e) ||
	    hello_take_machine(&d->lane[0].reader, &d->hello, machine, e)) {
		/* Who speaks in records is told why: another version, another architecture. */
		if (d->lane[0].reader.sequence && e)
			destination_answer(d, e->text, NULL);
		destination_free(d);
		return -1;
	}
	channel_set_deadline(ch, -1);
	return 0;
}

int destination_accept(struct destination *d, struct door *door, int stop_fd, struct tree *machine,
		       struct err *e)
{
	struct heard h;

	if (door_next(door, &h, e))
		return -1;
	init(d, stop_fd);
	d->door = door;
	d->lane[0].reader = h.reader;
	d->writer.channel = h.reader.channel;
	d->n_lanes = 1;
	d->hello = h.hello;
	*machine = h.machine;
	return 0;
}

void destination_set_stop(struct destination *d, int stop_fd)
{
	d->stop_fd = stop_fd;
	channel_set_stop(d->lane[0].reader.channel, stop_fd);
}

void destination_set_costs(struct destination *d, uint64_t load_us, uint64_t start_us)
{
	d->costs_known = true;
	d->costs.load_us = (uint32_t)(load_us < UINT32_MAX ? load_us : UINT32_MAX);
	d->costs.start_us = (uint32_t)(start_us < UINT32_MAX ? start_us : UINT32_MAX);
}

/* All is well, and what the pause costs here, to a source that understands it. */
static int say_costs(struct destination *d, struct err *e)
{
	uint64_t build_us = clock_us() - d->heard_us;
	uint8_t body[CHECKED_COSTS_BYTES];
	size_t len = d->costs_known && d->hello.features & HELLO_HEARS_COSTS ? sizeof(body) : 0;

	d->costs.build_us = (uint32_t)(build_us < UINT32_MAX ? build_us : UINT32_MAX);
	checked_encode(&d->costs, body);
	return writer_record(&d->writer, RECORD_CHECKED, body, len, NULL, 0, e);
}

int destination_answer(struct destination *d, const char *refusal, struct err *e)
{
	if (d->cold)
		return 0;
	if (refusal)
		return writer_text(&d->writer, RECORD_CHECKED, refusal, e);
	return say_costs(d, e);
}

/* -- lanes -- */

/* A lane has read all of a round: waits until the others have too. */
static int round_barrier(struct destination_lane *lane, uint32_t round, struct err *e)
{
	struct destination *d = lane->all;
	uint32_t round_before;
	bool failed, alone = false;
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	round_before = lane->round;
	if (round != round_before + 1) {
		pthread_mutex_unlock(&d->lock);
		return err_set(e, "%s: round %" PRIu32 " after round %" PRIu32,
			       lane->reader.channel->name, round, round_before);
	}
	lane->round = round;
	lane->in_round = false;
	pthread_cond_broadcast(&d->changed);
	for (i = 0; i < d->n_lanes && !d->failed && !alone;)
		if (d->lane[i].round >= round)
			i++;
		else if (d->lane[i].gone)
			alone = true;
		else
			pthread_cond_wait(&d->changed, &d->lock);
	failed = d->failed;
	if (failed && e)
		*e = d->error;
	pthread_mutex_unlock(&d->lock);
	if (!failed && alone)
		return err_set(e, "%s: one of the connections ended too early",
			       lane->reader.channel->name);
	return failed ? -1 : 0;
}

/*
 * Wakes whoever waits, also for bytes that will not come; on the main connection it can still be
 * said why. Called only when all connections are there: they do not change any more.
 */
static void lane_failed(struct destination *d, const struct err *e)
{
	bool first;
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	first = !d->failed;
	d->failed = true;
	if (first)
		d->error = *e;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
	if (!first)
		return;
	channel_end_reads(d->lane[0].reader.channel);
	for (i = 1; i < d->n_lanes; i++)
		channel_shutdown(d->lane[i].reader.channel);
}

/* Once the guest's states are here its memory is whole, and nobody writes to it any more. */
static int check_open(struct destination_lane *lane, struct err *e)
{
	struct destination *d = lane->all;
	bool complete;

	pthread_mutex_lock(&d->lock);
	complete = d->complete;
	pthread_mutex_unlock(&d->lock);
	lane->in_round = true;
	return complete ? err_set(e, "%s: pages after the states", lane->reader.channel->name) : 0;
}

/* The source learns that all of a round is in guest memory. */
static int say_round(struct destination *d, struct err *e)
{
	uint8_t body[ROUND_BYTES];

	round_encode(d->lane[0].round, body);
	return writer_record(&d->writer, RECORD_ROUND, body, sizeof(body), NULL, 0, e);
}

/* The main connection begins a round when all have ended the one before. */
static void note_round(struct destination_lane *lane)
{
	struct stats *st = lane->all->stats;

	if (lane == &lane->all->lane[0] && stats_get(&st->round) != lane->round + 1u)
		stats_begin_round(st, lane->round + 1u, clock_us());
}

/* PAGES and ROUND records, up to the first other one, which is left in `rec`. */
static int take_rounds(struct destination_lane *lane, struct record *rec, struct err *e)
{
	struct destination *d = lane->all;
	uint64_t before;
	uint32_t round;

	for (;;) {
		before = lane->reader.bytes;
		/* Data that always come, from a file above all, would never let it be seen. */
		if (wake_is_set(d->stop_fd))
			return err_set(e, "%s: cancelled", lane->reader.channel->name);
		if (reader_record(&lane->reader, rec, e)) {
			lane->ended = !lane->in_round && lane->reader.bytes == before;
			return -1;
		}
		stats_add(&d->stats->meta_bytes, lane->reader.bytes - before);
		if (rec->type == RECORD_PAGES) {
			note_round(lane);
			if (check_open(lane, e) || intake_pages(&lane->intake, rec, e))
				return -1;
		} else if (rec->type == RECORD_ROUND && !d->cold) {
			if (round_decode(rec, &round, e))
				return err_context(e, "%s", lane->reader.channel->name);
			note_round(lane);
			if (round_barrier(lane, round, e) ||
			    (lane == &d->lane[0] && say_round(d, e)))
				return -1;
			stats_set(&d->stats->remaining_pages, 0);
		} else if (rec->type == RECORD_AHEAD && lane == &d->lane[0] && !d->cold &&
			   !lane->in_round && !lane->round) {
			if (ahead_take(&d->ahead, rec, e))
				return err_context(e, "%s", lane->reader.channel->name);
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
	bool over;
	int rc = take_rounds(lane, &rec, &e);

	/* With its work done, how it ends does not matter; between two rounds it is too early to
	 * say: the main connection tells, or the next end of a round. */
	pthread_mutex_lock(&d->lock);
	lane->gone = lane->ended;
	over = d->complete || (lane->gone && !d->failed);
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
	if (over)
		return NULL;
	if (!rc)
		err_set(&e, "%s: a %s record on a further connection", lane->reader.channel->name,
			record_name(rec.type));
	lane_failed(d, &e);
	return NULL;
}

/* The next connection of this migration, before `deadline_us`. */
static int accept_lane(struct destination *d, struct destination_lane *lane, uint64_t deadline_us,
		       struct err *e)
{
	struct heard h;

	if (door_lane(d->door, d->hello.id, deadline_us, &h, e))
		return err_context(e, "further connections");
	lane->reader = h.reader;
	stats_add(&d->stats->meta_bytes, lane->reader.bytes);
	return 0;
}

static int start_lane(struct destination_lane *lane, struct err *e)
{
	char name[16];
	int rc = pthread_create(&lane->thread, NULL, lane_thread, lane);

	if (rc)
		return err_errno(e, rc, "cannot start a thread");
	lane->started = true;
	snprintf(name, sizeof(name), "migrate%u", (unsigned int)(lane - lane->all->lane));
	pthread_setname_np(lane->thread, name);
	return 0;
}

/* The door asks how the arrival gets on. */
static uint64_t received(void *arg)
{
	const struct destination *d = arg;
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < d->n_lanes; i++)
		bytes += __atomic_load_n(&d->lane[i].reader.channel->received, __ATOMIC_RELAXED);
	return bytes;
}

/* With the states here the source has only GO to say, and for that it has a time of its own. */
static void give_up(void *arg, const char *why)
{
	struct destination *d = arg;
	bool complete;
	struct err e;

	pthread_mutex_lock(&d->lock);
	complete = d->complete;
	pthread_mutex_unlock(&d->lock);
	if (complete)
		return;
	err_set(&e, "%s", why);
	lane_failed(d, &e);
}

static int accept_lanes(struct destination *d, struct err *e)
{
	uint64_t deadline_us = clock_us() + (uint64_t)d->lanes_ms * 1000;
	const struct door_arrival arrival = { received, give_up, d };
	unsigned int i;

	if (d->hello.lanes > 1 && !d->door)
		return err_set(e, "further connections cannot come in on this one");
	if (!d->door)
		return 0;
	if (door_enter(d->door, d->stop_fd, d->lanes_ms, e))
		return -1;
	for (i = 1; i < d->hello.lanes; i++)
		if (accept_lane(d, &d->lane[i], deadline_us, e))
			return -1;
	/* All are there before the first thread looks at them: see round_barrier, lane_failed. */
	d->n_lanes = d->hello.lanes;
	for (i = 1; i < d->n_lanes; i++)
		if (start_lane(&d->lane[i], e))
			return -1;
	return door_watch(d->door, &arrival, e);
}

/* -- the end -- */

static int take_states(struct destination *d, const struct record *rec, struct err *e)
{
	struct reader *r = &d->lane[0].reader;
	struct states_head head;
	char text[400];

	if (rec->type == RECORD_FAILED) {
		record_text(rec, text, sizeof(text));
		d->told = true;
		return err_set(e, "the source gave up: %s", text);
	}
	if (rec->type != RECORD_STATES)
		return err_set(e, "%s: a %s record where the states should be", r->channel->name,
			       record_name(rec->type));
	if (!d->cold && (d->lane[0].in_round || !d->lane[0].round))
		return err_set(e, "%s: the states came before the end of a round",
			       r->channel->name);
	pthread_mutex_lock(&d->lock);
	d->complete = true;
	pthread_mutex_unlock(&d->lock);
	stats_set(&d->stats->remaining_pages, 0);
	d->states_at_us = clock_us();
	if (states_decode(rec, &head, e))
		return err_context(e, "%s", r->channel->name);
	d->advance_ns = head.pause_ns;
	d->run = head.ran;
	d->tell = head.tell;
	if (tree_copy(&d->states, rec->body + STATES_HEAD_BYTES,
		      rec->body_bytes - STATES_HEAD_BYTES, e))
		return err_context(e, "%s: the states", r->channel->name);
	return 0;
}

static int load(struct destination *d, struct err *e)
{
	struct reader *r = &d->lane[0].reader;
	uint64_t advance_ns = d->cold ? 0 : d->advance_ns + (clock_us() - d->states_at_us) * 1000;
	uint64_t before = r->bytes;
	struct record rec = { 0 };

	/* A file must be whole before anything of it is believed. */
	if (d->cold && reader_end(r, e))
		return -1;
	if (d->guest->ops->states_load(d->guest, &d->states, advance_ns, e))
		return err_context(e, "%s", r->channel->name);
	stats_set(&d->stats->load_us, clock_us() - d->states_at_us);
	if (d->cold) {
		stats_add(&d->stats->meta_bytes, r->bytes - before);
		return 0;
	}
	/* From before READY goes out: what the source does by it is later. */
	d->ready_ns = clock_ns_of(CLOCK_BOOTTIME);
	channel_set_deadline(r->channel, d->go_ms);
	if (writer_record(&d->writer, RECORD_READY, NULL, 0, NULL, 0, e))
		return -1;
	if (reader_expect(r, RECORD_GO, &rec, e)) {
		d->told = rec.type == RECORD_FAILED;
		return err_context(e, "waiting for GO");
	}
	channel_set_deadline(r->channel, -1);
	stats_add(&d->stats->meta_bytes, r->bytes - before);
	return 0;
}

/* An answer could not be sent: the source has gone, and may have said before why. */
static void hear_why(struct destination *d, struct err *e)
{
	struct reader *r = &d->lane[0].reader;
	uint64_t end_us = clock_us() + LAST_WORDS_MS * 1000;
	struct record rec;
	char text[400];

	if (d->cold || d->told || !d->writer.broken)
		return;
	channel_set_deadline(r->channel, LAST_WORDS_MS);
	while (clock_us() < end_us && reader_record(r, &rec, NULL) == 0) {
		if (rec.type == RECORD_FAILED) {
			record_text(&rec, text, sizeof(text));
			d->told = true;
			err_set(e, "the source gave up: %s", text);
			return;
		}
		if (reader_skip(r, NULL))
			return;
	}
}

/* Also when this side was stopped: once READY was said, it is this by which the source knows that
 * the guest never runs here. */
static void tell_failed(struct destination *d, const struct err *e)
{
	if (d->cold)
		return;
	channel_set_stop(d->writer.channel, -1);
	channel_set_deadline(d->writer.channel, HANDOVER_FAILED_MS);
	writer_text(&d->writer, RECORD_FAILED, e->text, NULL);
}

int destination_receive(struct destination *d, struct guest *g, struct stats *stats, struct err *e)
{
	uint64_t start = clock_us();
	struct err first = { "" };
	struct record rec;
	unsigned int i;
	int rc;

	d->guest = g;
	d->lane[0].reader.n_vcpus = g->n_vcpus;
	d->stats = stats;
	if (!d->place) {
		place_memory_init(&d->memory, g);
		d->place = &d->memory;
	}
	ahead_init(&d->ahead, d->place);
	for (i = 0; i < LANES_MAX; i++)
		d->lane[i].intake = (struct intake){ .reader = &d->lane[i].reader,
						     .place = d->place,
						     .ahead = &d->ahead,
						     .stats = stats };
	stats_add(&stats->meta_bytes, d->lane[0].reader.bytes);
	for (i = 0; i < g->n_blocks; i++)
		stats_add(&stats->total_pages, g->blocks[i].pages);
	stats_set(&stats->remaining_pages, stats_get(&stats->total_pages));
	rc = d->cold ? 0 : accept_lanes(d, &first);
	stats_set(&stats->setup_us, clock_us() - start);
	rc = rc || take_rounds(&d->lane[0], &rec, &first) || take_states(d, &rec, &first) ||
	     load(d, &first);
	if (!rc)
		return 0;
	hear_why(d, &first);
	/* The first cause is worth more than what followed from it, the source's own word most. */
	pthread_mutex_lock(&d->lock);
	if (d->failed && !d->told)
		first = d->error;
	pthread_mutex_unlock(&d->lock);
	tell_failed(d, &first);
	return err_set(e, "%s", first.text);
}

/*
 * The last moment to say no, on the owner's thread. A GO that is old may be one that the source has
 * given up: then a person may have let the guest run there. The same holds for one behind which the
 * connection was closed; but that source may also have died, and then this is the only copy: it is
 * kept, for a person to decide. Both are looked at here and not where GO was read, as it may be
 * long since then that this process, or its owner's thread, stood still.
 */
static int may_start(void *arg, struct err *e)
{
	struct destination *d = arg;
	uint64_t age_ms;
	int rc;

	if (d->commit && d->commit(d->commit_arg, e))
		return -1;
	if (d->cold)
		return 0;
	channel_set_stop(d->lane[0].reader.channel, -1);
	rc = channel_wait(d->lane[0].reader.channel, 0, e);
	d->undecided = rc != 0;
	age_ms = (clock_ns_of(CLOCK_BOOTTIME) - d->ready_ns) / 1000000;
	if (!rc && age_ms >= (uint64_t)d->go_ms)
		return err_set(e,
			       "GO was obeyed too late, %" PRIu64 " ms after READY (%d ms are "
			       "allowed): the guest does not start here",
			       age_ms, d->go_ms);
	if (!rc)
		return 0;
	return err_set(e, "the source has handed the guest over, and closed the connection before "
			  "the guest ran here");
}

int destination_start(struct destination *d, bool paused, struct err *e)
{
	const struct guest_last last = { may_start, d };
	uint64_t start = clock_us();
	struct err why = { "" };
	int rc = d->guest->ops->start(d->guest, d->run && !paused, &last, &why);

	if (rc < 0 && !d->undecided)
		tell_failed(d, &why);
	/* It has done something here: only a person can say where it goes on. */
	if (rc > 0)
		return err_set(e,
			       "the guest ran here, and could not go on: %s. The source was told "
			       "nothing: it keeps the guest, parked",
			       why.text);
	if (rc)
		return err_set(e, "%s", why.text);
	stats_set(&d->stats->start_us, clock_us() - start);
	/* As far as it can be seen from here: without the time that the states were on the wire. */
	if (!d->cold)
		stats_set(&d->stats->downtime_us,
			  d->advance_ns / 1000 + clock_us() - d->states_at_us);
	/* The guest runs here, whether or not the source hears of it. */
	if (!d->cold && writer_record(&d->writer, RECORD_RUNNING, NULL, 0, NULL, 0, NULL))
		log_warn("the source could not be told that the guest runs here");
	if (d->tell && d->teller) {
		teller_set_told(d->teller);
		teller_want(d->teller, GUEST_AFTER_MIGRATION);
	}
	return 0;
}

void destination_free(struct destination *d)
{
	unsigned int i;

	/* Before anything that it looks at goes. */
	if (d->door)
		door_unwatch(d->door);
	pthread_mutex_lock(&d->lock);
	/* Nobody will be heard any more; whoever waits for the end of a round goes now. */
	d->failed = true;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
	for (i = 1; i < LANES_MAX; i++)
		if (d->lane[i].reader.channel)
			channel_shutdown(d->lane[i].reader.channel);
	for (i = 0; i < LANES_MAX; i++)
		if (d->lane[i].started)
			pthread_join(d->lane[i].thread, NULL);
	/* Only now: each may have shut down all others. */
	for (i = 0; i < LANES_MAX; i++) {
		channel_close(d->lane[i].reader.channel);
		reader_free(&d->lane[i].reader);
		intake_free(&d->lane[i].intake);
	}
	ahead_free(&d->ahead);
	tree_free(&d->states);
	pthread_cond_destroy(&d->changed);
	pthread_mutex_destroy(&d->lock);
}
