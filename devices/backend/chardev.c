/*
 * The host's side of a stream of characters: its life, its clients, its input: see chardev.h. The
 * I/O thread owns the fds and reads and writes them; other threads only put bytes into the ring
 * (chardev_output.c) and wake it by an eventfd.
 */
#include "devices/backend/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "devices/backend/chardev_internal.h"
#include "vmm/base/err.h"
#include "vmm/base/log.h"
#include "vmm/base/wake.h"
#include "vmm/device.h"

#define INPUT_BYTES 4096 /* read at once */
#define INPUT_TURNS 16	 /* reads before other fds have their turn */

void chardev_wake(struct chardev *c)
{
	wake_signal(c->wake_watch.fd);
}

static void unset_fd(struct chardev *c, struct loop_watch *w)
{
	loop_remove(c->env->io, w);
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
}

/* ---- input ---- */

/*
 * The room of the guest's side. When there is none, it says so before it looks a last time, so
 * that chardev_input_ready() cannot come unnoticed in between.
 */
static size_t guest_room(struct chardev *c)
{
	size_t room = c->ops->room(c->arg);

	if (room)
		return room;
	__atomic_store_n(&c->input_held, true, __ATOMIC_SEQ_CST);
	room = c->ops->room(c->arg);
	if (room)
		__atomic_store_n(&c->input_held, false, __ATOMIC_SEQ_CST);
	return room;
}

void chardev_input_ready(struct chardev *c)
{
	if (!__atomic_exchange_n(&c->input_held, false, __ATOMIC_SEQ_CST))
		return;
	pthread_mutex_lock(&c->lock);
	c->woken = true;
	pthread_mutex_unlock(&c->lock);
	chardev_wake(c);
}

static void listen_for_next(struct chardev *c)
{
	struct err e;

	if (!c->paused && loop_add(c->env->io, &c->listen_watch, EPOLLIN, &e))
		log_warn("%s: %s", c->name, e.text);
}

static void drop_client(struct chardev *c)
{
	chardev_output_end(c);
	unset_fd(c, &c->in);
	unset_fd(c, &c->out);
	c->hung_up = false;
	if (c->paused)
		return;
	chardev_offer_room(c);
	if (c->ops->connected)
		c->ops->connected(c->arg, false);
	listen_for_next(c);
}

/* Nothing more comes from the input. */
static void end_input(struct chardev *c)
{
	if (c->kind == CHARDEV_UNIX)
		drop_client(c);
	else
		unset_fd(c, &c->in);
}

/* Stops looking at the input until the guest has room; a client that hangs up is still noticed. */
static void hold_input(struct chardev *c)
{
	if (c->kind == CHARDEV_UNIX && !c->hung_up)
		loop_change(c->env->io, &c->in, 0);
	else
		loop_remove(c->env->io, &c->in);
}

static void give_typed(struct chardev *c)
{
	while (c->n_typed) {
		size_t n = guest_room(c);

		if (!n)
			return;
		if (n > c->n_typed)
			n = c->n_typed;
		c->ops->input(c->arg, c->typed, n);
		c->n_typed -= n;
		memmove(c->typed, c->typed + n, c->n_typed);
	}
}

/* The standard input may be somebody else's open file, where a read would wait. */
static ssize_t read_now(struct chardev *c, void *bytes, size_t len)
{
	struct pollfd p = { .fd = c->in.fd, .events = POLLIN };

	if (c->kind == CHARDEV_STDIO && poll(&p, 1, 0) == 0) {
		errno = EAGAIN;
		return -1;
	}
	return read(c->in.fd, bytes, len);
}

/* A terminal is read even when the guest takes nothing: Ctrl-A must go on to work. */
static ssize_t read_terminal(struct chardev *c)
{
	uint8_t bytes[sizeof(c->typed)];
	size_t n, room = sizeof(c->typed) - c->n_typed;
	ssize_t len;

	if (!terminal_is_ours(&c->terminal)) {
		loop_remove(c->env->io, &c->in); /* until the next resume */
		errno = EAGAIN;
		return -1;
	}
	len = read_now(c, bytes, sizeof(bytes));
	if (len <= 0)
		return len;
	n = terminal_filter(&c->terminal, bytes, (size_t)len);
	memcpy(c->typed + c->n_typed, bytes, n < room ? n : room);
	c->n_typed += n < room ? n : room;
	if (c->terminal.help)
		chardev_put(c, terminal_help, strlen(terminal_help));
	if (c->terminal.quit)
		c->env->request(c->env->machine, REQUEST_QUIT);
	c->terminal.help = c->terminal.quit = false;
	return len;
}

/* Reads once, no more than the guest has room for: 1 = go on, 0 = not now. */
static int read_in(struct chardev *c)
{
	uint8_t bytes[INPUT_BYTES];
	size_t room = sizeof(bytes);
	ssize_t n;

	if (c->is_terminal) {
		n = read_terminal(c);
		give_typed(c);
	} else {
		room = guest_room(c);
		if (!room) {
			hold_input(c);
			return 0;
		}
		n = read_now(c, bytes, room < sizeof(bytes) ? room : sizeof(bytes));
		if (n > 0)
			c->ops->input(c->arg, bytes, (size_t)n);
	}
	if (n > 0 || (n < 0 && errno == EINTR))
		return 1;
	if (n == 0 || errno != EAGAIN)
		end_input(c);
	return 0;
}

/* Reads what is there; afterwards the input is watched if that makes sense. */
static void pump(struct chardev *c)
{
	int turns = INPUT_TURNS;

	if (c->paused || c->in.fd < 0)
		return;
	give_typed(c);
	while (read_in(c)) {
		if (--turns)
			continue;
		if (c->in_unpollable || c->hung_up)
			chardev_wake(c);
		return;
	}
}

static void input_ready(void *arg, uint32_t events)
{
	struct chardev *c = arg;
	char byte;

	/* Only in hold_input()'s state: gone for good; what it has sent still waits for room. */
	if (c->kind == CHARDEV_UNIX && (events & (EPOLLHUP | EPOLLERR)) && !(events & EPOLLIN)) {
		if (recv(c->in.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) {
			drop_client(c);
			return;
		}
		c->hung_up = true;
		hold_input(c);
		listen_for_next(c);
		return;
	}
	pump(c);
}

static void watch_input(struct chardev *c)
{
	if (c->paused || c->in.fd < 0 || c->in_unpollable || c->hung_up)
		return;
	if (loop_add(c->env->io, &c->in, EPOLLIN, NULL))
		c->in_unpollable = true; /* a plain file; a client's socket can always be watched */
}

/* A client in place of one that has hung up, or of none; -1: no. */
static int take_client(struct chardev *c, int fd)
{
	int out = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (out < 0)
		return -1;
	if (c->in.fd >= 0)
		drop_client(c);
	loop_remove(c->env->io, &c->listen_watch); /* the next one waits in the socket's queue */
	c->in.fd = fd;
	c->out.fd = out;
	if (c->ops->connected)
		c->ops->connected(c->arg, true);
	chardev_output_begin(c);
	watch_input(c);
	return 0;
}

/* Without this, the client that waits would wake the loop for ever. */
static void turn_away(struct chardev *c, int fd)
{
	if (!c->no_fds_logged)
		log_warn("%s: no more file descriptors: clients are turned away", c->name);
	c->no_fds_logged = true;
	if (fd < 0) {
		if (c->spare_fd >= 0)
			close(c->spare_fd);
		fd = accept4(c->listening.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		c->spare_fd = -1;
	}
	if (fd >= 0)
		close(fd);
	if (c->spare_fd < 0)
		c->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void client_ready(void *arg, uint32_t events)
{
	struct chardev *c = arg;
	int fd = accept4(c->listening.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if ((fd < 0 && (errno == EMFILE || errno == ENFILE)) || (fd >= 0 && take_client(c, fd)))
		turn_away(c, fd);
	else if (fd >= 0)
		c->no_fds_logged = false;
}

int chardev_attach(struct chardev *c, int fd)
{
	struct pollfd waiting = { .fd = c->listening.fd, .events = POLLIN };
	struct pollfd present = { .fd = c->in.fd };

	if (c->kind != CHARDEV_UNIX || c->paused)
		return -1;
	/* Who has gone is none, also where the loop has not come to that yet. */
	if (c->in.fd >= 0 && !c->hung_up &&
	    !(poll(&present, 1, 0) > 0 && present.revents & (POLLHUP | POLLERR)))
		return -1;
	/* Who waits came first, also where the loop has not come to him yet. */
	if (poll(&waiting, 1, 0) > 0)
		return -1;
	return take_client(c, fd);
}

static void woken(void *arg, uint32_t events)
{
	struct chardev *c = arg;

	(void)events;
	wake_drain(c->wake_watch.fd);
	pthread_mutex_lock(&c->lock);
	c->woken = false;
	pthread_mutex_unlock(&c->lock);
	chardev_drain(c);
	if (c->paused)
		return;
	if (c->resumed && c->ops->connected)
		c->ops->connected(c->arg, c->in.fd >= 0);
	c->resumed = false;
	watch_input(c);
	pump(c);
}

int chardev_resume(struct chardev *c, struct err *e)
{
	c->paused = false;
	if (c->kind == CHARDEV_UNIX && (c->in.fd < 0 || c->hung_up) &&
	    loop_add(c->env->io, &c->listen_watch, EPOLLIN, e)) {
		c->paused = true;
		return err_context(e, "%s", c->name);
	}
	/* Not when opened: while a guest only may come here, Ctrl-C must go on to end the waiting.
	 */
	if (c->is_terminal)
		terminal_make_raw(&c->terminal);
	/* The caller may hold its lock: everything else, and all calls back, come from the loop. */
	c->resumed = true;
	chardev_wake(c);
	return 0;
}

void chardev_pause(struct chardev *c)
{
	c->paused = true;
	loop_remove(c->env->io, &c->listen_watch);
	loop_remove(c->env->io, &c->in);
}

void chardev_depart(struct chardev *c)
{
	bool empty;

	if (c->kind != CHARDEV_UNIX)
		return;
	unix_socket_close(&c->listening);
	chardev_drain(c);
	pthread_mutex_lock(&c->lock);
	empty = c->head == c->tail;
	pthread_mutex_unlock(&c->lock);
	if (empty)
		drop_client(c);
}

/* ---- open and close ---- */

static int open_stdio(struct chardev *c, struct err *e)
{
	c->out.fd = output_open_shared(STDOUT_FILENO, O_WRONLY, &c->output_mode);
	if (c->out.fd < 0)
		return err_errno(e, errno, "stdio: cannot use the standard output");
	c->out_open = true;
	c->out_terminal = isatty(c->out.fd);
	c->in.fd = output_open_shared(STDIN_FILENO, O_RDONLY, NULL); /* none: output only */
	if (c->in.fd >= 0 && isatty(c->in.fd)) {
		c->is_terminal = true;
		terminal_open(&c->terminal, c->in.fd);
	}
	return 0;
}

static int open_file(struct chardev *c, const char *path, struct err *e)
{
	if (!*path)
		return err_set(e, "the path of a file is empty");
	c->out.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
			 0600);
	if (c->out.fd < 0 && errno == ENXIO)
		return err_set(e, "%s: cannot write there: it is a pipe that nobody reads", path);
	if (c->out.fd < 0)
		return err_errno(e, errno, "%s: cannot write there", path);
	c->output_mode = OUTPUT_PLAIN;
	c->out_open = true;
	return 0;
}

static int open_kind(struct chardev *c, const char *spec, struct err *e)
{
	if (!strcmp(spec, "null"))
		return 0;
	c->ring = malloc(CHARDEV_RING_BYTES); /* its pages are touched as far as it fills */
	if (!c->ring)
		return err_set(e, "%s: out of memory", c->name);
	if (!strcmp(spec, "stdio")) {
		c->kind = CHARDEV_STDIO;
		return open_stdio(c, e);
	}
	if (!strncmp(spec, "file:", 5)) {
		c->kind = CHARDEV_FILE;
		return open_file(c, spec + 5, e);
	}
	if (!strncmp(spec, "unix:", 5)) {
		c->kind = CHARDEV_UNIX;
		c->output_mode = OUTPUT_SOCKET;
		if (unix_socket_listen(&c->listening, spec + 5, e))
			return -1;
		c->listen_watch.fd = c->listening.fd;
		c->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		c->lossy = c->ops->is_console; /* until there is a client */
		return 0;
	}
	return err_set(e, "'%s' is not a console: expected stdio, file:PATH, unix:PATH or null",
		       spec);
}

/* A console has a timer, for a reader that stands still. */
static int open_timer(struct chardev *c, struct err *e)
{
	if (!c->ops->is_console || c->kind == CHARDEV_NULL)
		return 0;
	c->stall_watch.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->stall_watch.fd < 0)
		return err_errno(e, errno, "%s: cannot make a timer", c->name);
	return loop_add(c->env->io, &c->stall_watch, EPOLLIN, e);
}

int chardev_open(struct chardev **out, const char *spec, const struct device_env *env,
		 const struct chardev_ops *ops, void *arg, struct err *e)
{
	struct chardev *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(e, "out of memory");
	c->env = env;
	c->ops = ops;
	c->arg = arg;
	c->paused = true;
	snprintf(c->name, sizeof(c->name), "%s", spec);
	c->listening.fd = c->spare_fd = -1;
	c->wake_watch = (struct loop_watch){ .fd = -1, .fn = woken, .arg = c };
	c->listen_watch = (struct loop_watch){ .fd = -1, .fn = client_ready, .arg = c };
	c->stall_watch = (struct loop_watch){ .fd = -1, .fn = chardev_stalled, .arg = c };
	c->in = (struct loop_watch){ .fd = -1, .fn = input_ready, .arg = c };
	c->out = (struct loop_watch){ .fd = -1, .fn = chardev_output_ready, .arg = c };
	pthread_mutex_init(&c->lock, NULL);
	if (wake_init(&c->wake_watch.fd, e)) {
		err_context(e, "%s", spec);
		chardev_close(c);
		return -1;
	}
	if (loop_add(env->io, &c->wake_watch, EPOLLIN, e) || open_kind(c, spec, e) ||
	    open_timer(c, e)) {
		chardev_close(c);
		return -1;
	}
	*out = c;
	return 0;
}

void chardev_close(struct chardev *c)
{
	if (!c)
		return;
	chardev_pause(c);
	if (c->ring)
		chardev_write_rest(c);
	if (c->is_terminal)
		terminal_close(&c->terminal);
	unset_fd(c, &c->in);
	unset_fd(c, &c->out);
	unset_fd(c, &c->wake_watch);
	unset_fd(c, &c->stall_watch);
	if (c->spare_fd >= 0)
		close(c->spare_fd);
	unix_socket_close(&c->listening);
	pthread_mutex_destroy(&c->lock);
	free(c->ring);
	free(c);
}
