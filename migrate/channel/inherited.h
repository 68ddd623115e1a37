/*
 * The connections that a process was started with: what fd:N may name. Every other descriptor is
 * the VM's own (its control socket, its console, its disks), and a URI that comes from a client
 * must not reach it. Each can be used once. No locks: the owner's thread asks, the migration's
 * takes, and a migration is under way then.
 */
#ifndef GODWIT_MIGRATE_CHANNEL_INHERITED_H
#define GODWIT_MIGRATE_CHANNEL_INHERITED_H

#include <stdbool.h>

struct err;

#define INHERITED_MAX 16

struct inherited {
	int fd[INHERITED_MAX];
	unsigned int n;
};

/* Remembers the stream sockets above 2 that are open. Before the process opens any. */
void inherited_find(struct inherited *all);

/* -1 with a sentence when that descriptor is not one of them. */
int inherited_check(const struct inherited *all, int fd, struct err *e);

/* The descriptor, which is the caller's from now on, and cannot be had again; -1 likewise. */
int inherited_take(struct inherited *all, int fd, struct err *e);

#endif
