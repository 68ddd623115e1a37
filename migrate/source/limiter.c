/* The limiter sleeps in short naps, since the rate may change meanwhile. */
#include "migrate/source/limiter.h"

#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/base/wake.h"

/* The longest sleep without a look at the rate. */
#define NAP_US 50000u

void limiter_init(struct limiter *l, const uint64_t *bandwidth, const bool *force, int stop_fd)
{
	*l = (struct limiter){ .bandwidth = bandwidth, .force = force, .stop_fd = stop_fd };
	pthread_mutex_init(&l->lock, NULL);
}

void limiter_free(struct limiter *l)
{
	pthread_mutex_destroy(&l->lock);
}

void limiter_end(struct limiter *l)
{
	__atomic_store_n(&l->ended, true, __ATOMIC_RELAXED);
}

uint64_t limiter_rate(const struct limiter *l)
{
	if (__atomic_load_n(l->force, __ATOMIC_RELAXED))
		return 0;
	return __atomic_load_n(l->bandwidth, __ATOMIC_RELAXED);
}

int limiter_wait(struct limiter *l, uint64_t bytes, struct err *e)
{
	uint64_t rate = limiter_rate(l), now = clock_us(), wait, until;

	pthread_mutex_lock(&l->lock);
	wait = pace_take(&l->pace, now, rate, bytes);
	pthread_mutex_unlock(&l->lock);
	for (until = now + wait; now < until; now = clock_us()) {
		uint64_t actual = limiter_rate(l);

		if (__atomic_load_n(&l->ended, __ATOMIC_RELAXED))
			return err_set(e, "another connection has failed");
		if (!actual || actual > rate)
			until = now + pace_rescale(until - now, rate, actual);
		rate = actual;
		if (wake_nap(l->stop_fd, min_u64(until - now, NAP_US), e))
			return -1;
	}
	return 0;
}
