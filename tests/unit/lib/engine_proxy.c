/*
 * The proxy: see engine_proxy.h. A thread takes connections, two more for each pass records on.
 */
#include "tests/unit/lib/engine_proxy.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/stream/body.h"
#include "migrate/stream/hello.h"
#include "vmm/base/err.h"

#define PIECE 65536u

/* Under lock: nothing goes through any more. */
static void end_all(struct proxy *p)
{
	unsigned int i;

	p->over = true;
	for (i = 0; i < p->n_links; i++)
		shutdown(p->link[i].from, SHUT_RDWR);
}

static void cut(struct proxy *p)
{
	pthread_mutex_lock(&p->lock);
	p->struck = true;
	end_all(p);
	pthread_mutex_unlock(&p->lock);
}

static bool read_all(int fd, uint8_t *to, size_t len)
{
	while (len) {
		ssize_t n = recv(fd, to, len, 0);

		if (n <= 0)
			return false;
		to += n;
		len -= (size_t)n;
	}
	return true;
}

static bool write_all(int fd, const uint8_t *from, size_t len)
{
	while (len) {
		ssize_t n = send(fd, from, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		from += n;
		len -= (size_t)n;
	}
	return true;
}

/* Waits until the test is over. */
static void stall(struct proxy *p)
{
	struct pollfd fd = { p->stop_fd, POLLIN, 0 };

	poll(&fd, 1, -1);
}

static bool pass(struct proxy_link *l, uint64_t len)
{
	uint8_t piece[PIECE];

	while (len) {
		size_t n = len < sizeof(piece) ? (size_t)len : sizeof(piece);

		if (!read_all(l->from, piece, n) || !write_all(l->to, piece, n))
			return false;
		if (l->proxy->rate)
			usleep((useconds_t)(n * 1000000 / l->proxy->rate));
		len -= n;
	}
	return true;
}

/* Body, padding and data, of which the first bit is turned over. */
static bool pass_flipped(struct proxy_link *l, uint64_t rest, uint64_t data)
{
	uint8_t byte;

	if (!pass(l, rest - data) || !read_all(l->from, &byte, 1))
		return false;
	byte ^= 1;
	return write_all(l->to, &byte, 1) && pass(l, data - 1);
}

/* One record; false at the end. */
static bool pass_record(struct proxy_link *l)
{
	struct proxy *p = l->proxy;
	uint8_t head[RECORD_HEAD_BYTES];
	enum proxy_fault fault = PROXY_NONE;
	unsigned int n;
	uint64_t rest;
	bool last;

	if (!read_all(l->from, head, sizeof(head)))
		return false;
	rest = get_u32(head + 16) + (uint64_t)get_u32(head + 20) + get_u64(head + 24);
	pthread_mutex_lock(&p->lock);
	if (p->over || (p->struck && p->way == l->way && p->fault == PROXY_STALL))
		fault = PROXY_STALL;
	else if (!p->struck && p->way == l->way &&
		 (p->fault != PROXY_FLIP_DATA || get_u64(head + 24)) &&
		 (p->at_type ? p->at_type == head[0] : p->seen[l->way] == p->at))
		fault = p->fault;
	p->struck |= fault != PROXY_NONE;
	n = ++p->seen[l->way];
	p->bytes[l->way] += sizeof(head) + rest;
	p->go += head[0] == RECORD_GO && (fault == PROXY_NONE || fault == PROXY_FLIP);
	last = p->fault == PROXY_CUT && p->way == l->way && !p->at_type && n == p->at;
	pthread_mutex_unlock(&p->lock);
	switch (fault) {
	case PROXY_NONE:
		if (!write_all(l->to, head, sizeof(head)) || !pass(l, rest))
			return false;
		if (last)
			cut(p);
		return !last;
	case PROXY_FLIP:
		head[4] ^= 0x10;
		return write_all(l->to, head, sizeof(head)) && pass(l, rest);
	case PROXY_FLIP_DATA:
		return write_all(l->to, head, sizeof(head)) &&
		       pass_flipped(l, rest, get_u64(head + 24));
	case PROXY_CUT:
		cut(p);
		return false;
	case PROXY_CUT_IN:
	case PROXY_STALL_IN:
		if (rest < 2)
			write_all(l->to, head, sizeof(head) / 2);
		else if (write_all(l->to, head, sizeof(head)))
			pass(l, rest / 2);
		if (fault == PROXY_STALL_IN)
			stall(p);
		cut(p);
		return false;
	case PROXY_STALL:
		stall(p);
		return false;
	}
	return false;
}

static void *link_thread(void *arg)
{
	struct proxy_link *l = arg;

	while (pass_record(l))
		;
	shutdown(l->to, SHUT_WR);
	return NULL;
}

/* Under lock. */
static void add_link(struct proxy *p, enum proxy_way way, int from, int to)
{
	struct proxy_link *l = &p->link[p->n_links++];

	*l = (struct proxy_link){ .proxy = p, .way = way, .from = from, .to = to };
	if (pthread_create(&l->thread, NULL, link_thread, l))
		abort();
}

/* These threads are simpler with blocking sockets; with small buffers a stall is felt. */
static void tame(int fd)
{
	int size = 1 << 16;

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

/* The next connection; -1 when stopped. */
static int accept_one(const struct proxy *p)
{
	struct pollfd fds[2] = { { p->listeners.fd[0], POLLIN, 0 }, { p->stop_fd, POLLIN, 0 } };
	int fd = -1;

	while (fd < 0) {
		poll(fds, 2, -1);
		if (fds[1].revents)
			return -1;
		fd = accept4(p->listeners.fd[0], NULL, NULL, SOCK_CLOEXEC);
	}
	return fd;
}

static void *accept_thread(void *arg)
{
	struct proxy *p = arg;

	for (;;) {
		int from = accept_one(p), to;

		if (from < 0)
			return NULL;
		to = uri_connect(&p->destination, NULL, -1, NULL);
		tame(from);
		tame(to);
		pthread_mutex_lock(&p->lock);
		if (to < 0 || p->over || p->n_links + 2 > PROXY_LINKS) {
			close(from);
			if (to >= 0)
				close(to);
		} else {
			add_link(p, PROXY_THERE, from, to);
			add_link(p, PROXY_BACK, to, from);
		}
		pthread_mutex_unlock(&p->lock);
	}
}

void proxy_start(struct proxy *p)
{
	struct uri any;
	char name[300];

	uri_parse("tcp:127.0.0.1:0", &any, NULL);
	int rc = listeners_open(&p->listeners, &any, name, sizeof(name), NULL);
	p->stop_fd = eventfd(0, EFD_CLOEXEC);
	pthread_mutex_init(&p->lock, NULL);
	if (rc || p->stop_fd < 0 || uri_parse(name, &p->uri, NULL) ||
	    pthread_create(&p->thread, NULL, accept_thread, p))
		abort();
}

unsigned int proxy_seen(struct proxy *p, enum proxy_way way)
{
	unsigned int n;

	pthread_mutex_lock(&p->lock);
	n = p->seen[way];
	pthread_mutex_unlock(&p->lock);
	return n;
}

bool proxy_struck(struct proxy *p)
{
	bool yes;

	pthread_mutex_lock(&p->lock);
	yes = p->struck;
	pthread_mutex_unlock(&p->lock);
	return yes;
}

void proxy_stop(struct proxy *p)
{
	uint64_t one = 1;
	unsigned int i;

	if (write(p->stop_fd, &one, sizeof(one)) != sizeof(one))
		abort();
	pthread_join(p->thread, NULL);
	cut(p);
	for (i = 0; i < p->n_links; i++)
		pthread_join(p->link[i].thread, NULL);
	for (i = 0; i < p->n_links; i += 2) {
		close(p->link[i].from);
		close(p->link[i].to);
	}
	listeners_close(&p->listeners);
	close(p->stop_fd);
	pthread_mutex_destroy(&p->lock);
}
