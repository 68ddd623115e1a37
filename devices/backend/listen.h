/*
 * A listening unix socket that belongs to one process: a stale one is replaced, one where somebody
 * answers is refused. Any thread.
 */
#ifndef GODWIT_BACKEND_LISTEN_H
#define GODWIT_BACKEND_LISTEN_H

#include <sys/types.h>

struct err;

struct listen_socket {
	int fd; /* -1: none */
	char path[108];
	dev_t dev; /* of the socket file that is ours */
	ino_t ino;
};

int listen_open(struct listen_socket *l, const char *path, struct err *e);
/* Also removes the file, if it is still ours. */
void listen_close(struct listen_socket *l);

#endif
