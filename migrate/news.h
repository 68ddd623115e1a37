/*
 * What the threads of a migration tell its owner without waiting for it. A guest that comes in is
 * told of like this: its owner may itself stand still until pages of the guest have come, so what
 * brings them must never wait for the owner.
 *
 * All of it is delivered on the owner's thread, in the order in which it was posted.
 */
#ifndef GODWIT_MIGRATE_NEWS_H
#define GODWIT_MIGRATE_NEWS_H

#include <pthread.h>
#include <stdbool.h>

#include "migrate/migration.h"
#include "vmm/loop.h"

struct err;

#define NEWS_MAX 16

/* Of these, some are kept for statuses: each migration has few, and none may be lost. */
#define NEWS_STATUSES 6

struct news_item {
	bool is_status; /* else a decision */
	enum phase status;
	enum decision decision;
	char reason[480];
};

struct news {
	void (*deliver)(void *arg, const struct news_item *item);
	void *arg;
	struct loop *loop;
	struct loop_watch watch; /* an eventfd: there is something */

	pthread_mutex_t lock;
	struct news_item item[NEWS_MAX]; /* under lock, oldest first: n of them */
	unsigned int n;
};

/* Owner's thread: `deliver` is called there as the loop goes on. -1: nothing is to be freed. */
int news_init(struct news *n, struct loop *loop,
	      void (*deliver)(void *arg, const struct news_item *item), void *arg, struct err *e);

/* Any thread. They copy, and wait for nobody. A decision is lost if too many wait already. */
void news_post_status(struct news *n, enum phase s);
void news_post_decision(struct news *n, enum decision d, const char *reason);

/* Owner's thread: delivers now whatever was posted before. */
void news_deliver(struct news *n);

/* Owner's thread: what was not delivered is dropped. */
void news_free(struct news *n);

#endif
