/*
 * The reader is the only one who reads from the channel. It stops at the first record that no
 * engine can have asked for, and when the queue is full: a hostile peer fills no memory.
 */
#include "migrate/source/answers.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "migrate/stream/hello.h"
#include "vmm/base/clock.h"
#include "vmm/base/wake.h"

/* -- the reader's thread -- */

/* Under the lock. */
static void put_answer(struct answers *a, const struct record *r)
{
	struct answer *to = &a->queue[(a->at + a->n++) % ANSWERS_MAX];

	to->record = *r;
	to->record.body = NULL;
	if (to->record.body_bytes > ANSWERS_BODY_BYTES)
		to->record.body_bytes = ANSWERS_BODY_BYTES;
	memcpy(to->body, r->body, to->record.body_bytes);
}

static void *answers_thread(void *arg)
{
	struct answers *a = arg;
	struct record r;
	struct err e;
	bool over;

	do {
		int rc = reader_record(&a->reader, &r, &e);

		pthread_mutex_lock(&a->lock);
		if (rc == 0 && a->n == ANSWERS_MAX)
			rc = err_set(&e, "%s: more records than were asked for", a->channel->name);
		else if (rc == 0)
			put_answer(a, &r);
		/* Bulk data, which nobody here takes, would be read as the next record. */
		if (rc == 0 && r.data_bytes)
			rc = err_set(&e, "%s: a %s record with data", a->channel->name,
				     record_name(r.type));
		over = rc != 0;
		if (over) {
			a->over = true;
			a->why = e;
		}
		pthread_mutex_unlock(&a->lock);
		wake_signal(a->wake_fd);
	} while (!over);
	return NULL;
}

/* -- the engine's thread -- */

int answers_begin(struct answers *a, struct channel *channel, int stop_fd, struct err *e)
{
	int rc;

	*a = (struct answers){ .channel = channel, .stop_fd = stop_fd, .wake_fd = -1 };
	pthread_mutex_init(&a->lock, NULL);
	if (!channel)
		return 0;
	a->reader = (struct reader){ .channel = channel, .answers = true };
	if (wake_init(&a->wake_fd, e))
		return -1;
	channel_read_apart(channel);
	rc = pthread_create(&a->thread, NULL, answers_thread, a);
	if (rc)
		return err_errno(e, rc, "cannot start a thread");
	a->started = true;
	pthread_setname_np(a->thread, "migrate-answers");
	return 0;
}

void answers_end(struct answers *a)
{
	if (a->started) {
		channel_end_reads(a->channel);
		pthread_join(a->thread, NULL);
	}
	a->started = false;
	reader_free(&a->reader);
	wake_free(&a->wake_fd);
	pthread_mutex_destroy(&a->lock);
}

/* What there is: 1 a record in `taken`, 0 nothing yet, -1 the end. */
static int take_answer(struct answers *a, struct err *e)
{
	int rc = 0;

	if (!a->started)
		return 0;
	pthread_mutex_lock(&a->lock);
	/* Before the look, so that nothing comes unnoticed after it. */
	wake_drain(a->wake_fd);
	if (a->n) {
		a->taken = a->queue[a->at];
		a->taken.record.body = a->taken.body;
		a->at = (a->at + 1) % ANSWERS_MAX;
		a->n--;
		rc = 1;
	} else if (a->over) {
		if (e)
			*e = a->why;
		rc = -1;
	}
	pthread_mutex_unlock(&a->lock);
	return rc;
}

/* As take_answer, but waits for it; a cancel goes before what has come. 0: `timeout_ms` are over,
 * or `also_fd` is readable. */
static int await_answer(struct answers *a, int also_fd, int timeout_ms, struct err *e)
{
	struct pollfd fds[] = { { a->stop_fd, POLLIN, 0 },
				{ a->wake_fd, POLLIN, 0 },
				{ also_fd, POLLIN, 0 } };
	uint64_t end_us = clock_us() + (uint64_t)timeout_ms * 1000, now;
	int rc, left_ms;

	for (left_ms = 0;;) {
		rc = poll(fds, 3, left_ms);
		if (rc < 0 && errno != EINTR)
			return err_errno(e, errno, "cannot wait for the destination");
		if (rc > 0 && fds[0].revents)
			return err_set(e, "cancelled");
		now = clock_us();
		if ((rc = take_answer(a, e)) || now >= end_us || fds[2].revents)
			return rc;
		left_ms = end_us - now < INT_MAX * 1000ull ? (int)((end_us - now + 999) / 1000)
							   : INT_MAX;
	}
}

/* Sets the error if the destination says, in the record that was taken, that it cannot go on. */
static bool is_refusal(struct answers *a, struct err *e)
{
	const struct record *r = &a->taken.record;
	struct checked accepted;
	char text[400];

	if (r->type != RECORD_FAILED && (r->type != RECORD_CHECKED || checked_decode(r, &accepted)))
		return false;
	record_text(r, text, sizeof(text));
	a->refused = true;
	err_set(e,
		r->type == RECORD_CHECKED ? "the destination refuses: %s"
					  : "the destination gave up: %s",
		text);
	return true;
}

int answers_expect(struct answers *a, enum record_type type, int timeout_ms, struct record *out,
		   struct err *e)
{
	int rc = await_answer(a, -1, timeout_ms, e);

	if (rc < 0)
		return err_context(e, "waiting for %s", record_name((uint16_t)type));
	if (!rc)
		return 0;
	if (is_refusal(a, e))
		return -1;
	if (a->taken.record.type != type)
		return err_set(e, "%s: a %s record where %s was expected", a->channel->name,
			       record_name(a->taken.record.type), record_name((uint16_t)type));
	*out = a->taken.record;
	return 1;
}

bool answers_waiting(struct answers *a)
{
	bool yes;

	pthread_mutex_lock(&a->lock);
	yes = a->n || a->over;
	pthread_mutex_unlock(&a->lock);
	return yes;
}

int answers_poll(struct answers *a, int also_fd, int timeout_ms, struct err *e)
{
	int rc = await_answer(a, also_fd, timeout_ms, e);

	if (rc <= 0)
		return rc;
	if (is_refusal(a, e))
		return -1;
	return err_set(e, "%s: a %s record that was not asked for", a->channel->name,
		       record_name(a->taken.record.type));
}

bool answers_await_refusal(struct answers *a, int timeout_ms, struct err *e)
{
	uint64_t end_us = clock_us() + (uint64_t)timeout_ms * 1000, now;

	while ((now = clock_us()) < end_us &&
	       await_answer(a, -1, (int)((end_us - now + 999) / 1000), NULL) > 0)
		if (is_refusal(a, e))
			return true;
	return false;
}
