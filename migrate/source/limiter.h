/*
 * The bandwidth limit of a migration, for all its lanes together. It may change at any time.
 */
#ifndef GODWIT_MIGRATE_SOURCE_LIMITER_H
#define GODWIT_MIGRATE_SOURCE_LIMITER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/channel/pace.h"

struct err;

struct limiter {
	/* Set by limiter_init. */
	const uint64_t *bandwidth; /* atomic: bytes a second, 0: no limit */
	const bool *force;	   /* atomic: the guest is parked by force, without any limit */
	int stop_fd;		   /* set: waits fail with "cancelled"; -1: never */

	bool ended;	      /* atomic: all waits fail */
	pthread_mutex_t lock; /* of `pace` */
	struct pace pace;
};

void limiter_init(struct limiter *l, const uint64_t *bandwidth, const bool *force, int stop_fd);
void limiter_free(struct limiter *l);

/* Makes all waits fail, now and later. Any thread. */
void limiter_end(struct limiter *l);

/* Bytes a second that may go now; 0: no limit. Any thread. */
uint64_t limiter_rate(const struct limiter *l);

/* Sleeps until `bytes` more may go. -1: cancelled or ended. Any thread. */
int limiter_wait(struct limiter *l, uint64_t bytes, struct err *e);

#endif
