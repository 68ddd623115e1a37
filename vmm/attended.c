#include "vmm/attended.h"

#include <poll.h>
#include <sys/socket.h>

#include "vmm/base/err.h"

/* How long the attending process may take to answer. */
#define ANSWER_MS 5000

int attended_settle(int fd, struct err *e)
{
	struct pollfd answer = { fd, POLLIN, 0 };
	char byte = 0;

	if (fd < 0)
		return 0;
	if (send(fd, &byte, 1, MSG_NOSIGNAL) == 1 && poll(&answer, 1, ANSWER_MS) == 1 &&
	    recv(fd, &byte, 1, MSG_DONTWAIT) == 1)
		return 0;
	return err_set(e, "the attending process has ended, or does not answer");
}
