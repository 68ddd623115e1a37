/*
 * What fd:N may name: see inherited.h.
 */
#include "migrate/channel/inherited.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "vmm/base/err.h"

static bool is_connection(int fd)
{
	int type = 0, listens = 0;
	socklen_t a = sizeof(type), b = sizeof(listens);

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &a) && type == SOCK_STREAM &&
	       !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &b) && !listens;
}

void inherited_find(struct inherited *all)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	all->n = 0;
	while (dir && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (fd <= 2 || fd == dirfd(dir) || !is_connection(fd) || all->n == INHERITED_MAX)
			continue;
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		all->fd[all->n++] = fd;
	}
	if (dir)
		closedir(dir);
}

int inherited_check(const struct inherited *all, int fd, struct err *e)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	unsigned int i;

	for (i = 0; all && i < all->n; i++)
		if (all->fd[i] == fd)
			break;
	if (!all || i == all->n)
		return err_set(e,
			       "fd:%d is no connection that this VM was started with, or it has "
			       "been used (expected a connected stream socket, inherited when the "
			       "VM was started; each can be used once)",
			       fd);
	if (getpeername(fd, (struct sockaddr *)&peer, &len))
		return err_errno(e, errno, "fd:%d is not connected", fd);
	return 0;
}

int inherited_take(struct inherited *all, int fd, struct err *e)
{
	if (inherited_check(all, fd, e))
		return -1;
	for (unsigned int i = 0; i < all->n; i++)
		if (all->fd[i] == fd)
			all->fd[i] = all->fd[--all->n];
	return fd;
}
