/*
 * The control socket: see server.h. All on the loop's thread but control_event(), which only puts
 * events into a queue. Invariant: nothing here waits for a client; what a client does not read is
 * bounded, and a client that does not read at all is dropped.
 */
#include "vmm/control/server.h"
#include "vmm/control/table.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/log.h"
#include "vmm/base/wake.h"
#include "vmm/control/dispatch.h"
#include "vmm/control/framing.h"
#include "vmm/control/runtime.h"
#include "vmm/loop.h"

#define CLIENTS_MAX 16

/* A client with so much waiting for it gets no further requests done, with so much is dropped. */
#define OUT_PAUSE_BYTES (256u << 10)
#define OUT_MAX_BYTES	(4u << 20)

/* Events that wait for the loop's thread. */
#define EVENTS_MAX 1024

struct control_client {
	struct control *control;
	struct loop_watch watch;
	uint32_t watched; /* what the watch asks for now */
	struct framing in;
	char *out; /* [out_start, out_len) waits to be written */
	size_t out_start, out_len, out_capacity;
	bool negotiated;
	bool held; /* requests may wait in `in` until it reads more of its answers */
	bool deaf; /* it reads nothing more; what it has said before still counts */
	bool eof;  /* it sends nothing more; goes when it has read its answers */
	bool dead; /* goes at the end of what is being done */
};

struct control_pending {
	json_t *event;
	struct control_pending *next;
};

struct control {
	/* Loop's thread. */
	struct loop *loop;
	const struct control_table *tables;
	struct unix_socket listener;
	struct loop_watch listen_watch, wake_watch;
	int spare_fd; /* given up to be able to turn a connection away when there are no more fds */
	struct control_client *clients[CLIENTS_MAX];

	pthread_mutex_t lock;
	struct control_pending *first, **last; /* under lock */
	unsigned int n_pending;		       /* under lock */
	int wake_fd;			       /* constant */
};

static void client_free(struct control_client *c)
{
	loop_remove(c->control->loop, &c->watch);
	close(c->watch.fd);
	framing_free(&c->in);
	free(c->out);
	free(c);
}

static void reap(struct control *ctl)
{
	for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
		if (ctl->clients[i] && ctl->clients[i]->dead) {
			client_free(ctl->clients[i]);
			ctl->clients[i] = NULL;
		}
	}
}

static size_t out_waiting(const struct control_client *c)
{
	return c->out_len - c->out_start;
}

/* Writes what the socket takes. */
static void client_flush(struct control_client *c)
{
	while (!c->dead && out_waiting(c) > 0) {
		ssize_t n = send(c->watch.fd, c->out + c->out_start, out_waiting(c), MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n < 0) {
			c->deaf = true;
			c->out_start = c->out_len;
		} else {
			c->out_start += (size_t)n;
		}
	}
	if (out_waiting(c) == 0) {
		free(c->out);
		c->out = NULL;
		c->out_start = c->out_len = c->out_capacity = 0;
	}
}

static int out_append(struct control_client *c, const char *bytes, size_t len)
{
	if (len > OUT_MAX_BYTES - out_waiting(c))
		return -1;
	if (c->out_start > 0) {
		memmove(c->out, c->out + c->out_start, out_waiting(c));
		c->out_len -= c->out_start;
		c->out_start = 0;
	}
	if (len > c->out_capacity - c->out_len) {
		size_t capacity = c->out_capacity ? c->out_capacity : 1024;
		char *grown;

		while (capacity - c->out_len < len)
			capacity *= 2;
		grown = realloc(c->out, capacity);
		if (!grown)
			return -1;
		c->out = grown;
		c->out_capacity = capacity;
	}
	memcpy(c->out + c->out_len, bytes, len);
	c->out_len += len;
	return 0;
}

/* The object as a line, with a last member "id" if there is one. */
static int out_append_line(struct control_client *c, const char *object, const char *id)
{
	static const char name[] = ", \"id\": ";
	size_t len = strlen(object);

	if (!id)
		return out_append(c, object, len) || out_append(c, "\r\n", 2) ? -1 : 0;
	return out_append(c, object, len - 1) || out_append(c, name, sizeof(name) - 1) ||
			       out_append(c, id, strlen(id)) || out_append(c, "}\r\n", 3)
		       ? -1
		       : 0;
}

/*
 * Sends one object as a line of ASCII; takes the reference. NULL (no memory) ends the connection.
 * `id`: the JSON text of the request's, or NULL.
 */
static void client_send(struct control_client *c, json_t *object, const char *id)
{
	char *text = object ? json_dumps(object, JSON_ENSURE_ASCII) : NULL;

	json_decref(object);
	if (c->dead || c->deaf) {
		free(text);
		return;
	}
	if (!text || out_append_line(c, text, id)) {
		log_warn("a client of control socket %s is dropped: it does not read what it is "
			 "sent",
			 c->control->listener.path);
		c->dead = true;
	}
	free(text);
}

static void event_free(struct control_pending *p)
{
	if (p)
		json_decref(p->event);
	free(p);
}

/* Hands the waiting events to the clients. */
static void deliver_events(struct control *ctl)
{
	struct control_pending *p, *next;

	pthread_mutex_lock(&ctl->lock);
	p = ctl->first;
	ctl->first = NULL;
	ctl->last = &ctl->first;
	ctl->n_pending = 0;
	pthread_mutex_unlock(&ctl->lock);
	for (; p; p = next) {
		next = p->next;
		for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
			struct control_client *c = ctl->clients[i];

			if (c && c->negotiated)
				client_send(c, json_incref(p->event), NULL);
		}
		event_free(p);
	}
}

/* Answers the requests that have arrived whole, while the client reads the answers. */
static void client_answer(struct control_client *c)
{
	struct control *ctl = c->control;
	json_t *request, *answer;
	struct err e;
	int rc;

	while (!c->dead) {
		c->held = out_waiting(c) >= OUT_PAUSE_BYTES;
		if (c->held)
			return;
		rc = framing_next(&c->in, &request, &e);
		if (rc == 0)
			return;
		if (rc > 0) {
			answer = dispatch(ctl->tables, &c->negotiated, request);
			json_decref(request);
			/* What the command has caused is told before its answer, as QEMU does. */
			deliver_events(ctl);
		} else {
			answer = dispatch_malformed(&e);
		}
		client_send(c, answer, c->in.id);
		client_flush(c);
	}
}

/* Asks the loop for what the client's state needs. */
static void client_watch(struct control_client *c)
{
	uint32_t want = 0;

	if (c->eof && !c->held && out_waiting(c) == 0)
		c->dead = true;
	if (c->dead)
		return;
	if (!c->eof && !c->held)
		want |= EPOLLIN;
	if (c->held || out_waiting(c) > 0)
		want |= EPOLLOUT;
	if (want != c->watched) {
		loop_change(c->control->loop, &c->watch, want);
		c->watched = want;
	}
}

/* After anything that may have put bytes into clients' buffers. */
static void settle(struct control *ctl)
{
	for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
		struct control_client *c = ctl->clients[i];

		if (!c)
			continue;
		client_flush(c);
		client_watch(c);
	}
	reap(ctl);
}

static void client_read(struct control_client *c)
{
	char buf[16384];
	ssize_t n = recv(c->watch.fd, buf, sizeof(buf), 0);

	if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	if (n < 0)
		c->dead = true;
	else if (n == 0)
		c->eof = true;
	else if (framing_feed(&c->in, buf, (size_t)n))
		c->dead = true;
}

static void client_event(void *arg, uint32_t events)
{
	struct control_client *c = arg;

	client_flush(c);
	/* Requests that waited for the client to read; their bytes come before any new ones. */
	client_answer(c);
	/* After a hang-up there may still be requests to read. */
	if (!c->dead && !c->eof && !c->held && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
		client_read(c);
		client_answer(c);
	}
	settle(c->control);
}

static void turn_away(int fd)
{
	static const char text[] = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"too many "
				   "clients are connected to this control socket\"}}\r\n";

	(void)!send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

static void client_add(struct control *ctl, unsigned int slot, int fd)
{
	struct control_client *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	c->control = ctl;
	c->watch = (struct loop_watch){ .fd = fd, .fn = client_event, .arg = c };
	c->watched = EPOLLIN;
	if (loop_add(ctl->loop, &c->watch, c->watched, NULL)) {
		client_free(c);
		return;
	}
	ctl->clients[slot] = c;
	client_send(c, dispatch_greeting(), NULL);
}

/* No more fds: without this, the connection that waits would wake the loop for ever. */
static void turn_away_without_fds(struct control *ctl)
{
	int fd;

	log_warn("control socket %s: no more file descriptors, a connection is turned away",
		 ctl->listener.path);
	if (ctl->spare_fd >= 0)
		close(ctl->spare_fd);
	fd = accept4(ctl->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0)
		turn_away(fd);
	ctl->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accept_event(void *arg, uint32_t events)
{
	struct control *ctl = arg;
	unsigned int slot = 0;
	int fd = accept4(ctl->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			turn_away_without_fds(ctl);
		return;
	}
	while (slot < CLIENTS_MAX && ctl->clients[slot])
		slot++;
	if (slot == CLIENTS_MAX)
		turn_away(fd);
	else
		client_add(ctl, slot, fd);
	settle(ctl);
}

static void wake_event(void *arg, uint32_t events)
{
	struct control *ctl = arg;

	(void)events;
	wake_drain(ctl->wake_fd);
	deliver_events(ctl);
	settle(ctl);
}

void control_event(struct control *ctl, const char *event, json_t *data)
{
	struct control_pending *p = malloc(sizeof(*p));
	struct timeval now;
	bool full;

	gettimeofday(&now, NULL);
	if (p) {
		p->next = NULL;
		p->event = json_pack("{s:{s:I,s:I},s:s}", "timestamp", "seconds",
				     (json_int_t)now.tv_sec, "microseconds",
				     (json_int_t)now.tv_usec, "event", event);
	}
	if (p && p->event && data && json_object_set(p->event, "data", data)) {
		json_decref(p->event);
		p->event = NULL;
	}
	json_decref(data);
	if (!p || !p->event) {
		log_warn("event %s is lost: out of memory", event);
		event_free(p);
		return;
	}
	pthread_mutex_lock(&ctl->lock);
	full = ctl->n_pending >= EVENTS_MAX;
	if (!full) {
		*ctl->last = p;
		ctl->last = &p->next;
		ctl->n_pending++;
	}
	pthread_mutex_unlock(&ctl->lock);
	if (full) {
		log_warn("event %s is lost: %d events wait to be sent", event, EVENTS_MAX);
		event_free(p);
		return;
	}
	wake_signal(ctl->wake_fd);
}

const char *control_path(const struct control *ctl)
{
	return ctl->listener.path;
}

int control_open(struct control **out, struct loop *loop, const char *path,
		 const struct control_table *tables, struct err *e)
{
	struct control *ctl = calloc(1, sizeof(*ctl));
	int why;

	*out = NULL;
	if (!ctl) {
		errno = ENOMEM;
		return err_set(e, "out of memory");
	}
	ctl->loop = loop;
	ctl->tables = tables;
	ctl->last = &ctl->first;
	ctl->listener.fd = -1;
	ctl->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	pthread_mutex_init(&ctl->lock, NULL);
	if (wake_init(&ctl->wake_fd, e))
		goto fail;
	if (unix_socket_listen(&ctl->listener, path, e))
		goto fail;
	ctl->wake_watch = (struct loop_watch){ .fd = ctl->wake_fd, .fn = wake_event, .arg = ctl };
	ctl->listen_watch =
		(struct loop_watch){ .fd = ctl->listener.fd, .fn = accept_event, .arg = ctl };
	if (loop_add(loop, &ctl->wake_watch, EPOLLIN, e) ||
	    loop_add(loop, &ctl->listen_watch, EPOLLIN, e))
		goto fail;
	*out = ctl;
	return 0;

fail:
	why = errno;
	control_close(ctl);
	errno = why;
	return -1;
}

int control_move(struct control *ctl, const char *path, struct err *e)
{
	struct unix_socket listener;

	if (unix_socket_listen(&listener, path, e))
		return -1;
	loop_remove(ctl->loop, &ctl->listen_watch);
	unix_socket_close(&ctl->listener);
	ctl->listener = listener;
	ctl->listen_watch.fd = listener.fd;
	return loop_add(ctl->loop, &ctl->listen_watch, EPOLLIN, e);
}

void control_close(struct control *ctl)
{
	if (!ctl)
		return;
	deliver_events(ctl);
	loop_remove(ctl->loop, &ctl->listen_watch);
	loop_remove(ctl->loop, &ctl->wake_watch);
	/* First: who sees its connection end may take the name. */
	unix_socket_close(&ctl->listener);
	for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
		if (!ctl->clients[i])
			continue;
		client_flush(ctl->clients[i]);
		client_free(ctl->clients[i]);
		ctl->clients[i] = NULL;
	}
	wake_free(&ctl->wake_fd);
	if (ctl->spare_fd >= 0)
		close(ctl->spare_fd);
	pthread_mutex_destroy(&ctl->lock);
	free(ctl);
}
