/*
 * A thread that waits while the loop runs: see await.h.
 */
#include "migrate/destination/await.h"

#include <pthread.h>
#include <stdbool.h>

#include "migrate/destination/destination.h"
#include "migrate/destination/door.h"
#include "vmm/base/err.h"
#include "vmm/loop.h"

struct wait {
	struct destination *destination;
	struct door *door;
	struct loop *loop;
	struct tree *machine;
	bool over; /* atomic */
	int rc;
	struct err *e;
};

static void *wait_thread(void *arg)
{
	struct wait *w = arg;

	w->rc = destination_accept(w->destination, w->door, -1, w->machine, w->e);
	__atomic_store_n(&w->over, true, __ATOMIC_RELEASE);
	loop_stop(w->loop);
	return NULL;
}

int await_source(struct destination *d, struct door *door, struct loop *loop, struct tree *machine,
		 struct err *e)
{
	struct wait w = { d, door, loop, machine, false, -1, e };
	pthread_t thread;
	int rc = pthread_create(&thread, NULL, wait_thread, &w);

	if (rc)
		return err_errno(e, rc, "cannot start a thread");
	pthread_setname_np(thread, "migrate-await");
	loop_run(loop);
	/* Not if the thread has ended by itself: the door may still be used. */
	if (!__atomic_load_n(&w.over, __ATOMIC_ACQUIRE))
		door_stop(door);
	pthread_join(thread, NULL);
	return w.rc;
}
