/*
 * The source: see source.h. Runs on the migration's thread.
 *
 * Before GO is sent, every failure ends in undo(): the log stops and the guest goes on here. After
 * it nothing does.
 */
#include "migrate/source/source.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "migrate/channel/channel.h"
#include "migrate/codec/page_cache.h"
#include "migrate/policy/expect.h"
#include "migrate/handover.h"
#include "migrate/policy/switchover.h"
#include "migrate/source/rounds.h"
#include "migrate/agent/teller.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

/* How long the destination may take to make the machine, and to take in what is still on the way at
 * the end of a round, while the guest runs. For what comes after that see handover.h. */
#define CHECKED_MS 60000
#define ROUND_MS   120000

/* How often it is asked whether the disks have been synced. */
#define SYNC_LOOK_MS 1

/* How often it is looked at, while the agent is waited for, whether that still makes sense. */
#define AGENT_LOOK_MS 100

/* How long a round waits for the next if the pause would be too long whatever is sent. */
#define LIMIT_LOOK_MS 50

/* How long the destination may take to say why it failed; the guest runs again by then. */
#define LAST_WORDS_MS 200u

/* What the sockets of a connection may hold beside what is still to be sent. */
#define SOCKET_BYTES (8u << 20)

/* More of the pause without pages does not make its limit longer. */
#define FIXED_MAX_US 2000000u

static void decide(struct source *s, const char *action, const char *reason)
{
	if (s->events.decision)
		s->events.decision(s->events.arg, action, reason);
}

static void enter(struct source *s, enum source_phase p)
{
	if (s->events.phase)
		s->events.phase(s->events.arg, p);
}

static void set_owner(struct source *s, enum owner o)
{
	__atomic_store_n(&s->owner, o, __ATOMIC_RELEASE);
}

/* -- setting up -- */

static int send_hello(struct source *s, struct writer *w, enum hello_role role, struct err *e)
{
	struct hello h = { .role = role,
			   .lanes = s->n_lanes,
			   .features = s->cold ? 0 : HELLO_HEARS_COSTS };
	uint64_t before = w->channel->bytes;

	if (s->program)
		memcpy(h.program, s->program, strnlen(s->program, sizeof(h.program) - 1));
	memcpy(h.id, s->id, sizeof(h.id));
	if (writer_hello(w, &h, e))
		return -1;
	stats_add(&s->stats->meta_bytes, w->channel->bytes - before);
	return 0;
}

int source_send_record(struct source *s, enum record_type type, const void *body, size_t len,
		       struct err *e)
{
	if (writer_record(lanes_main(&s->lanes), type, body, len, NULL, 0, e))
		return -1;
	stats_add(&s->stats->meta_bytes, RECORD_HEAD_BYTES + len);
	return 0;
}

static int send_tree(struct source *s, enum record_type type, const struct tree *t, struct err *e)
{
	return source_send_record(s, type, t->fdt, tree_bytes_used(t), e);
}

static int alloc_pending(struct source *s, struct err *e)
{
	unsigned int i;

	for (i = 0; i < s->guest->n_blocks; i++) {
		uint64_t pages = s->guest->blocks[i].pages;

		s->pending[i] = calloc(BITMAP_WORDS(pages) + CHUNK_WORDS, sizeof(uint64_t));
		if (!s->pending[i])
			return err_set(e, "out of memory");
		stats_add(&s->stats->total_pages, pages);
		stats_add(&s->stats->remaining_pages, pages);
	}
	s->touched = calloc(BITMAP_WORDS(ROUNDS_STEP_MAX), sizeof(uint64_t));
	return s->touched ? 0 : err_set(e, "out of memory");
}

/* How long the guest may stand yet, in ms; -1: it does not stand, or is not ours any more. */
static int pause_left_ms(const struct source *s)
{
	uint64_t now = clock_us(), ms;

	if (!s->give_up_us || s->owner != OWNER_SOURCE)
		return -1;
	ms = now < s->give_up_us ? (s->give_up_us - now + 999) / 1000 : 0;
	return ms < INT_MAX ? (int)ms : INT_MAX;
}

/* 0, or -1 when the guest has stood for as long as it may. */
static int check_pause(const struct source *s, struct err *e)
{
	if (pause_left_ms(s))
		return 0;
	return err_set(e,
		       "the guest has stood for %" PRIu64 " ms, which is as long as it may before "
		       "it is handed over (switchover-timeout)",
		       (clock_us() - s->parked_at_us) / 1000);
}

/* The next record from the destination, whole and within that time. */
static int read_answer(struct source *s, struct reader *r, struct record *rec, int timeout_ms,
		       struct err *e)
{
	int left_ms = pause_left_ms(s), rc;

	channel_set_deadline(s->channel,
			     left_ms >= 0 && left_ms < timeout_ms ? left_ms : timeout_ms);
	rc = channel_wait(s->channel, -1, e);
	if (rc == 0 && check_pause(s, e) == 0)
		rc = err_set(e, "%s: no word from the destination within %d s", s->channel->name,
			     timeout_ms / 1000);
	else if (rc == 0)
		rc = -1;
	else if (rc > 0)
		rc = reader_record(r, rec, e);
	channel_set_deadline(s->channel, pause_left_ms(s));
	return rc;
}

/* Sets the error when the destination says in `rec` that it cannot go on. */
static bool is_refusal(struct source *s, const struct record *rec, struct err *e)
{
	char text[400];

	if (rec->type != RECORD_FAILED && (rec->type != RECORD_CHECKED || !checked_refuses(rec)))
		return false;
	record_text(rec, text, sizeof(text));
	s->answered = true;
	err_set(e,
		rec->type == RECORD_CHECKED ? "the destination refuses: %s"
					    : "the destination gave up: %s",
		text);
	return true;
}

/* The next record from the destination, which must be of that type. */
int source_expect(struct source *s, struct reader *r, enum record_type type, int timeout_ms,
		  struct record *rec, struct err *e)
{
	if (read_answer(s, r, rec, timeout_ms, e))
		return err_context(e, "waiting for %s", record_name((uint16_t)type));
	if (is_refusal(s, rec, e))
		return -1;
	if (rec->type != type)
		return err_set(e, "%s: a %s record where %s was expected", s->channel->name,
			       record_name(rec->type), record_name((uint16_t)type));
	return 0;
}

static int make_cache(struct source *s, struct err *e)
{
	if (!s->xbzrle || s->cold)
		return 0;
	s->cache = malloc(sizeof(*s->cache));
	if (!s->cache)
		return err_set(e, "out of memory");
	if (page_cache_init(s->cache, s->xbzrle_cache_bytes, e) == 0)
		return 0;
	free(s->cache);
	s->cache = NULL;
	return err_context(e, "the cache for XBZRLE");
}

/* Each says HELLO as soon as it is there: who comes and says nothing is sent away over there. */
static int open_lanes(struct source *s, struct err *e)
{
	struct writer writers[LANES_MAX] = { s->lanes.lane[0].writer };
	struct channel *channels[LANES_MAX] = { s->channel };
	struct lanes_codecs codecs = { .rest = s->compression ? s->compression : CODEC_PLAIN,
				       .level = s->level,
				       .decision = s->events.decision,
				       .arg = s->events.arg };
	unsigned int i;
	int rc;

	for (i = 1; i < s->n_lanes; i++) {
		channels[i] = s->extra[i] = s->events.connect(s->events.arg, e);
		if (!s->extra[i])
			return -1;
		writers[i].channel = channels[i];
		if (send_hello(s, &writers[i], ROLE_PAGES, e))
			return -1;
	}
	if (make_cache(s, e))
		return -1;
	codecs.cache = s->cache;
	rc = lanes_init(&s->lanes, s->guest, s->stats, &s->limits->bandwidth, s->stop_fd, channels,
			s->n_lanes, &codecs, e);
	for (i = 0; i < s->n_lanes; i++)
		s->lanes.lane[i].writer = writers[i];
	s->lanes.checksums = s->cold;
	s->lanes.force = &s->limits->force;
	return rc;
}

/* What the pause costs here; the guest runs. If that is not known nothing is lost but the figure.
 */
static void rehearse(struct source *s)
{
	struct guest_costs here;

	if (!s->cold && s->guest->ops->rehearse && !s->guest->ops->rehearse(s->guest, &here, NULL))
		expect_rehearsed(&s->expect, &here);
}

/* The destination has made the machine, and says what the pause costs there. */
static int await_checked(struct source *s, struct reader *r, struct err *e)
{
	uint64_t start = clock_us();
	struct record rec;

	if (source_expect(s, r, RECORD_CHECKED, s->checked_ms, &rec, e))
		return -1;
	expect_checked(&s->expect, &rec, clock_us() - start);
	return 0;
}

static int set_up(struct source *s, struct reader *r, struct err *e)
{
	struct writer *w = lanes_main(&s->lanes);

	w->channel = s->channel;
	w->n_vcpus = s->guest->n_vcpus;
	if (s->fixed_id)
		memcpy(s->id, s->fixed_id, sizeof(s->id));
	else if (getrandom(s->id, sizeof(s->id), 0) != sizeof(s->id))
		return err_errno(e, errno, "no random numbers");
	rehearse(s);
	if (alloc_pending(s, e) || watch_init(s, e) || send_hello(s, w, ROLE_MAIN, e) ||
	    send_tree(s, RECORD_MACHINE, s->guest->tree, e))
		return -1;
	if (!s->cold && await_checked(s, r, e))
		return -1;
	return open_lanes(s, e);
}

/* -- before the guest is parked -- */

/* It may have died while nothing was asked of it, or changed its mind: as long as GO is not sent,
 * that does no harm. */
static int check_still_there(struct source *s, struct reader *r, struct err *e)
{
	struct record rec;
	int rc = channel_wait(s->channel, 0, e);

	if (rc <= 0)
		return rc;
	if (read_answer(s, r, &rec, s->running_ms, e) || is_refusal(s, &rec, e))
		return -1;
	return err_set(e, "%s: a %s record that was not asked for", s->channel->name,
		       record_name(rec.type));
}

/* By force nothing is waited for. */
static bool waits_for_agent(const struct source *s)
{
	return s->guest_events && teller_busy(s->teller) && !steer_forced(s);
}

/* The guest could be parked, but its agent is still being told, which is bounded (teller.h). */
static int await_agent(struct source *s, struct reader *r, struct err *e)
{
	struct pollfd fds[] = { { s->teller->idle_fd, POLLIN, 0 }, { s->stop_fd, POLLIN, 0 } };

	watch_rest(s);
	while (waits_for_agent(s)) {
		if (poll(fds, 2, AGENT_LOOK_MS) > 0 && fds[1].revents)
			return err_set(e, "cancelled");
		if (check_still_there(s, r, e))
			return -1;
	}
	return 0;
}

/* -- rounds -- */

static struct switchover_input switchover_now(const struct source *s, uint64_t remaining_pages)
{
	return (struct switchover_input){
		.remaining_bytes = remaining_pages * PAGE_SIZE,
		.previous_remaining_bytes = UINT64_MAX,
		.rate_bytes = rounds_rate(s),
		.fixed_us = steer_fixed_us(s),
		.limit_us = __atomic_load_n(&s->limits->downtime_us, __ATOMIC_RELAXED),
		.patient = steer_decides(s),
	};
}

static void say_switchover(struct source *s, const char *why, const struct switchover_input *in)
{
	uint64_t us = switchover_decide(in).expected_us;
	/* How fast the link is without the limit nobody has seen. */
	bool faster = steer_forced(s) && __atomic_load_n(&s->limits->bandwidth, __ATOMIC_RELAXED);
	char reason[256];

	stats_set(&s->stats->expected_us, us);
	snprintf(reason, sizeof(reason),
		 "%s: %" PRIu64 " KiB remain and %" PRIu64 " MiB/s are sent, a pause of %s %" PRIu64
		 " ms; %" PRIu64 " ms are allowed",
		 why, in->remaining_bytes >> 10, in->rate_bytes >> 20,
		 faster ? "at most (the bandwidth is no limit any more)" : "about",
		 (us + 999) / 1000, in->limit_us / 1000);
	decide(s, "switchover", reason);
}

/* No round makes the pause shorter, and somebody else decides what is done about it. */
static int await_decision(struct source *s, struct reader *r, struct err *e)
{
	struct pollfd stop = { s->stop_fd, POLLIN, 0 };

	if (poll(&stop, 1, LIMIT_LOOK_MS) > 0)
		return err_set(e, "cancelled");
	return check_still_there(s, r, e);
}

/* Rounds until the guest can be parked. */
static int precopy(struct source *s, struct reader *r, struct err *e)
{
	uint64_t round, dirty, start, previous = UINT64_MAX;
	struct switchover_verdict v;
	struct switchover_input in;

	steer_say_unkeepable(s);
	for (round = 1;; round++) {
		if (s->guest->ops->settle)
			s->guest->ops->settle(s->guest);
		start = clock_us();
		if (lanes_check(&s->lanes, e) || rounds_send(s, r, round, e))
			return -1;
		if (s->parked)
			return 0;
		if (rounds_fetch(s, &dirty, e))
			return -1;
		watch_end_round(s, dirty);
		stats_set(&s->stats->dirty_pages, dirty);
		stats_set(&s->stats->remaining_pages, dirty);
		stats_set(&s->stats->dirty_rate, dirty * 1000000 / (clock_us() - start + 1));
		in = switchover_now(s, dirty);
		in.previous_remaining_bytes = previous;
		v = switchover_decide(&in);
		steer_say_unkeepable(s);
		if (v.unkeepable && !v.stop && await_decision(s, r, e))
			return -1;
		if (!v.stop && steer_round(s, clock_us() - start, &in, &v, e))
			return -1;
		stats_set(&s->stats->expected_us, v.expected_us);
		if (v.stop && waits_for_agent(s)) {
			/* Meanwhile it writes on: what is left then is for one more round. */
			if (await_agent(s, r, e))
				return -1;
		} else if (v.stop) {
			say_switchover(s, v.reason, &in);
			return 0;
		}
		previous = in.remaining_bytes;
	}
}

/* -- handing over -- */

static int park(struct source *s, struct err *e)
{
	if (s->teller)
		teller_halt(s->teller, "the guest is parked");
	s->parked_at_us = clock_us();
	if (s->guest->ops->park(s->guest, e))
		return -1;
	s->parked = true;
	s->guest->ops->sync_begin(s->guest);
	stats_set(&s->stats->precopy_bytes,
		  stats_get(&s->stats->data_bytes) + stats_get(&s->stats->meta_bytes));
	brake_release(s);
	unused_done(s);
	stats_set(&s->stats->park_us, clock_us() - s->parked_at_us);
	return 0;
}

/*
 * A link that stalls now, or a destination that hangs, must not keep the guest parked. By force the
 * pause is as long as the data need: then it is asked for anew with each step that was sent.
 */
static void limit_pause(struct source *s)
{
	uint64_t chosen_us = __atomic_load_n(&s->limits->switchover_us, __ATOMIC_RELAXED);
	uint64_t downtime_us = __atomic_load_n(&s->limits->downtime_us, __ATOMIC_RELAXED);
	uint64_t from = steer_forced(s) && !chosen_us ? clock_us() : s->parked_at_us;
	uint64_t rate = rounds_rate(s), rest_us, fixed_us, limit;
	unsigned int i;

	rest_us = stats_get(&s->stats->remaining_pages) * PAGE_SIZE;
	rest_us += s->parked_within ? (uint64_t)SOCKET_BYTES * s->n_lanes : 0;
	rest_us = rest_us * 1000 / (rate / 1000 + 1);
	/* Partly the destination's word, which must not decide how long the guest stands. */
	fixed_us = expect_fixed_us(&s->expect, rate);
	rest_us += fixed_us < FIXED_MAX_US ? fixed_us : FIXED_MAX_US;
	limit = handover_limit_us(chosen_us, downtime_us, rest_us, (uint64_t)s->spare_ms * 1000);

	if (limit > HANDOVER_CHOSEN_MAX_MS * 1000ull)
		limit = HANDOVER_CHOSEN_MAX_MS * 1000ull;
	if (from + limit > s->give_up_us)
		s->give_up_us = from + limit;
	for (i = 0; i < s->n_lanes; i++)
		channel_set_deadline(s->lanes.lane[i].writer.channel, pause_left_ms(s));
}

/* Why the guest is to be parked before the round is over; NULL: it is not. */
static const char *why_within_round(const struct source *s)
{
	if (steer_forced(s))
		return STEER_BY_FORCE;
	return watch_fits_raised_limit(s) && !waits_for_agent(s)
		       ? "the limit was raised, and all fits"
		       : NULL;
}

int source_park_within_round(struct source *s, struct err *e)
{
	const char *why = s->parked ? NULL : why_within_round(s);
	struct switchover_input in;

	if (s->parked && !s->cold) {
		if (steer_forced(s))
			limit_pause(s);
		return check_pause(s, e);
	}
	if (!why)
		return 0;
	in = switchover_now(s, stats_get(&s->stats->remaining_pages) + s->watch.left_pages);
	say_switchover(s, why, &in);
	enter(s, SOURCE_SWITCHOVER);
	s->parked_within = true;
	if (park(s, e))
		return -1;
	limit_pause(s);
	return 0;
}

static uint64_t states_bits(struct source *s)
{
	bool told = s->teller && teller_told(s->teller);

	if (s->guest->ops->ran(s->guest))
		return STATES_RAN | (told ? STATES_TELL : 0);
	if (told)
		decide(s, "guest-event", "after_migration: the guest is paused");
	return 0;
}

/* STATES: when they were collected, whether the guest ran, and the tree. */
static int send_states(struct source *s, struct err *e)
{
	uint64_t start = clock_us();
	struct tree states;
	uint8_t *body;
	size_t used;
	int rc;

	if (s->guest->ops->states_save(s->guest, &states, e))
		return -1;
	used = tree_bytes_used(&states);
	body = malloc(STATES_HEAD_BYTES + used);
	if (!body) {
		tree_free(&states);
		return err_set(e, "out of memory");
	}
	/* The guest's time stands since it is parked: that much later it is now. */
	put_u64(body,
		s->cold ? 0
			: (clock_us() - s->parked_at_us - stats_get(&s->stats->park_us)) * 1000);
	put_u64(body + 8, states_bits(s));
	memcpy(body + STATES_HEAD_BYTES, states.fdt, used);
	rc = source_send_record(s, RECORD_STATES, body, STATES_HEAD_BYTES + used, e);
	free(body);
	tree_free(&states);
	stats_set(&s->stats->states_us, clock_us() - start);
	return rc;
}

/*
 * RUNNING, or a FAILED by which the destination says that it did not start the guest and never
 * will: the one answer after which it is known to be ours again.
 */
static int await_running(struct source *s, struct reader *r, struct err *e)
{
	struct record rec;

	if (source_expect(s, r, RECORD_RUNNING, s->running_ms, &rec, e) == 0)
		return 0;
	if (s->answered)
		set_owner(s, OWNER_SOURCE);
	return -1;
}

/* GO. From here on the guest is not ours, unless not even the first byte went out. */
static int send_go(struct source *s, struct err *e)
{
	uint64_t before = s->channel->bytes;

	if (s->guest->ops->release)
		s->guest->ops->release(s->guest);
	set_owner(s, OWNER_NOBODY);
	channel_set_stop(s->channel, -1);
	channel_set_deadline(s->channel, s->running_ms);
	if (source_send_record(s, RECORD_GO, NULL, 0, e) == 0)
		return 0;
	if (s->channel->bytes == before)
		set_owner(s, OWNER_SOURCE);
	return -1;
}

/* The destination has the last round; asked for once. */
static int await_last_round(struct source *s, struct reader *r, struct err *e)
{
	uint64_t start = clock_us();

	if (s->last_round_in)
		return 0;
	if (rounds_await(s, r, stats_get(&s->stats->round), e))
		return -1;
	s->last_round_in = true;
	stats_add(&s->stats->pages_us, clock_us() - start);
	return 0;
}

/* What it has said meanwhile, if anything: that it has the last round, or why it cannot go on. */
static int hear_meanwhile(struct source *s, struct reader *r, struct err *e)
{
	int rc = s->cold ? 0 : channel_wait(s->channel, 0, e);

	if (rc <= 0)
		return rc;
	return s->last_round_in ? check_still_there(s, r, e) : await_last_round(s, r, e);
}

/* Until what the guest wrote to its disks is there for the destination to read; a disk that hangs
 * is not waited for longer than the guest may stand. */
static int await_sync(struct source *s, struct reader *r, struct err *e)
{
	struct pollfd stop = { s->stop_fd, POLLIN, 0 };
	uint64_t start = clock_us();
	int rc;

	while ((rc = s->guest->ops->sync_done(s->guest, e)) == 0) {
		if (poll(&stop, 1, SYNC_LOOK_MS) > 0)
			return err_set(e, "cancelled");
		if (hear_meanwhile(s, r, e))
			return -1;
		if (check_pause(s, e))
			return err_context(e, "waiting for the guest's disks to be synced");
	}
	stats_set(&s->stats->sync_us, clock_us() - start);
	return rc < 0 ? -1 : 0;
}

/* The guest is parked and everything is on the way: READY, GO, RUNNING. */
static int hand_over(struct source *s, struct reader *r, struct err *e)
{
	uint64_t start;
	struct record rec;

	if (await_last_round(s, r, e))
		return -1;
	start = clock_us();
	if (source_expect(s, r, RECORD_READY, INT_MAX, &rec, e))
		return -1;
	stats_set(&s->stats->load_us, clock_us() - start);
	start = clock_us();
	if (check_still_there(s, r, e) || check_pause(s, e))
		return -1;
	if (s->events.commit && s->events.commit(s->events.arg, e))
		return -1;
	if (send_go(s, e) || await_running(s, r, e))
		return -1;
	set_owner(s, OWNER_DESTINATION);
	stats_set(&s->stats->start_us, clock_us() - start);
	return 0;
}

static int switchover(struct source *s, struct reader *r, struct err *e)
{
	uint64_t round = stats_get(&s->stats->round) + 1, start, dirty;

	if (!s->parked) {
		enter(s, SOURCE_SWITCHOVER);
		if (park(s, e))
			return -1;
	}
	start = s->parked_at_us + stats_get(&s->stats->park_us);
	if (rounds_fetch(s, &dirty, e))
		return -1;
	stats_set(&s->stats->remaining_pages, dirty);
	limit_pause(s);
	if (rounds_send(s, r, round, e))
		return -1;
	stats_set(&s->stats->pages_us, clock_us() - start);
	/* The disks first: READY does not wait for long for its GO (handover.h). */
	if (await_sync(s, r, e) || send_states(s, e) || hand_over(s, r, e))
		return -1;
	stats_set(&s->stats->downtime_us, clock_us() - s->parked_at_us);
	return 0;
}

static int live(struct source *s, struct reader *r, struct err *e)
{
	if (s->guest->ops->log_start(s->guest, e))
		return -1;
	s->logging = true;
	enter(s, SOURCE_PRECOPY);
	if (s->guest_events)
		teller_want(s->teller, GUEST_BEFORE_MIGRATION);
	if (unused_ask(s, e) || rounds_look_ahead(s, e) || precopy(s, r, e))
		return -1;
	return switchover(s, r, e);
}

static int cold(struct source *s, struct err *e)
{
	enter(s, SOURCE_PRECOPY);
	enter(s, SOURCE_SWITCHOVER);
	if (park(s, e) || rounds_look_ahead(s, e) || rounds_send(s, NULL, 1, e) ||
	    lanes_drain(&s->lanes, e) || send_states(s, e) ||
	    source_send_record(s, RECORD_END, NULL, 0, e) || await_sync(s, NULL, e) ||
	    (s->events.commit && s->events.commit(s->events.arg, e)) ||
	    channel_finish(s->channel, e))
		return -1;
	set_owner(s, OWNER_DESTINATION);
	stats_set(&s->stats->downtime_us, clock_us() - s->parked_at_us);
	return 0;
}

/* Whether the destination may prepare to take over what only one side may hold. */
static void share(struct source *s, bool on)
{
	if (!s->cold && s->guest->ops->share)
		s->guest->ops->share(s->guest, on);
}

/* When a connection was lost, the destination's last word is a better reason than that. */
static void hear_why(struct source *s, struct reader *r, struct err *e)
{
	uint64_t end_us = clock_us() + LAST_WORDS_MS * 1000;
	struct record rec;
	struct err why;
	unsigned int i;

	for (i = 0; i < s->n_lanes && !s->lanes.lane[i].writer.broken; i++)
		;
	if (s->cold || s->answered || i == s->n_lanes)
		return;
	/* Before it there may be answers that were not waited for. */
	while (clock_us() < end_us && read_answer(s, r, &rec, LAST_WORDS_MS, NULL) == 0)
		if (is_refusal(s, &rec, &why)) {
			*e = why;
			return;
		}
}

/*
 * Tells the destination why, if it can be had at once: nobody waits for that, and a record that was
 * cut off is the last thing that it could make sense of.
 */
static void tell_failed(struct source *s, const struct err *e)
{
	struct writer *w = lanes_main(&s->lanes);

	if (s->cold || !w->channel)
		return;
	channel_set_stop(s->channel, -1);
	channel_set_deadline(s->channel, 0);
	writer_record(w, RECORD_FAILED, e->text, strlen(e->text), NULL, 0, NULL);
}

/* Everything as it was. */
static void undo(struct source *s, struct reader *r, struct err *e)
{
	struct err resume;

	s->give_up_us = 0;
	brake_release(s);
	unused_done(s);
	if (s->logging)
		s->guest->ops->log_stop(s->guest);
	s->stuck = s->parked && s->guest->ops->unpark(s->guest, &resume);
	share(s, false);
	hear_why(s, r, e);
	if (s->events.explain)
		s->events.explain(s->events.arg, e);
	if (s->stuck)
		err_context(e, "the guest is paused: %s", resume.text);
	if (s->teller)
		teller_want(s->teller, GUEST_AFTER_MIGRATION);
	tell_failed(s, e);
}

int source_run(struct source *s, struct err *e)
{
	struct reader r = { .channel = s->channel, .answers = true };
	uint64_t start = clock_us();
	struct err unwanted;
	unsigned int i;
	int rc;

	e = e ? e : &unwanted;
	s->checked_ms = s->checked_ms ? s->checked_ms : CHECKED_MS;
	s->round_ms = s->round_ms ? s->round_ms : ROUND_MS;
	s->spare_ms = s->spare_ms ? s->spare_ms : HANDOVER_SPARE_MS;
	s->running_ms = s->running_ms ? s->running_ms : HANDOVER_RUNNING_MS;
	set_owner(s, OWNER_SOURCE);
	enter(s, SOURCE_SETUP);
	share(s, true);
	rc = set_up(s, &r, e);
	stats_set(&s->stats->setup_us, clock_us() - start);
	if (!rc)
		rc = s->cold ? cold(s, e) : live(s, &r, e);
	if (rc)
		lanes_abort(&s->lanes);
	lanes_free(&s->lanes);
	if (rc && s->owner == OWNER_SOURCE)
		undo(s, &r, e);
	else if (s->logging && s->owner == OWNER_DESTINATION)
		s->guest->ops->log_stop(s->guest);
	if (s->cache)
		page_cache_free(s->cache);
	free(s->cache);
	for (i = 1; i < LANES_MAX; i++)
		channel_close(s->extra[i]);
	watch_free(s);
	unused_free(s);
	free(s->touched);
	for (i = 0; i < s->guest->n_blocks; i++)
		free(s->pending[i]);
	reader_free(&r);
	return rc ? -1 : 0;
}
