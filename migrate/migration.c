/*
 * One migration after the other: see migration.h. `lock` guards what both threads see; the status
 * is changed in one place, which tells the owner.
 */
#include "migrate/migration.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "migrate/guest.h"
#include "migrate/snapshot.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/loop.h"
#include "vmm/machine.h"

struct migration {
	/* Set by migration_new. */
	struct machine *machine;
	struct loop *owner_loop;
	struct migration_events events;
	struct guest_machine guest;

	/* Owner's thread. */
	pthread_t thread;
	bool thread_started; /* and not yet joined */
	char path[4096];

	pthread_mutex_t lock;
	enum migration_status status;
	struct err error;
	uint64_t start_us, parked_us, end_us;

	struct snapshot_progress progress; /* atomic members */
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

/* -- telling the owner -- */

struct news {
	struct migration *mig;
	enum migration_status status;
};

static void tell(void *arg)
{
	struct news *n = arg;

	n->mig->events.status(n->mig->events.arg, n->status);
}

/* Only forward: a cancel that came in between is not overwritten by the next phase. */
static void set_status(struct migration *mig, enum migration_status s)
{
	struct news n = { .mig = mig, .status = s };
	bool changed;

	pthread_mutex_lock(&mig->lock);
	changed = mig->status != s && !(mig->status == MIGRATION_CANCELLING && is_under_way(s));
	if (changed)
		mig->status = s;
	pthread_mutex_unlock(&mig->lock);
	if (changed)
		loop_call(mig->owner_loop, tell, &n);
}

/* -- the migration's thread -- */

static int save(struct migration *mig, struct err *e)
{
	struct guest *g = &mig->guest.guest;
	struct channel *ch;
	int rc;

	if (file_channel_create(&ch, mig->path, e))
		return -1;
	set_status(mig, MIGRATION_ACTIVE);
	if (g->ops->park(g, e)) {
		channel_close(ch);
		return -1;
	}
	pthread_mutex_lock(&mig->lock);
	mig->parked_us = clock_us();
	pthread_mutex_unlock(&mig->lock);
	set_status(mig, MIGRATION_DEVICE);
	rc = snapshot_save(g, ch, &mig->progress, e) || channel_finish(ch, e) ? -1 : 0;
	channel_close(ch);
	if (rc) {
		struct err resume;

		if (g->ops->unpark(g, &resume))
			err_set(e, "the guest is paused: %s", resume.text);
	}
	return rc;
}

static void moved(void *arg)
{
	struct migration *mig = arg;

	machine_set_status(mig->machine, MACHINE_POSTMIGRATE);
	mig->events.moved(mig->events.arg, mig->path);
}

static void *migration_thread(void *arg)
{
	struct migration *mig = arg;
	struct err e = { "" };
	int rc = save(mig, &e);
	bool cancelled;

	pthread_mutex_lock(&mig->lock);
	mig->end_us = clock_us();
	cancelled = mig->status == MIGRATION_CANCELLING;
	if (rc && !cancelled)
		mig->error = e;
	pthread_mutex_unlock(&mig->lock);
	set_status(mig, !rc	    ? MIGRATION_COMPLETED
			: cancelled ? MIGRATION_CANCELLED
				    : MIGRATION_FAILED);
	if (!rc)
		loop_call(mig->owner_loop, moved, mig);
	return NULL;
}

/* -- the owner's side -- */

int migration_new(struct migration **out, struct machine *m, struct loop *owner_loop,
		  const struct migration_events *events, struct err *e)
{
	struct migration *mig = calloc(1, sizeof(*mig));

	if (!mig)
		return err_set(e, "out of memory");
	mig->machine = m;
	mig->owner_loop = owner_loop;
	mig->events = *events;
	pthread_mutex_init(&mig->lock, NULL);
	guest_machine_init(&mig->guest, m, owner_loop);
	*out = mig;
	return 0;
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
	migration_cancel(mig);
	join(mig);
	pthread_mutex_destroy(&mig->lock);
	free(mig);
}

static const char *file_of_uri(const char *uri, struct err *e)
{
	if (!strncmp(uri, "file:", 5) && uri[5] == '/')
		return uri + 5;
	if (!strncmp(uri, "file:", 5))
		err_set(e, "'%s': the path of a file URI must be absolute", uri);
	else
		err_set(e, "'%s': this version migrates to file:/PATH only", uri);
	return NULL;
}

int migration_start(struct migration *mig, const char *uri, struct err *e)
{
	const char *path = file_of_uri(uri, e);
	bool busy;
	int rc;

	if (!path)
		return -1;
	if (strlen(path) >= sizeof(mig->path))
		return err_set(e, "the path has more than %zu characters", sizeof(mig->path) - 1);
	pthread_mutex_lock(&mig->lock);
	busy = is_under_way(mig->status) || mig->status == MIGRATION_COMPLETED;
	pthread_mutex_unlock(&mig->lock);
	if (busy)
		return err_set(e, "a migration of this VM is under way already");
	if (machine_status(mig->machine) != MACHINE_RUNNING &&
	    machine_status(mig->machine) != MACHINE_PAUSED &&
	    machine_status(mig->machine) != MACHINE_PRELAUNCH)
		return err_set(e, "the VM cannot be migrated: its status is '%s'",
			       machine_status_name(machine_status(mig->machine)));
	join(mig);
	memcpy(mig->path, path, strlen(path) + 1);
	mig->progress = (struct snapshot_progress){ 0 };
	mig->error.text[0] = 0;
	mig->start_us = clock_us();
	mig->parked_us = mig->end_us = 0;
	mig->status = MIGRATION_SETUP;
	mig->events.status(mig->events.arg, MIGRATION_SETUP);
	rc = pthread_create(&mig->thread, NULL, migration_thread, mig);
	if (rc) {
		mig->status = MIGRATION_NONE;
		return err_errno(e, rc, "cannot start the migration's thread");
	}
	mig->thread_started = true;
	pthread_setname_np(mig->thread, "migrate");
	return 0;
}

void migration_cancel(struct migration *mig)
{
	bool tell_it = false;

	pthread_mutex_lock(&mig->lock);
	if (is_under_way(mig->status)) {
		tell_it = mig->status != MIGRATION_CANCELLING;
		mig->status = MIGRATION_CANCELLING;
		__atomic_store_n(&mig->progress.cancel, true, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&mig->lock);
	if (tell_it)
		mig->events.status(mig->events.arg, MIGRATION_CANCELLING);
}

void migration_query(struct migration *mig, struct migration_report *out)
{
	struct snapshot_progress *p = &mig->progress;
	uint64_t end;

	*out = (struct migration_report){ 0 };
	pthread_mutex_lock(&mig->lock);
	out->status = mig->status;
	memcpy(out->error, mig->error.text, sizeof(out->error));
	if (mig->status != MIGRATION_NONE) {
		end = mig->end_us ? mig->end_us : clock_us();
		out->total_ms = (end - mig->start_us) / 1000;
		if (mig->parked_us) {
			out->setup_ms = (mig->parked_us - mig->start_us) / 1000;
			out->downtime_ms = (end - mig->parked_us) / 1000;
		}
	}
	pthread_mutex_unlock(&mig->lock);
	out->total_pages = __atomic_load_n(&p->total_pages, __ATOMIC_RELAXED);
	out->seen_pages = __atomic_load_n(&p->seen_pages, __ATOMIC_RELAXED);
	out->normal_pages = __atomic_load_n(&p->normal_pages, __ATOMIC_RELAXED);
	out->bytes = __atomic_load_n(&p->bytes, __ATOMIC_RELAXED);
}
