/* News from a migration's threads to its owner: see news.h. */
#include "migrate/news.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/wake.h"

static void on_news(void *arg, uint32_t events)
{
	(void)events;
	news_deliver(arg);
}

int news_init(struct news *n, struct loop *loop,
	      void (*deliver)(void *arg, const struct news_item *item), void *arg, struct err *e)
{
	*n = (struct news){ .deliver = deliver, .arg = arg, .loop = loop };
	n->watch = (struct loop_watch){ .fn = on_news, .arg = n };
	if (wake_init(&n->watch.fd, e))
		return -1;
	if (loop_add(loop, &n->watch, EPOLLIN, e)) {
		wake_free(&n->watch.fd);
		return -1;
	}
	pthread_mutex_init(&n->lock, NULL);
	return 0;
}

static void post(struct news *n, const struct news_item *item, unsigned int max)
{
	pthread_mutex_lock(&n->lock);
	if (n->n < max)
		n->item[n->n++] = *item;
	pthread_mutex_unlock(&n->lock);
	wake_signal(n->watch.fd);
}

void news_post_status(struct news *n, enum phase s)
{
	post(n, &(struct news_item){ .is_status = true, .status = s }, NEWS_MAX);
}

void news_post_decision(struct news *n, enum decision d, const char *reason)
{
	struct news_item item = { .decision = d };

	snprintf(item.reason, sizeof(item.reason), "%s", reason);
	post(n, &item, NEWS_MAX - NEWS_STATUSES);
}

static bool take(struct news *n, struct news_item *out)
{
	bool any;

	pthread_mutex_lock(&n->lock);
	any = n->n > 0;
	if (any) {
		*out = n->item[0];
		memmove(n->item, n->item + 1, --n->n * sizeof(n->item[0]));
	}
	pthread_mutex_unlock(&n->lock);
	return any;
}

void news_deliver(struct news *n)
{
	struct news_item item;

	wake_drain(n->watch.fd);
	while (take(n, &item))
		n->deliver(n->arg, &item);
}

void news_free(struct news *n)
{
	loop_remove(n->loop, &n->watch);
	wake_free(&n->watch.fd);
	pthread_mutex_destroy(&n->lock);
}
