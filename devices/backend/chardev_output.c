/*
 * The output of a character stream: see chardev.h. Any thread puts bytes into the ring, under
 * `lock`; the I/O thread writes them. Invariant: the bytes in the ring are the newest that were put
 * and not yet written; unless the ring is lossy, all of those.
 *
 * The ring of a console is lossy while it has no client, so that the next one gets what it missed;
 * and from when its reader has stood still for a while with a full ring, until that reader has
 * caught up: a guest that waits for its serial port uses a whole processor for it.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "devices/backend/chardev_internal.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/device.h"

#define PIECE_BYTES	  (8u << 10)  /* written at once */
#define OUTPUT_BYTES	  (64u << 10) /* written before other fds have their turn */
#define STALL_MS	  1000	      /* then a console's reader does not hold the guest up */
#define CLOSE_PATIENCE_MS 1000	      /* how long it may stand still while the rest is written */
#define CLOSE_WAIT_MS	  10000	      /* and how long all of that may take */

enum write_end { WRITE_ALL, WRITE_WAITS, WRITE_MORE };

/* ---- into the ring; lock held ---- */

static uint32_t used(const struct chardev *c)
{
	return c->head - c->tail;
}

/* A console's output that nobody takes now is kept for its next client. */
static bool keeps_output(const struct chardev *c)
{
	return c->kind == CHARDEV_UNIX && c->ops->is_console;
}

/* Makes room by dropping the oldest bytes; `len` is at most a ring's. */
static void push_out(struct chardev *c, size_t len)
{
	size_t room = CHARDEV_RING_BYTES - used(c);

	if (len <= room)
		return;
	c->tail += (uint32_t)(len - room);
	c->cut = true;
	if (c->out_open)
		c->lost += len - room;
}

static void copy_in(struct chardev *c, const uint8_t *bytes, size_t len)
{
	uint32_t at = c->head % CHARDEV_RING_BYTES;
	size_t first = CHARDEV_RING_BYTES - at;

	if (first > len)
		first = len;
	memcpy(c->ring + at, bytes, first);
	memcpy(c->ring, bytes + first, len - first);
	c->head += (uint32_t)len;
}

size_t chardev_put(struct chardev *c, const void *bytes, size_t len)
{
	bool need_wake, newly_full = false;
	const uint8_t *from = bytes;
	size_t n = len, room;

	if (c->kind == CHARDEV_NULL || !len)
		return len;
	pthread_mutex_lock(&c->lock);
	if (!c->out_open && !keeps_output(c)) {
		pthread_mutex_unlock(&c->lock);
		return len;
	}
	room = CHARDEV_RING_BYTES - used(c);
	if (n > room && !c->lossy) {
		len = n = room;
		newly_full = !c->full;
		c->full = true;
	} else if (n > CHARDEV_RING_BYTES) {
		if (c->out_open)
			c->lost += n - CHARDEV_RING_BYTES;
		from += n - CHARDEV_RING_BYTES;
		n = CHARDEV_RING_BYTES;
	}
	push_out(c, n);
	copy_in(c, from, n);
	/* That it is full is told at once: the time of who stands still begins. */
	need_wake = c->out_open && !c->woken && (!c->out_waits || newly_full);
	if (need_wake)
		c->woken = true;
	pthread_mutex_unlock(&c->lock);
	if (need_wake)
		chardev_wake(c);
	return len;
}

/* ---- out of the ring; I/O thread ---- */

/* Copies the oldest bytes, which may be pushed out meanwhile; `at` is where they begin. */
static size_t oldest(struct chardev *c, uint8_t bytes[PIECE_BYTES], uint32_t *at)
{
	size_t len, first;

	pthread_mutex_lock(&c->lock);
	*at = c->tail;
	len = used(c) < PIECE_BYTES ? used(c) : PIECE_BYTES;
	first = CHARDEV_RING_BYTES - c->tail % CHARDEV_RING_BYTES;
	if (first > len)
		first = len;
	memcpy(bytes, c->ring + c->tail % CHARDEV_RING_BYTES, first);
	memcpy(bytes + first, c->ring, len - first);
	pthread_mutex_unlock(&c->lock);
	return len;
}

static void written(struct chardev *c, uint32_t at, size_t n)
{
	pthread_mutex_lock(&c->lock);
	if ((int32_t)(at + (uint32_t)n - c->tail) > 0) {
		c->tail = at + (uint32_t)n;
		c->cut = false;
	}
	pthread_mutex_unlock(&c->lock);
}

static void say_lost(struct chardev *c)
{
	uint64_t lost;

	pthread_mutex_lock(&c->lock);
	lost = c->lost;
	c->lost = 0;
	pthread_mutex_unlock(&c->lock);
	if (lost)
		log_warn("%s: %llu bytes of the guest's output are lost: nobody has read them",
			 c->name, (unsigned long long)lost);
}

void chardev_output_begin(struct chardev *c)
{
	uint32_t at;

	pthread_mutex_lock(&c->lock);
	for (at = c->tail; c->cut && at != c->head; at++) {
		if (c->ring[at % CHARDEV_RING_BYTES] != '\n')
			continue;
		c->tail = at + 1;
		break;
	}
	c->cut = c->lossy = false;
	c->out_open = c->woken = true;
	pthread_mutex_unlock(&c->lock);
	chardev_wake(c);
}

void chardev_output_end(struct chardev *c)
{
	pthread_mutex_lock(&c->lock);
	c->out_open = c->out_waits = false;
	if (keeps_output(c))
		c->lossy = true;
	else
		c->tail = c->head;
	pthread_mutex_unlock(&c->lock);
	loop_remove(c->env->io, &c->out);
	say_lost(c);
}

/* A disk may have room again later; a reader or a terminal that left does not come back. */
static void fail_output(struct chardev *c, int why)
{
	bool gone = why == EPIPE || (why == EIO && c->out_terminal) || c->kind == CHARDEV_UNIX;

	if (c->kind != CHARDEV_UNIX && !c->failing_logged)
		log_warn("%s: output of the guest is lost: %s", c->name, strerror(why));
	c->failing_logged = true;
	if (gone) {
		chardev_output_end(c);
		return;
	}
	pthread_mutex_lock(&c->lock);
	c->tail = c->head;
	pthread_mutex_unlock(&c->lock);
}

/* `total` is what was written. */
static enum write_end write_out(struct chardev *c, size_t *total)
{
	uint8_t bytes[PIECE_BYTES];
	uint32_t at;
	size_t len;

	for (*total = 0; (len = oldest(c, bytes, &at)) > 0;) {
		ssize_t n;

		if (*total >= OUTPUT_BYTES)
			return WRITE_MORE;
		n = output_write(c->out.fd, c->output_mode, bytes, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0 || (n < 0 && errno == EAGAIN))
			return WRITE_WAITS;
		if (n < 0) {
			fail_output(c, errno);
			return WRITE_ALL;
		}
		written(c, at, (size_t)n);
		*total += (size_t)n;
	}
	return WRITE_ALL;
}

/* Tells the guest's side that there is room, if it waits for it and there is enough to matter. */
void chardev_offer_room(struct chardev *c)
{
	bool tell;

	if (c->paused)
		return;
	pthread_mutex_lock(&c->lock);
	tell = c->full && (c->lossy || used(c) <= CHARDEV_RING_BYTES / 2);
	if (tell)
		c->full = false;
	pthread_mutex_unlock(&c->lock);
	if (tell)
		c->ops->writable(c->arg);
}

/* ---- readers that stand still; I/O thread ---- */

static void time_stall(struct chardev *c, bool on)
{
	struct itimerspec in = { .it_value.tv_sec = on ? STALL_MS / 1000 : 0 };

	if (c->stall_watch.fd < 0 || (!on && !c->stall_timed))
		return;
	timerfd_settime(c->stall_watch.fd, 0, &in, NULL);
	c->stall_timed = on;
}

/* The reader has caught up: nothing is pushed out any more. */
static void end_stall(struct chardev *c)
{
	bool ends;

	pthread_mutex_lock(&c->lock);
	ends = c->lossy && c->out_open && used(c) <= CHARDEV_RING_BYTES / 2;
	if (ends)
		c->lossy = false;
	pthread_mutex_unlock(&c->lock);
	if (ends)
		say_lost(c);
}

void chardev_stalled(void *arg, uint32_t events)
{
	struct chardev *c = arg;
	uint64_t n;
	uint32_t before;
	bool stalled;

	(void)events;
	if (read(c->stall_watch.fd, &n, sizeof(n)) < 0)
		return;
	c->stall_timed = false;
	pthread_mutex_lock(&c->lock);
	before = c->tail;
	pthread_mutex_unlock(&c->lock);
	/* A last time: what cannot be watched is asked so. */
	chardev_drain(c);
	/* The ring need not be full any more: the reader may have taken a little after it was, and
	 * the guest is not told of room before half of the ring is free. */
	pthread_mutex_lock(&c->lock);
	stalled = c->full && c->out_open && c->tail == before;
	if (stalled)
		c->lossy = true;
	pthread_mutex_unlock(&c->lock);
	if (!stalled)
		return;
	log_warn("%s: its reader stands still; until it has caught up, output of the guest is lost",
		 c->name);
	chardev_offer_room(c);
}

void chardev_drain(struct chardev *c)
{
	enum write_end end;
	bool again, full;
	size_t total;

	if (c->out.fd >= 0) {
		end = write_out(c, &total);
		if (end != WRITE_WAITS)
			loop_remove(c->env->io, &c->out);
		else
			(void)loop_add(c->env->io, &c->out, EPOLLOUT, NULL);
		pthread_mutex_lock(&c->lock);
		c->out_waits = end == WRITE_WAITS;
		/* Also what was put while the ring was empty and out_waits still stood. */
		again = end == WRITE_MORE || (end == WRITE_ALL && c->out_open && used(c));
		full = c->full && !c->lossy;
		pthread_mutex_unlock(&c->lock);
		if (again)
			chardev_wake(c);
		/* From when it took the last byte. */
		if (end != WRITE_WAITS || (!full && c->out.added))
			time_stall(c, false);
		else if (total || !c->stall_timed)
			time_stall(c, c->ops->is_console);
		if (total)
			end_stall(c);
	}
	chardev_offer_room(c);
}

void chardev_output_ready(void *arg, uint32_t events)
{
	(void)events;
	chardev_drain(arg);
}

void chardev_write_rest(struct chardev *c)
{
	struct pollfd p = { .fd = c->out.fd, .events = POLLOUT };
	uint64_t end_us = clock_us() + CLOSE_WAIT_MS * 1000ull;
	int patience = c->lossy ? 0 : CLOSE_PATIENCE_MS;
	enum write_end end;
	size_t total;

	while (c->out.fd >= 0 && (end = write_out(c, &total)) != WRITE_ALL)
		if (clock_us() >= end_us || (end == WRITE_WAITS && poll(&p, 1, patience) <= 0))
			break;
	if (c->out.fd >= 0 && c->out_open)
		c->lost += used(c);
	say_lost(c);
}
