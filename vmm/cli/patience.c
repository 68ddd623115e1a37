/*
 * Output that Ctrl-C can end (verb_print_patiently). A verb that takes Ctrl-C by a descriptor has
 * the signal blocked, so a write that waits for its reader would wait for ever. Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/output.h"
#include "vmm/cli/verb.h"

struct patience {
	int fd;
	int interrupt_fd; /* a copy: text is still printed after the verb has closed its own */
	enum output_mode mode;
	bool over; /* there was an interrupt: drop text that would have to wait */
};

static ssize_t patience_write(void *cookie, const char *text, size_t len)
{
	struct patience *p = cookie;
	struct pollfd fds[2] = { { .fd = p->fd, .events = POLLOUT },
				 { .fd = p->interrupt_fd, .events = POLLIN } };
	size_t done = 0;

	while (done < len) {
		ssize_t n = output_write(p->fd, p->mode, text + done, len - done);

		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return done ? (ssize_t)done : 0; /* for stdio an error; errno is set */
		if (p->over)
			break;
		if (poll(fds, 2, -1) > 0 && fds[1].revents && !fds[0].revents)
			p->over = true;
	}
	return (ssize_t)len;
}

static int patience_close(void *cookie)
{
	struct patience *p = cookie;

	if (p->interrupt_fd >= 0)
		close(p->interrupt_fd);
	free(p);
	return 0;
}

/* Returns `stream` itself if that fails. */
static FILE *with_patience(FILE *stream, int fd, int buffering, int interrupt_fd)
{
	const cookie_io_functions_t calls = { .write = patience_write, .close = patience_close };
	struct patience *p = calloc(1, sizeof(*p));
	struct stat st;
	FILE *f;

	if (!p || fstat(fd, &st) || fflush(stream) || !(f = fopencookie(p, "w", calls))) {
		free(p);
		return stream;
	}
	*p = (struct patience){ .fd = fd, .interrupt_fd = fcntl(interrupt_fd, F_DUPFD_CLOEXEC, 3) };
	p->mode = S_ISSOCK(st.st_mode)				? OUTPUT_SOCKET
		  : S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode) ? OUTPUT_POLLED
								: OUTPUT_PLAIN;
	setvbuf(f, NULL, buffering, BUFSIZ);
	return f;
}

void verb_print_patiently(int interrupt_fd)
{
	stdout = with_patience(stdout, STDOUT_FILENO, isatty(STDOUT_FILENO) ? _IOLBF : _IOFBF,
			       interrupt_fd);
	stderr = with_patience(stderr, STDERR_FILENO, _IONBF, interrupt_fd);
}
