/*
 * A listening unix socket: see listen.h. Never waits. Only a socket that refuses connections is
 * ever replaced.
 */
#include "devices/backend/listen.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/base/err.h"

/* Removes a socket file where nobody answers; -1 when it is none, or somebody does. */
static int remove_stale(const struct sockaddr_un *addr, struct err *e)
{
	struct stat st;
	int fd, rc;

	if (lstat(addr->sun_path, &st))
		return err_errno(e, errno, "%s", addr->sun_path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, "%s exists and is not a socket", addr->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, errno, "%s: cannot make a socket", addr->sun_path);
	rc = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) ? errno : 0;
	close(fd);
	/* EAGAIN: somebody listens and has more to accept than he can. */
	if (rc != ECONNREFUSED)
		return err_set(
			e, "%s is in use by another process; stop that one, or choose another path",
			addr->sun_path);
	if (unlink(addr->sun_path))
		return err_errno(e, errno, "%s: cannot remove the stale socket", addr->sun_path);
	return 0;
}

int listen_open(struct listen_socket *l, const char *path, struct err *e)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const struct sockaddr *sa = (const struct sockaddr *)&addr;
	struct stat st;
	int rc;

	l->fd = -1;
	if (!*path)
		return err_set(e, "the path of a socket is empty");
	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(
			e, "%s: a socket's path can have %zu characters at most, this one has %zu",
			path, sizeof(addr.sun_path) - 1, strlen(path));
	memcpy(addr.sun_path, path, strlen(path) + 1);
	memcpy(l->path, addr.sun_path, sizeof(l->path));
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0)
		return err_errno(e, errno, "%s: cannot make a socket", path);
	/* Linux gives the new file the socket's mode, so it is never wider, whatever the umask. */
	rc = fchmod(l->fd, 0600) || bind(l->fd, sa, sizeof(addr));
	if (rc && errno == EADDRINUSE) {
		if (remove_stale(&addr, e))
			goto fail;
		rc = bind(l->fd, sa, sizeof(addr));
	}
	if (rc) {
		err_errno(e, errno, "%s: cannot listen there", path);
		goto fail;
	}
	if (listen(l->fd, 1) || lstat(path, &st)) {
		err_errno(e, errno, "%s: cannot listen there", path);
		unlink(path);
		goto fail;
	}
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	return 0;
fail:
	close(l->fd);
	l->fd = -1;
	return -1;
}

void listen_close(struct listen_socket *l)
{
	struct stat st;

	if (l->fd < 0)
		return;
	if (!lstat(l->path, &st) && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(l->path);
	close(l->fd);
	l->fd = -1;
}
