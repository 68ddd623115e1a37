/*
 * A channel: bytes to or from the other side, in order, whole or not at all. Files now; sockets
 * and memory are further kinds behind the same functions.
 */
#ifndef GODWIT_MIGRATE_CHANNEL_CHANNEL_H
#define GODWIT_MIGRATE_CHANNEL_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct channel;
struct err;

struct channel_ops {
	int (*write)(struct channel *ch, struct iovec *iov, int n, struct err *e);
	int (*read)(struct channel *ch, void *buf, size_t len, struct err *e);
	/* Everything has been written: make it last. */
	int (*finish)(struct channel *ch, struct err *e);
	void (*close)(struct channel *ch);
};

/* Embedded first in each kind's own struct. */
struct channel {
	const struct channel_ops *ops;
	char name[256];	   /* "file:/srv/web.vm", for messages */
	uint64_t bytes;	   /* written or read so far */
	bool page_aligned; /* page data begin at multiples of the page size (files) */
};

/* Writes all of the vector (which it may change on the way), or fails with a sentence. */
int channel_write(struct channel *ch, struct iovec *iov, int n, struct err *e);

/* Reads exactly `len` bytes; an end before that is an error. */
int channel_read(struct channel *ch, void *buf, size_t len, struct err *e);

int channel_finish(struct channel *ch, struct err *e);

/* Frees it; what was not finished leaves nothing behind. NULL is allowed. */
void channel_close(struct channel *ch);

/*
 * A file to be written: invisible until channel_finish has synced it and given it its name, where
 * it replaces a regular file of that name, if there is one. Whatever fails, and however the
 * process ends, the name holds the old file or none.
 */
int file_channel_create(struct channel **out, const char *path, struct err *e);

/* A file to be read. */
int file_channel_open(struct channel **out, const char *path, struct err *e);

#endif
