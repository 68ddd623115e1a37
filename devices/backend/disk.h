/*
 * The host's side of a disk: a raw image file or a block device, opened by its absolute path.
 * Any thread, one at a time; the fd stays the same from disk_open to disk_close.
 *
 * The lock: one writer or many readers, among all programs that take locks on the file (QEMU does).
 * It has two halves, so that it can go from one host to another with a guest and nobody else gets
 * in between: a writer needs both, and either one alone keeps all others out.
 *
 *     held by                      KEEP        RESERVE
 *     a VM                         yes         yes         disk_lock
 *     one that is being moved      yes         no          disk_share
 *     one that waits for a guest   no          yes         disk_reserve
 *     the source before GO         no          no          disk_release
 *     the destination after GO     yes         yes         disk_lock
 *
 * KEEP is bytes 0 to 199 and RESERVE all others: QEMU's own locks are at bytes from 100 and from
 * 200 on, so it meets both. Readers have read locks on all of it, here and there at once.
 */
#ifndef GODWIT_DEVICES_BACKEND_DISK_H
#define GODWIT_DEVICES_BACKEND_DISK_H

#include <stdbool.h>
#include <stdint.h>

struct disk;
struct err;
struct io_uring_sqe;
struct iovec;

#define DISK_SECTOR 512u

/* DISK_PUNCH frees the range's blocks, DISK_ZERO keeps them; both read as zeroes afterwards. */
enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_PUNCH, DISK_ZERO };
#define DISK_OPS (DISK_ZERO + 1)

/* One operation, from disk_prep_* to disk_done. The caller keeps it until then. */
struct disk_io {
	enum disk_op op;
	uint64_t offset;
	uint32_t bytes; /* 0: a flush */
	bool durable;	/* a write that is on the medium when it is done */
	int result;	/* for the backend */
};

/*
 * How a kind of image does its operations. Each prep_* fills `sqe` for io_uring, except for its
 * user data; `iov` need not outlive the submit. The caller's lock guards all of it.
 */
struct disk_ops {
	void (*prep_read)(struct disk *d, struct disk_io *io, const struct iovec *iov,
			  unsigned int n, struct io_uring_sqe *sqe);
	void (*prep_write)(struct disk *d, struct disk_io *io, const struct iovec *iov,
			   unsigned int n, struct io_uring_sqe *sqe);
	void (*prep_flush)(struct disk *d, struct disk_io *io, struct io_uring_sqe *sqe);
	/* DISK_PUNCH and DISK_ZERO; EOPNOTSUPP if the image cannot. */
	void (*prep_zero)(struct disk *d, struct disk_io *io, struct io_uring_sqe *sqe);

	/* What came of it (bytes, or -errno); `res` is the kernel's answer. NULL: that is it. */
	int (*result)(struct disk *d, const struct disk_io *io, int res);
};

/* A file or a block device, by its fd: what disk_open sets. */
extern const struct disk_ops disk_file_ops;

/* [offset, offset + bytes) of the image may have changed; no multiples of sectors. */
typedef void disk_watch_fn(void *arg, uint64_t offset, uint64_t bytes);

enum disk_held { DISK_NOTHING, DISK_KEEP, DISK_RESERVE, DISK_ALL };

struct disk {
	int fd;
	char name[64];	/* what messages call it: "disk0" */
	char path[512]; /* absolute */
	bool readonly;
	uint64_t sectors; /* of DISK_SECTOR bytes; what the guest knows of (disk_size: what is) */
	uint32_t block_bytes; /* the smallest write that does not read first: 512 or 4096 */

	const struct disk_ops *ops;
	void *backend; /* of ops that need more than the fd */
	disk_watch_fn *watch;
	void *watch_arg;

	enum disk_held held;
	int lockless;	    /* why its file system has no locks (errno); 0: it has */
	bool lockless_told; /* by a warning: once, and not of a disk that is only reserved */
};

/*
 * Opens it; refuses what is no disk (a directory, an empty file, a size that is no multiple of
 * 512). On -1 there is nothing to close.
 */
int disk_open(struct disk *d, const char *name, const char *path, bool readonly, struct err *e);
/* The same, but a path with a link in it is refused. */
int disk_open_without_links(struct disk *d, const char *name, const char *path, bool readonly,
			    struct err *e);
void disk_close(struct disk *d);

/* How large the image is now: somebody may have grown it. */
int disk_size(const struct disk *d, uint64_t *sectors, struct err *e);

/* Makes a regular file that large, which it is not yet; the rest has no blocks. */
int disk_grow(const struct disk *d, uint64_t sectors, struct err *e);

/* -- reading and writing: disk_io.c -- */

/* Fill `io` and `sqe`; `bytes` is the sum of `iov`. */
void disk_prep_read(struct disk *d, struct disk_io *io, uint64_t offset, uint32_t bytes,
		    const struct iovec *iov, unsigned int n, struct io_uring_sqe *sqe);
void disk_prep_write(struct disk *d, struct disk_io *io, uint64_t offset, uint32_t bytes,
		     const struct iovec *iov, unsigned int n, bool durable,
		     struct io_uring_sqe *sqe);
void disk_prep_flush(struct disk *d, struct disk_io *io, struct io_uring_sqe *sqe);
void disk_prep_zero(struct disk *d, struct disk_io *io, enum disk_op how, uint64_t offset,
		    uint32_t bytes, struct io_uring_sqe *sqe);

/* The kernel has answered with `res`. Returns the result (bytes, or -errno); tells the watcher. */
int disk_done(struct disk *d, const struct disk_io *io, int res);

/*
 * Calls `fn` after each write, punch and zeroing that ends from now on, with the whole range that
 * was asked for: an operation that failed or was short may have changed any part of it. Runs on the
 * thread and under the lock of the caller of disk_done. NULL: no more.
 */
void disk_watch(struct disk *d, disk_watch_fn *fn, void *arg);

/* -- the lock -- */

/*
 * All of the lock; on -1 what was held before is held still. A file system without locks is warned
 * of and used. disk_close gives the lock up as well.
 */
int disk_lock(struct disk *d, struct err *e);

/*
 * The half that can be had while the image's VM is being moved; nothing must be held. It warns of
 * nothing: who sends machines and no guest must not fill the log. disk_lock does, when one is here.
 */
int disk_reserve(struct disk *d, struct err *e);

/*
 * Reserved: whether the image may be the one of a VM that is being moved, which holds KEEP. False
 * only for a file that no other host can have open, so that its lock would be seen here; then it is
 * another image, or a copy.
 */
bool disk_may_be_shared(const struct disk *d);

/* The owner lets another host reserve the image. */
void disk_share(struct disk *d);

/*
 * The owner, all written, hands it over: gives the lock up. If nobody has reserved it, the guest
 * goes on with another image, and this one stays locked: nobody would keep third parties out of it.
 */
void disk_release(struct disk *d);

/*
 * The owner again, after disk_share or disk_release: all of the lock, or only KEEP as long as
 * another one has the other half reserved (then ask again later).
 */
int disk_retake(struct disk *d, struct err *e);

void disk_unlock(struct disk *d);

/* What this host has cached of it is read anew, where another host may have written. Best effort.
 */
void disk_forget(struct disk *d);

#endif
