/*
 * The host's side of a stream of characters (a serial console, a named channel):
 *
 *   stdio       raw pipe; on a terminal raw mode (from the first resume on) and Ctrl-A commands
 *   file:PATH   output only, added to what is there; a new file has the mode 0600
 *   unix:PATH   a listening socket of mode 0600, one client at a time, the next one waits; without
 *               a client output is dropped, but for a console's last lines, which the next one gets
 *   null        output is dropped, no input
 *
 * Threads: chardev_put and chardev_input_ready from any thread, also with the device's lock held.
 * Everything else, and all calls back, on the I/O thread (or while it does not run) and without
 * chardev's own lock. Nothing here waits for the other side: what it does not take yet lies in a
 * bounded ring, and the guest is held up when that is full; input is left where it is until the
 * guest has room. So no byte is lost while both sides read. A console's reader that stands still
 * holds the guest up for a second; then the ring keeps what is newest, and what is lost is told.
 */
#ifndef GODWIT_CHARDEV_H
#define GODWIT_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chardev;
struct device_env;
struct err;

#define CHARDEV_RING_BYTES (64u << 10)

/* The guest's side. Not called between chardev_pause() and chardev_resume(). */
struct chardev_ops {
	bool is_console; /* for people: its newest output matters more than all of it */

	/* How many bytes it can take now. When that was 0, it calls chardev_input_ready() later. */
	size_t (*room)(void *arg);
	void (*input)(void *arg, const uint8_t *bytes, size_t len); /* len <= room */

	/* chardev_put() has taken less than all: there is room again. */
	void (*writable)(void *arg);

	/* A client has come or gone; also told at each resume. May be NULL. */
	void (*connected)(void *arg, bool connected);
};

/* Opens what `spec` says, paused. -1 with a sentence that begins with the spec or its path. */
int chardev_open(struct chardev **out, const char *spec, const struct device_env *env,
		 const struct chardev_ops *ops, void *arg, struct err *e);

/* Writes out what is left, as long as somebody takes it, restores the terminal, removes the socket.
 */
void chardev_close(struct chardev *c);

/*
 * I/O thread: as if a client with that socket (non-blocking; c's from here on when it returns 0)
 * had come to a unix:PATH one. -1: one is there already, or waits to be let in; or c is none of
 * those, or paused.
 */
int chardev_attach(struct chardev *c, int fd);

/* Begins to read and to accept; and ends it: no call back after that, output is still written. */
int chardev_resume(struct chardev *c, struct err *e);
void chardev_pause(struct chardev *c);

/*
 * Paused for good, the guest has gone to another host: clients are let go and nobody new is let in.
 * One that sees the end of file knows that the guest has all that it typed; else it sees a reset.
 * What is still to be written is left to chardev_close().
 */
void chardev_depart(struct chardev *c);

/* Puts bytes on their way; returns how many were taken: fewer than `len` when the ring is full. */
size_t chardev_put(struct chardev *c, const void *bytes, size_t len);

/* The guest has room for input again. Cheap when nobody waits for it. */
void chardev_input_ready(struct chardev *c);

#endif
