/*
 * The sockets of a waiting destination: one unix socket, or one for each address that tcp:HOST:PORT
 * means. A process that forks shares them with its child. No thread of their own.
 */
#ifndef GODWIT_MIGRATE_CHANNEL_LISTENERS_H
#define GODWIT_MIGRATE_CHANNEL_LISTENERS_H

#include "vmm/control/runtime.h"

struct err;
struct uri;

#define LISTENERS_MAX 8

struct listeners {
	int fd[LISTENERS_MAX]; /* non-blocking, close-on-exec */
	unsigned int n;
	struct unix_socket path; /* unix: fd[0]'s; else its fd is -1 */
};

/*
 * Listens there: on all addresses of a name, or everywhere for an empty one, each family with a
 * socket of its own and all with one port. A unix socket that nobody answers at any more is
 * replaced, one where somebody does is refused. `name` becomes what it listens on, with the port
 * that the system chose for 0.
 */
int listeners_open(struct listeners *l, const struct uri *u, char *name, unsigned int size,
		   struct err *e);

/* Who connects from now on is refused, and who waits to be accepted: in all processes. */
void listeners_refuse(struct listeners *l);

/* Closes them; a unix socket goes, if it is still ours. */
void listeners_close(struct listeners *l);

#endif
