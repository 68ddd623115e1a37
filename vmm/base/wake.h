/*
 * A signal from one thread to another that can be waited for with poll and epoll: an eventfd. It
 * stays set until it is drained. Any thread may call any function here.
 *
 * Code that can be cancelled is handed such a descriptor as its `stop_fd`; -1 is one that is never
 * set.
 */
#ifndef GODWIT_BASE_WAKE_H
#define GODWIT_BASE_WAKE_H

#include <stdbool.h>
#include <stdint.h>

struct err;

/* A new one, not set, close-on-exec and non-blocking; -1, with *fd == -1, and a sentence. */
int wake_init(int *fd, struct err *e);

/* Closes it and makes it -1; does nothing if it is -1. */
void wake_free(int *fd);

void wake_signal(int fd);

/* Takes back all signals so far; whether there was one. */
bool wake_drain(int fd);

/* Whether it is set, without draining it. */
bool wake_is_set(int fd);

/* Sleeps for `us`, or less when a signal handler runs; -1 as soon as stop_fd is set, with the
 * sentence "cancelled". With 0 it only asks. */
int wake_nap(int stop_fd, uint64_t us, struct err *e);

#endif
