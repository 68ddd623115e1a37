/*
 * A stream over a connected socket: see channel.h. The socket is non-blocking; whoever has to wait
 * polls it together with the stop fd, so nobody hangs on a link that stalls.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/wake.h"

/* A link is given up when nothing comes back over it for so long: the other host, or the way to it,
 * is gone. */
#define SILENCE_MS 30000

/* The same when the other host is there, but the program there takes nothing. */
#define STALL_MS 120000

/* How often a wait looks at its deadline and at the link. */
#define LOOK_MS 1000

/* Read in one go, before it is looked whether to go on. */
#define READ_BYTES (4u << 20)

struct socket_channel {
	struct channel ch; /* first */
	int fd, stop_fd;
	int error; /* atomic: what the kernel said of the connection first; 0: nothing */
	int silence_ms, stall_ms;
	size_t unlooked; /* bytes read since it was looked whether to go on */
};

static int lost(struct socket_channel *s, int error, struct err *e)
{
	int first = __atomic_load_n(&s->error, __ATOMIC_RELAXED);

	/* The kernel says it once. If the reader heard it, the writer gets EPIPE, and the other way
	 * round. */
	if (error == EPIPE && first)
		error = first;
	else if (error != EPIPE)
		__atomic_store_n(&s->error, error, __ATOMIC_RELAXED);
	if (error == ETIMEDOUT)
		return err_set(e, "the other side has taken nothing for %d s", s->stall_ms / 1000);
	if (error == EPIPE || error == ECONNRESET)
		return err_set(e, "the other side closed the connection");
	return err_errno(e, error, "the connection failed");
}

/*
 * Whether the other host has been silent for too long. Linux counts against TCP_USER_TIMEOUT also
 * the time for which the other side has no room and says so, which is no silence: so that timeout
 * is the long one, and the short one is kept here. Something must be owed to us: data that were not
 * acknowledged, or more than one question for room.
 */
static bool is_silent(const struct socket_channel *s)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if (getsockopt(s->fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		return false;
	return (info.tcpi_unacked || info.tcpi_probes > 1) &&
	       info.tcpi_last_ack_recv >= (uint32_t)s->silence_ms;
}

/* Whether the stop fd and the deadline say nothing of a wait for `events`. */
static bool is_apart(const struct socket_channel *s, short events)
{
	return s->ch.read_apart && events & POLLIN;
}

static uint64_t deadline_of(const struct socket_channel *s, short events)
{
	return is_apart(s, events) ? 0 : __atomic_load_n(&s->ch.deadline_us, __ATOMIC_RELAXED);
}

/* What is left of `end_us` (0: for ever) and of the deadline, at most LOOK_MS. */
static int time_left(const struct socket_channel *s, short events, uint64_t end_us)
{
	uint64_t deadline_us = deadline_of(s, events);
	uint64_t now = clock_us(), left_ms;

	if (deadline_us && (!end_us || deadline_us < end_us))
		end_us = deadline_us;
	if (!end_us)
		return LOOK_MS;
	left_ms = end_us > now ? (end_us - now + 999) / 1000 : 0;
	return left_ms < LOOK_MS ? (int)left_ms : LOOK_MS;
}

/* Waits for `events`: 1, 0 at the timeout or deadline, -1 when stopped or when the link is lost. */
static int wait_for(struct socket_channel *s, short events, int timeout_ms, struct err *e)
{
	struct pollfd fds[2] = { { s->fd, events, 0 }, { -1, POLLIN, 0 } };
	uint64_t start = clock_us();
	uint64_t end_us = timeout_ms < 0 ? 0 : start + (uint64_t)timeout_ms * 1000;
	int n, left_ms;

	if (!is_apart(s, events))
		fds[1].fd = s->stop_fd;
	do {
		left_ms = time_left(s, events, end_us);
		n = poll(fds, 2, left_ms);
		if (n == 0 && left_ms && clock_us() - start >= (uint64_t)s->silence_ms * 1000 &&
		    is_silent(s))
			return err_set(e, "the other side has not answered for %d s",
				       s->silence_ms / 1000);
	} while ((n < 0 && errno == EINTR) || (n == 0 && time_left(s, events, end_us)));
	if (n < 0)
		return err_errno(e, errno, "cannot wait for the connection");
	if (n > 0 && fds[1].revents)
		return err_set(e, "cancelled");
	/* Both directions are always in use: who has closed one has gone, even if the kernel at
	 * the other end would let us wait for room for ever. */
	if (n > 0 && (fds[0].revents & (POLLRDHUP | POLLHUP | POLLERR)) == POLLRDHUP)
		return lost(s, EPIPE, e);
	return n > 0;
}

/* For a read or write that must go on: 0, or -1 also when that took too long. */
static int wait_on(struct socket_channel *s, short events, struct err *e)
{
	bool writes = events & POLLOUT;
	int rc = wait_for(s, events, writes ? s->stall_ms : -1, e);

	if (rc)
		return rc < 0 ? -1 : 0;
	return err_set(e, "the other side has %s in time",
		       writes ? "taken nothing" : "said nothing");
}

/* The same while data come so fast that there is never anything to wait for. */
static int check_in_passing(struct socket_channel *s, struct err *e)
{
	uint64_t deadline_us = __atomic_load_n(&s->ch.deadline_us, __ATOMIC_RELAXED);

	s->unlooked = 0;
	if (s->ch.read_apart)
		return 0;
	if (wake_nap(s->stop_fd, 0, e))
		return -1;
	if (deadline_us && clock_us() >= deadline_us)
		return err_set(e, "the other side took too long");
	return 0;
}

static int socket_write(struct channel *ch, struct iovec *iov, int n, struct err *e)
{
	struct socket_channel *s = (struct socket_channel *)ch;

	while (n > 0) {
		struct msghdr msg = { .msg_iov = iov,
				      .msg_iovlen = (size_t)(n < IOV_MAX ? n : IOV_MAX) };
		ssize_t done = sendmsg(s->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && errno == EAGAIN) {
			if (wait_on(s, POLLOUT | POLLRDHUP, e))
				return -1;
			continue;
		}
		if (done < 0)
			return lost(s, errno, e);
		ch->bytes += (uint64_t)done;
		while (n > 0 && (size_t)done >= iov->iov_len) {
			done -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n > 0) {
			iov->iov_base = (char *)iov->iov_base + done;
			iov->iov_len -= (size_t)done;
		}
	}
	return 0;
}

static int socket_read(struct channel *ch, void *buf, size_t len, struct err *e)
{
	struct socket_channel *s = (struct socket_channel *)ch;
	size_t got = 0;

	while (got < len) {
		ssize_t n = recv(s->fd, (char *)buf + got, len - got, MSG_DONTWAIT);

		if (n > 0) {
			got += (size_t)n;
			__atomic_add_fetch(&ch->received, (uint64_t)n, __ATOMIC_RELAXED);
			s->unlooked += (size_t)n;
			if (s->unlooked >= READ_BYTES && check_in_passing(s, e))
				return -1;
			continue;
		}
		if (n == 0)
			return lost(s, EPIPE, e);
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return lost(s, errno, e);
		if (wait_on(s, POLLIN, e))
			return -1;
	}
	return 0;
}

static int socket_wait(struct channel *ch, int timeout_ms, struct err *e)
{
	return wait_for((struct socket_channel *)ch, POLLIN, timeout_ms, e);
}

static void socket_set_stop(struct channel *ch, int stop_fd)
{
	((struct socket_channel *)ch)->stop_fd = stop_fd;
}

static void socket_shutdown(struct channel *ch, bool writes_too)
{
	shutdown(((struct socket_channel *)ch)->fd, writes_too ? SHUT_RDWR : SHUT_RD);
}

static void socket_close(struct channel *ch)
{
	struct socket_channel *s = (struct socket_channel *)ch;

	/* A descriptor that was given to us may be open elsewhere: the other side hears of the end.
	 */
	shutdown(s->fd, SHUT_RDWR);
	close(s->fd);
	free(s);
}

static const struct channel_ops socket_ops = {
	.write = socket_write,
	.read = socket_read,
	.wait = socket_wait,
	.set_stop = socket_set_stop,
	.shutdown = socket_shutdown,
	.close = socket_close,
};

/* Best effort: a unix socket has none of these. */
static void tune(const struct socket_channel *s)
{
	const int on = 1, idle_s = 10, interval_s = 5, probes = 4;

	setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(s->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(s->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(s->fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(s->fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(s->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &s->stall_ms, sizeof(s->stall_ms));
}

void socket_set_patience(struct channel *ch, int silence_ms, int stall_ms)
{
	struct socket_channel *s = (struct socket_channel *)ch;

	s->silence_ms = silence_ms;
	s->stall_ms = stall_ms;
	tune(s);
}

/* A unix socket, or a TCP connection whose two ends have one address. */
static bool is_same_host(int fd)
{
	struct sockaddr_storage here = { 0 }, there = { 0 };
	socklen_t here_len = sizeof(here), there_len = sizeof(there);

	if (getsockname(fd, (struct sockaddr *)&here, &here_len) ||
	    getpeername(fd, (struct sockaddr *)&there, &there_len) ||
	    here.ss_family != there.ss_family)
		return false;
	if (here.ss_family == AF_INET)
		return !memcmp(&((struct sockaddr_in *)&here)->sin_addr,
			       &((struct sockaddr_in *)&there)->sin_addr, sizeof(struct in_addr));
	if (here.ss_family == AF_INET6)
		return !memcmp(&((struct sockaddr_in6 *)&here)->sin6_addr,
			       &((struct sockaddr_in6 *)&there)->sin6_addr,
			       sizeof(struct in6_addr));
	return here.ss_family == AF_UNIX;
}

int socket_channel(struct channel **out, int fd, const char *name, int stop_fd, struct err *e)
{
	struct socket_channel *s = calloc(1, sizeof(*s));

	if (!s)
		return err_set(e, "out of memory");
	s->ch.ops = &socket_ops;
	s->ch.same_host = is_same_host(fd);
	s->fd = fd;
	s->stop_fd = stop_fd;
	snprintf(s->ch.name, sizeof(s->ch.name), "%s", name);
	socket_set_patience(&s->ch, SILENCE_MS, STALL_MS);
	*out = &s->ch;
	return 0;
}

int socket_channel_fd(const struct channel *ch)
{
	return ((const struct socket_channel *)ch)->fd;
}

void socket_channel_abandon(struct channel *ch)
{
	struct socket_channel *s = (struct socket_channel *)ch;

	close(s->fd);
	free(s);
}
