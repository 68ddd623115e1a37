/*
 * Main thread of a short-lived process. Invariant: each wait has a deadline, except if the caller
 * asks for an endless one.
 */
#include "vmm/cli/client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/words.h"
#include "vmm/cli/verb.h"

/* A longer line from a VM is refused. */
#define LINE_MAX_BYTES (16u << 20)

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

/* The timeout of poll() for a deadline (-1: none). */
static int left_ms(long long deadline)
{
	long long left;

	if (deadline < 0)
		return -1;
	left = deadline - now_ms();
	return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static long long deadline_in(int timeout_ms)
{
	return timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
}

/* 1: *out is the next line that has arrived; 0: no whole line has; -1: it is no object. */
static int next_line(struct client *c, json_t **out, struct err *e)
{
	json_error_t why;
	char *newline;
	size_t n;

	for (;;) {
		if (c->start == c->len)
			return 0;
		newline = memchr(c->buf + c->start, '\n', c->len - c->start);
		if (!newline)
			return 0;
		n = (size_t)(newline - (c->buf + c->start));
		*out = NULL;
		/* Empty lines are allowed, and skipped. */
		if (n > 1 || (n == 1 && newline[-1] != '\r')) {
			*out = json_loadb(c->buf + c->start, n, 0, &why);
			c->start += n + 1;
			if (json_is_object(*out))
				return 1;
			json_decref(*out);
			return err_set(e, "%s sent something that is not QMP (%s)", c->path,
				       why.text);
		}
		c->start += n + 1;
	}
}

/* Receives once. CLIENT_EVENT: there may be new bytes. CLIENT_CLOSED, CLIENT_FAILED. */
static enum client_wait receive(struct client *c, struct err *e)
{
	ssize_t n;

	if (c->start > 0) {
		memmove(c->buf, c->buf + c->start, c->len - c->start);
		c->len -= c->start;
		c->start = 0;
	}
	if (c->len == c->capacity) {
		size_t capacity = c->capacity ? 2 * c->capacity : 16384;
		char *grown = capacity <= LINE_MAX_BYTES ? realloc(c->buf, capacity) : NULL;

		if (!grown) {
			err_set(e, "%s sent a line of more than %zu bytes", c->path, c->len);
			return CLIENT_FAILED;
		}
		c->buf = grown;
		c->capacity = capacity;
	}
	n = recv(c->fd, c->buf + c->len, c->capacity - c->len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return CLIENT_EVENT;
	if (n < 0 && errno != ECONNRESET) {
		err_errno(e, errno, "cannot read from %s", c->path);
		return CLIENT_FAILED;
	}
	if (n <= 0) {
		c->closed = true;
		return CLIENT_CLOSED;
	}
	c->len += (size_t)n;
	return CLIENT_EVENT;
}

/* CLIENT_EVENT: *out is the next object. */
static enum client_wait next_object(struct client *c, long long deadline, bool may_stop,
				    json_t **out, struct err *e)
{
	for (;;) {
		struct pollfd fds[2] = { { .fd = c->fd, .events = POLLIN },
					 { .fd = may_stop ? c->interrupt_fd : -1,
					   .events = POLLIN } };
		enum client_wait got;
		int rc = next_line(c, out, e);

		if (rc)
			return rc < 0 ? CLIENT_FAILED : CLIENT_EVENT;
		if (c->closed)
			return CLIENT_CLOSED;
		rc = poll(fds, 2, left_ms(deadline));
		if (rc < 0 && errno != EINTR) {
			err_errno(e, errno, "cannot wait for %s", c->path);
			return CLIENT_FAILED;
		}
		if (rc == 0)
			return CLIENT_NOTHING;
		if (rc > 0 && fds[1].revents)
			return CLIENT_STOPPED;
		if (rc > 0 && fds[0].revents) {
			got = receive(c, e);
			if (got != CLIENT_EVENT)
				return got;
		}
	}
}

static int missing(const char *vm, struct client *c, int why, struct err *e)
{
	bool named = !strchr(vm, '/');

	switch (c->found) {
	case UNIX_SOCKET_ABSENT:
		if (named)
			return err_set(e, "no VM named '%s' (looked for %s)", vm, c->path);
		return err_set(e, "no control socket at %s", c->path);
	case UNIX_SOCKET_STALE:
		return err_set(e,
			       "the VM of control socket %s is gone: the socket is stale, nobody "
			       "answers%s",
			       c->path, named ? " (godwit list removes it)" : "");
	case UNIX_SOCKET_FOREIGN:
		return err_set(e, "%s is not a control socket", c->path);
	default:
		return err_errno(e, why, "cannot connect to control socket %s", c->path);
	}
}

static void look_at_peer(struct client *c)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || peer.pid <= 0)
		return;
	c->pid = peer.pid;
	/* Opened now, so that a later process with the same number is not mistaken for the VM. */
	c->pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

int client_open(struct client *c, const char *vm, int timeout_ms, struct err *e)
{
	struct timeval limit = { .tv_sec = 10 };
	json_t *greeting = NULL;

	*c = (struct client){ .fd = -1, .pidfd = -1, .interrupt_fd = -1, .timeout_ms = timeout_ms };
	c->found = UNIX_SOCKET_UNKNOWN;
	if (runtime_vm_path(vm, c->path, e))
		return -1;
	snprintf(c->name, sizeof(c->name), "%s", vm);
	c->found = unix_socket_probe(c->path, &c->fd);
	if (c->found != UNIX_SOCKET_ANSWERS)
		return missing(vm, c, errno, e);
	look_at_peer(c);
	(void)setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	c->events = json_array();
	switch (next_object(c, deadline_in(timeout_ms), false, &greeting, e)) {
	case CLIENT_EVENT:
		break;
	case CLIENT_CLOSED:
		return err_set(e, "'%s' has closed the connection without a greeting", c->name);
	case CLIENT_FAILED:
		return -1;
	default:
		return err_set(e, "'%s' does not answer (waited %d ms)", c->name, timeout_ms);
	}
	if (!json_object_get(greeting, "QMP")) {
		const char *desc = json_string_value(
			json_object_get(json_object_get(greeting, "error"), "desc"));

		err_set(e, "'%s' refuses the connection: %s", c->name,
			desc ? desc : "its greeting is not that of QMP");
		json_decref(greeting);
		return -1;
	}
	json_decref(greeting);
	return client_execute(c, "qmp_capabilities", NULL, NULL, e);
}

void client_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	if (c->pidfd >= 0)
		close(c->pidfd);
	json_decref(c->events);
	free(c->buf);
	c->fd = c->pidfd = -1;
	c->events = NULL;
	c->buf = NULL;
}

static int send_request(struct client *c, const char *command, json_t *arguments, struct err *e)
{
	json_t *request = json_pack("{s:s}", "execute", command);
	size_t done = 0, len;
	char *text;

	if (arguments)
		json_object_set_new(request, "arguments", arguments);
	text = json_dumps(request, 0);
	json_decref(request);
	if (!text)
		return err_set(e, "cannot send '%s': its arguments are not UTF-8 text", command);
	len = strlen(text);
	text[len++] = '\n'; /* replaces the zero, which is not sent */
	while (done < len) {
		ssize_t n = send(c->fd, text + done, len - done, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int why = errno;

			free(text);
			/* What the VM sent before it ended can still be read. */
			if (why == EPIPE || why == ECONNRESET)
				while (receive(c, NULL) == CLIENT_EVENT)
					;
			return err_errno(e, why, "cannot send '%s' to '%s'", command, c->name);
		}
		done += (size_t)n;
	}
	free(text);
	return 0;
}

/* Keeps an event for later. If there are too many, the oldest one is dropped. */
static void keep_event(struct client *c, json_t *event)
{
	if (json_array_size(c->events) >= CLIENT_EVENTS_MAX)
		json_array_remove(c->events, 0);
	json_array_append_new(c->events, event);
}

int client_execute(struct client *c, const char *command, json_t *arguments, json_t **result,
		   struct err *e)
{
	long long deadline = deadline_in(c->timeout_ms);
	json_t *answer = NULL, *value;
	const char *desc;

	if (result)
		*result = NULL;
	if (send_request(c, command, arguments, e))
		return -1;
	for (;;) {
		switch (next_object(c, deadline, false, &answer, e)) {
		case CLIENT_EVENT:
			break;
		case CLIENT_CLOSED:
			return err_set(e, "'%s' has ended before it answered '%s'", c->name,
				       command);
		case CLIENT_FAILED:
			return -1;
		default:
			return err_set(e, "'%s' has not answered '%s' within %d ms", c->name,
				       command, c->timeout_ms);
		}
		if (!json_object_get(answer, "event"))
			break;
		keep_event(c, answer);
	}
	value = json_object_get(answer, "return");
	if (value) {
		if (result)
			*result = json_incref(value);
		json_decref(answer);
		return 0;
	}
	desc = json_string_value(json_object_get(json_object_get(answer, "error"), "desc"));
	err_set(e, "%s", desc ? desc : "the VM's answer is neither a result nor an error");
	json_decref(answer);
	return -1;
}

enum client_wait client_event(struct client *c, int timeout_ms, json_t **event, struct err *e)
{
	long long deadline = deadline_in(timeout_ms);
	enum client_wait got;

	if (json_array_size(c->events) > 0) {
		*event = json_incref(json_array_get(c->events, 0));
		json_array_remove(c->events, 0);
		return CLIENT_EVENT;
	}
	for (;;) {
		*event = NULL;
		got = next_object(c, deadline, true, event, e);
		if (got != CLIENT_EVENT || json_object_get(*event, "event"))
			return got;
		/* A late answer, for which nobody waits any more. */
		json_decref(*event);
	}
}

int client_cancel_if_interrupted(struct client *c, struct err *e)
{
	if (!verb_take_interrupt(&c->interrupt_fd))
		return 0;
	return client_execute(c, "migrate_cancel", NULL, NULL, e);
}

const char *client_event_name(const json_t *event)
{
	const char *name = json_string_value(json_object_get(event, "event"));

	return name ? name : "";
}

int client_wait_end(struct client *c, int timeout_ms, struct err *e)
{
	long long deadline = deadline_in(timeout_ms);
	struct pollfd gone = { .fd = c->pidfd, .events = POLLIN };
	enum client_wait got;
	json_t *event;

	while (!c->closed) {
		got = client_event(c, left_ms(deadline), &event, e);
		if (got == CLIENT_EVENT)
			json_decref(event);
		else if (got == CLIENT_FAILED)
			return -1;
		else if (got != CLIENT_CLOSED)
			return err_set(e, "'%s' has not ended within %d ms", c->name, timeout_ms);
	}
	/* The socket closes first; disks and taps are free only when the process has ended. */
	if (c->pidfd < 0 || c->pid == getpid())
		return 0;
	while (poll(&gone, 1, left_ms(deadline)) < 0 && errno == EINTR)
		;
	return gone.revents ? 0
			    : err_set(e, "process %d of '%s' has not ended within %d ms",
				      (int)c->pid, c->name, timeout_ms);
}

int client_status(struct client *c, char status[32], bool *running, struct err *e)
{
	json_t *result;
	const char *s;

	if (client_execute(c, "query-status", NULL, &result, e))
		return -1;
	s = json_string_value(json_object_get(result, "status"));
	word_printable(status, 32, s ? s : "unknown");
	*running = json_is_true(json_object_get(result, "running"));
	json_decref(result);
	return 0;
}
