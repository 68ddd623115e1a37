/*
 * Where a destination waits: see listeners.h.
 */
#include "migrate/channel/listeners.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/channel/uri.h"
#include "vmm/base/err.h"

#define BACKLOG 64

/* The system chooses a port for the first address; another process may have it at the next one. */
#define PORT_TRIES 16

/* What an address is called in messages. */
static void address_name(const struct sockaddr *sa, socklen_t len, char *name, size_t size)
{
	char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";

	getnameinfo(sa, len, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(name, size, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
}

static in_port_t *port_of(struct sockaddr *sa)
{
	return sa->sa_family == AF_INET6 ? &((struct sockaddr_in6 *)sa)->sin6_port
					 : &((struct sockaddr_in *)sa)->sin_port;
}

static bool is_known(const struct listeners *l, const struct addrinfo *at)
{
	struct sockaddr_storage sa;
	socklen_t len;

	for (unsigned int i = 0; i < l->n; i++) {
		len = sizeof(sa);
		if (!getsockname(l->fd[i], (struct sockaddr *)&sa, &len) && len == at->ai_addrlen &&
		    !memcmp(&sa, at->ai_addr, len))
			return true;
	}
	return false;
}

/* A socket for one address; -1 with errno. */
static int listen_at(const struct addrinfo *at, bool alone)
{
	const int on = 1;
	int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), why;

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* IPv4 has a socket of its own. Who asks for [::] alone gets what the system makes of it.
	 */
	if (at->ai_family == AF_INET6 && !alone)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	why = errno;
	close(fd);
	errno = why;
	return -1;
}

static void close_all(struct listeners *l)
{
	while (l->n > 0)
		close(l->fd[--l->n]);
}

/* A name may have addresses of a family that this host does not use. */
static bool is_no_address_here(int why)
{
	return why == EAFNOSUPPORT || why == EADDRNOTAVAIL || why == EPROTONOSUPPORT;
}

/* All addresses once: 0, 1 if another port is to be tried, or -1. */
static int listen_everywhere(struct listeners *l, const struct uri *u, struct addrinfo *found,
			     struct err *e)
{
	struct sockaddr_storage first;
	socklen_t len = sizeof(first);
	char name[300] = "";
	int why = 0;

	for (struct addrinfo *at = found; at && l->n < LISTENERS_MAX; at = at->ai_next) {
		if (at->ai_family != AF_INET && at->ai_family != AF_INET6)
			continue;
		if (l->n && !strcmp(u->port, "0"))
			*port_of(at->ai_addr) = *port_of((struct sockaddr *)&first);
		if (is_known(l, at))
			continue;
		l->fd[l->n] = listen_at(at, !found->ai_next);
		if (l->fd[l->n] >= 0) {
			l->n++;
		} else {
			why = errno;
			address_name(at->ai_addr, at->ai_addrlen, name, sizeof(name));
			if (!is_no_address_here(why))
				break;
		}
		if (l->n == 1 && getsockname(l->fd[0], (struct sockaddr *)&first, &len))
			break;
	}
	if (l->n && (!why || is_no_address_here(why)))
		return 0;
	if (l->n && why == EADDRINUSE && !strcmp(u->port, "0"))
		return 1;
	return err_errno(e, why ? why : errno, "cannot listen on %s (%s)", u->text, name);
}

static int open_tcp(struct listeners *l, const struct uri *u, struct err *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found;
	int rc;

	for (int tries = 0; tries < PORT_TRIES; tries++) {
		rc = getaddrinfo(u->host[0] ? u->host : NULL, u->port, &hints, &found);
		if (rc)
			return err_set(e, "%s: %s", u->text, gai_strerror(rc));
		rc = listen_everywhere(l, u, found, e);
		freeaddrinfo(found);
		if (rc == 0)
			return 0;
		close_all(l);
		if (rc < 0)
			return -1;
	}
	return err_set(e, "cannot listen on %s: found no port that all addresses have free",
		       u->text);
}

int listeners_open(struct listeners *l, const struct uri *u, char *name, unsigned int size,
		   struct err *e)
{
	struct sockaddr_storage sa;
	unsigned int at = 0;
	socklen_t len;
	char one[300];

	l->n = 0;
	l->path.fd = -1;
	if (uri_check_listen(u, e))
		return -1;
	if (u->kind == URI_UNIX) {
		if (unix_socket_listen(&l->path, u->path, e))
			return err_context(e, "cannot listen on %s", u->text);
		l->fd[l->n++] = l->path.fd;
		snprintf(name, size, "%s", u->text);
		return 0;
	}
	if (open_tcp(l, u, e))
		return -1;
	*name = '\0';
	for (unsigned int i = 0; i < l->n && at < size; i++) {
		len = sizeof(sa);
		if (!getsockname(l->fd[i], (struct sockaddr *)&sa, &len)) {
			address_name((struct sockaddr *)&sa, len, one, sizeof(one));
			at += (unsigned int)snprintf(name + at, size - at, "%s%s", at ? ", " : "",
						     one);
		}
	}
	return 0;
}

void listeners_refuse(struct listeners *l)
{
	for (unsigned int i = 0; i < l->n; i++)
		shutdown(l->fd[i], SHUT_RD);
}

void listeners_close(struct listeners *l)
{
	if (l->path.fd >= 0) {
		l->n = 0;
		unix_socket_close(&l->path);
	}
	close_all(l);
}
