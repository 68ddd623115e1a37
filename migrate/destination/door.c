/*
 * Sources that come in, wait and are passed on: see door.h.
 */
#include "migrate/destination/door.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "migrate/channel/listeners.h"
#include "migrate/stream/hello.h"
#include "migrate/destination/refusals.h"
#include "vmm/base/clock.h"
#include "vmm/base/io.h"
#include "vmm/base/wake.h"

/* Interval of looks whether bytes of the arrival have come. */
#define LOOK_MS 500

void door_init(struct door *d, const struct door_shared *shared, int silence_ms)
{
	*d = (struct door){ .shared = *shared,
			    .silence_ms = silence_ms,
			    .contended_ms = silence_ms < DOOR_CONTENDED_MS ? silence_ms
									   : DOOR_CONTENDED_MS,
			    .end_fd = -1 };
}

/* -- from one process to the next -- */

/*
 * One source is one message: HELLO, the number of its next record, and two descriptors, its
 * connection and a file with its machine. It stays in the passage when this process ends.
 */
struct passed {
	struct hello hello;
	uint64_t sequence, bytes;
	uint64_t machine_bytes;
};

int door_make_passage(int passed_on[2], struct err *e)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, passed_on))
		return err_errno(e, errno, "cannot make a pair of sockets");
	return 0;
}

static void pass_one(const struct door *d, struct heard *h)
{
	struct passed p = { .hello = h->hello,
			    .sequence = h->reader.sequence,
			    .bytes = h->reader.bytes,
			    .machine_bytes = tree_bytes_used(&h->machine) };
	union {
		char space[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { &p, sizeof(p) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	int fds[2] = { socket_channel_fd(h->reader.channel), memfd_create("machine", MFD_CLOEXEC) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	ssize_t n = -1;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	if (fds[1] >= 0 && !io_write_full(fds[1], h->machine.fdt, p.machine_bytes))
		n = sendmsg(d->shared.passed_on[1], &msg, MSG_NOSIGNAL);
	if (fds[1] >= 0)
		close(fds[1]);
	/* The connection lives on in the message: it is closed here, not shut down. */
	if (n == sizeof(p))
		socket_channel_abandon(h->reader.channel);
	else
		channel_close(h->reader.channel);
	reader_free(&h->reader);
	tree_free(&h->machine);
}

static int read_machine(int fd, const struct passed *p, struct tree *t)
{
	uint8_t *bytes = p->machine_bytes <= TREE_BYTES_MAX ? malloc(p->machine_bytes + 1) : NULL;
	int rc = -1;

	if (bytes && io_pread_full(fd, bytes, p->machine_bytes, 0) == (ssize_t)p->machine_bytes)
		rc = tree_copy(t, bytes, p->machine_bytes, NULL);
	free(bytes);
	return rc;
}

/* A source that an earlier process has passed on: 0, 1 if there is none, -1 if it is of no use. */
static int take_one(const struct door *d, struct heard *out, int stop_fd)
{
	struct passed p;
	union {
		char space[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { &p, sizeof(p) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(d->shared.passed_on[0], &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);
	int fds[2], rc;

	if (!c)
		return 1;
	if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
	    c->cmsg_len != CMSG_LEN(sizeof(fds)))
		return -1;
	memcpy(fds, CMSG_DATA(c), sizeof(fds));
	*out = (struct heard){ .hello = p.hello,
			       .reader = { .sequence = p.sequence, .bytes = p.bytes } };
	rc = n == sizeof(p) && p.hello.role == ROLE_MAIN && p.hello.lanes &&
			     p.hello.lanes <= LANES_MAX
		     ? read_machine(fds[1], &p, &out->machine)
		     : -1;
	close(fds[1]);
	if (!rc && !socket_channel(&out->reader.channel, fds[0], "source", stop_fd, NULL))
		return 0;
	tree_free(&out->machine);
	close(fds[0]);
	return -1;
}

/* -- waiting for a migration -- */

static void keep_waiting(struct door *d, struct heard *h)
{
	if (d->n_waiting == DOOR_WAITING_MAX)
		heard_dismiss(h, CALLERS_BUSY);
	else
		d->waiting[d->n_waiting++] = *h;
}

static int start_hearing(struct door *d, int stop_fd, int hello_ms, bool in_arrival, struct err *e)
{
	if (callers_init(&d->callers, d->shared.listeners, d->shared.refusals, stop_fd, hello_ms,
			 in_arrival, e))
		return -1;
	d->open = true;
	for (unsigned int i = 0; i < d->n_waiting; i++)
		channel_set_stop(d->waiting[i].reader.channel, stop_fd);
	return 0;
}

int door_open(struct door *d, struct err *e)
{
	struct heard h;
	int rc;

	if (wake_init(&d->end_fd, e))
		return -1;
	while ((rc = take_one(d, &h, d->end_fd)) <= 0)
		if (rc == 0)
			keep_waiting(d, &h);
	return start_hearing(d, d->end_fd, DOOR_HELLO_MS, false, e);
}

void door_stop(struct door *d)
{
	wake_signal(d->end_fd);
}

int door_next(struct door *d, struct heard *out, struct err *e)
{
	if (d->n_waiting) {
		*out = d->waiting[0];
		d->n_waiting--;
		memmove(d->waiting, d->waiting + 1, d->n_waiting * sizeof(d->waiting[0]));
		return 0;
	}
	return callers_next(&d->callers, -1, out, e) ? -1 : 0;
}

void door_shut(struct door *d)
{
	struct heard h;

	if (!d->open)
		return;
	d->open = false;
	while (callers_take(&d->callers, &h) == 0) {
		if (h.hello.role == ROLE_MAIN)
			keep_waiting(d, &h);
		else
			heard_dismiss(&h, NULL);
	}
	callers_free(&d->callers);
	/* The descriptor that stops them goes. */
	for (unsigned int i = 0; i < d->n_waiting; i++)
		channel_set_stop(d->waiting[i].reader.channel, -1);
	if (d->end_fd >= 0)
		close(d->end_fd);
	d->end_fd = -1;
}

/* -- an arrival -- */

int door_enter(struct door *d, int stop_fd, int hello_ms, struct err *e)
{
	return start_hearing(d, stop_fd, hello_ms, true, e);
}

int door_lane(struct door *d, const uint8_t id[16], uint64_t deadline_us, struct heard *out,
	      struct err *e)
{
	uint64_t now;

	for (;;) {
		now = clock_us();
		if (callers_next(&d->callers,
				 now < deadline_us ? (int)((deadline_us - now) / 1000) : 0, out, e))
			return -1;
		if (out->hello.role == ROLE_PAGES && !memcmp(out->hello.id, id, 16))
			return 0;
		if (out->hello.role == ROLE_MAIN) {
			keep_waiting(d, out);
			continue;
		}
		heard_dismiss(out, out->hello.role != ROLE_PAGES ? CALLERS_BUSY : NULL);
		refusals_tell(d->shared.refusals,
			      "a connection that is none of this migration was closed");
	}
}

static void send_waiting_away(struct door *d)
{
	while (d->n_waiting)
		heard_dismiss(&d->waiting[--d->n_waiting], CALLERS_BUSY);
}

/*
 * Looks whether bytes have come since the last look. If so the source is at work, and sources that
 * wait are sent away. If none have come for too long, the arrival is given up. While another source
 * waits a few bytes are not enough: DOOR_WORK_BYTES must come.
 */
static void look(struct door *d)
{
	uint64_t now = clock_us(), bytes = d->arrival.received(d->arrival.arg), silent_us;
	uint64_t limit_ms = (uint64_t)(d->n_waiting ? d->contended_ms : d->silence_ms);
	char why[120];

	if (bytes - d->bytes >= (d->n_waiting ? DOOR_WORK_BYTES : 1u)) {
		d->bytes = bytes;
		d->since_us = now;
		send_waiting_away(d);
		return;
	}
	silent_us = now - d->since_us;
	if (silent_us < limit_ms * 1000)
		return;
	snprintf(why, sizeof(why), "the source has sent %s for %u s%s",
		 bytes == d->bytes ? "nothing" : "next to nothing",
		 (unsigned int)(silent_us / 1000000),
		 d->n_waiting ? ", and another one waits" : "");
	d->arrival.give_up(d->arrival.arg, why);
	d->since_us = now;
}

static void *watch(void *arg)
{
	struct door *d = arg;
	struct heard h;
	int rc;

	while ((rc = callers_next(&d->callers, LOOK_MS, &h, NULL)) >= 0) {
		/* First the look, then the caller: only bytes that come after it send it away. The
		 * source may just have gone. */
		look(d);
		if (rc == 0 && h.hello.role == ROLE_MAIN)
			keep_waiting(d, &h);
		else if (rc == 0)
			heard_dismiss(&h, h.hello.role == ROLE_PROBE ? CALLERS_BUSY : NULL);
	}
	return NULL;
}

int door_watch(struct door *d, const struct door_arrival *arrival, struct err *e)
{
	int rc;

	d->arrival = *arrival;
	d->bytes = arrival->received(arrival->arg);
	d->since_us = clock_us();
	if (wake_init(&d->end_fd, e))
		return -1;
	d->callers.stop_fd = d->end_fd;
	rc = pthread_create(&d->thread, NULL, watch, d);
	if (rc)
		return err_errno(e, rc, "cannot start a thread");
	pthread_setname_np(d->thread, "migrate-door");
	d->watching = true;
	return 0;
}

void door_unwatch(struct door *d)
{
	if (d->watching) {
		door_stop(d);
		pthread_join(d->thread, NULL);
	}
	d->watching = false;
	if (d->open && d->callers.in_arrival)
		door_shut(d);
}

void door_close(struct door *d)
{
	door_unwatch(d);
	door_shut(d);
	send_waiting_away(d);
}

void door_pass_on(struct door *d)
{
	door_unwatch(d);
	door_shut(d);
	for (unsigned int i = 0; i < d->n_waiting; i++)
		pass_one(d, &d->waiting[i]);
	d->n_waiting = 0;
}
