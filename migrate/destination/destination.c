/*
 * The life of a destination, from HELLO to RUNNING: see destination.h. What comes in is read by the
 * threads of receive.c. The states are loaded and the guest is started on the caller's thread,
 * which may wait for the guest's owner meanwhile; the readers do not.
 */
#include "migrate/destination/destination.h"

#include <inttypes.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "migrate/destination/door.h"
#include "migrate/handover.h"
#include "migrate/agent/teller.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

/* All further connections must be there, and have said HELLO, within this. */
#define LANES_MS 10000

/* How long what the source said last may take to be read if the connection is lost. */
#define LAST_WORDS_MS 200u

/* -- the beginning -- */

static void init(struct destination *d, int stop_fd)
{
	*d = (struct destination){ .stop_fd = stop_fd,
				   .lanes_ms = LANES_MS,
				   .go_ms = HANDOVER_GO_MS,
				   .heard_us = clock_us() };
	receive_init(&d->in);
}

int destination_open(struct destination *d, struct channel *ch, bool cold, int stop_fd,
		     struct tree *machine, struct err *e)
{
	init(d, stop_fd);
	d->cold = cold;
	d->in.lane[0].reader.channel = ch;
	d->writer.channel = ch;
	channel_set_deadline(ch, DOOR_HELLO_MS);
	if (hello_take(&d->in.lane[0].reader, &d->hello, e) ||
	    hello_take_machine(&d->in.lane[0].reader, &d->hello, machine, e)) {
		/* A peer that speaks in records is told why, for instance another version. */
		if (d->in.lane[0].reader.sequence && e)
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
	d->in.lane[0].reader = h.reader;
	d->writer.channel = h.reader.channel;
	d->hello = h.hello;
	*machine = h.machine;
	return 0;
}

void destination_set_stop(struct destination *d, int stop_fd)
{
	d->stop_fd = stop_fd;
	channel_set_stop(d->in.lane[0].reader.channel, stop_fd);
}

void destination_set_costs(struct destination *d, uint64_t load_us, uint64_t start_us)
{
	d->costs_known = true;
	d->costs.load_us = (uint32_t)(load_us < UINT32_MAX ? load_us : UINT32_MAX);
	d->costs.start_us = (uint32_t)(start_us < UINT32_MAX ? start_us : UINT32_MAX);
}

/* All is well: which features are accepted, and what the pause costs here. */
static int accept_machine(struct destination *d, struct err *e)
{
	const uint64_t build_us = clock_us() - d->heard_us;
	struct checked c = { .features = FEATURES_IMPLEMENTED, .costs = d->costs };
	uint8_t body[CHECKED_BYTES];
	size_t len;

	if (!d->costs_known)
		c.features &= ~(uint64_t)FEATURE_COSTS;
	c.features &= d->hello.wanted | d->hello.needed;
	c.costs.build_us = (uint32_t)(build_us < UINT32_MAX ? build_us : UINT32_MAX);
	len = checked_encode(&c, d->hello.version, body);
	return writer_record(&d->writer, RECORD_CHECKED, body, len, NULL, 0, e);
}

int destination_answer(struct destination *d, const char *refusal, struct err *e)
{
	if (d->cold)
		return 0;
	if (refusal)
		return writer_text(&d->writer, RECORD_CHECKED, refusal, e);
	return accept_machine(d, e);
}

/* -- the end -- */

/* Loads the states; a source that is still there is asked for the guest. */
static int load(struct destination *d, struct err *e)
{
	const struct receive *in = &d->in;
	struct channel *ch = in->lane[0].reader.channel;
	uint64_t advance_ns = in->advance_ns + (clock_us() - in->states_at_us) * 1000;

	if (d->guest->ops->states_load(d->guest, &in->states, d->cold ? 0 : advance_ns, e))
		return err_context(e, "%s", ch->name);
	stats_set(&d->stats->load_us, clock_us() - in->states_at_us);
	if (d->cold)
		return 0;
	/* Taken before READY is sent: whatever the source does upon it is later. */
	d->ready_ns = clock_ns_of(CLOCK_BOOTTIME);
	channel_set_deadline(ch, d->go_ms);
	if (writer_record(&d->writer, RECORD_READY, NULL, 0, NULL, 0, e) ||
	    receive_await(&d->in, RECEIVE_GO, e))
		return -1;
	channel_set_deadline(ch, -1);
	return 0;
}

/* Also if this side was stopped: once READY was sent, only FAILED lets the source know that the
 * guest never runs here. */
static void tell_failed(struct destination *d, const struct err *e)
{
	if (d->cold)
		return;
	channel_set_stop(d->writer.channel, -1);
	channel_set_deadline(d->writer.channel, HANDOVER_FAILED_MS);
	writer_text(&d->writer, RECORD_FAILED, e->text, NULL);
}

static void set_up(struct destination *d)
{
	const struct guest *g = d->guest;
	unsigned int i;

	if (!d->place) {
		place_memory_init(&d->memory, g);
		d->place = &d->memory;
	}
	d->in.cold = d->cold;
	d->in.door = d->door;
	d->in.lanes_wanted = d->hello.lanes;
	d->in.id = d->hello.id;
	d->in.stop_fd = d->stop_fd;
	d->in.lanes_ms = d->lanes_ms;
	d->in.place = d->place;
	d->in.stats = d->stats;
	d->in.writer = &d->writer;
	for (i = 0; i < g->n_blocks; i++)
		stats_add(&d->stats->total_pages, g->blocks[i].pages);
	stats_set(&d->stats->remaining_pages, stats_get(&d->stats->total_pages));
}

int destination_receive(struct destination *d, struct guest *g, struct stats *stats, struct err *e)
{
	uint64_t start = clock_us();
	struct err first = { "" };
	int rc;

	d->guest = g;
	d->stats = stats;
	set_up(d);
	rc = receive_begin(&d->in, &first);
	stats_set(&stats->setup_us, clock_us() - start);
	rc = rc || receive_await(&d->in, RECEIVE_STATES, &first) || load(d, &first);
	/* If READY could not be sent the source has gone, and may have said before why. */
	if (rc && d->writer.broken)
		receive_await_end(&d->in, LAST_WORDS_MS);
	receive_stop(&d->in);
	if (!rc)
		return 0;
	receive_explain(&d->in, &first);
	tell_failed(d, &first);
	return err_set(e, "%s", first.text);
}

/*
 * The last moment to say no, on the owner's thread. If GO is old the source may have given up, and
 * a person may have let the guest run there. The same holds if the connection was closed after GO;
 * but then the source may also have died, and this be the only copy: it is kept, and a person
 * decides. Both are checked here and not when GO is read, since this process, or its owner's
 * thread, may have stood still for long after that.
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
	channel_set_stop(d->in.lane[0].reader.channel, -1);
	rc = channel_wait(d->in.lane[0].reader.channel, 0, e);
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
	int rc = d->guest->ops->start(d->guest, d->in.run && !paused, &last, &why);

	if (rc < 0 && !d->undecided)
		tell_failed(d, &why);
	/* The guest has done something here: only a person can say where it goes on. */
	if (rc > 0)
		return err_set(e,
			       "the guest ran here, and could not go on: %s. The source was told "
			       "nothing: it keeps the guest, parked",
			       why.text);
	if (rc)
		return err_set(e, "%s", why.text);
	stats_set(&d->stats->start_us, clock_us() - start);
	/* As seen from here: without the time for which the states were on the wire. */
	if (!d->cold)
		stats_set(&d->stats->downtime_us,
			  d->in.advance_ns / 1000 + clock_us() - d->in.states_at_us);
	/* The guest runs here, even if the source does not hear of it. */
	if (!d->cold && writer_record(&d->writer, RECORD_RUNNING, NULL, 0, NULL, 0, NULL))
		log_warn("the source could not be told that the guest runs here");
	if (d->in.tell && d->teller) {
		teller_set_told(d->teller);
		teller_want(d->teller, GUEST_AFTER_MIGRATION);
	}
	return 0;
}

void destination_free(struct destination *d)
{
	d->in.door = d->door;
	receive_free(&d->in);
}
