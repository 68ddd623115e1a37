/*
 * Writing without waiting: see output.h. Any thread. A shared open file description is never
 * changed.
 */
#include "vmm/base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* What a terminal or a pipe that poll calls ready takes without waiting. */
#define POLLED_BYTES 512

int output_open_shared(int shared, int flags, enum output_mode *mode)
{
	enum output_mode ignored;
	char path[32];
	struct stat st;
	int fd = -1;

	if (fstat(shared, &st))
		return -1;
	if (!mode)
		mode = &ignored;
	if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", shared);
		fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		*mode = fd >= 0 ? OUTPUT_PLAIN : OUTPUT_POLLED;
	} else {
		*mode = S_ISSOCK(st.st_mode) ? OUTPUT_SOCKET : OUTPUT_PLAIN;
	}
	/* Above 2: that these numbers are taken does not mean that they are open. */
	return fd >= 0 ? fd : fcntl(shared, F_DUPFD_CLOEXEC, 3);
}

ssize_t output_write(int fd, enum output_mode mode, const void *bytes, size_t len)
{
	struct iovec piece = { (void *)(uintptr_t)bytes, len };
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	ssize_t n;

	if (mode == OUTPUT_SOCKET)
		return send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (mode == OUTPUT_POLLED) {
		/* Pipes can do this since Linux 6.5; the room that poll sees may be taken by
		 * others. */
		n = pwritev2(fd, &piece, 1, -1, RWF_NOWAIT);
		if (n >= 0 || (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS))
			return n;
		if (poll(&p, 1, 0) == 0) {
			errno = EAGAIN;
			return -1;
		}
		if (len > POLLED_BYTES)
			len = POLLED_BYTES;
	}
	return write(fd, bytes, len);
}
