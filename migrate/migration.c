/*
 * One migration after the other: see migration.h. `lock` guards what several threads see; the
 * status is changed in one place, which tells the owner.
 */
#include "migrate/migration.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "migrate/channel/uri.h"
#include "migrate/destination.h"
#include "migrate/guest.h"
#include "migrate/source.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/loop.h"
#include "vmm/machine.h"

#define DEFAULT_DOWNTIME_MS 300
#define DEFAULT_CHANNELS    2

struct migration {
	/* Set by migration_new. */
	struct machine *machine;
	struct loop *owner_loop;
	struct migration_events events;
	struct guest_machine guest;
	int stop_fd; /* eventfd: readable when cancelled */

	/* Owner's thread. */
	pthread_t thread;
	bool thread_started; /* and not yet joined */
	struct uri uri;
	struct loop_watch timeout; /* a timerfd, armed while a migration out is under way */
	struct migration_parameters parameters;
	struct migration_parameters used; /* by the one under way: constant for its thread */
	struct source_limits limits;	  /* a copy of what may change: atomic */
	struct source source;
	struct destination *destination;
	bool paused; /* receiving: do not let it run */

	pthread_mutex_t lock;
	enum migration_status status;
	bool committed; /* GO is on its way: no cancel any more */
	struct err error, cancel_reason;
	uint64_t start_us, end_us;

	struct stats stats; /* atomic members */
};

static const char *const names[] = {
	[MIGRATION_NONE] = "none",
	[MIGRATION_SETUP] = "setup",
	[MIGRATION_ACTIVE] = "active",
	[MIGRATION_DEVICE] = "device",
	[MIGRATION_COMPLETED] = "completed",
	[MIGRATION_FAILED] = "failed",
	[MIGRATION_CANCELLING] = "cancelling",
	[MIGRATION_CANCELLED] = "cancelled",
	[MIGRATION_UNDECIDED] = "postcopy-paused",
};

const char *migration_status_name(enum migration_status s)
{
	return names[s];
}

static bool is_under_way(enum migration_status s)
{
	return s == MIGRATION_SETUP || s == MIGRATION_ACTIVE || s == MIGRATION_DEVICE ||
	       s == MIGRATION_CANCELLING;
}

/* -- the time limit -- */

/* At start + timeout_s, if both are there; else never. */
static void arm_timeout(struct migration *mig, bool wanted)
{
	uint64_t s = mig->parameters.timeout_s;
	struct itimerspec at = { 0 };

	if (wanted && s) {
		at.it_value.tv_sec = (time_t)(mig->start_us / 1000000 + s);
		at.it_value.tv_nsec = (long)(mig->start_us % 1000000) * 1000 + 1;
	}
	timerfd_settime(mig->timeout.fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void on_timeout(void *arg, uint32_t events)
{
	struct migration *mig = arg;
	uint64_t n;
	char why[128];

	(void)events;
	if (read(mig->timeout.fd, &n, sizeof(n)) != sizeof(n))
		return; /* disarmed meanwhile */
	snprintf(why, sizeof(why),
		 "the timeout of %" PRIu64 " s has passed before the guest was moved",
		 mig->parameters.timeout_s);
	migration_cancel(mig, why);
}

/* -- telling the owner -- */

struct news {
	struct migration *mig;
	enum migration_status status;
	uint64_t round;
	const char *action, *reason;
};

/* Only forward: a cancel that came in between is not overwritten by the next phase. */
static void tell_status(void *arg)
{
	struct news *n = arg;
	struct migration *mig = n->mig;
	bool changed;

	pthread_mutex_lock(&mig->lock);
	changed = mig->status != n->status &&
		  !(mig->status == MIGRATION_CANCELLING && is_under_way(n->status));
	if (changed)
		mig->status = n->status;
	pthread_mutex_unlock(&mig->lock);
	if (!changed)
		return;
	if (!is_under_way(n->status))
		arm_timeout(mig, false);
	mig->events.status(mig->events.arg, n->status);
}

static void tell_pass(void *arg)
{
	struct news *n = arg;

	n->mig->events.pass(n->mig->events.arg, n->round);
}

static void tell_decision(void *arg)
{
	struct news *n = arg;

	n->mig->events.decision(n->mig->events.arg, n->action, n->reason);
}

/*
 * On the owner's thread, so that the end is never seen there before the migration's thread has
 * nothing more to ask of it: whoever sees the end may start anew, and joins that thread.
 */
static void set_status(struct migration *mig, enum migration_status s)
{
	struct news n = { .mig = mig, .status = s };

	loop_call(mig->owner_loop, tell_status, &n);
}

static void on_phase(void *arg, enum source_phase p)
{
	static const enum migration_status statuses[] = {
		[SOURCE_SETUP] = MIGRATION_SETUP,
		[SOURCE_PRECOPY] = MIGRATION_ACTIVE,
		[SOURCE_SWITCHOVER] = MIGRATION_DEVICE,
	};

	set_status(arg, statuses[p]);
}

static void on_round(void *arg, uint64_t round)
{
	struct migration *mig = arg;
	struct news n = { .mig = mig, .round = round };

	loop_call(mig->owner_loop, tell_pass, &n);
}

static void on_decision(void *arg, const char *action, const char *reason)
{
	struct migration *mig = arg;
	struct news n = { .mig = mig, .action = action, .reason = reason };

	loop_call(mig->owner_loop, tell_decision, &n);
}

/* From here on no cancel is taken. */
static int on_commit(void *arg, struct err *e)
{
	struct migration *mig = arg;
	bool cancelled;

	pthread_mutex_lock(&mig->lock);
	cancelled = mig->status == MIGRATION_CANCELLING;
	mig->committed = !cancelled;
	pthread_mutex_unlock(&mig->lock);
	return cancelled ? err_set(e, "cancelled") : 0;
}

/* "cancelled" alone would not say by whom or what. */
static void on_explain(void *arg, struct err *e)
{
	struct migration *mig = arg;

	pthread_mutex_lock(&mig->lock);
	if (mig->status == MIGRATION_CANCELLING) {
		if (mig->cancel_reason.text[0])
			*e = mig->cancel_reason;
		else
			err_set(e, "the migration was cancelled");
	}
	pthread_mutex_unlock(&mig->lock);
}

/* -- the migration's thread -- */

static struct channel *open_connection(void *arg, struct err *e)
{
	struct migration *mig = arg;
	const char *bind = mig->used.bind[0] ? mig->used.bind : NULL;
	struct channel *ch;
	int fd = uri_connect(&mig->uri, bind, mig->stop_fd, e);

	if (fd < 0)
		return NULL;
	if (socket_channel(&ch, fd, mig->uri.text, mig->stop_fd, e)) {
		close(fd);
		return NULL;
	}
	return ch;
}

static int migrate_out(struct migration *mig, struct err *e)
{
	struct source *s = &mig->source;
	int rc = 0;

	*s = (struct source){
		.guest = &mig->guest.guest,
		.n_lanes = mig->uri.kind != URI_FILE && mig->used.multifd ? mig->used.channels : 1,
		.cold = mig->uri.kind == URI_FILE,
		.stop_fd = mig->stop_fd,
		.limits = &mig->limits,
		.stats = &mig->stats,
		.events = { on_phase, on_round, on_decision, on_commit, open_connection, on_explain,
			    mig },
	};
	if (s->cold)
		rc = file_channel_create(&s->channel, mig->uri.path, e);
	else
		s->channel = open_connection(mig, e);
	if (rc || !s->channel)
		return -1;
	rc = source_run(s, e);
	channel_close(s->channel);
	return rc;
}

static void moved(void *arg)
{
	struct migration *mig = arg;

	machine_set_status(mig->machine, MACHINE_POSTMIGRATE);
	mig->events.moved(mig->events.arg,
			  mig->uri.kind == URI_FILE ? mig->uri.path : mig->uri.text);
}

static enum migration_status outcome(struct migration *mig, int rc, const struct err *e)
{
	bool cancelled;

	pthread_mutex_lock(&mig->lock);
	mig->end_us = clock_us();
	cancelled = mig->status == MIGRATION_CANCELLING && !mig->source.stuck;
	if (rc)
		mig->error = cancelled ? mig->cancel_reason : *e;
	/* A timeout is a failure with its own sentence; a person's cancel is none. */
	cancelled = cancelled && !mig->error.text[0];
	pthread_mutex_unlock(&mig->lock);
	if (!rc)
		return MIGRATION_COMPLETED;
	if (mig->source.owner == OWNER_NOBODY)
		return MIGRATION_UNDECIDED;
	return cancelled ? MIGRATION_CANCELLED : MIGRATION_FAILED;
}

static void *out_thread(void *arg)
{
	struct migration *mig = arg;
	struct err e = { "" };
	int rc = migrate_out(mig, &e);

	enum migration_status s = outcome(mig, rc, &e);

	/* Whoever hears of the completion may end this process: it is said before where it went. */
	if (!rc)
		loop_call(mig->owner_loop, moved, mig);
	set_status(mig, s);
	return NULL;
}

static void *in_thread(void *arg)
{
	struct migration *mig = arg;
	struct destination *d = mig->destination;
	struct err e = { "" };
	int rc;

	set_status(mig, MIGRATION_ACTIVE);
	rc = destination_receive(d, &mig->guest.guest, &mig->stats, &e) ||
	     destination_start(d, mig->paused, &e);
	destination_free(d);
	set_status(mig, outcome(mig, rc, &e));
	return NULL;
}

/* -- the owner's side -- */

int migration_new(struct migration **out, struct machine *m, struct loop *owner_loop,
		  const struct migration_events *events, struct err *e)
{
	struct migration *mig = calloc(1, sizeof(*mig));

	if (!mig)
		return err_set(e, "out of memory");
	mig->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (mig->stop_fd < 0) {
		free(mig);
		return err_errno(e, errno, "cannot make an eventfd");
	}
	mig->owner_loop = owner_loop;
	mig->events = *events;
	mig->timeout = (struct loop_watch){ .fn = on_timeout, .arg = mig };
	mig->timeout.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (mig->timeout.fd < 0) {
		err_errno(e, errno, "cannot make a timer");
		close(mig->stop_fd);
		free(mig);
		return -1;
	}
	if (loop_add(owner_loop, &mig->timeout, EPOLLIN, e)) {
		close(mig->timeout.fd);
		close(mig->stop_fd);
		free(mig);
		return -1;
	}
	mig->parameters = (struct migration_parameters){ .downtime_ms = DEFAULT_DOWNTIME_MS,
							 .channels = DEFAULT_CHANNELS };
	mig->limits.downtime_us = DEFAULT_DOWNTIME_MS * 1000;
	pthread_mutex_init(&mig->lock, NULL);
	if (m)
		migration_set_machine(mig, m);
	*out = mig;
	return 0;
}

void migration_set_machine(struct migration *mig, struct machine *m)
{
	mig->machine = m;
	guest_machine_init(&mig->guest, m, mig->owner_loop);
}

static void join(struct migration *mig)
{
	if (mig->thread_started)
		pthread_join(mig->thread, NULL);
	mig->thread_started = false;
}

void migration_free(struct migration *mig)
{
	if (!mig)
		return;
	migration_cancel(mig, "the VM was ended");
	join(mig);
	loop_remove(mig->owner_loop, &mig->timeout);
	close(mig->timeout.fd);
	close(mig->stop_fd);
	pthread_mutex_destroy(&mig->lock);
	free(mig);
}

void migration_get_parameters(struct migration *mig, struct migration_parameters *out)
{
	*out = mig->parameters;
}

void migration_set_parameters(struct migration *mig, const struct migration_parameters *p)
{
	mig->parameters = *p;
	__atomic_store_n(&mig->limits.bandwidth, p->bandwidth, __ATOMIC_RELAXED);
	__atomic_store_n(&mig->limits.downtime_us, p->downtime_ms * 1000, __ATOMIC_RELAXED);
	arm_timeout(mig, migration_under_way(mig) && !mig->destination);
}

bool migration_under_way(struct migration *mig)
{
	bool yes;

	pthread_mutex_lock(&mig->lock);
	yes = is_under_way(mig->status);
	pthread_mutex_unlock(&mig->lock);
	return yes;
}

/* A new thread for a new migration. */
static int begin(struct migration *mig, void *(*thread)(void *), struct err *e)
{
	uint64_t n;
	int rc;

	join(mig);
	while (read(mig->stop_fd, &n, sizeof(n)) > 0)
		; /* an old cancel */
	memset(&mig->stats, 0, sizeof(mig->stats));
	memset(&mig->source, 0, sizeof(mig->source));
	mig->error.text[0] = mig->cancel_reason.text[0] = 0;
	mig->committed = false;
	mig->start_us = clock_us();
	mig->end_us = 0;
	mig->status = MIGRATION_SETUP;
	mig->events.status(mig->events.arg, MIGRATION_SETUP);
	rc = pthread_create(&mig->thread, NULL, thread, mig);
	if (rc) {
		mig->status = MIGRATION_NONE;
		return err_errno(e, rc, "cannot start the migration's thread");
	}
	mig->thread_started = true;
	pthread_setname_np(mig->thread, "migrate");
	return 0;
}

int migration_start(struct migration *mig, const char *uri, struct err *e)
{
	enum migration_status now;
	enum machine_status s;
	struct uri parsed;

	if (uri_parse(uri, &parsed, e))
		return -1;
	if (!mig->machine)
		return err_set(e, "the VM cannot be migrated: its guest has not arrived yet "
				  "(inmigrate)");
	s = machine_status(mig->machine);
	pthread_mutex_lock(&mig->lock);
	now = mig->status;
	pthread_mutex_unlock(&mig->lock);
	if (is_under_way(now))
		return err_set(e, "a migration of this VM is under way already");
	if (now == MIGRATION_UNDECIDED)
		return err_set(e, "it is undecided where the guest of this VM runs: see godwit "
				  "resume --force");
	if (s != MACHINE_RUNNING && s != MACHINE_PAUSED && s != MACHINE_PRELAUNCH)
		return err_set(e, "the VM cannot be migrated: its status is '%s'",
			       machine_status_name(s));
	if (parsed.kind == URI_FD && mig->parameters.multifd && mig->parameters.channels > 1)
		return err_set(e, "%s is one connection: several channels need tcp: or unix:", uri);
	mig->uri = parsed;
	mig->destination = NULL;
	mig->used = mig->parameters;
	if (begin(mig, out_thread, e))
		return -1;
	arm_timeout(mig, true);
	return 0;
}

int migration_receive(struct migration *mig, struct destination *d, bool paused, struct err *e)
{
	mig->destination = d;
	mig->paused = paused;
	destination_set_stop(d, mig->stop_fd);
	return begin(mig, in_thread, e);
}

void migration_cancel(struct migration *mig, const char *why)
{
	uint64_t one = 1;
	bool tell_it = false;

	pthread_mutex_lock(&mig->lock);
	if (is_under_way(mig->status) && mig->status != MIGRATION_CANCELLING && !mig->committed) {
		tell_it = true;
		mig->status = MIGRATION_CANCELLING;
		snprintf(mig->cancel_reason.text, sizeof(mig->cancel_reason.text), "%s", why);
	}
	pthread_mutex_unlock(&mig->lock);
	if (!tell_it)
		return;
	while (write(mig->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	mig->events.status(mig->events.arg, MIGRATION_CANCELLING);
}

int migration_force_resume(struct migration *mig, struct err *e)
{
	if (mig->status != MIGRATION_UNDECIDED)
		return err_set(e, "there is nothing to force: it is known where the guest runs");
	/* While the other side holds what only one may have, nothing changes here. */
	if (machine_acquire(mig->machine, e)) {
		machine_release(mig->machine);
		return -1;
	}
	machine_log_stop(mig->machine);
	if (machine_unhold(mig->machine, e))
		return -1;
	set_status(mig, MIGRATION_FAILED);
	return 0;
}

void migration_query(struct migration *mig, struct migration_report *out)
{
	struct stats *st = &out->stats;
	uint64_t end;

	*out = (struct migration_report){ 0 };
	pthread_mutex_lock(&mig->lock);
	out->status = mig->status;
	memcpy(out->error, mig->error.text, sizeof(out->error));
	if (mig->status != MIGRATION_NONE) {
		end = mig->end_us ? mig->end_us : clock_us();
		out->total_ms = (end - mig->start_us) / 1000;
	}
	pthread_mutex_unlock(&mig->lock);
	memcpy(out->uri, mig->uri.text, sizeof(out->uri));
	out->parameters = mig->parameters;
	/* Each member is one atomic word. */
	for (size_t i = 0; i < sizeof(out->stats) / sizeof(uint64_t); i++)
		((uint64_t *)&out->stats)[i] = stats_get((uint64_t *)&mig->stats + i);
	out->incoming = mig->destination;
	out->rate_bytes = is_under_way(out->status) ? stats_rate(st, clock_us()) : st->send_rate;
	/* One that was too short to measure a round, or not measured here. */
	if (!is_under_way(out->status) && !out->rate_bytes && out->total_ms)
		out->rate_bytes = st->data_bytes * 1000 / out->total_ms;
}
