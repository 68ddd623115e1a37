/*
 * Listening unix sockets: see unix_socket.h. Invariant: a path is removed only under the lock of
 * its directory, and only when it is our own socket or one that nobody listens on.
 */
#include "vmm/base/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/base/err.h"

/* Somebody else's lock on the directory is not waited for longer than this. */
#define LOCK_WAIT_MS 2000
#define LOCK_STEP_MS 5

_Static_assert(UNIX_SOCKET_PATH_MAX == sizeof(((struct sockaddr_un *)0)->sun_path),
	       "a socket's path is as long as its address holds");

int unix_socket_check_path(const char *path, struct err *e)
{
	size_t n = strlen(path);

	if (n == 0)
		return err_set(e, "the path of a socket is empty");
	if (n >= UNIX_SOCKET_PATH_MAX) {
		errno = ENAMETOOLONG;
		return err_set(e,
			       "the path of a socket '%.60s...' has %zu characters; a "
			       "socket's path may have %d",
			       path, n, UNIX_SOCKET_PATH_MAX - 1);
	}
	return 0;
}

/* The caller has checked the length. */
static void socket_address(struct sockaddr_un *sa, const char *path)
{
	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	snprintf(sa->sun_path, sizeof(sa->sun_path), "%s", path);
}

enum unix_socket_found unix_socket_probe(const char *path, int *fd)
{
	enum unix_socket_found found;
	struct sockaddr_un sa;
	struct stat st;
	int s;

	/* Of the link itself: a link is nothing that godwit has made, and nothing to replace. */
	if (lstat(path, &st))
		return errno == ENOENT ? UNIX_SOCKET_ABSENT : UNIX_SOCKET_UNKNOWN;
	if (!S_ISSOCK(st.st_mode))
		return UNIX_SOCKET_FOREIGN;
	s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s < 0)
		return UNIX_SOCKET_UNKNOWN;
	socket_address(&sa, path);
	if (connect(s, (struct sockaddr *)&sa, sizeof(sa)) == 0) {
		if (fd) {
			(void)fcntl(s, F_SETFL, 0);
			*fd = s;
			return UNIX_SOCKET_ANSWERS;
		}
		found = UNIX_SOCKET_ANSWERS;
	} else if (errno == EAGAIN) {
		/* Alive, with a queue full of others that wait; not to be talked to now. */
		found = fd ? UNIX_SOCKET_UNKNOWN : UNIX_SOCKET_ANSWERS;
	} else if (errno == ECONNREFUSED) {
		found = UNIX_SOCKET_STALE;
	} else if (errno == ENOENT) {
		found = UNIX_SOCKET_ABSENT;
	} else if (errno == EPROTOTYPE) {
		found = UNIX_SOCKET_FOREIGN;
	} else {
		found = UNIX_SOCKET_UNKNOWN;
	}
	int why = errno;

	close(s);
	errno = why;
	return found;
}

/*
 * The lock under which paths in a directory are looked at, removed and bound. Anybody who can read
 * the directory can hold it, hence the bound on waiting. Closing the fd lets go.
 */
static int lock_dir_of(const char *path, struct err *e)
{
	char dir[UNIX_SOCKET_PATH_MAX];
	const char *slash = strrchr(path, '/');
	int fd;

	if (!slash)
		snprintf(dir, sizeof(dir), ".");
	else if (slash == path)
		snprintf(dir, sizeof(dir), "/");
	else
		snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "cannot put a socket into %s", dir);
	for (int waited = 0;; waited += LOCK_STEP_MS) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return fd;
		if ((errno != EWOULDBLOCK && errno != EINTR) || waited >= LOCK_WAIT_MS)
			break;
		poll(NULL, 0, LOCK_STEP_MS);
	}
	err_errno(e, errno, "cannot lock the directory %s within %d ms", dir, LOCK_WAIT_MS);
	close(fd);
	return -1;
}

/* Under the lock: makes the path free, or says why not. */
static int clear_path(const char *path, struct err *e)
{
	switch (unix_socket_probe(path, NULL)) {
	case UNIX_SOCKET_ABSENT:
		return 0;
	case UNIX_SOCKET_STALE:
		if (unlink(path) && errno != ENOENT)
			return err_errno(e, errno, "cannot replace the stale socket %s", path);
		return 0;
	case UNIX_SOCKET_ANSWERS:
		err_set(e,
			"the socket %s is in use by another process; stop that one, or choose "
			"another path",
			path);
		errno = EADDRINUSE;
		return -1;
	case UNIX_SOCKET_FOREIGN:
		err_set(e, "%s exists and is not a socket; it is left alone", path);
		errno = EEXIST;
		return -1;
	case UNIX_SOCKET_UNKNOWN:
		break;
	}
	return err_errno(e, errno, "cannot tell whether the socket %s is in use", path);
}

static int bind_and_listen(struct unix_socket *s, struct err *e)
{
	struct sockaddr_un sa;
	struct stat st;

	socket_address(&sa, s->path);
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->fd < 0)
		return err_errno(e, errno, "cannot make a socket");
	/* Before bind: Linux gives the new file the socket's mode, so it is never wider. */
	if (fchmod(s->fd, 0600) || bind(s->fd, (struct sockaddr *)&sa, sizeof(sa)))
		return err_errno(e, errno, "cannot make the socket %s", s->path);
	if (lstat(s->path, &st) || listen(s->fd, 16)) {
		err_errno(e, errno, "cannot listen at the socket %s", s->path);
		unlink(s->path);
		return -1;
	}
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return 0;
}

int unix_socket_listen(struct unix_socket *s, const char *path, struct err *e)
{
	int lock, rc, why;

	s->fd = -1;
	if (unix_socket_check_path(path, e))
		return -1;
	memcpy(s->path, path, strlen(path) + 1);
	lock = lock_dir_of(path, e);
	if (lock < 0)
		return -1;
	rc = clear_path(path, e);
	if (rc == 0)
		rc = bind_and_listen(s, e);
	why = errno;
	if (rc && s->fd >= 0) {
		close(s->fd);
		s->fd = -1;
	}
	close(lock);
	errno = why;
	return rc;
}

void unix_socket_close(struct unix_socket *s)
{
	struct stat st;
	int lock;

	if (s->fd < 0)
		return;
	/* Until it is closed nobody takes the path for stale, so nobody puts another there. */
	lock = lock_dir_of(s->path, NULL);
	if (lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
	close(s->fd);
	s->fd = -1;
	if (lock >= 0)
		close(lock);
}

void unix_socket_remove_stale(const char *path)
{
	int lock = lock_dir_of(path, NULL);

	if (lock < 0)
		return;
	if (unix_socket_probe(path, NULL) == UNIX_SOCKET_STALE)
		unlink(path);
	close(lock);
}
