/*
 * Wake-ups by eventfd. No state of its own.
 */
#include "vmm/base/wake.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/base/err.h"

int wake_init(int *fd, struct err *e)
{
	*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return *fd < 0 ? err_errno(e, errno, "cannot make an eventfd") : 0;
}

void wake_free(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void wake_signal(int fd)
{
	uint64_t one = 1;

	/* EAGAIN: 2^64 - 2 signals wait already, so it is set in any case. */
	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

bool wake_drain(int fd)
{
	uint64_t n;
	ssize_t got;

	do {
		got = read(fd, &n, sizeof(n));
	} while (got < 0 && errno == EINTR);
	return got == sizeof(n);
}

bool wake_is_set(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };

	/* poll ignores a negative descriptor. */
	return poll(&p, 1, 0) > 0;
}

int wake_nap(int stop_fd, uint64_t us, struct err *e)
{
	struct pollfd stop = { stop_fd, POLLIN, 0 };
	struct timespec t = clock_timespec(us * 1000);
	int n = ppoll(&stop, 1, &t, NULL);

	if (n > 0)
		return err_set(e, "cancelled");
	if (n < 0 && errno != EINTR)
		return err_errno(e, errno, "cannot wait");
	return 0;
}
