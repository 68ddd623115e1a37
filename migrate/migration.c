/*
 * One migration after the other: see migration.h. `lock` guards what several threads see; the
 * status is changed in one place, which tells the owner.
 */
#include "migrate/migration.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
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
#include "migrate/slots.h"
#include "migrate/source.h"
#include "migrate/teller.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/loop.h"
#include "vmm/machine.h"
#include "vmm/memory.h"

#define DEFAULT_DOWNTIME_MS 300
#define DEFAULT_CHANNELS    2
#define DEFAULT_CACHE_BYTES (64u << 20)
#define DEFAULT_LIMIT_MIB   1

/* How often one that waits for its turn looks whether it has come. */
#define TURN_MS 100

/* How often one looks for progress; a few times in a second, as that is the least to wait for. */
#define PROGRESS_LOOK_US 300000u

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
	struct timeout progress;
	struct migration_parameters parameters;
	struct migration_parameters used; /* by the one under way: constant for its thread */
	struct source_limits limits;	  /* a copy of what may change: atomic */
	struct source source;
	struct teller teller; /* the guest's: through all migrations */
	struct slots slots;   /* its own: by turns the owner's and the migration's thread */
	struct err why_slots; /* why there are none */
	struct destination *destination;
	bool paused; /* receiving: do not let it run */
	struct uri check_uri;
	struct migration_parameters checked; /* by the one under way: constant for its thread */
	struct check check;		     /* its thread's until it is over */

	pthread_mutex_t lock;
	enum migration_status status;
	bool committed; /* GO is on its way: no cancel any more */
	struct err error, cancel_reason;
	uint64_t start_us, end_us;
	enum check_status check_status;
	bool check_cancelled;
	struct err check_error;

	/* Held by whoever calls the owner. He runs one call after the other, but not once his loop
	 * has ended: then each runs its own. Never taken by the owner while his loop runs. */
	pthread_mutex_t calling;

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

static uint64_t ram_bytes(const struct migration *mig)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < mig->guest.guest.n_blocks; i++)
		pages += mig->guest.guest.blocks[i].pages;
	return pages * PAGE_SIZE;
}

/* When to look at the clock again: at the end of the time, and often where progress is asked for.
 */
static void arm_timeout(struct migration *mig, bool wanted)
{
	uint64_t total = timeout_total_us(&mig->parameters.timeout, ram_bytes(mig));
	uint64_t at = UINT64_MAX, look = clock_us() + PROGRESS_LOOK_US;
	struct itimerspec when = { 0 };

	if (wanted && total < UINT64_MAX - mig->start_us)
		at = mig->start_us + total;
	if (wanted && mig->parameters.timeout.progress_s && look < at)
		at = look;
	if (at != UINT64_MAX) {
		when.it_value.tv_sec = (time_t)(at / 1000000);
		when.it_value.tv_nsec = (long)(at % 1000000) * 1000 + 1;
	}
	timerfd_settime(mig->timeout.fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void decided(struct migration *mig, const char *action, const char *reason)
{
	if (mig->events.decision)
		mig->events.decision(mig->events.arg, action, reason);
}

/* By force only what has begun can be finished. */
static void time_is_over(struct migration *mig, const char *why)
{
	enum migration_status now;

	pthread_mutex_lock(&mig->lock);
	now = mig->status;
	pthread_mutex_unlock(&mig->lock);
	if (mig->parameters.timeout_action == TIMEOUT_FORCE && now == MIGRATION_DEVICE)
		return;
	if (mig->parameters.timeout_action == TIMEOUT_FORCE && now == MIGRATION_ACTIVE) {
		__atomic_store_n(&mig->limits.force, true, __ATOMIC_RELAXED);
		decided(mig, "force", why);
		return;
	}
	migration_cancel(mig, why);
}

static void on_timeout(void *arg, uint32_t events)
{
	struct migration *mig = arg;
	struct timeout_sample s = { .now_us = clock_us(),
				    .start_us = mig->start_us,
				    .ram_bytes = ram_bytes(mig),
				    .round = stats_get(&mig->stats.round) };
	char why[256];
	uint64_t n;

	(void)events;
	if (read(mig->timeout.fd, &n, sizeof(n)) != sizeof(n))
		return; /* disarmed meanwhile */
	s.round_bytes = stats_get(&mig->stats.dirty_pages) * PAGE_SIZE;
	s.remaining_bytes = stats_get(&mig->stats.remaining_pages) * PAGE_SIZE;
	if (timeout_check(&mig->progress, &mig->parameters.timeout, &s, why, sizeof(why)))
		time_is_over(mig, why);
	else
		arm_timeout(mig, migration_under_way(mig) && !mig->destination);
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

	decided(n->mig, n->action, n->reason);
}

static void call_owner(struct migration *mig, void (*fn)(void *arg), void *arg)
{
	pthread_mutex_lock(&mig->calling);
	loop_call(mig->owner_loop, fn, arg);
	pthread_mutex_unlock(&mig->calling);
}

/*
 * On the owner's thread, so that the end is never seen there before the migration's thread has
 * nothing more to ask of it: whoever sees the end may start anew, and joins that thread.
 */
static void set_status(struct migration *mig, enum migration_status s)
{
	struct news n = { .mig = mig, .status = s };

	call_owner(mig, tell_status, &n);
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

	call_owner(mig, tell_pass, &n);
}

static void on_decision(void *arg, const char *action, const char *reason)
{
	struct migration *mig = arg;
	struct news n = { .mig = mig, .action = action, .reason = reason };

	call_owner(mig, tell_decision, &n);
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

static struct channel *connect_to(struct migration *mig, const struct uri *u, const char *bind,
				  struct err *e)
{
	struct channel *ch;
	int fd = uri_connect(u, bind[0] ? bind : NULL, mig->stop_fd, e);

	if (fd < 0)
		return NULL;
	if (socket_channel(&ch, fd, u->text, mig->stop_fd, e)) {
		close(fd);
		return NULL;
	}
	return ch;
}

static struct channel *open_connection(void *arg, struct err *e)
{
	struct migration *mig = arg;

	return connect_to(mig, &mig->uri, mig->used.bind, e);
}

/* Until there is a slot for it among the migrations that leave this host. */
static int await_turn(struct migration *mig, struct err *e)
{
	const struct policy *p = mig->used.has_policy ? &mig->used.policy : NULL;
	struct pollfd stop = { mig->stop_fd, POLLIN, 0 };
	char others[300], told[sizeof(others)] = "", why[sizeof(others) + 200];
	int rc;

	while ((rc = slots_take(&mig->slots, p ? p->max_migrations : 0, others, sizeof(others),
				e)) == 0) {
		if (others[0] && strcmp(others, told)) {
			memcpy(told, others, sizeof(told));
			snprintf(why, sizeof(why),
				 "the policy '%s' allows %u migration%s from this host at once; "
				 "under way: %s",
				 p->name, p->max_migrations, p->max_migrations == 1 ? "" : "s",
				 others);
			on_decision(mig, "wait", why);
		}
		if (poll(&stop, 1, TURN_MS) > 0)
			return err_set(e, "cancelled");
	}
	if (rc > 0 && told[0])
		on_decision(mig, "wait", "its turn has come");
	return rc > 0 || !p ? 0 : -1;
}

static bool may_throttle(const struct migration_parameters *p)
{
	return p->auto_converge || (p->has_policy && p->policy.auto_convergence);
}

static bool may_use_xbzrle(const struct migration_parameters *p)
{
	return p->xbzrle || (p->has_policy && p->policy.compression);
}

static struct converge_bounds throttle_bounds(const struct migration_parameters *p)
{
	return (struct converge_bounds){ .initial = (unsigned int)p->throttle_initial * 10,
					 .increment = (unsigned int)p->throttle_increment * 10,
					 .max = (unsigned int)p->throttle_max * 10 };
}

static int migrate_out(struct migration *mig, struct err *e)
{
	const struct policy *p = mig->used.has_policy ? &mig->used.policy : NULL;
	struct source *s = &mig->source;
	int rc = 0;

	*s = (struct source){
		.guest = &mig->guest.guest,
		.n_lanes = mig->uri.kind != URI_FILE && mig->used.multifd ? mig->used.channels : 1,
		.cold = mig->uri.kind == URI_FILE,
		.stop_fd = mig->stop_fd,
		.limits = &mig->limits,
		.auto_converge = may_throttle(&mig->used),
		.xbzrle = may_use_xbzrle(&mig->used),
		.dirty_limit = mig->used.dirty_limit,
		.least_dirty_bytes = mig->used.vcpu_dirty_limit << 20,
		.throttle = throttle_bounds(&mig->used),
		.xbzrle_cache_bytes = mig->used.xbzrle_cache_bytes,
		.compression = mig->used.compression,
		.level = (int)(mig->used.compression == CODEC_ZLIB ? mig->used.zlib_level
								   : mig->used.zstd_level),
		.teller = &mig->teller,
		.guest_events = p && p->guest_events && mig->uri.kind != URI_FILE,
		.stats = &mig->stats,
		.events = { on_phase, on_round, on_decision, on_commit, open_connection, on_explain,
			    mig },
	};
	if (s->cold) {
		rc = file_channel_create(&s->channel, mig->uri.path, e);
	} else {
		steer_begin(s, p);
		if (mig->slots.fd >= 0 && await_turn(mig, e))
			return -1;
		s->channel = open_connection(mig, e);
	}
	if (!rc && s->channel) {
		rc = source_run(s, e);
		channel_close(s->channel);
	} else {
		rc = -1;
	}
	slots_release(&mig->slots);
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
		call_owner(mig, moved, mig);
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

/* -- a check, on the same thread -- */

struct check_news {
	struct migration *mig;
	enum check_status status;
	struct err *e;
};

static void tell_check(void *arg)
{
	struct check_news *n = arg;
	struct migration *mig = n->mig;

	pthread_mutex_lock(&mig->lock);
	mig->check_status = n->status;
	if (n->status == CHECK_FAILED && !mig->check_cancelled)
		mig->check_error = *n->e;
	else if (n->status == CHECK_FAILED && !mig->check_error.text[0])
		mig->check_status = CHECK_CANCELLED; /* by a person */
	pthread_mutex_unlock(&mig->lock);
}

static void *check_thread(void *arg)
{
	struct migration *mig = arg;
	const struct migration_parameters *p = &mig->checked;
	struct check *c = &mig->check;
	struct err e = { "" };
	struct check_news n = { mig, CHECK_FAILED, &e };

	*c = (struct check){
		.guest = &mig->guest.guest,
		.stop_fd = mig->stop_fd,
		.bandwidth = p->bandwidth,
		.in = { .limit_us = p->downtime_ms * 1000,
			.fixed_us = SOURCE_FIXED_US,
			.throttle = may_throttle(p) || p->dirty_limit,
			.compression = may_use_xbzrle(p) || p->compression != CODEC_PLAIN,
			.bounds = throttle_bounds(p),
			.policy = p->has_policy ? &p->policy : NULL,
			.timeout = p->timeout,
			.timeout_action = p->timeout_action },
	};
	c->channel = connect_to(mig, &mig->check_uri, p->bind, &e);
	if (c->channel && check_run(c, &e) == 0)
		n.status = CHECK_COMPLETED;
	channel_close(c->channel);
	call_owner(mig, tell_check, &n);
	return NULL;
}

/* -- the owner's side -- */

/* All that it waits for. */
static int open_fds(struct migration *mig, struct err *e)
{
	mig->timeout = (struct loop_watch){ .fn = on_timeout, .arg = mig };
	mig->timeout.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	mig->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (mig->timeout.fd < 0 || mig->stop_fd < 0)
		err_errno(e, errno, "cannot make a timer and an eventfd");
	else if (teller_init(&mig->teller, e) == 0) {
		if (loop_add(mig->owner_loop, &mig->timeout, EPOLLIN, e) == 0)
			return 0;
		teller_free(&mig->teller);
	}
	close(mig->timeout.fd);
	close(mig->stop_fd);
	return -1;
}

int migration_new(struct migration **out, struct machine *m, struct loop *owner_loop,
		  const struct migration_events *events, struct err *e)
{
	struct migration *mig = calloc(1, sizeof(*mig));

	if (!mig)
		return err_set(e, "out of memory");
	mig->owner_loop = owner_loop;
	mig->events = *events;
	if (open_fds(mig, e)) {
		free(mig);
		return -1;
	}
	mig->teller.guest = &mig->guest.guest;
	mig->teller.decision = on_decision;
	mig->teller.arg = mig;
	mig->parameters =
		(struct migration_parameters){ .downtime_ms = DEFAULT_DOWNTIME_MS,
					       .channels = DEFAULT_CHANNELS,
					       .compression = CODEC_PLAIN,
					       .zlib_level = 1,
					       .zstd_level = 1,
					       .vcpu_dirty_limit = DEFAULT_LIMIT_MIB,
					       .xbzrle_cache_bytes = DEFAULT_CACHE_BYTES };
	mig->limits.downtime_us = DEFAULT_DOWNTIME_MS * 1000;
	mig->slots = (struct slots){ .fd = -1, .held = -1 };
	err_set(&mig->why_slots, "there is no runtime directory");
	pthread_mutex_init(&mig->lock, NULL);
	pthread_mutex_init(&mig->calling, NULL);
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

void migration_open_slots(struct migration *mig, const char *dir, const char *vm)
{
	slots_open(&mig->slots, dir, vm, &mig->why_slots);
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
	pthread_mutex_lock(&mig->calling);
	migration_cancel(mig, "the VM was ended");
	pthread_mutex_unlock(&mig->calling);
	join(mig);
	teller_free(&mig->teller);
	slots_close(&mig->slots);
	loop_remove(mig->owner_loop, &mig->timeout);
	close(mig->timeout.fd);
	close(mig->stop_fd);
	pthread_mutex_destroy(&mig->calling);
	pthread_mutex_destroy(&mig->lock);
	free(mig);
}

void migration_get_parameters(struct migration *mig, struct migration_parameters *out)
{
	*out = mig->parameters;
}

void migration_set_parameters(struct migration *mig, const struct migration_parameters *p)
{
	/* A policy's limit stays when something else is set. */
	if (p->downtime_sets != mig->parameters.downtime_sets || !mig->used.has_policy)
		__atomic_store_n(&mig->limits.downtime_us, p->downtime_ms * 1000, __ATOMIC_RELAXED);
	mig->parameters = *p;
	__atomic_store_n(&mig->limits.bandwidth, p->bandwidth, __ATOMIC_RELAXED);
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

static bool is_checking(struct migration *mig)
{
	bool yes;

	pthread_mutex_lock(&mig->lock);
	yes = mig->check_status == CHECK_ACTIVE;
	pthread_mutex_unlock(&mig->lock);
	return yes;
}

static int start_thread(struct migration *mig, void *(*thread)(void *), struct err *e)
{
	int rc = pthread_create(&mig->thread, NULL, thread, mig);

	if (rc)
		return err_errno(e, rc, "cannot start the migration's thread");
	mig->thread_started = true;
	pthread_setname_np(mig->thread, "migrate");
	return 0;
}

/* Nothing is left of the one before. */
static void end_before(struct migration *mig)
{
	uint64_t n;

	join(mig);
	while (read(mig->stop_fd, &n, sizeof(n)) > 0)
		; /* an old cancel */
}

/* A new thread for a new migration. */
static int begin(struct migration *mig, void *(*thread)(void *), struct err *e)
{
	end_before(mig);
	memset(&mig->stats, 0, sizeof(mig->stats));
	memset(&mig->source, 0, sizeof(mig->source));
	memset(&mig->progress, 0, sizeof(mig->progress));
	mig->error.text[0] = mig->cancel_reason.text[0] = 0;
	mig->committed = false;
	mig->start_us = clock_us();
	mig->end_us = 0;
	mig->status = MIGRATION_SETUP;
	mig->events.status(mig->events.arg, MIGRATION_SETUP);
	if (start_thread(mig, thread, e)) {
		mig->status = MIGRATION_NONE;
		return -1;
	}
	return 0;
}

/* Whether this VM could be migrated now, and nothing is under way. */
static int check_free(struct migration *mig, struct err *e)
{
	enum migration_status now;
	enum machine_status s;

	if (!mig->machine)
		return err_set(e, "the VM cannot be migrated: its guest has not arrived yet "
				  "(inmigrate)");
	s = machine_status(mig->machine);
	pthread_mutex_lock(&mig->lock);
	now = mig->status;
	pthread_mutex_unlock(&mig->lock);
	if (is_under_way(now))
		return err_set(e, "a migration of this VM is under way already");
	if (is_checking(mig))
		return err_set(e, "a check of this VM is under way: it takes a few seconds, and a "
				  "cancel ends it");
	if (now == MIGRATION_UNDECIDED)
		return err_set(e, "it is undecided where the guest of this VM runs: see godwit "
				  "resume --force");
	if (s != MACHINE_RUNNING && s != MACHINE_PAUSED && s != MACHINE_PRELAUNCH)
		return err_set(e, "the VM cannot be migrated: its status is '%s'",
			       machine_status_name(s));
	return 0;
}

int migration_start(struct migration *mig, const char *uri, struct err *e)
{
	struct uri parsed;

	if (uri_parse(uri, &parsed, e) || check_free(mig, e))
		return -1;
	if (parsed.kind == URI_FD && mig->parameters.multifd && mig->parameters.channels > 1)
		return err_set(e, "%s is one connection: several channels need tcp: or unix:", uri);
	if (mig->parameters.has_policy && parsed.kind != URI_FILE && mig->slots.fd < 0)
		return err_set(e, "the policy's maxMigrations cannot be kept to: %.300s",
			       mig->why_slots.text);
	if (mig->parameters.dirty_limit && !mig->guest.guest.vcpu_dirty_known)
		return err_set(e, "the capability 'dirty-limit' needs to know who dirties how "
				  "much: run the VM with --dirty-ring");
	mig->uri = parsed;
	mig->destination = NULL;
	mig->used = mig->parameters;
	mig->limits.downtime_us = mig->used.downtime_ms * 1000;
	mig->limits.force = false;
	if (begin(mig, out_thread, e))
		return -1;
	arm_timeout(mig, true);
	return 0;
}

int migration_check(struct migration *mig, const char *uri, struct err *e)
{
	struct uri parsed;

	if (uri_parse(uri, &parsed, e) || check_free(mig, e))
		return -1;
	if (parsed.kind == URI_FILE)
		return err_set(e,
			       "%s cannot be checked: nobody there tells how fast it takes in what "
			       "is written, and writing to a file stops the guest",
			       uri);
	if (parsed.kind == URI_FD)
		return err_set(e,
			       "%s cannot be checked: it is one connection, which would be "
			       "used up",
			       uri);
	end_before(mig);
	mig->check_uri = parsed;
	mig->checked = mig->parameters;
	mig->check_status = CHECK_ACTIVE;
	mig->check_cancelled = false;
	mig->check_error.text[0] = 0;
	if (start_thread(mig, check_thread, e)) {
		mig->check_status = CHECK_NONE;
		return -1;
	}
	return 0;
}

void migration_query_check(struct migration *mig, struct check_report *out)
{
	*out = (struct check_report){ 0 };
	pthread_mutex_lock(&mig->lock);
	out->status = mig->check_status;
	memcpy(out->error, mig->check_error.text, sizeof(out->error));
	/* Its thread does not write to it any more. */
	if (out->status == CHECK_COMPLETED)
		out->check = mig->check;
	pthread_mutex_unlock(&mig->lock);
	memcpy(out->uri, mig->check_uri.text, sizeof(out->uri));
}

int migration_receive(struct migration *mig, struct destination *d, bool paused, struct err *e)
{
	mig->destination = d;
	d->teller = &mig->teller;
	mig->paused = paused;
	destination_set_stop(d, mig->stop_fd);
	return begin(mig, in_thread, e);
}

void migration_cancel(struct migration *mig, const char *why)
{
	bool tell_it = false, stop = false;
	uint64_t one = 1;

	pthread_mutex_lock(&mig->lock);
	if (mig->check_status == CHECK_ACTIVE && !mig->check_cancelled) {
		mig->check_cancelled = stop = true;
		snprintf(mig->check_error.text, sizeof(mig->check_error.text), "%s", why);
	} else if (is_under_way(mig->status) && mig->status != MIGRATION_CANCELLING &&
		   !mig->committed) {
		tell_it = stop = true;
		mig->status = MIGRATION_CANCELLING;
		snprintf(mig->cancel_reason.text, sizeof(mig->cancel_reason.text), "%s", why);
	}
	pthread_mutex_unlock(&mig->lock);
	if (!stop)
		return;
	while (write(mig->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	if (!tell_it)
		return;
	mig->events.status(mig->events.arg, MIGRATION_CANCELLING);
}

int migration_force_resume(struct migration *mig, struct err *e)
{
	struct news failed = { .mig = mig, .status = MIGRATION_FAILED };

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
	teller_want(&mig->teller, GUEST_AFTER_MIGRATION);
	tell_status(&failed);
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
	out->limit_ms = __atomic_load_n(&mig->limits.downtime_us, __ATOMIC_RELAXED) / 1000;
	out->xbzrle = mig->used.xbzrle || (mig->used.has_policy && mig->used.policy.compression);
	if (mig->used.has_policy)
		memcpy(out->policy, mig->used.policy.name, sizeof(out->policy));
	/* Each member is one atomic word. */
	for (size_t i = 0; i < sizeof(out->stats) / sizeof(uint64_t); i++)
		((uint64_t *)&out->stats)[i] = stats_get((uint64_t *)&mig->stats + i);
	out->n_vcpus = mig->guest.guest.n_vcpus;
	out->vcpu_dirty_known = mig->guest.guest.vcpu_dirty_known && !mig->destination;
	out->incoming = mig->destination;
	out->rate_bytes = is_under_way(out->status) ? stats_rate(st, clock_us()) : st->send_rate;
	/* One that was too short to measure a round, or not measured here. */
	if (!is_under_way(out->status) && !out->rate_bytes && out->total_ms)
		out->rate_bytes = st->data_bytes * 1000 / out->total_ms;
}
