/*
 * Writing to an fd without ever waiting for its reader, and fds of our own for the standard input
 * and output, which others share: O_NONBLOCK set on theirs would change them for the shell as well.
 */
#ifndef GODWIT_BASE_OUTPUT_H
#define GODWIT_BASE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum output_mode {
	OUTPUT_PLAIN,  /* files, where a write waits for no reader, and our own O_NONBLOCK fds */
	OUTPUT_SOCKET, /* MSG_DONTWAIT */
	OUTPUT_POLLED, /* somebody else's open file: ask poll, write little */
};

/*
 * Opens what `shared` refers to anew (flags: O_RDONLY or O_WRONLY), or duplicates it where that
 * cannot be; -1 with errno. `mode` (may be NULL): how to write to it.
 */
int output_open_shared(int shared, int flags, enum output_mode *mode);

/* As write(2) on a non-blocking fd; no SIGPIPE from sockets. */
ssize_t output_write(int fd, enum output_mode mode, const void *bytes, size_t len);

#endif
