/*
 * The thread "migrate": one migration, out or in, from the connection to its end.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "migrate/channel/inherited.h"
#include "migrate/destination/destination.h"
#include "migrate/migration_internal.h"
#include "vmm/base/clock.h"
#include "vmm/base/wake.h"

/* Interval of looks for a free slot while other migrations leave this host. */
#define TURN_MS 100

/* -- what the engine says -- */

static void on_phase(void *arg, enum phase p)
{
	migration_tell_phase(arg, p);
}

/* From here on no cancel is taken. */
static int on_commit(void *arg, struct err *e)
{
	struct migration *mig = arg;
	bool cancelled;

	pthread_mutex_lock(&mig->lock);
	cancelled = mig->phase == PHASE_CANCELLING;
	if (!cancelled)
		phase_hand(&mig->owner, OWNER_NOBODY);
	pthread_mutex_unlock(&mig->lock);
	return cancelled ? err_set(e, "cancelled") : 0;
}

/* After a cancel: puts the reason of the cancel in the place of "cancelled". */
static void on_explain(void *arg, struct err *e)
{
	struct migration *mig = arg;

	pthread_mutex_lock(&mig->lock);
	if (mig->phase == PHASE_CANCELLING) {
		if (mig->cancel_reason.text[0])
			*e = mig->cancel_reason;
		else
			err_set(e, "the migration was cancelled");
	}
	pthread_mutex_unlock(&mig->lock);
}

/* On the owner's thread: the guest has arrived and is about to run. The owner looks now for events
 * that have ended this VM and that it has not handled yet. */
static int on_arrived(void *arg, struct err *e)
{
	struct migration *mig = arg;

	/* The owner hears what was posted so far before the guest runs. */
	news_deliver(&mig->news);
	if (mig->events.arrived && mig->events.arrived(mig->events.arg, e))
		return -1;
	if (on_commit(mig, e) == 0)
		return 0;
	on_explain(mig, e);
	return -1;
}

/* -- the work -- */

struct channel *migration_connect(struct migration *mig, const struct uri *u, const char *bind,
				  struct err *e)
{
	struct channel *ch;
	int fd = u->kind == URI_FD ? inherited_take(mig->inherited, u->fd, e)
				   : uri_connect(u, bind[0] ? bind : NULL, mig->stop_fd, e);

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

	return migration_connect(mig, &mig->uri, mig->used.bind, e);
}

static void tell_waiting(struct migration *mig, const char *why)
{
	pthread_mutex_lock(&mig->lock);
	snprintf(mig->waiting, sizeof(mig->waiting), "%s", why);
	pthread_mutex_unlock(&mig->lock);
}

/* Waits for a slot among the migrations that leave this host. */
static int await_turn(struct migration *mig, struct err *e)
{
	const struct policy *p = mig->used.has_policy ? &mig->used.policy : NULL;
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
			tell_waiting(mig, why);
			migration_tell_decision(mig, DECISION_WAIT, why);
		}
		rc = wake_nap(mig->stop_fd, TURN_MS * 1000, e);
		if (rc)
			break;
	}
	tell_waiting(mig, "");
	if (rc > 0 && told[0])
		migration_tell_decision(mig, DECISION_WAIT, "its turn has come");
	return rc > 0 || !p ? 0 : -1;
}

/* How the engine has ended. */
struct engine_end {
	enum owner owner; /* of the guest */
	bool stuck;	  /* the guest could not run again */
};

static int run_source(struct migration *mig, struct source *s, bool cold, struct err *e)
{
	struct channel *ch;
	int rc;

	if (cold) {
		if (file_channel_create(&ch, mig->uri.path, e))
			return -1;
	} else {
		if (mig->slots.fd >= 0 && await_turn(mig, e))
			return -1;
		ch = open_connection(mig, e);
		if (!ch)
			return -1;
	}
	rc = source_run(s, ch, e);
	channel_close(ch);
	return rc;
}

static int migrate_out(struct migration *mig, struct engine_end *end, struct err *e)
{
	const bool cold = mig->uri.kind == URI_FILE;
	const struct policy *p = !cold && mig->used.has_policy ? &mig->used.policy : NULL;
	const struct source_job job = {
		.guest = &mig->guest.guest,
		.n_lanes = !cold && mig->used.multifd ? mig->used.channels : 1,
		.cold = cold,
		.stop_fd = mig->stop_fd,
		.limits = &mig->limits,
		.parameters = mig->used,
		.teller = &mig->teller,
		.policy = p,
		.guest_events = p && p->guest_events,
		.stats = &mig->stats,
		.decisions = { migration_tell_decision, mig },
		.events = { on_phase, migration_tell_round, on_commit, open_connection, on_explain,
			    mig },
	};
	struct source *s = source_new(&job, e);
	int rc;

	if (!s)
		return -1;
	rc = run_source(mig, s, cold, e);
	*end = (struct engine_end){ source_owner(s), source_is_stuck(s) };
	source_free(s);
	slots_release(&mig->slots);
	return rc;
}

/* Records the end. */
static enum phase outcome(struct migration *mig, int rc, const struct engine_end *end,
			  const struct err *e)
{
	bool cancelled;

	pthread_mutex_lock(&mig->lock);
	mig->end_us = clock_us();
	phase_hand(&mig->owner, end->owner);
	cancelled = mig->phase == PHASE_CANCELLING && !end->stuck;
	if (rc)
		mig->error = cancelled ? mig->cancel_reason : *e;
	/* A cancel with a reason (a timeout) counts as a failure; one by a person does not. */
	cancelled = cancelled && !mig->error.text[0];
	pthread_mutex_unlock(&mig->lock);
	return phase_of_end(end->owner, cancelled);
}

void *migration_out_thread(void *arg)
{
	struct migration *mig = arg;
	struct err e = { "" };
	struct engine_end end = { OWNER_SOURCE, false };
	int rc = migrate_out(mig, &end, &e);
	enum phase s = outcome(mig, rc, &end, &e);

	/* The owner may end this process once it hears of the end, so it hears first where the
	 * guest went. */
	if (!rc)
		migration_call_owner(mig, migration_left, mig);
	migration_tell_phase(mig, s);
	return NULL;
}

void *migration_in_thread(void *arg)
{
	struct migration *mig = arg;
	struct destination *d = mig->destination;
	struct engine_end end = { OWNER_SOURCE, false };
	struct err e = { "" };
	int rc;

	d->commit = on_arrived;
	d->commit_arg = mig;
	news_post_status(&mig->news, PHASE_PRECOPY);
	rc = destination_receive(d, &mig->guest.guest, &mig->stats, &e) ||
	     destination_start(d, mig->paused, &e);
	if (!rc)
		end.owner = OWNER_DESTINATION;
	else if (d->undecided)
		end.owner = OWNER_NOBODY;
	mig->arrived_runs = d->in.run && !mig->paused;
	destination_free(d);
	/* This must be last: once the owner hears of the end it may start anew, and joins this
	 * thread. */
	news_post_status(&mig->news, outcome(mig, rc, &end, &e));
	return NULL;
}
