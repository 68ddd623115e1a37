/*
 * The owner's side: parameters, start, cancel, the time limit, questions. Owner's thread, unless a
 * function says otherwise.
 */
#include "migrate/migration.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "migrate/channel/inherited.h"
#include "migrate/destination/destination.h"
#include "migrate/migration_internal.h"
#include "vmm/base/clock.h"
#include "vmm/base/wake.h"
#include "vmm/memory.h"

/* Interval of looks for progress: the shortest progress timeout is a second. */
#define PROGRESS_LOOK_US 300000u

static enum phase phase_now(struct migration *mig)
{
	enum phase p;

	pthread_mutex_lock(&mig->lock);
	p = mig->phase;
	pthread_mutex_unlock(&mig->lock);
	return p;
}

/* -- the time limit -- */

static uint64_t ram_bytes(const struct migration *mig)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < mig->guest.guest.n_blocks; i++)
		pages += mig->guest.guest.blocks[i].pages;
	return pages * PAGE_SIZE;
}

/* Sets the timer to the end of the time limit; if there is a progress timeout, to the next look. */
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

/* Force ends a migration that sends pages already; an earlier one is cancelled. */
static void time_is_over(struct migration *mig, const char *why)
{
	enum phase now = phase_now(mig);

	if (mig->parameters.timeout_action == TIMEOUT_FORCE && now == PHASE_SWITCHOVER)
		return;
	if (mig->parameters.timeout_action == TIMEOUT_FORCE && now == PHASE_PRECOPY) {
		__atomic_store_n(&mig->limits.force, true, __ATOMIC_RELAXED);
		migration_decided(mig, DECISION_FORCE, why);
		return;
	}
	if (migration_cancel(mig, why))
		migration_decided(mig, DECISION_ABORT, why);
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
		return; /* it was disarmed meanwhile */
	s.round_bytes = stats_get(&mig->stats.dirty_pages) * PAGE_SIZE;
	s.remaining_bytes = stats_get(&mig->stats.remaining_pages) * PAGE_SIZE;
	if (timeout_check(&mig->progress, &mig->parameters.timeout, &s, why, sizeof(why)))
		time_is_over(mig, why);
	else
		arm_timeout(mig, migration_under_way(mig) && !mig->destination);
}

/* -- the owner's side -- */

static int open_fds(struct migration *mig, struct err *e)
{
	mig->timeout = (struct loop_watch){ .fn = on_timeout, .arg = mig };
	mig->timeout.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	mig->stop_fd = -1;
	if (mig->timeout.fd < 0)
		err_errno(e, errno, "cannot make a timer");
	else if (wake_init(&mig->stop_fd, e) == 0 && teller_init(&mig->teller, e) == 0) {
		if (news_init(&mig->news, mig->owner_loop, migration_take_news, mig, e) == 0) {
			if (loop_add(mig->owner_loop, &mig->timeout, EPOLLIN, e) == 0)
				return 0;
			news_free(&mig->news);
		}
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
	mig->teller.decisions = (struct decisions){ migration_tell_decision, mig };
	parameters_preset(&mig->parameters);
	mig->limits.downtime_us = mig->parameters.downtime_ms * 1000;
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
	guest_machine_init(&mig->guest, m, mig->owner_loop);
}

void migration_set_inherited(struct migration *mig, struct inherited *inherited)
{
	mig->inherited = inherited;
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
	/* The owner hears of the end even if its loop has ended before. */
	pthread_mutex_lock(&mig->calling);
	news_deliver(&mig->news);
	pthread_mutex_unlock(&mig->calling);
	teller_free(&mig->teller);
	news_free(&mig->news);
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

/* Which vCPU dirties how much is known only by dirty rings. */
static int check_dirty_limit(struct migration *mig, struct err *e)
{
	if (mig->guest.guest.vcpu_dirty_known)
		return 0;
	return err_set(e, "the capability 'dirty-limit' needs to know which vCPU dirties how much: "
			  "run the VM with --dirty-ring");
}

int migration_set_parameters(struct migration *mig, const struct migration_parameters *p,
			     struct err *e)
{
	/* A guest that has not arrived yet may bring it. */
	if (p->dirty_limit && !mig->parameters.dirty_limit && mig->guest.machine &&
	    check_dirty_limit(mig, e))
		return -1;
	/* A limit that the policy has raised stays, unless the limit itself is set. */
	if (p->downtime_sets != mig->parameters.downtime_sets || !mig->used.has_policy)
		__atomic_store_n(&mig->limits.downtime_us, p->downtime_ms * 1000, __ATOMIC_RELAXED);
	mig->parameters = *p;
	__atomic_store_n(&mig->limits.bandwidth, p->bandwidth, __ATOMIC_RELAXED);
	__atomic_store_n(&mig->limits.switchover_us, p->switchover_ms * 1000, __ATOMIC_RELAXED);
	arm_timeout(mig, migration_under_way(mig) && !mig->destination);
	return 0;
}

bool migration_under_way(struct migration *mig)
{
	return phase_under_way(phase_now(mig));
}

int migration_start_thread(struct migration *mig, void *(*thread)(void *), struct err *e)
{
	int rc = pthread_create(&mig->thread, NULL, thread, mig);

	if (rc)
		return err_errno(e, rc, "cannot start the migration's thread");
	mig->thread_started = true;
	pthread_setname_np(mig->thread, "migrate");
	return 0;
}

void migration_end_before(struct migration *mig)
{
	join(mig);
	wake_drain(mig->stop_fd); /* set by an old cancel */
}

/* Starts the thread of a new migration. */
static int begin(struct migration *mig, void *(*thread)(void *), struct err *e)
{
	migration_end_before(mig);
	memset(&mig->stats, 0, sizeof(mig->stats));
	memset(&mig->progress, 0, sizeof(mig->progress));
	mig->error.text[0] = mig->cancel_reason.text[0] = mig->waiting[0] = 0;
	mig->start_us = clock_us();
	mig->end_us = 0;
	mig->owner = OWNER_SOURCE;
	migration_enter(mig, PHASE_SETUP);
	if (migration_start_thread(mig, thread, e) == 0)
		return 0;
	phase_step(&mig->phase, PHASE_NONE);
	return -1;
}

static bool is_checking(struct migration *mig)
{
	bool yes;

	pthread_mutex_lock(&mig->lock);
	yes = mig->check_status == CHECK_ACTIVE;
	pthread_mutex_unlock(&mig->lock);
	return yes;
}

int migration_refuse_busy(struct migration *mig, struct err *e)
{
	enum phase now = phase_now(mig);

	if (!mig->guest.machine)
		return err_set(e, "the VM cannot be migrated: its guest has not arrived yet "
				  "(inmigrate)");
	if (phase_under_way(now))
		return err_set(e, "a migration of this VM is under way already");
	if (is_checking(mig))
		return err_set(e, "a check of this VM is under way: it takes a few seconds, and a "
				  "cancel ends it");
	if (now == PHASE_UNDECIDED)
		return err_set(e, "it is undecided where the guest of this VM runs: see godwit "
				  "resume --force");
	return mig->guest.guest.ops->may_leave(&mig->guest.guest, e);
}

int migration_check_machine(struct migration *mig, struct err *e)
{
	struct guest *g = &mig->guest.guest;

	return migration_refuse_busy(mig, e) || g->ops->check_host(g, e) ? -1 : 0;
}

int migration_check_parameters(struct migration *mig, struct err *e)
{
	if (mig->parameters.has_policy && mig->slots.fd < 0)
		return err_set(e, "the policy's maxMigrations cannot be kept to: %.300s",
			       mig->why_slots.text);
	return mig->parameters.dirty_limit ? check_dirty_limit(mig, e) : 0;
}

int migration_start(struct migration *mig, const char *uri, struct err *e)
{
	struct uri parsed;

	if (uri_parse(uri, &parsed, e) || migration_check_machine(mig, e))
		return -1;
	if (parsed.kind == URI_FD && inherited_check(mig->inherited, parsed.fd, e))
		return -1;
	if (parsed.kind == URI_FD && mig->parameters.multifd && mig->parameters.channels > 1)
		return err_set(e, "%s is one connection: several channels need tcp: or unix:", uri);
	if (parsed.kind != URI_FILE && migration_check_parameters(mig, e))
		return -1;
	mig->uri = parsed;
	mig->destination = NULL;
	__atomic_store_n(&mig->receives, false, __ATOMIC_RELAXED);
	mig->used = parameters_effective(&mig->parameters);
	mig->limits.downtime_us = mig->used.downtime_ms * 1000;
	mig->limits.force = false;
	if (begin(mig, migration_out_thread, e))
		return -1;
	arm_timeout(mig, true);
	return 0;
}

int migration_receive(struct migration *mig, struct destination *d, bool paused, struct err *e)
{
	const struct migration_parameters *p = &mig->parameters;
	const struct guest_announce announce = { .rounds = (unsigned int)p->announce_rounds,
						 .initial_ms = (unsigned int)p->announce_initial,
						 .step_ms = (unsigned int)p->announce_step,
						 .max_ms = (unsigned int)p->announce_max };

	mig->guest.guest.ops->set_announce(&mig->guest.guest, &announce);
	mig->destination = d;
	__atomic_store_n(&mig->receives, true, __ATOMIC_RELAXED);
	d->teller = &mig->teller;
	mig->paused = paused;
	destination_set_stop(d, mig->stop_fd);
	return begin(mig, migration_in_thread, e);
}

bool migration_cancel(struct migration *mig, const char *why)
{
	bool tell_it = false, stop = false;

	pthread_mutex_lock(&mig->lock);
	if (mig->check_status == CHECK_ACTIVE && !mig->check_cancelled) {
		mig->check_cancelled = stop = true;
		snprintf(mig->check_error.text, sizeof(mig->check_error.text), "%s", why);
	} else if (mig->owner == OWNER_SOURCE && phase_step(&mig->phase, PHASE_CANCELLING)) {
		tell_it = stop = true;
		snprintf(mig->cancel_reason.text, sizeof(mig->cancel_reason.text), "%s", why);
	}
	pthread_mutex_unlock(&mig->lock);
	if (!stop)
		return false;
	wake_signal(mig->stop_fd);
	if (tell_it)
		mig->events.status(mig->events.arg, PHASE_CANCELLING);
	return true;
}

/* A person has decided that the guest is here. */
static void decided_here(struct migration *mig, enum owner owner)
{
	pthread_mutex_lock(&mig->lock);
	phase_hand(&mig->owner, owner);
	pthread_mutex_unlock(&mig->lock);
	migration_enter(mig, phase_of_end(owner, false));
}

int migration_force_resume(struct migration *mig, struct err *e)
{
	struct guest *g = &mig->guest.guest;
	int rc;

	if (phase_now(mig) != PHASE_UNDECIDED)
		return err_set(e, "there is nothing to force: it is known where the guest runs");
	if (mig->destination) {
		if (g->ops->take_over(g, mig->arrived_runs, e))
			return -1;
		decided_here(mig, OWNER_DESTINATION);
		return 0;
	}
	rc = g->ops->take_back(g, e);
	if (rc < 0)
		return -1;
	if (rc == 0)
		teller_want(&mig->teller, GUEST_AFTER_MIGRATION);
	decided_here(mig, OWNER_SOURCE);
	return rc ? err_context(e, "the guest is here again, and paused") : 0;
}

void migration_query(struct migration *mig, struct migration_report *out)
{
	struct stats *st = &out->stats;
	uint64_t end;

	*out = (struct migration_report){ 0 };
	pthread_mutex_lock(&mig->lock);
	out->status = mig->phase;
	out->owner = mig->owner;
	memcpy(out->error, mig->error.text, sizeof(out->error));
	memcpy(out->waiting, mig->waiting, sizeof(out->waiting));
	if (mig->phase != PHASE_NONE) {
		end = mig->end_us ? mig->end_us : clock_us();
		out->total_ms = (end - mig->start_us) / 1000;
	}
	pthread_mutex_unlock(&mig->lock);
	memcpy(out->uri, mig->uri.text, sizeof(out->uri));
	out->parameters = mig->parameters;
	out->limit_ms = __atomic_load_n(&mig->limits.downtime_us, __ATOMIC_RELAXED) / 1000;
	out->xbzrle = parameters_may_use_xbzrle(&mig->used);
	if (mig->used.has_policy)
		memcpy(out->policy, mig->used.policy.name, sizeof(out->policy));
	stats_copy(&out->stats, &mig->stats);
	out->n_vcpus = mig->guest.guest.n_vcpus;
	out->vcpu_dirty_known = mig->guest.guest.vcpu_dirty_known && !mig->destination;
	out->incoming = mig->destination;
	out->rate_bytes = phase_under_way(out->status) ? stats_rate(st, clock_us()) : st->send_rate;
	/* No round was long enough to be measured, or this is the destination: the average. */
	if (!phase_under_way(out->status) && !out->rate_bytes && out->total_ms)
		out->rate_bytes = st->data_bytes * 1000 / out->total_ms;
}
