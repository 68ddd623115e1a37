/*
 * Where control sockets are: the runtime directory, names of VMs, and which socket is alive, stale
 * or none. A socket is claimed under a lock on its directory, so of two processes that want the
 * same name one gets it and the other hears that it is in use. No state; any thread.
 */
#ifndef GODWIT_CONTROL_RUNTIME_H
#define GODWIT_CONTROL_RUNTIME_H

#include <stdbool.h>
#include <sys/types.h>

struct err;

/* What a unix socket's address can hold, the zero at the end included. */
#define RUNTIME_PATH_MAX 108

/*
 * The runtime directory: $GODWIT_RUNTIME_DIR, else /run/godwit for root, else
 * $XDG_RUNTIME_DIR/godwit. `create` makes it when it is missing (0711 for /run/godwit, else 0700).
 */
int runtime_dir(char dir[RUNTIME_PATH_MAX], bool create, struct err *e);

/* The socket of the VM called `name`; `create` as above. */
int runtime_name_path(const char *name, bool create, char path[RUNTIME_PATH_MAX], struct err *e);

/* The socket that an operand means: one with a '/' is the path itself, else it is a name. */
int runtime_vm_path(const char *vm, char path[RUNTIME_PATH_MAX], struct err *e);

enum runtime_probe {
	RUNTIME_ABSENT,	 /* nothing there */
	RUNTIME_ANSWERS, /* somebody listens */
	RUNTIME_STALE,	 /* a socket that nobody listens on */
	RUNTIME_FOREIGN, /* something else than a socket */
	RUNTIME_UNKNOWN, /* cannot be told (permission); errno says why */
};

/* Looks at a path, without waiting. With `fd` and RUNTIME_ANSWERS, *fd is the open connection
 * (blocking, close-on-exec). */
enum runtime_probe runtime_probe(const char *path, int *fd);

/* A listening socket of our own. */
struct runtime_socket {
	int fd; /* -1: none; non-blocking, close-on-exec */
	char path[RUNTIME_PATH_MAX];
	dev_t dev;
	ino_t ino;
};

/*
 * Listens at `path` (mode 0600), replacing a stale socket. -1 with a sentence; errno is EADDRINUSE
 * when somebody answers there, else another value.
 */
int runtime_listen(struct runtime_socket *s, const char *path, struct err *e);

/* Closes, and removes the path when it is still our socket. */
void runtime_unlisten(struct runtime_socket *s);

/* Removes a socket that nobody listens on, if it may; does nothing to any other. */
void runtime_remove_stale(const char *path);

#endif
