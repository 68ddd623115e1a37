/*
 * Accepting and hearing callers: see callers.h. A caller's thread reads only its own connection. It
 * ends when the caller has spoken, its time is up, it is sent away (its connection is shut down),
 * or all is stopped. Nothing that a caller does, and no lack of descriptors or memory, ends the
 * waiting for others.
 */
#include "migrate/destination/callers.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "migrate/channel/listeners.h"
#include "migrate/destination/answer_probe.h"
#include "migrate/destination/refusals.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/base/wake.h"

/* How long accepting pauses after it failed. Callers that wait would wake this thread at once. */
#define DEAF_US 200000u

void heard_dismiss(struct heard *h, const char *why)
{
	struct writer w = { .channel = h->reader.channel };

	if (why)
		writer_text(&w, RECORD_CHECKED, why, NULL);
	channel_close(h->reader.channel);
	reader_free(&h->reader);
	tree_free(&h->machine);
}

/* Reads all that the caller has to say. 0: it is one that callers_next returns. */
static int hear_out(struct caller *c)
{
	struct heard *h = &c->heard;

	if (hello_take(&h->reader, &h->hello, &c->why))
		return -1;
	if (c->all->in_arrival && h->hello.role != ROLE_MAIN)
		return 0;
	if (h->hello.role != ROLE_PROBE)
		return hello_take_machine(&h->reader, &h->hello, &h->machine, &c->why);
	c->probe = answer_probe(&h->reader, &c->why) == 0;
	return -1;
}

static void *hear(void *arg)
{
	struct caller *c = arg;

	c->rc = hear_out(c);
	pthread_mutex_lock(&c->all->lock);
	c->spoken = true;
	pthread_mutex_unlock(&c->all->lock);
	wake_signal(c->all->told_fd);
	return NULL;
}

/* A probe has had its CHECKED: no second one follows. */
static bool was_answered(const struct caller *c)
{
	return !c->all->in_arrival && c->heard.hello.role == ROLE_PROBE;
}

static bool has_spoken(struct caller *c)
{
	bool spoken;

	pthread_mutex_lock(&c->all->lock);
	spoken = c->spoken;
	pthread_mutex_unlock(&c->all->lock);
	return spoken;
}

/* Waits for the caller's thread. The slot is free then. */
static void let_go(struct caller *c)
{
	pthread_join(c->thread, NULL);
	c->there = false;
}

static void send_away(struct caller *c)
{
	bool spoken = has_spoken(c);

	if (!spoken)
		channel_shutdown(c->heard.reader.channel);
	let_go(c);
	heard_dismiss(&c->heard, spoken && !c->rc ? CALLERS_BUSY : NULL);
}

int callers_take(struct callers *cs, struct heard *out)
{
	for (unsigned int i = 0; i < CALLERS_MAX; i++) {
		struct caller *c = &cs->caller[i];

		if (!c->there || !has_spoken(c))
			continue;
		let_go(c);
		if (c->rc == 0) {
			*out = c->heard;
			channel_set_deadline(out->reader.channel, -1);
			return 0;
		}
		if (c->probe)
			log_verbose("a source has measured the link");
		else
			refusals_tell(cs->refusals,
				      "a connection that is no migration was closed: %s",
				      c->why.text);
		/* A peer that speaks in records is told why, for instance another version. */
		heard_dismiss(&c->heard,
			      c->heard.reader.sequence && !was_answered(c) ? c->why.text : NULL);
	}
	return 1;
}

/*
 * A free slot. If there is none, the caller that has been silent for longest loses its slot. NULL:
 * all callers have spoken just now, so they are to be taken first.
 */
static struct caller *find_slot(struct callers *cs)
{
	struct caller *oldest = NULL;

	for (unsigned int i = 0; i < CALLERS_MAX; i++) {
		struct caller *c = &cs->caller[i];

		if (!c->there)
			return c;
		if (!has_spoken(c) && (!oldest || c->since_us < oldest->since_us))
			oldest = c;
	}
	if (oldest) {
		send_away(oldest);
		refusals_tell(cs->refusals,
			      "a connection that said nothing was closed: too many others wait");
	}
	return oldest;
}

/*
 * Accepting failed for lack of something. If it was a descriptor, the spare one serves to accept
 * the peer and close it: it notices, and is not found waiting again at once. Otherwise accepting
 * pauses.
 */
static void turn_away(struct callers *cs, int listen_fd, int why)
{
	int fd = -1;

	if ((why == EMFILE || why == ENFILE) && cs->spare_fd >= 0) {
		close(cs->spare_fd);
		fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			close(fd);
		cs->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	refusals_tell(cs->refusals, "a connection cannot be accepted: %s", strerror(why));
	if (fd < 0)
		cs->deaf_until_us = clock_us() + DEAF_US;
}

/* Starts a thread for a connection. -1: there can be none, and the connection is closed. */
static int hear_one(struct callers *cs, struct caller *c, int fd, struct err *e)
{
	int rc;

	*c = (struct caller){ .all = cs, .since_us = clock_us() };
	if (socket_channel(&c->heard.reader.channel, fd, "source", cs->stop_fd, e)) {
		close(fd);
		return -1;
	}
	channel_set_deadline(c->heard.reader.channel, cs->hello_ms);
	rc = pthread_create(&c->thread, NULL, hear, c);
	if (rc) {
		heard_dismiss(&c->heard, NULL);
		return err_errno(e, rc, "cannot start a thread");
	}
	pthread_setname_np(c->thread, "migrate-hello");
	c->there = true;
	return 0;
}

/* Accepts the peer that has connected, if it is still there. */
static void let_in(struct callers *cs, int listen_fd)
{
	struct caller *c = find_slot(cs);
	struct err e;
	int fd;

	if (!c)
		return;
	fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	/* It has gone again, or another process has accepted it. */
	if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return;
	if (fd < 0) {
		turn_away(cs, listen_fd, errno);
	} else if (hear_one(cs, c, fd, &e)) {
		refusals_tell(cs->refusals, "a connection was closed unheard: %s", e.text);
		cs->deaf_until_us = clock_us() + DEAF_US;
	}
}

int callers_init(struct callers *cs, const struct listeners *listeners, struct refusals *refusals,
		 int stop_fd, int hello_ms, bool in_arrival, struct err *e)
{
	memset(cs, 0, sizeof(*cs));
	cs->listeners = listeners;
	cs->refusals = refusals;
	cs->stop_fd = stop_fd;
	cs->hello_ms = hello_ms;
	cs->in_arrival = in_arrival;
	if (wake_init(&cs->told_fd, e))
		return -1;
	cs->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	pthread_mutex_init(&cs->lock, NULL);
	return 0;
}

/* How long to wait: until `end_us`, and if `deaf` no longer than accepting pauses. */
static int wait_ms(const struct callers *cs, int timeout_ms, uint64_t end_us, bool deaf)
{
	uint64_t now = clock_us(), until = timeout_ms < 0 ? UINT64_MAX : end_us;

	if (deaf && cs->deaf_until_us < until)
		until = cs->deaf_until_us;
	if (until == UINT64_MAX)
		return -1;
	return now < until ? (int)((until - now + 999) / 1000) : 0;
}

/* Waits until a caller has spoken, a peer wants to be accepted, or all is stopped (-1). */
static int wait_for_news(struct callers *cs, int timeout_ms, uint64_t end_us, struct err *e)
{
	struct pollfd fds[2 + LISTENERS_MAX] = { { cs->told_fd, POLLIN, 0 },
						 { cs->stop_fd, POLLIN, 0 } };
	bool deaf = cs->deaf_until_us > clock_us();
	unsigned int n = 2, i;
	int rc;

	for (i = 0; i < cs->listeners->n && !deaf; i++)
		fds[n++] = (struct pollfd){ cs->listeners->fd[i], POLLIN, 0 };
	rc = poll(fds, n, wait_ms(cs, timeout_ms, end_us, deaf));
	if (rc < 0 && errno != EINTR)
		return err_errno(e, errno, "cannot wait for a connection");
	if (rc > 0 && fds[1].revents)
		return err_set(e, "cancelled");
	if (rc > 0 && fds[0].revents)
		wake_drain(cs->told_fd);
	for (i = 2; rc > 0 && i < n; i++)
		if (fds[i].revents)
			let_in(cs, fds[i].fd);
	return 0;
}

int callers_next(struct callers *cs, int timeout_ms, struct heard *out, struct err *e)
{
	uint64_t end_us = clock_us() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * 1000;

	while (callers_take(cs, out)) {
		if (timeout_ms >= 0 && clock_us() >= end_us) {
			err_set(e, "none came in time");
			return 1;
		}
		if (wait_for_news(cs, timeout_ms, end_us, e))
			return -1;
	}
	return 0;
}

void callers_free(struct callers *cs)
{
	for (unsigned int i = 0; i < CALLERS_MAX; i++)
		if (cs->caller[i].there)
			send_away(&cs->caller[i]);
	wake_free(&cs->told_fd);
	if (cs->spare_fd >= 0)
		close(cs->spare_fd);
	pthread_mutex_destroy(&cs->lock);
}
