/*
 * A channel: bytes to or from the other side, in order, whole or not at all: a file or a socket.
 * One thread writes and one reads at a time.
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
	/* Waits until something can be read or the other side has closed: 1, or 0 after
	 * `timeout_ms` (-1: for ever) or at the deadline. NULL: there is always something. */
	int (*wait)(struct channel *ch, int timeout_ms, struct err *e);
	/* 1 if all has been read, else 0; files and memory only. */
	int (*at_end)(struct channel *ch, struct err *e);
	void (*set_stop)(struct channel *ch, int stop_fd);
	void (*shutdown)(struct channel *ch, bool writes_too);
	/* Everything has been written: make it last. */
	int (*finish)(struct channel *ch, struct err *e);
	void (*close)(struct channel *ch);
};

/* Embedded first in each kind's own struct. */
struct channel {
	const struct channel_ops *ops;
	char name[256]; /* "file:/srv/web.vm", for messages */
	uint64_t bytes; /* written so far, also by a write that failed half-way */
	/* Atomic: read so far; others look whether it grows. Sockets only. */
	uint64_t received;
	/* What comes is known to be what the right peer sent. No kind of today's is. */
	bool authenticated;
	bool same_host;	   /* both ends are on this host: nothing goes over a network */
	bool page_aligned; /* page data begin at multiples of the page size (files) */
	/* Atomic: no wait lasts longer (clock_us); 0: none. Sockets only. Another thread may change
	 * it, which a wait that is under way sees within a second. */
	uint64_t deadline_us;
	bool read_apart; /* see channel_read_apart */
};

/* Writes all of the vector (which it may change on the way), or fails with a sentence. */
int channel_write(struct channel *ch, struct iovec *iov, int n, struct err *e);

/* Reads exactly `len` bytes; an end before that is an error. */
int channel_read(struct channel *ch, void *buf, size_t len, struct err *e);

/* That nothing comes any more. Files and memory only; a byte may be taken for it. */
int channel_expect_end(struct channel *ch, struct err *e);

int channel_wait(struct channel *ch, int timeout_ms, struct err *e);

/* From now on: after so long every read, write or wait that has to wait fails (wait: 0). So that
 * a peer which says half a word cannot hold anybody. -1: no limit any more. */
void channel_set_deadline(struct channel *ch, int timeout_ms);

/* Another stop fd from here on; -1: nothing stops it any more. Sockets only. */
void channel_set_stop(struct channel *ch, int stop_fd);

/* From now on a thread of its own reads: the stop fd and the deadline hold for writes only, and
 * what ends a read is channel_end_reads. Before that thread starts. Sockets only. */
void channel_read_apart(struct channel *ch);

/* Ends reads and writes of other threads on it, at once. Sockets only. */
void channel_shutdown(struct channel *ch);

/* Ends only the reads: the other side can still be told why. Sockets only. */
void channel_end_reads(struct channel *ch);

int channel_finish(struct channel *ch, struct err *e);

/* Frees it; what was not finished leaves nothing behind. NULL is allowed. */
void channel_close(struct channel *ch);

/*
 * A file to be written: invisible until channel_finish has synced it and given it its name, where
 * it replaces an older saved machine, if there is one; nothing else (target.h). Whatever fails, and
 * however the process ends, the name holds the old file or none.
 */
int file_channel_create(struct channel **out, const char *path, struct err *e);

/* A file to be read. */
int file_channel_open(struct channel **out, const char *path, struct err *e);

/* Whether nobody but root and the user of this process can have written it; if not, `why` says who
 * can. Files only. */
bool file_channel_is_own(const struct channel *ch, struct err *why);

/*
 * A connected stream socket, which the channel then owns. `stop_fd` (an eventfd, not owned) makes
 * every wait of the channel end at once with the error "cancelled", however slow the link: -1 for
 * none. A TCP link from which nothing comes back any more fails within about half a minute; one
 * whose other side is there, but takes nothing, after two minutes.
 */
int socket_channel(struct channel **out, int fd, const char *name, int stop_fd, struct err *e);

/* Other times for these two, for tests. */
void socket_set_patience(struct channel *ch, int silence_ms, int stall_ms);

/* Its descriptor; and its end without the connection's, which another descriptor goes on with. */
int socket_channel_fd(const struct channel *ch);
void socket_channel_abandon(struct channel *ch);

/*
 * A stream in memory: reads come from `bytes`, which must stay, writes are kept: ch->bytes of them.
 * For tests; nobody ever waits.
 */
int memory_channel(struct channel **out, const void *bytes, size_t len, struct err *e);
const uint8_t *memory_channel_written(const struct channel *ch);

#endif
