/*
 * Each operation is done when it is prepared, and what goes to the kernel does nothing: the result
 * waits in the struct disk_io.
 */
#include "tests/unit/lib/memory_image.h"

#include <check.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How many of `io`'s bytes are to be done, and the result that it has then. */
static size_t begin(struct memory_image *m, struct disk_io *io)
{
	struct memory_fault *f = &m->faults[io->op];
	uint32_t n = io->bytes;

	ck_assert_uint_le(io->offset, m->size);
	ck_assert_uint_le(n, m->size - io->offset);
	m->asked[io->op]++;
	m->durable += io->durable;
	io->result = (int)n;
	if (f->times) {
		f->times--;
		n = f->most < n ? f->most : n;
		io->result = f->errnum ? -f->errnum : (int)n;
	}
	return n;
}

static void transfer(struct disk *d, struct disk_io *io, const struct iovec *iov, unsigned int n,
		     struct io_uring_sqe *sqe)
{
	struct memory_image *m = d->backend;
	uint8_t *at;
	size_t left;

	pthread_mutex_lock(&m->lock);
	left = begin(m, io);
	at = m->bytes + io->offset;
	for (unsigned int i = 0; i < n && left; i++) {
		size_t part = iov[i].iov_len < left ? iov[i].iov_len : left;

		if (io->op == DISK_READ)
			memcpy(iov[i].iov_base, at, part);
		else
			memcpy(at, iov[i].iov_base, part);
		at += part;
		left -= part;
	}
	pthread_mutex_unlock(&m->lock);
	io_uring_prep_nop(sqe);
}

static void prep_flush(struct disk *d, struct disk_io *io, struct io_uring_sqe *sqe)
{
	struct memory_image *m = d->backend;

	pthread_mutex_lock(&m->lock);
	begin(m, io);
	pthread_mutex_unlock(&m->lock);
	io_uring_prep_nop(sqe);
}

static void prep_zero(struct disk *d, struct disk_io *io, struct io_uring_sqe *sqe)
{
	struct memory_image *m = d->backend;

	pthread_mutex_lock(&m->lock);
	memset(m->bytes + io->offset, 0, begin(m, io));
	if (io->result > 0)
		io->result = 0; /* as fallocate: all or an error */
	pthread_mutex_unlock(&m->lock);
	io_uring_prep_nop(sqe);
}

static int result(struct disk *d, const struct disk_io *io, int res)
{
	(void)d;
	return res < 0 ? res : io->result;
}

static const struct disk_ops memory_ops = {
	.prep_read = transfer,
	.prep_write = transfer,
	.prep_flush = prep_flush,
	.prep_zero = prep_zero,
	.result = result,
};

void memory_image_attach(struct memory_image *m, struct disk *d)
{
	*m = (struct memory_image){ .size = d->sectors * DISK_SECTOR };
	pthread_mutex_init(&m->lock, NULL);
	m->bytes = malloc(m->size);
	ck_assert_ptr_nonnull(m->bytes);
	ck_assert_int_eq(pread(d->fd, m->bytes, m->size, 0), (ssize_t)m->size);
	d->ops = &memory_ops;
	d->backend = m;
}

void memory_image_free(struct memory_image *m)
{
	free(m->bytes);
	pthread_mutex_destroy(&m->lock);
}

void memory_image_fail(struct memory_image *m, enum disk_op op, unsigned int times, int errnum,
		       uint32_t most)
{
	pthread_mutex_lock(&m->lock);
	m->faults[op] = (struct memory_fault){ .times = times, .errnum = errnum, .most = most };
	pthread_mutex_unlock(&m->lock);
}

unsigned int memory_image_asked(struct memory_image *m, enum disk_op op)
{
	unsigned int n;

	pthread_mutex_lock(&m->lock);
	n = m->asked[op];
	pthread_mutex_unlock(&m->lock);
	return n;
}

unsigned int memory_image_durable(struct memory_image *m)
{
	unsigned int n;

	pthread_mutex_lock(&m->lock);
	n = m->durable;
	pthread_mutex_unlock(&m->lock);
	return n;
}

bool memory_image_has(struct memory_image *m, uint64_t sector, unsigned int n, int byte)
{
	bool same = true;

	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; same && i < (size_t)n * DISK_SECTOR; i++)
		same = m->bytes[sector * DISK_SECTOR + i] == byte;
	pthread_mutex_unlock(&m->lock);
	return same;
}
