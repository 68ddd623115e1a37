/*
 * Listening unix sockets, each of which belongs to one process, and whether one is alive, stale or
 * none. A path is claimed under a lock on its directory, so of two processes that want the same one
 * gets it and the other hears that it is in use. No state; any thread.
 */
#ifndef GODWIT_BASE_UNIX_SOCKET_H
#define GODWIT_BASE_UNIX_SOCKET_H

#include <sys/types.h>

struct err;

/* What a unix socket's address can hold, the zero at the end included. */
#define UNIX_SOCKET_PATH_MAX 108

/* Whether an address can hold it; -1 with a sentence. */
int unix_socket_check_path(const char *path, struct err *e);

enum unix_socket_found {
	UNIX_SOCKET_ABSENT,  /* nothing there */
	UNIX_SOCKET_ANSWERS, /* somebody listens */
	UNIX_SOCKET_STALE,   /* a socket that nobody listens on */
	UNIX_SOCKET_FOREIGN, /* something else than a socket */
	UNIX_SOCKET_UNKNOWN, /* cannot be told (permission); errno says why */
};

/* Looks at a path, without waiting. With `fd` and UNIX_SOCKET_ANSWERS, *fd is the open connection
 * (blocking, close-on-exec). */
enum unix_socket_found unix_socket_probe(const char *path, int *fd);

/* A listening socket of our own. */
struct unix_socket {
	int fd; /* -1: none; non-blocking, close-on-exec */
	char path[UNIX_SOCKET_PATH_MAX];
	dev_t dev;
	ino_t ino;
};

/*
 * Listens at `path` (mode 0600), replacing a stale socket. -1 with a sentence; errno is EADDRINUSE
 * when somebody answers there, else another value.
 */
int unix_socket_listen(struct unix_socket *s, const char *path, struct err *e);

/* Closes, and removes the path when it is still our socket. */
void unix_socket_close(struct unix_socket *s);

/* Removes a socket that nobody listens on, if it may; does nothing to any other. */
void unix_socket_remove_stale(const char *path);

#endif
