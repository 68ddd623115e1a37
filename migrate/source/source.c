/*
 * Set-up, run and undo. Runs on the migration's thread.
 *
 * Every failure before GO ends in undo(): the log stops and the guest goes on here. A failure after
 * GO undoes nothing.
 */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "migrate/channel/channel.h"
#include "migrate/codec/page_cache.h"
#include "migrate/handover.h"
#include "migrate/policy/expect.h"
#include "migrate/source/source_internal.h"
#include "migrate/agent/teller.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"

/* Timeouts while the guest runs, unless a parameter sets them: for the destination to build the
 * machine, and to read the rest of a round. Those of the pause are in handover.h. */
#define CHECKED_MS 60000
#define ROUND_MS   120000

/* How long a lost destination's FAILED is waited for. The guest runs again by then. */
#define LAST_WORDS_MS 200

void source_enter(struct source *s, enum phase p)
{
	if (s->job.events.phase)
		s->job.events.phase(s->job.events.arg, p);
}

void source_set_owner(struct source *s, enum owner o)
{
	bool legal = s->owner == o || phase_hand(&s->owner, o);

	assert(legal);
	(void)legal;
}

/* -- setting up -- */

/*
 * Nobody accepts anything for a file, which has its checksums. On this host there is no network
 * that could damage data, and summing costs clearly more than 5 % there (migrate/stream/README.md).
 */
static uint64_t features_wanted(const struct source *s)
{
	uint64_t wanted = FEATURE_COSTS;

	if (s->job.cold)
		return 0;
	if (!s->channel->authenticated && !s->channel->same_host)
		wanted |= FEATURE_CHECKSUMS;
	return wanted;
}

static int send_hello(struct source *s, struct writer *w, enum hello_role role, struct err *e)
{
	struct hello h = { .role = role, .lanes = s->job.n_lanes };
	uint64_t before = w->channel->bytes;

	if (s->job.program)
		memcpy(h.program, s->job.program, strnlen(s->job.program, sizeof(h.program) - 1));
	memcpy(h.id, s->id, sizeof(h.id));
	if (role == ROLE_MAIN)
		h.wanted = features_wanted(s);
	if (hello_send(w, &h, e))
		return -1;
	stats_add(&s->job.stats->meta_bytes, w->channel->bytes - before);
	return 0;
}

int source_send_record(struct source *s, enum record_type type, const void *body, size_t len,
		       struct err *e)
{
	if (writer_record(lanes_main(&s->lanes), type, body, len, NULL, 0, e))
		return -1;
	stats_add(&s->job.stats->meta_bytes, RECORD_HEAD_BYTES + len);
	return 0;
}

int source_expect(struct source *s, enum record_type type, int timeout_ms, struct record *rec,
		  struct err *e)
{
	int left_ms = handover_left_ms(s), rc;

	rc = answers_expect(&s->answers, type,
			    left_ms >= 0 && left_ms < timeout_ms ? left_ms : timeout_ms, rec, e);
	if (rc)
		return rc > 0 ? 0 : -1;
	if (handover_check_pause(s, e) == 0)
		err_set(e, "%s: no word from the destination within %d s", s->channel->name,
			timeout_ms / 1000);
	return err_context(e, "waiting for %s", record_name((uint16_t)type));
}

static int send_tree(struct source *s, enum record_type type, const struct tree *t, struct err *e)
{
	return source_send_record(s, type, t->fdt, tree_bytes_used(t), e);
}

static void count_pages(struct source *s)
{
	unsigned int i;

	for (i = 0; i < s->job.guest->n_blocks; i++) {
		stats_add(&s->job.stats->total_pages, s->job.guest->blocks[i].pages);
		stats_add(&s->job.stats->remaining_pages, s->job.guest->blocks[i].pages);
	}
}

static int make_cache(struct source *s, struct err *e)
{
	if (!parameters_may_use_xbzrle(&s->job.parameters) || s->job.cold)
		return 0;
	s->cache = malloc(sizeof(*s->cache));
	if (!s->cache)
		return err_set(e, "out of memory");
	if (page_cache_init(s->cache, s->job.parameters.xbzrle_cache_bytes, e) == 0)
		return 0;
	free(s->cache);
	s->cache = NULL;
	return err_context(e, "the cache for XBZRLE");
}

/* Sends HELLO on each connection at once: the destination closes silent ones. */
static int open_lanes(struct source *s, struct err *e)
{
	struct writer writers[LANES_MAX] = { *lanes_main(&s->lanes) };
	const struct migration_parameters *p = &s->job.parameters;
	struct pages_codecs codecs = { .rest = p->compression && !s->job.cold ? p->compression
									      : CODEC_PLAIN,
				       .level = parameters_level(p),
				       .decisions = s->job.decisions };
	unsigned int i;

	for (i = 1; i < s->job.n_lanes; i++) {
		writers[i].channel = s->extra[i] = s->job.events.connect(s->job.events.arg, e);
		if (!s->extra[i])
			return -1;
		if (send_hello(s, &writers[i], ROLE_PAGES, e))
			return -1;
	}
	if (make_cache(s, e))
		return -1;
	codecs.cache = s->cache;
	if (pages_init(&s->pages, s->job.guest, s->job.stats, &s->limiter, s->job.n_lanes, &codecs,
		       e))
		return -1;
	s->pages.checksums = s->job.cold || s->features & FEATURE_CHECKSUMS;
	s->pages.still = s->job.cold;
	return lanes_init(&s->lanes, writers, s->job.n_lanes, s->job.stats, &s->limiter, e);
}

/* Measures what the pause costs here, while the guest runs. If it fails, only the figure is lost.
 */
static void rehearse(struct source *s)
{
	struct guest_costs here;

	if (!s->job.cold && !s->job.guest->ops->rehearse(s->job.guest, &here, NULL))
		expect_rehearsed(&s->expect, &here);
}

/* Waits until the destination has made the machine; CHECKED may bring what the pause costs there.
 */
static int await_checked(struct source *s, struct err *e)
{
	const struct hello said = { .wanted = features_wanted(s) };
	uint64_t start = clock_us();
	struct checked c;
	struct record rec;

	if (source_expect(s, RECORD_CHECKED, s->job.checked_ms, &rec, e))
		return -1;
	checked_decode(&rec, &c); /* source_expect knows refusals */
	if (checked_fits(&c, &said, e))
		return err_context(e, "%s", s->channel->name);
	s->features = c.features;
	if (c.features & FEATURE_COSTS)
		expect_checked(&s->expect, &c.costs, clock_us() - start);
	return 0;
}

static void set_up_parts(struct source *s)
{
	s->ram = (struct ram){ .guest = s->job.guest,
			       .stats = s->job.stats,
			       .dirty = &s->dirty,
			       .lanes = &s->lanes,
			       .pages = &s->pages,
			       .parked = &s->parked,
			       .before_step = precopy_before_step,
			       .after_step = precopy_after_step,
			       .arg = s };
	ram_init(&s->ram);
	s->parts[0] = &s->ram.part;
	s->n_parts = 1;
}

static int set_up(struct source *s, struct err *e)
{
	const struct throttle_uses throttle = { .guest = s->job.guest,
						.stats = s->job.stats,
						.parameters = &s->job.parameters,
						.downtime_us = &s->job.limits->downtime_us,
						.link = &s->link,
						.dirty_rate = &s->dirty_rate,
						.decisions = &s->job.decisions };
	struct writer *w = lanes_main(&s->lanes);

	set_up_parts(s);
	w->channel = s->channel;
	w->n_vcpus = s->job.guest->n_vcpus;
	if (s->job.fixed_id)
		memcpy(s->id, s->job.fixed_id, sizeof(s->id));
	else if (getrandom(s->id, sizeof(s->id), 0) != sizeof(s->id))
		return err_errno(e, errno, "no random numbers");
	rehearse(s);
	count_pages(s);
	throttle_init(&s->throttle, &throttle);
	if (dirty_init(&s->dirty, s->job.guest, s->job.stop_fd, &s->job.decisions, e) ||
	    send_hello(s, w, ROLE_MAIN, e) || send_tree(s, RECORD_MACHINE, s->job.guest->tree, e))
		return -1;
	if (!s->job.cold && await_checked(s, e))
		return -1;
	return open_lanes(s, e);
}

/* -- all of it -- */

static int live(struct source *s, struct err *e)
{
	if (dirty_start(&s->dirty, e))
		return -1;
	source_enter(s, PHASE_PRECOPY);
	if (s->job.guest_events)
		teller_want(s->job.teller, GUEST_BEFORE_MIGRATION);
	if (dirty_ask_free(&s->dirty, e) || ram_look_ahead(&s->ram, e) || precopy_run(s, e))
		return -1;
	return handover_live(s, e);
}

/* Lets the destination prepare to take what only one side may hold; or no longer. */
static void share(struct source *s, bool on)
{
	if (!s->job.cold)
		s->job.guest->ops->share(s->job.guest, on);
}

/* If a connection was lost, the error becomes the destination's FAILED, if there is one. */
static void hear_why(struct source *s, struct err *e)
{
	unsigned int i;

	for (i = 0; i < s->job.n_lanes && !s->lanes.lane[i].writer.broken; i++)
		;
	if (!s->job.cold && !s->answers.refused && i < s->job.n_lanes)
		answers_await_refusal(&s->answers, LAST_WORDS_MS, e);
}

/* Sends FAILED, if the socket takes it at once. Nothing can follow a record that went out in part.
 */
static void tell_failed(struct source *s, const struct err *e)
{
	struct writer *w = lanes_main(&s->lanes);

	if (s->job.cold || !w->channel)
		return;
	channel_set_stop(s->channel, -1);
	channel_set_deadline(s->channel, 0);
	writer_text(w, RECORD_FAILED, e->text, NULL);
}

/* Puts everything back as it was before the migration. */
static void undo(struct source *s, struct err *e)
{
	struct err resume;

	s->give_up_us = 0;
	throttle_release(&s->throttle);
	dirty_end_free(&s->dirty);
	dirty_stop(&s->dirty);
	s->stuck = s->parked && s->job.guest->ops->unpark(s->job.guest, &resume);
	share(s, false);
	hear_why(s, e);
	if (s->job.events.explain)
		s->job.events.explain(s->job.events.arg, e);
	if (s->stuck)
		err_context(e, "the guest is paused: %s", resume.text);
	if (s->job.teller)
		teller_want(s->job.teller, GUEST_AFTER_MIGRATION);
	tell_failed(s, e);
}

/* A timeout: `chosen` by a test, else by the user's parameter, else the default. */
static int answer_ms(const struct source *s, int chosen, int usual)
{
	if (chosen)
		return chosen;
	return s->job.parameters.answer_timeout_s ? (int)s->job.parameters.answer_timeout_s * 1000
						  : usual;
}

struct source *source_new(const struct source_job *job, struct err *e)
{
	struct source *s = calloc(1, sizeof(*s));

	if (!s) {
		err_set(e, "out of memory");
		return NULL;
	}
	s->job = *job;
	steer_begin(s, job->policy);
	return s;
}

void source_free(struct source *s)
{
	free(s);
}

enum owner source_owner(const struct source *s)
{
	return __atomic_load_n(&s->owner, __ATOMIC_ACQUIRE);
}

bool source_is_stuck(const struct source *s)
{
	return s->stuck;
}

int source_run(struct source *s, struct channel *channel, struct err *e)
{
	uint64_t start = clock_us();
	struct err unwanted;
	unsigned int i;
	int rc;

	e = e ? e : &unwanted;
	s->channel = channel;
	s->job.checked_ms = answer_ms(s, s->job.checked_ms, CHECKED_MS);
	s->job.round_ms = answer_ms(s, s->job.round_ms, ROUND_MS);
	s->job.spare_ms = s->job.spare_ms ? s->job.spare_ms : HANDOVER_SPARE_MS;
	s->job.running_ms = s->job.running_ms ? s->job.running_ms : HANDOVER_RUNNING_MS;
	source_set_owner(s, OWNER_SOURCE);
	source_enter(s, PHASE_SETUP);
	limiter_init(&s->limiter, &s->job.limits->bandwidth, &s->job.limits->force, s->job.stop_fd);
	link_init(&s->link, s->job.stats, &s->job.limits->bandwidth);
	dirty_rate_init(&s->dirty_rate, s->job.stats);
	share(s, true);
	rc = answers_begin(&s->answers, s->job.cold ? NULL : s->channel, s->job.stop_fd, e) ||
	     set_up(s, e);
	stats_set(&s->job.stats->setup_us, clock_us() - start);
	if (!rc)
		rc = s->job.cold ? handover_cold(s, e) : live(s, e);
	if (rc)
		lanes_abort(&s->lanes);
	lanes_free(&s->lanes);
	pages_free(&s->pages);
	limiter_free(&s->limiter);
	if (rc && s->owner == OWNER_SOURCE)
		undo(s, e);
	else if (s->owner == OWNER_DESTINATION)
		dirty_stop(&s->dirty);
	if (s->cache)
		page_cache_free(s->cache);
	free(s->cache);
	for (i = 1; i < LANES_MAX; i++)
		channel_close(s->extra[i]);
	dirty_free(&s->dirty);
	answers_end(&s->answers);
	return rc ? -1 : 0;
}
