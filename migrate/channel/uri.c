/*
 * URIs and the sockets behind them: see uri.h. Whoever waits here can be stopped.
 */
#include "migrate/channel/uri.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/wake.h"

#define CONNECT_MS 30000

static int parse_tcp(const char *rest, struct uri *u, struct err *e)
{
	const char *colon, *host = rest;
	size_t len;
	uint64_t port;

	if (*rest == '[') {
		const char *end = strchr(rest, ']');

		if (!end || end[1] != ':')
			return err_set(e, "'%s': expected tcp:[ADDRESS]:PORT", u->text);
		host = rest + 1;
		len = (size_t)(end - host);
		colon = end + 1;
	} else {
		colon = strrchr(rest, ':');
		if (!colon)
			return err_set(e, "'%s': expected tcp:HOST:PORT", u->text);
		len = (size_t)(colon - host);
		if (memchr(host, ':', len))
			return err_set(e, "'%s': an IPv6 address goes into brackets", u->text);
	}
	if (len >= sizeof(u->host))
		return err_set(e, "'%s': the host name is too long", u->text);
	memcpy(u->host, host, len);
	u->host[len] = 0;
	if (parse_number(colon + 1, 0, 65535, &port, e))
		return err_context(e, "'%s': the port", u->text);
	snprintf(u->port, sizeof(u->port), "%u", (unsigned int)port);
	return 0;
}

static int parse_path(const char *rest, size_t max, struct uri *u, struct err *e)
{
	if (!*rest)
		return err_set(e, "'%s': the path is missing", u->text);
	if (strlen(rest) >= max)
		return err_set(e, "'%s': the path has %zu characters (at most %zu)", u->text,
			       strlen(rest), max - 1);
	memcpy(u->path, rest, strlen(rest) + 1);
	return 0;
}

int uri_parse(const char *text, struct uri *u, struct err *e)
{
	uint64_t n;

	memset(u, 0, sizeof(*u));
	u->fd = -1;
	if (strlen(text) >= sizeof(u->text))
		return err_set(e, "a URI of %zu characters is too long", strlen(text));
	memcpy(u->text, text, strlen(text) + 1);
	if (strstr(text, "://"))
		return err_set(e, "'%s': it is written without slashes: tcp:HOST:PORT", text);
	if (!strncmp(text, "tcp:", 4)) {
		u->kind = URI_TCP;
		return parse_tcp(text + 4, u, e);
	}
	if (!strncmp(text, "unix:", 5)) {
		u->kind = URI_UNIX;
		return parse_path(text + 5, sizeof(((struct sockaddr_un *)0)->sun_path), u, e);
	}
	if (!strncmp(text, "file:", 5)) {
		u->kind = URI_FILE;
		if (text[5] != '/')
			return err_set(e, "'%s': the path of a file URI must be absolute", text);
		return parse_path(text + 5, sizeof(u->path), u, e);
	}
	if (!strncmp(text, "fd:", 3)) {
		u->kind = URI_FD;
		if (parse_number(text + 3, 0, 1 << 20, &n, e))
			return err_context(e, "'%s'", text);
		u->fd = (int)n;
		return 0;
	}
	return err_set(e, "'%s': expected tcp:HOST:PORT, unix:PATH, fd:N or file:/PATH", text);
}

/* Waits for one socket and the stop fd: 1, 0 at the timeout, -1 when stopped. */
static int wait_fd(int fd, short events, int stop_fd, int timeout_ms, struct err *e)
{
	struct pollfd fds[2] = { { fd, events, 0 }, { stop_fd, POLLIN, 0 } };
	int n;

	do {
		n = poll(fds, stop_fd >= 0 ? 2 : 1, timeout_ms);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_errno(e, errno, "poll");
	if (n > 0 && fds[1].revents)
		return err_set(e, "cancelled");
	return n > 0;
}

/* Finishes a non-blocking connect. */
static int finish_connect(int fd, int stop_fd, struct err *e)
{
	int error = 0, rc = wait_fd(fd, POLLOUT, stop_fd, CONNECT_MS, e);
	socklen_t len = sizeof(error);

	if (rc < 0)
		return -1;
	if (rc == 0)
		return err_set(e, "no answer within %d s", CONNECT_MS / 1000);
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) || error)
		return err_set(e, "%s", strerror(error ? error : errno));
	return 0;
}

/*
 * A question to a name server, which cannot be taken back. So it is asked on a thread that nobody
 * joins: who is stopped goes, and the last of the two frees what they share.
 */
struct lookup {
	char host[256], port[8];
	struct addrinfo hints, *found;
	int rc;
	int done_fd; /* eventfd */
	int users;   /* atomic */
};

static void lookup_put(struct lookup *l)
{
	if (__atomic_sub_fetch(&l->users, 1, __ATOMIC_ACQ_REL))
		return;
	if (l->found)
		freeaddrinfo(l->found);
	wake_free(&l->done_fd);
	free(l);
}

static void *lookup_thread(void *arg)
{
	struct lookup *l = arg;

	l->rc = getaddrinfo(l->host, l->port[0] ? l->port : NULL, &l->hints, &l->found);
	wake_signal(l->done_fd);
	lookup_put(l);
	return NULL;
}

/* Starts the thread and waits for it, or for the stop fd; -1 with an error. */
static int lookup_wait(struct lookup *l, int stop_fd, struct err *e)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	if (wake_init(&l->done_fd, e))
		return -1;
	rc = pthread_attr_init(&attr);
	if (rc)
		return err_errno(e, rc, "cannot start a thread");
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	l->users++;
	rc = pthread_create(&thread, &attr, lookup_thread, l);
	pthread_attr_destroy(&attr);
	if (rc) {
		l->users--;
		return err_errno(e, rc, "cannot start a thread");
	}
	if (wait_fd(l->done_fd, POLLIN, stop_fd, -1, e) < 0)
		return -1;
	/* Reading it also makes the thread's writes visible here. */
	wake_drain(l->done_fd);
	return 0;
}

/* As getaddrinfo, but that the stop fd ends it. `port` may be "". */
static int resolve(const char *host, const char *port, int family, int stop_fd,
		   struct addrinfo **found, struct err *e)
{
	struct addrinfo hints = { .ai_family = family,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICHOST };
	struct lookup *l;
	int rc;

	/* What is an address already needs nobody's answer. */
	if (getaddrinfo(host, port[0] ? port : NULL, &hints, found) == 0)
		return 0;
	l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(e, "out of memory");
	snprintf(l->host, sizeof(l->host), "%s", host);
	snprintf(l->port, sizeof(l->port), "%s", port);
	l->hints = hints;
	l->hints.ai_flags = 0;
	l->users = 1;
	rc = lookup_wait(l, stop_fd, e);
	if (!rc && l->rc)
		rc = err_set(e, "%s", gai_strerror(l->rc));
	if (!rc) {
		*found = l->found;
		l->found = NULL;
	}
	lookup_put(l);
	return rc;
}

static int bind_to(int fd, int family, const char *host, int stop_fd, struct err *e)
{
	struct addrinfo *found;
	int rc;

	if (resolve(host, "", family, stop_fd, &found, e))
		return err_context(e, "cannot use the local address '%s'", host);
	rc = bind(fd, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return rc ? err_errno(e, errno, "cannot bind to '%s'", host) : 0;
}

static int try_connect(const struct sockaddr *sa, socklen_t len, const char *bind_host, int stop_fd,
		       struct err *e)
{
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_errno(e, errno, "cannot make a socket");
	if (bind_host && sa->sa_family != AF_UNIX &&
	    bind_to(fd, sa->sa_family, bind_host, stop_fd, e))
		goto fail;
	if (connect(fd, sa, len) == 0)
		return fd;
	if (errno != EINPROGRESS) {
		err_set(e, "%s", strerror(errno));
		goto fail;
	}
	if (finish_connect(fd, stop_fd, e))
		goto fail;
	return fd;
fail:
	close(fd);
	return -1;
}

static void unix_address(const struct uri *u, struct sockaddr_un *sa)
{
	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(sa->sun_path, u->path, strlen(u->path) + 1);
}

int uri_connect(const struct uri *u, const char *bind_host, int stop_fd, struct err *e)
{
	struct addrinfo *all, *at;
	struct sockaddr_un sun;
	int fd = -1;

	switch (u->kind) {
	case URI_UNIX:
		unix_address(u, &sun);
		fd = try_connect((struct sockaddr *)&sun, sizeof(sun), NULL, stop_fd, e);
		break;
	case URI_TCP:
		if (resolve(u->host, u->port, AF_UNSPEC, stop_fd, &all, e))
			return err_context(e, "%s", u->text);
		for (at = all; at && fd < 0; at = at->ai_next)
			fd = try_connect(at->ai_addr, at->ai_addrlen, bind_host, stop_fd, e);
		freeaddrinfo(all);
		break;
	case URI_FD:
	case URI_FILE:
		return err_set(e, "%s: not a place to connect to", u->text);
	}
	return fd < 0 ? err_context(e, "cannot connect to %s", u->text) : fd;
}

int uri_check_listen(const struct uri *u, struct err *e)
{
	if (u->kind == URI_TCP || u->kind == URI_UNIX)
		return 0;
	return err_set(e, "%s: not a place to listen on (expected tcp: or unix:)", u->text);
}
