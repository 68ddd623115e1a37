/*
 * The event loop runs on the thread that calls loop_run(). A watch is never called after it was
 * removed: events that were fetched in the same batch are dropped with it.
 */
#include "vmm/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/wake.h"

/* Something to run on the loop's thread. */
struct loop_job {
	void (*fn)(void *arg);
	void *arg;
	bool *finished; /* loop_call waits for it; NULL: loop_post, the job is freed */
	struct loop_job *next;
};

/* The oldest job, or NULL; under no lock. */
static struct loop_job *next_job(struct loop *l)
{
	struct loop_job *job;

	pthread_mutex_lock(&l->lock);
	job = l->jobs;
	if (job)
		l->jobs = job->next;
	pthread_mutex_unlock(&l->lock);
	return job;
}

static void run_jobs(struct loop *l)
{
	struct loop_job *job;

	while ((job = next_job(l))) {
		job->fn(job->arg);
		if (!job->finished) {
			free(job);
			continue;
		}
		/* The job lives on the stack of its caller, which goes on as soon as it is told. */
		pthread_mutex_lock(&l->lock);
		*job->finished = true;
		pthread_cond_broadcast(&l->done);
		pthread_mutex_unlock(&l->lock);
	}
}

static void woken(void *arg, uint32_t events)
{
	struct loop *l = arg;

	(void)events;
	wake_drain(l->wake_fd);
	run_jobs(l);
}

int loop_init(struct loop *l, struct err *e)
{
	*l = (struct loop){ .epoll_fd = -1, .wake_fd = -1 };
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->done, NULL);
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0) {
		err_errno(e, errno, "cannot make an event loop");
		loop_free(l);
		return -1;
	}
	if (wake_init(&l->wake_fd, e)) {
		loop_free(l);
		return -1;
	}
	l->wake = (struct loop_watch){ .fd = l->wake_fd, .fn = woken, .arg = l };
	if (loop_add(l, &l->wake, EPOLLIN, e)) {
		loop_free(l);
		return -1;
	}
	return 0;
}

void loop_free(struct loop *l)
{
	struct loop_job *job;

	/* Jobs that were posted and did not run: their arguments may be gone by now. */
	while ((job = next_job(l)))
		free(job);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	l->epoll_fd = -1;
	wake_free(&l->wake_fd);
	pthread_cond_destroy(&l->done);
	pthread_mutex_destroy(&l->lock);
}

int loop_add(struct loop *l, struct loop_watch *w, uint32_t events, struct err *e)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	if (w->added) {
		loop_change(l, w, events);
		return 0;
	}
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, w->fd, &ev))
		return err_errno(e, errno, "cannot watch file descriptor %d", w->fd);
	w->added = true;
	return 0;
}

void loop_change(struct loop *l, struct loop_watch *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	if (w->added)
		epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev);
}

void loop_remove(struct loop *l, struct loop_watch *w)
{
	int i;

	if (!w->added)
		return;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	w->added = false;
	for (i = l->batch_at; i < l->batch_n; i++)
		if (l->batch[i].data.ptr == w)
			l->batch[i].data.ptr = NULL;
}

void loop_adopt(struct loop *l)
{
	pthread_mutex_lock(&l->lock);
	l->thread = pthread_self();
	l->entered = l->running = true;
	pthread_mutex_unlock(&l->lock);
}

void loop_run(struct loop *l)
{
	loop_adopt(l);

	while (!__atomic_load_n(&l->stop, __ATOMIC_ACQUIRE)) {
		l->batch_at = 0;
		l->batch_n = epoll_wait(l->epoll_fd, l->batch, LOOP_BATCH, -1);
		while (l->batch_at < l->batch_n) {
			struct epoll_event ev = l->batch[l->batch_at++];
			struct loop_watch *w = ev.data.ptr;

			if (w)
				w->fn(w->arg, ev.events);
		}
	}
	pthread_mutex_lock(&l->lock);
	l->entered = l->running = false;
	__atomic_store_n(&l->stop, false, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&l->lock);
	/* Calls made before this are still waited for; later ones run at once, by themselves. */
	run_jobs(l);
}

static void *loop_thread(void *arg)
{
	struct loop *l = arg;

	pthread_setname_np(pthread_self(), l->name);
	loop_run(l);
	return NULL;
}

int loop_start(struct loop *l, const char *name, struct err *e)
{
	int rc;

	/* Set before the thread runs, so that calls are queued from here on. */
	l->running = true;
	l->name = name;
	rc = pthread_create(&l->started, NULL, loop_thread, l);
	if (rc) {
		l->running = false;
		return err_errno(e, rc, "cannot start thread '%s'", name);
	}
	return 0;
}

void loop_join(struct loop *l)
{
	loop_stop(l);
	pthread_join(l->started, NULL);
}

void loop_stop(struct loop *l)
{
	__atomic_store_n(&l->stop, true, __ATOMIC_RELEASE);
	wake_signal(l->wake_fd);
}

static void add_job(struct loop *l, struct loop_job *job)
{
	struct loop_job **end = &l->jobs;

	while (*end)
		end = &(*end)->next;
	*end = job;
	wake_signal(l->wake_fd);
}

void loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
	bool finished = false;
	struct loop_job job = { .fn = fn, .arg = arg, .finished = &finished };

	pthread_mutex_lock(&l->lock);
	if (!l->running || (l->entered && pthread_equal(l->thread, pthread_self()))) {
		pthread_mutex_unlock(&l->lock);
		fn(arg);
		return;
	}
	add_job(l, &job);
	while (!finished)
		pthread_cond_wait(&l->done, &l->lock);
	pthread_mutex_unlock(&l->lock);
}

int loop_post(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct loop_job *job = malloc(sizeof(*job));

	if (!job)
		return -1;
	*job = (struct loop_job){ .fn = fn, .arg = arg };
	pthread_mutex_lock(&l->lock);
	add_job(l, job);
	pthread_mutex_unlock(&l->lock);
	return 0;
}
