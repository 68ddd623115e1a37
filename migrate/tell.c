/*
 * How the owner of a migration learns of it: by calls on its thread. A migration out waits for each
 * call; one that comes in posts them (news.h).
 */
#include <sys/timerfd.h>

#include "migrate/migration_internal.h"

void migration_decided(struct migration *mig, enum decision d, const char *reason)
{
	if (mig->events.decision)
		mig->events.decision(mig->events.arg, d, reason);
}

/* A migration that has ended has no time limit. */
static void disarm(struct migration *mig)
{
	timerfd_settime(mig->timeout.fd, 0, &(struct itimerspec){ 0 }, NULL);
}

void migration_enter(struct migration *mig, enum phase s)
{
	bool changed;

	pthread_mutex_lock(&mig->lock);
	changed = phase_step(&mig->phase, s);
	pthread_mutex_unlock(&mig->lock);
	if (!changed)
		return;
	if (!phase_under_way(s))
		disarm(mig);
	mig->events.status(mig->events.arg, s);
}

void migration_left(void *arg)
{
	struct migration *mig = arg;

	mig->guest.guest.ops->left(&mig->guest.guest);
	mig->events.moved(mig->events.arg,
			  mig->uri.kind == URI_FILE ? mig->uri.path : mig->uri.text);
}

struct told {
	struct migration *mig;
	enum phase status;
	uint64_t round;
	enum decision decision;
	const char *reason;
};

static void tell_status(void *arg)
{
	struct told *n = arg;

	migration_enter(n->mig, n->status);
}

static void tell_pass(void *arg)
{
	struct told *n = arg;

	n->mig->events.pass(n->mig->events.arg, n->round);
}

static void tell_decision(void *arg)
{
	struct told *n = arg;

	migration_decided(n->mig, n->decision, n->reason);
}

void migration_call_owner(struct migration *mig, void (*fn)(void *arg), void *arg)
{
	pthread_mutex_lock(&mig->calling);
	loop_call(mig->owner_loop, fn, arg);
	pthread_mutex_unlock(&mig->calling);
}

void migration_tell_phase(struct migration *mig, enum phase s)
{
	struct told n = { .mig = mig, .status = s };

	migration_call_owner(mig, tell_status, &n);
}

void migration_tell_decision(void *arg, enum decision d, const char *reason)
{
	struct migration *mig = arg;
	struct told n = { .mig = mig, .decision = d, .reason = reason };

	if (__atomic_load_n(&mig->receives, __ATOMIC_RELAXED))
		news_post_decision(&mig->news, d, reason);
	else
		migration_call_owner(mig, tell_decision, &n);
}

void migration_take_news(void *arg, const struct news_item *item)
{
	struct migration *mig = arg;

	if (item->is_status)
		migration_enter(mig, item->status);
	else
		migration_decided(mig, item->decision, item->reason);
}

void migration_tell_round(void *arg, uint64_t round)
{
	struct migration *mig = arg;
	struct told n = { .mig = mig, .round = round };

	migration_call_owner(mig, tell_pass, &n);
}
