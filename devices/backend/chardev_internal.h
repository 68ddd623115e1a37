/*
 * What the two halves of a character stream's host side share: see chardev.h. chardev.c has its
 * life, its clients and the input, chardev_output.c the output.
 */
#ifndef GODWIT_CHARDEV_INTERNAL_H
#define GODWIT_CHARDEV_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "devices/backend/chardev.h"
#include "devices/backend/terminal.h"
#include "vmm/base/output.h"
#include "vmm/base/unix_socket.h"
#include "vmm/loop.h"

enum chardev_kind { CHARDEV_NULL, CHARDEV_STDIO, CHARDEV_FILE, CHARDEV_UNIX };

struct chardev {
	/* Set when opened. */
	enum chardev_kind kind;
	const struct device_env *env;
	const struct chardev_ops *ops;
	void *arg;
	char name[64]; /* for the log: a path may be cut */
	enum output_mode output_mode;
	struct unix_socket listening;
	struct terminal terminal;
	bool is_terminal;  /* the input */
	bool out_terminal; /* the output */

	/* I/O thread. */
	bool paused;
	bool resumed; /* and `connected` has not been told yet */
	struct loop_watch wake_watch, listen_watch;
	struct loop_watch stall_watch; /* a timer: the reader has stood still for so long */
	struct loop_watch in, out; /* fd -1: none; a client has one fd for each, for epoll's sake */
	bool in_unpollable;	   /* a plain file: ready whenever it is asked */
	bool hung_up;		   /* the client is gone, but for what it left to be read */
	bool failing_logged, no_fds_logged;
	bool stall_timed;   /* the timer runs */
	int spare_fd;	    /* given up to turn a client away when there are no more fds */
	uint8_t typed[256]; /* a terminal's, commands taken out, not yet given to the guest */
	size_t n_typed;

	bool input_held; /* atomic: the guest had no room */

	pthread_mutex_t lock;
	/* Under lock. */
	bool out_open;	/* somebody takes output */
	bool out_waits; /* the I/O thread watches for EPOLLOUT: no need to wake it */
	bool woken;	/* it was, and has not come yet */
	bool full;	/* somebody was told that the ring is full */
	bool lossy;	/* the newest bytes push the oldest out; nobody is told that it is full */
	bool cut;	/* the oldest byte is not the first of its line any more */
	uint64_t lost;	/* bytes that a reader who is there has not got, and nobody was told */
	uint32_t head, tail; /* free running: bytes put, and bytes written or pushed out */
	uint8_t *ring;
};

/* Any thread. */
void chardev_wake(struct chardev *c);

/* ---- chardev_output.c; I/O thread ---- */

/* Writes what the reader takes, and tells the guest's side of room. */
void chardev_drain(struct chardev *c);
void chardev_offer_room(struct chardev *c);

/* Somebody takes output from now on; a back-log for it begins with a whole line. */
void chardev_output_begin(struct chardev *c);
/* Nobody does any more: the output is dropped, or kept for the next client of a console. */
void chardev_output_end(struct chardev *c);

/* The guest's last words: as long as the reader moves, and not for ever. */
void chardev_write_rest(struct chardev *c);

/* Calls for the watches. */
void chardev_output_ready(void *arg, uint32_t events);
void chardev_stalled(void *arg, uint32_t events);

#endif
