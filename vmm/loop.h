/*
 * An event loop over epoll: the I/O thread has one for the devices, the main thread one for
 * control clients and signals. Nothing in it ticks: a loop without events sleeps.
 *
 * Watches belong to the loop's thread: add, change and remove them there, or while the loop does
 * not run. loop_call() and loop_stop() are for other threads.
 */
#ifndef GODWIT_LOOP_H
#define GODWIT_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct err;
struct loop;

/* Embedded in its owner; `fn` is told which of EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR came. */
struct loop_watch {
	int fd;
	void (*fn)(void *arg, uint32_t events);
	void *arg;
	bool added; /* the loop's own */
};

#define LOOP_BATCH 32

struct loop_job;

struct loop {
	int epoll_fd;
	int wake_fd; /* eventfd: jobs or stop */
	struct loop_watch wake;
	bool stop; /* atomic */

	/* Loop's thread. */
	struct epoll_event batch[LOOP_BATCH];
	int batch_at, batch_n;

	/* Owner: of a loop that has a thread of its own. */
	pthread_t started;
	const char *name;

	pthread_mutex_t lock;
	pthread_cond_t done;   /* a job was finished */
	struct loop_job *jobs; /* waiting to run, oldest first */
	bool running;	       /* calls are queued */
	bool entered;	       /* `thread` is in loop_run() */
	pthread_t thread;
};

int loop_init(struct loop *l, struct err *e);
void loop_free(struct loop *l); /* jobs that were posted and not run are dropped */

/* Level triggered. The watch must live until loop_remove(). */
int loop_add(struct loop *l, struct loop_watch *w, uint32_t events, struct err *e);
void loop_change(struct loop *l, struct loop_watch *w, uint32_t events);
/* Also drops events already fetched for it; safe from inside any watch's fn, twice does nothing. */
void loop_remove(struct loop *l, struct loop_watch *w);

/* The calling thread will run the loop: from here on, calls by other threads wait for that. */
void loop_adopt(struct loop *l);

/* Runs on the calling thread until loop_stop(). */
void loop_run(struct loop *l);

/* Starts a thread of that name (a constant, 15 characters) which runs the loop; loop_join() stops
 * and joins. */
int loop_start(struct loop *l, const char *name, struct err *e);
void loop_join(struct loop *l);

/* Any thread. */
void loop_stop(struct loop *l);

/*
 * Any thread: runs fn(arg) on the loop's thread and waits for it; at once when called on that
 * thread or when the loop does not run. The loop's thread must not be waiting for the caller.
 */
void loop_call(struct loop *l, void (*fn)(void *arg), void *arg);

/* Any thread: runs fn(arg) on the loop's thread later. -1 when memory is short. */
int loop_post(struct loop *l, void (*fn)(void *arg), void *arg);

#endif
