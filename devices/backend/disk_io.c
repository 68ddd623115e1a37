/*
 * Reading and writing an image. The operations of files and block devices are io_uring's own, on
 * the fd; the watcher is served here, so no kind of image can forget it.
 */
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>

#include "devices/backend/disk.h"

/* -- files and block devices -- */

static void file_read(struct disk *d, struct disk_io *io, const struct iovec *iov, unsigned int n,
		      struct io_uring_sqe *sqe)
{
	io_uring_prep_readv(sqe, d->fd, iov, n, io->offset);
}

static void file_write(struct disk *d, struct disk_io *io, const struct iovec *iov, unsigned int n,
		       struct io_uring_sqe *sqe)
{
	io_uring_prep_writev(sqe, d->fd, iov, n, io->offset);
	if (io->durable)
		sqe->rw_flags = RWF_DSYNC;
}

static void file_flush(struct disk *d, struct disk_io *io, struct io_uring_sqe *sqe)
{
	(void)io;
	io_uring_prep_fsync(sqe, d->fd, IORING_FSYNC_DATASYNC);
}

static void file_zero(struct disk *d, struct disk_io *io, struct io_uring_sqe *sqe)
{
	int how = io->op == DISK_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

	io_uring_prep_fallocate(sqe, d->fd, how | FALLOC_FL_KEEP_SIZE, io->offset, io->bytes);
}

const struct disk_ops disk_file_ops = {
	.prep_read = file_read,
	.prep_write = file_write,
	.prep_flush = file_flush,
	.prep_zero = file_zero,
};

/* -- any kind of image -- */

void disk_prep_read(struct disk *d, struct disk_io *io, uint64_t offset, uint32_t bytes,
		    const struct iovec *iov, unsigned int n, struct io_uring_sqe *sqe)
{
	*io = (struct disk_io){ .op = DISK_READ, .offset = offset, .bytes = bytes };
	d->ops->prep_read(d, io, iov, n, sqe);
}

void disk_prep_write(struct disk *d, struct disk_io *io, uint64_t offset, uint32_t bytes,
		     const struct iovec *iov, unsigned int n, bool durable,
		     struct io_uring_sqe *sqe)
{
	*io = (struct disk_io){
		.op = DISK_WRITE, .offset = offset, .bytes = bytes, .durable = durable
	};
	d->ops->prep_write(d, io, iov, n, sqe);
}

void disk_prep_flush(struct disk *d, struct disk_io *io, struct io_uring_sqe *sqe)
{
	*io = (struct disk_io){ .op = DISK_FLUSH };
	d->ops->prep_flush(d, io, sqe);
}

void disk_prep_zero(struct disk *d, struct disk_io *io, enum disk_op how, uint64_t offset,
		    uint32_t bytes, struct io_uring_sqe *sqe)
{
	*io = (struct disk_io){ .op = how, .offset = offset, .bytes = bytes };
	d->ops->prep_zero(d, io, sqe);
}

int disk_done(struct disk *d, const struct disk_io *io, int res)
{
	if (d->ops->result)
		res = d->ops->result(d, io, res);
	if (d->watch && io->op != DISK_READ && io->op != DISK_FLUSH)
		d->watch(d->watch_arg, io->offset, io->bytes);
	return res;
}

void disk_watch(struct disk *d, disk_watch_fn *fn, void *arg)
{
	d->watch = fn;
	d->watch_arg = arg;
}
