/*
 * The pause at the source, from the park of the guest to RUNNING. Runs on the migration's thread.
 * migrate/handover.h has its times.
 */
#include "migrate/handover.h"

#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/agent/teller.h"
#include "migrate/channel/channel.h"
#include "migrate/policy/expect.h"
#include "migrate/policy/rate.h"
#include "migrate/source/source_internal.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/wake.h"
#include "vmm/memory.h"

/* Poll interval while the disks are synced. */
#define SYNC_LOOK_MS 1

/* What the socket buffers of one connection may hold, at both ends together. */
#define SOCKET_BYTES (8u << 20)

/* At most this much of the fixed part of the pause makes its limit longer. */
#define FIXED_MAX_US 2000000u

int handover_left_ms(const struct source *s)
{
	uint64_t now = clock_us(), ms;

	if (!s->give_up_us || s->owner != OWNER_SOURCE)
		return -1;
	ms = now < s->give_up_us ? (s->give_up_us - now + 999) / 1000 : 0;
	return ms < INT_MAX ? (int)ms : INT_MAX;
}

int handover_check_pause(const struct source *s, struct err *e)
{
	if (handover_left_ms(s))
		return 0;
	return err_set(e,
		       "the guest has stood for %" PRIu64 " ms, which is as long as it may before "
		       "it is handed over (switchover-timeout)",
		       (clock_us() - s->parked_at_us) / 1000);
}

int handover_park(struct source *s, struct err *e)
{
	if (s->job.teller)
		teller_halt(s->job.teller, "the guest is parked");
	s->parked_at_us = clock_us();
	if (s->job.guest->ops->park(s->job.guest, e))
		return -1;
	s->parked = true;
	s->job.guest->ops->sync_begin(s->job.guest);
	stats_set(&s->job.stats->precopy_bytes,
		  stats_get(&s->job.stats->data_bytes) + stats_get(&s->job.stats->meta_bytes));
	throttle_release(&s->throttle);
	dirty_end_free(&s->dirty);
	stats_set(&s->job.stats->park_us, clock_us() - s->parked_at_us);
	return 0;
}

/*
 * Limits the pause, so that a link that stalls or a destination that hangs does not keep the guest
 * parked. By force the pause may last as long as data go out: then each step that was sent sets the
 * limit anew.
 */
void handover_limit_pause(struct source *s)
{
	uint64_t chosen_us = __atomic_load_n(&s->job.limits->switchover_us, __ATOMIC_RELAXED);
	uint64_t downtime_us = __atomic_load_n(&s->job.limits->downtime_us, __ATOMIC_RELAXED);
	uint64_t from = steer_forced(s) && !chosen_us ? clock_us() : s->parked_at_us;
	uint64_t rate = link_rate(&s->link, clock_us()), rest_us, fixed_us, limit;
	unsigned int i;

	rest_us = stats_get(&s->job.stats->remaining_pages) * PAGE_SIZE;
	rest_us += s->parked_within ? (uint64_t)SOCKET_BYTES * s->job.n_lanes : 0;
	rest_us = rate_us(rest_us, rate);
	/* The destination says part of it, and must not decide how long the guest stands. */
	fixed_us = expect_fixed_us(&s->expect, rate);
	rest_us += fixed_us < FIXED_MAX_US ? fixed_us : FIXED_MAX_US;
	limit = handover_limit_us(chosen_us, downtime_us, rest_us,
				  (uint64_t)s->job.spare_ms * 1000);

	if (limit > HANDOVER_CHOSEN_MAX_MS * 1000ull)
		limit = HANDOVER_CHOSEN_MAX_MS * 1000ull;
	if (from + limit > s->give_up_us)
		s->give_up_us = from + limit;
	for (i = 0; i < s->job.n_lanes; i++)
		channel_set_deadline(s->lanes.lane[i].writer.channel, handover_left_ms(s));
}

/* What STATES says of the guest, whose time has stood still since it was parked. */
static struct states_head states_head_now(struct source *s)
{
	bool told = s->job.teller && teller_told(s->job.teller);
	bool ran = s->job.guest->ops->ran(s->job.guest);
	uint64_t parked_us = clock_us() - s->parked_at_us - stats_get(&s->job.stats->park_us);

	if (told && !ran)
		decision_tell(&s->job.decisions, DECISION_GUEST_EVENT,
			      "after_migration: the guest is paused");
	return (struct states_head){ .pause_ns = s->job.cold ? 0 : parked_us * 1000,
				     .ran = ran,
				     .tell = ran && told };
}

/* STATES: when they were collected, whether the guest ran, and the tree. */
static int send_states(struct source *s, struct err *e)
{
	uint64_t start = clock_us();
	struct states_head head;
	struct tree states;
	uint8_t *body;
	size_t used;
	int rc;

	if (s->job.guest->ops->states_save(s->job.guest, &states, e))
		return -1;
	used = tree_bytes_used(&states);
	body = malloc(STATES_HEAD_BYTES + used);
	if (!body) {
		tree_free(&states);
		return err_set(e, "out of memory");
	}
	head = states_head_now(s);
	states_encode(&head, body);
	memcpy(body + STATES_HEAD_BYTES, states.fdt, used);
	rc = source_send_record(s, RECORD_STATES, body, STATES_HEAD_BYTES + used, e);
	free(body);
	tree_free(&states);
	stats_set(&s->job.stats->states_us, clock_us() - start);
	return rc;
}

/*
 * Waits for RUNNING. FAILED says that the destination did not start the guest and never will: after
 * GO that is the only answer by which the source owns the guest again.
 */
static int await_running(struct source *s, struct err *e)
{
	struct record rec;

	if (source_expect(s, RECORD_RUNNING, s->job.running_ms, &rec, e) == 0)
		return 0;
	if (s->answers.refused)
		source_set_owner(s, OWNER_SOURCE);
	return -1;
}

/* Sends GO. Then nobody owns the guest, unless not even the first byte of GO went out. */
static int send_go(struct source *s, struct err *e)
{
	uint64_t before = s->channel->bytes;

	s->job.guest->ops->release(s->job.guest);
	source_set_owner(s, OWNER_NOBODY);
	s->answers.stop_fd = -1;
	channel_set_stop(s->channel, -1);
	channel_set_deadline(s->channel, s->job.running_ms);
	if (source_send_record(s, RECORD_GO, NULL, 0, e) == 0)
		return 0;
	if (s->channel->bytes == before)
		source_set_owner(s, OWNER_SOURCE);
	return -1;
}

/* Waits until the destination has the last round; only the first call does. */
static int await_last_round(struct source *s, struct err *e)
{
	uint64_t start = clock_us();

	if (s->last_round_in)
		return 0;
	if (precopy_await(s, stats_get(&s->job.stats->round), e))
		return -1;
	s->last_round_in = true;
	stats_add(&s->job.stats->pages_us, clock_us() - start);
	return 0;
}

/* Takes what the destination has said meanwhile, if anything: ROUND of the last round, or FAILED.
 */
static int hear_meanwhile(struct source *s, struct err *e)
{
	if (!answers_waiting(&s->answers))
		return 0;
	return s->last_round_in ? answers_poll(&s->answers, -1, 0, e) : await_last_round(s, e);
}

/* Waits until the disks are synced, for the destination to read; at most as long as the guest may
 * stand. */
static int await_sync(struct source *s, struct err *e)
{
	uint64_t start = clock_us();
	int rc;

	while ((rc = s->job.guest->ops->sync_done(s->job.guest, e)) == 0) {
		if (wake_nap(s->job.stop_fd, SYNC_LOOK_MS * 1000, e))
			return -1;
		if (hear_meanwhile(s, e))
			return -1;
		if (handover_check_pause(s, e))
			return err_context(e, "waiting for the guest's disks to be synced");
	}
	stats_set(&s->job.stats->sync_us, clock_us() - start);
	return rc < 0 ? -1 : 0;
}

/* READY, GO, RUNNING. The guest is parked, and all pages and states were sent. */
static int hand_over(struct source *s, struct err *e)
{
	uint64_t start;
	struct record rec;

	if (await_last_round(s, e))
		return -1;
	start = clock_us();
	if (source_expect(s, RECORD_READY, INT_MAX, &rec, e))
		return -1;
	stats_set(&s->job.stats->load_us, clock_us() - start);
	start = clock_us();
	if (answers_poll(&s->answers, -1, 0, e) || handover_check_pause(s, e))
		return -1;
	if (s->job.events.commit && s->job.events.commit(s->job.events.arg, e))
		return -1;
	if (send_go(s, e) || await_running(s, e))
		return -1;
	source_set_owner(s, OWNER_DESTINATION);
	stats_set(&s->job.stats->start_us, clock_us() - start);
	return 0;
}

int handover_live(struct source *s, struct err *e)
{
	uint64_t round = stats_get(&s->job.stats->round) + 1, start, dirty;

	if (!s->parked) {
		source_enter(s, PHASE_SWITCHOVER);
		if (handover_park(s, e))
			return -1;
	}
	start = s->parked_at_us + stats_get(&s->job.stats->park_us);
	if (precopy_fetch(s, &dirty, e))
		return -1;
	stats_set(&s->job.stats->remaining_pages, dirty);
	handover_limit_pause(s);
	if (precopy_round(s, round, e))
		return -1;
	stats_set(&s->job.stats->pages_us, clock_us() - start);
	/* The disks come first: after READY the destination waits for GO only for a while. */
	if (await_sync(s, e) || send_states(s, e) || hand_over(s, e))
		return -1;
	stats_set(&s->job.stats->downtime_us, clock_us() - s->parked_at_us);
	return 0;
}

int handover_cold(struct source *s, struct err *e)
{
	source_enter(s, PHASE_PRECOPY);
	source_enter(s, PHASE_SWITCHOVER);
	if (handover_park(s, e) || ram_look_ahead(&s->ram, e) || precopy_round(s, 1, e) ||
	    lanes_drain(&s->lanes, e) || send_states(s, e) ||
	    source_send_record(s, RECORD_END, NULL, 0, e) || await_sync(s, e) ||
	    (s->job.events.commit && s->job.events.commit(s->job.events.arg, e)) ||
	    channel_finish(s->channel, e))
		return -1;
	source_set_owner(s, OWNER_DESTINATION);
	stats_set(&s->job.stats->downtime_us, clock_us() - s->parked_at_us);
	return 0;
}
