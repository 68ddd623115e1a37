/*
 * The runtime directory and its sockets: see runtime.h. Invariant: a path is removed only under
 * the lock of its directory, and only when it is our own socket or one that nobody listens on.
 */
#include "vmm/control/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/words.h"

/* Somebody else's lock on the directory is not waited for longer than this. */
#define LOCK_WAIT_MS 2000
#define LOCK_STEP_MS 5

#define NAME_MAX_CHARS 64

_Static_assert(RUNTIME_PATH_MAX == sizeof(((struct sockaddr_un *)0)->sun_path),
	       "a socket's path is as long as its address holds");

static int make_dir(const char *dir, mode_t mode, struct err *e)
{
	struct stat st;

	if (mkdir(dir, mode) && errno != EEXIST)
		return err_errno(e, errno, "cannot create the runtime directory %s", dir);
	if (stat(dir, &st))
		return err_errno(e, errno, "cannot use the runtime directory %s", dir);
	if (!S_ISDIR(st.st_mode))
		return err_set(e, "the runtime directory %s is not a directory", dir);
	return 0;
}

int runtime_dir(char dir[RUNTIME_PATH_MAX], bool create, struct err *e)
{
	const char *given = getenv("GODWIT_RUNTIME_DIR");
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	mode_t mode = 0700;
	int n;

	if (given && *given) {
		n = snprintf(dir, RUNTIME_PATH_MAX, "%s", given);
	} else if (geteuid() == 0) {
		n = snprintf(dir, RUNTIME_PATH_MAX, "/run/godwit");
		mode = 0711; /* others may not open it: whoever can, can lock it */
	} else if (xdg && *xdg) {
		given = xdg;
		n = snprintf(dir, RUNTIME_PATH_MAX, "%s/godwit", xdg);
	} else {
		return err_set(e, "there is no directory for control sockets: neither "
				  "GODWIT_RUNTIME_DIR nor XDG_RUNTIME_DIR is set");
	}
	if (n >= RUNTIME_PATH_MAX)
		return err_set(
			e,
			"the runtime directory '%.40s...' has %d characters; a socket's path "
			"may have %d",
			given, n, RUNTIME_PATH_MAX - 1);
	return create ? make_dir(dir, mode, e) : 0;
}

static int check_length(const char *path, struct err *e)
{
	size_t n = strlen(path);

	if (n == 0)
		return err_set(e, "the path of the control socket is empty");
	if (n >= RUNTIME_PATH_MAX) {
		errno = ENAMETOOLONG;
		return err_set(e,
			       "the path of the control socket '%.60s...' has %zu characters; a "
			       "socket's path may have %d",
			       path, n, RUNTIME_PATH_MAX - 1);
	}
	return 0;
}

int runtime_name_path(const char *name, bool create, char path[RUNTIME_PATH_MAX], struct err *e)
{
	char dir[RUNTIME_PATH_MAX], whole[RUNTIME_PATH_MAX + NAME_MAX_CHARS + 16];

	if (word_check_name("the VM's name", name, NAME_MAX_CHARS, e) ||
	    runtime_dir(dir, create, e))
		return -1;
	snprintf(whole, sizeof(whole), "%s/%s.sock", dir, name);
	if (check_length(whole, e))
		return -1;
	memcpy(path, whole, strlen(whole) + 1);
	return 0;
}

int runtime_vm_path(const char *vm, char path[RUNTIME_PATH_MAX], struct err *e)
{
	if (!strchr(vm, '/'))
		return runtime_name_path(vm, false, path, e);
	if (check_length(vm, e))
		return -1;
	memcpy(path, vm, strlen(vm) + 1);
	return 0;
}

/* The caller has checked the length. */
static void socket_address(struct sockaddr_un *sa, const char *path)
{
	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	snprintf(sa->sun_path, sizeof(sa->sun_path), "%s", path);
}

enum runtime_probe runtime_probe(const char *path, int *fd)
{
	enum runtime_probe found;
	struct sockaddr_un sa;
	struct stat st;
	int s;

	/* Of the link itself: a link is nothing that godwit has made, and nothing to replace. */
	if (lstat(path, &st))
		return errno == ENOENT ? RUNTIME_ABSENT : RUNTIME_UNKNOWN;
	if (!S_ISSOCK(st.st_mode))
		return RUNTIME_FOREIGN;
	s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s < 0)
		return RUNTIME_UNKNOWN;
	socket_address(&sa, path);
	if (connect(s, (struct sockaddr *)&sa, sizeof(sa)) == 0) {
		if (fd) {
			(void)fcntl(s, F_SETFL, 0);
			*fd = s;
			return RUNTIME_ANSWERS;
		}
		found = RUNTIME_ANSWERS;
	} else if (errno == EAGAIN) {
		/* Alive, with a queue full of others that wait; not to be talked to now. */
		found = fd ? RUNTIME_UNKNOWN : RUNTIME_ANSWERS;
	} else if (errno == ECONNREFUSED) {
		found = RUNTIME_STALE;
	} else if (errno == ENOENT) {
		found = RUNTIME_ABSENT;
	} else if (errno == EPROTOTYPE) {
		found = RUNTIME_FOREIGN;
	} else {
		found = RUNTIME_UNKNOWN;
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
	char dir[RUNTIME_PATH_MAX];
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
	switch (runtime_probe(path, NULL)) {
	case RUNTIME_ABSENT:
		return 0;
	case RUNTIME_STALE:
		if (unlink(path) && errno != ENOENT)
			return err_errno(e, errno, "cannot replace the stale socket %s", path);
		return 0;
	case RUNTIME_ANSWERS:
		err_set(e, "the socket %s is in use: somebody answers there", path);
		errno = EADDRINUSE;
		return -1;
	case RUNTIME_FOREIGN:
		err_set(e, "%s exists and is not a socket; it is left alone", path);
		errno = EEXIST;
		return -1;
	case RUNTIME_UNKNOWN:
		break;
	}
	return err_errno(e, errno, "cannot tell whether the socket %s is in use", path);
}

static int bind_and_listen(struct runtime_socket *s, struct err *e)
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

int runtime_listen(struct runtime_socket *s, const char *path, struct err *e)
{
	int lock, rc, why;

	s->fd = -1;
	if (check_length(path, e))
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

void runtime_unlisten(struct runtime_socket *s)
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

void runtime_remove_stale(const char *path)
{
	int lock = lock_dir_of(path, NULL);

	if (lock < 0)
		return;
	if (runtime_probe(path, NULL) == RUNTIME_STALE)
		unlink(path);
	close(lock);
}
