/*
 * One request of the virtio block device (virtio 1.2, section 5.2.6): what the guest asks for, and
 * the steps in which the kernel is asked for it. Runs under the device's lock, no state of its own.
 *
 * The invariant: [offset, offset + bytes) of a request that was parsed lies inside the disk, and
 * `done` only grows, so a request ends. The layout of buffers says nothing: the header is the
 * first 16 readable bytes, the status the last writable byte, wherever they lie.
 */
#include "devices/virtio/blk.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vmm/base/err.h"

#define HEADER_BYTES sizeof(struct virtio_blk_outhdr)
#define TRIES_MAX    100

/* Written again and again where the host has no better way to make zeroes. */
static const uint8_t zeroes[4096];

static bool inside(const struct blk *b, uint64_t sector, uint64_t sectors)
{
	return sector <= b->disk.sectors && sectors <= b->disk.sectors - sector;
}

static bool is_range(const struct blk_request *r)
{
	return r->type == VIRTIO_BLK_T_DISCARD || r->type == VIRTIO_BLK_T_WRITE_ZEROES;
}

static enum blk_next done(uint8_t *status, uint8_t value)
{
	*status = value;
	return BLK_DONE;
}

/* Reads and writes. */
static enum blk_next parse_transfer(struct blk *b, struct blk_request *r, uint64_t sector,
				    uint64_t bytes, uint8_t *status)
{
	if (bytes % DISK_SECTOR || bytes > BLK_TRANSFER_BYTES ||
	    !inside(b, sector, bytes / DISK_SECTOR))
		return done(status, VIRTIO_BLK_S_IOERR);
	if (r->type == VIRTIO_BLK_T_OUT && b->disk.readonly)
		return done(status, VIRTIO_BLK_S_IOERR);
	r->offset = sector * DISK_SECTOR;
	r->bytes = bytes;
	return bytes ? BLK_STEP : done(status, VIRTIO_BLK_S_OK);
}

/* Discards and zeroes: one segment a request, as our configuration says. */
static enum blk_next parse_range(struct blk *b, struct blk_request *r, uint8_t *status)
{
	bool discard = r->type == VIRTIO_BLK_T_DISCARD;
	struct virtio_blk_discard_write_zeroes seg;
	uint32_t flags, sectors;
	uint64_t sector;

	if (!virtio_has(&b->v, discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES))
		return done(status, VIRTIO_BLK_S_UNSUPP);
	if (r->chain.out_bytes != HEADER_BYTES + sizeof(seg) || b->disk.readonly)
		return done(status, VIRTIO_BLK_S_IOERR);
	if (queue_chain_read(&b->v.queues[0], &r->chain, HEADER_BYTES, &seg, sizeof(seg)) !=
	    sizeof(seg))
		return done(status, VIRTIO_BLK_S_IOERR);
	sector = le64toh(seg.sector);
	sectors = le32toh(seg.num_sectors);
	flags = le32toh(seg.flags);
	if (flags & ~(discard ? 0u : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP))
		return done(status, VIRTIO_BLK_S_UNSUPP);
	if (sectors > (discard ? BLK_RANGE_SECTORS : BLK_ZERO_SECTORS) ||
	    !inside(b, sector, sectors))
		return done(status, VIRTIO_BLK_S_IOERR);
	r->offset = sector * DISK_SECTOR;
	r->bytes = (uint64_t)sectors * DISK_SECTOR;
	r->way = discard || flags ? BLK_PUNCH : BLK_ZERO_RANGE;
	/* Only written zeroes can be made durable at once, for a driver that knows no flush. */
	if (!discard && !virtio_has(&b->v, VIRTIO_BLK_F_FLUSH))
		r->way = BLK_WRITE_ZEROES;
	if (discard && b->cannot[BLK_PUNCH])
		return done(status, VIRTIO_BLK_S_OK);
	return sectors ? BLK_STEP : done(status, VIRTIO_BLK_S_OK);
}

/* An fdatasync that no request asked for has failed: this flush does in its place. */
static enum blk_next lost_writes(struct blk *b, struct blk_request *r, uint8_t *status)
{
	int errnum = b->unsynced;

	b->unsynced = 0;
	return blk_failed(b, r, errnum, NULL, status);
}

enum blk_next blk_request_parse(struct blk *b, struct blk_request *r, uint8_t *status)
{
	struct queue *q = &b->v.queues[0];
	struct virtio_blk_outhdr header;
	uint64_t sector, room;

	if (!r->chain.in_bytes ||
	    queue_chain_read(q, &r->chain, 0, &header, HEADER_BYTES) != HEADER_BYTES) {
		virtio_fail(&b->v,
			    "a request of %" PRIu64 " readable and %" PRIu64
			    " writable bytes (expected at least 16 and 1)",
			    r->chain.out_bytes, r->chain.in_bytes);
		return BLK_BROKEN;
	}
	r->type = le32toh(header.type);
	r->offset = r->bytes = r->done = 0;
	r->io = (struct disk_io){ .op = DISK_READ };
	r->tries = 0;
	sector = le64toh(header.sector);
	room = r->chain.in_bytes - 1;
	switch (r->type) {
	case VIRTIO_BLK_T_IN:
		return parse_transfer(b, r, sector, room, status);
	case VIRTIO_BLK_T_OUT:
		return parse_transfer(b, r, sector, r->chain.out_bytes - HEADER_BYTES, status);
	case VIRTIO_BLK_T_FLUSH:
		/* The kernel tells of lost writes once, and it was not the guest who asked. */
		return b->unsynced ? lost_writes(b, r, status) : BLK_STEP;
	case VIRTIO_BLK_T_GET_ID:
		if (room > sizeof(b->id))
			room = sizeof(b->id);
		r->done = queue_chain_write(q, &r->chain, 0, b->id, room);
		return done(status, VIRTIO_BLK_S_OK);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return parse_range(b, r, status);
	default:
		return done(status, VIRTIO_BLK_S_UNSUPP);
	}
}

static uint32_t step_bytes(const struct blk_request *r, uint32_t max)
{
	uint64_t left = r->bytes - r->done;

	return left < max ? (uint32_t)left : max;
}

/* A driver that knows no flush takes a finished write for a durable one (5.2.6.2). */
static bool must_be_durable(const struct blk *b)
{
	return !virtio_has(&b->v, VIRTIO_BLK_F_FLUSH);
}

static void prepare_range(struct blk *b, struct blk_request *r, struct io_uring_sqe *sqe)
{
	struct iovec *iov = &b->iovs[b->n_iovs];
	uint64_t offset = r->offset + r->done;
	uint32_t bytes = 0;
	unsigned int n = 0;

	while (r->way < BLK_WRITE_ZEROES && b->cannot[r->way])
		r->way++;
	if (r->way != BLK_WRITE_ZEROES) {
		disk_prep_zero(&b->disk, &r->io, r->way == BLK_PUNCH ? DISK_PUNCH : DISK_ZERO,
			       offset, step_bytes(r, BLK_RANGE_STEP_BYTES), sqe);
		return;
	}
	while (n < QUEUE_BUFFERS_MAX && r->done + bytes < r->bytes) {
		uint64_t left = r->bytes - r->done - bytes;

		iov[n].iov_base = (void *)(uintptr_t)zeroes; /* only read */
		iov[n].iov_len = left < sizeof(zeroes) ? left : sizeof(zeroes);
		bytes += (uint32_t)iov[n++].iov_len;
	}
	b->n_iovs += n;
	disk_prep_write(&b->disk, &r->io, offset, bytes, iov, n, must_be_durable(b), sqe);
}

void blk_request_step(struct blk *b, struct blk_request *r, struct io_uring_sqe *sqe)
{
	struct iovec *iov = &b->iovs[b->n_iovs];
	uint64_t offset = r->offset + r->done;
	bool in = r->type == VIRTIO_BLK_T_IN;
	uint32_t bytes;
	int n;

	if (r->type == VIRTIO_BLK_T_FLUSH) {
		disk_prep_flush(&b->disk, &r->io, sqe);
		return;
	}
	if (is_range(r)) {
		prepare_range(b, r, sqe);
		return;
	}
	bytes = step_bytes(r, BLK_STEP_BYTES);
	n = queue_chain_iov(&b->v.queues[0], &r->chain, in, r->done + (in ? 0 : HEADER_BYTES),
			    bytes, iov, QUEUE_BUFFERS_MAX);
	/* Cannot fail, the chain was checked; an empty step would end as an error. */
	if (n < 0)
		n = 0;
	b->n_iovs += (unsigned int)n;
	if (in)
		disk_prep_read(&b->disk, &r->io, offset, bytes, iov, (unsigned int)n, sqe);
	else
		disk_prep_write(&b->disk, &r->io, offset, bytes, iov, (unsigned int)n,
				must_be_durable(b), sqe);
}

/* A way to discard or to zero that the host does not have: the next one, or none at all. */
static enum blk_next other_way(struct blk *b, struct blk_request *r, int errnum, uint8_t *status)
{
	if (errnum == EOPNOTSUPP || errnum == ENOSYS)
		b->cannot[r->way] = true;
	if (r->type == VIRTIO_BLK_T_DISCARD)
		return done(status, VIRTIO_BLK_S_OK); /* only ever a hint */
	r->way++;
	return BLK_STEP;
}

enum blk_next blk_request_stepped(struct blk *b, struct blk_request *r, int result, uint8_t *status)
{
	bool transfer = !is_range(r) || r->way == BLK_WRITE_ZEROES;

	/* Also after an error: a part of the pages may have been filled before it came. */
	if (r->type == VIRTIO_BLK_T_IN)
		queue_chain_mark(&b->v.queues[0], &r->chain, r->done, r->io.bytes);
	if (result == -EAGAIN || result == -EINTR) {
		if (++r->tries < TRIES_MAX)
			return BLK_STEP;
		return blk_failed(b, r, -result, NULL, status);
	}
	if (result < 0 && !transfer &&
	    (result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL || result == -ENODEV))
		return other_way(b, r, -result, status);
	if (result < 0)
		return blk_failed(b, r, -result, NULL, status);
	if (r->type == VIRTIO_BLK_T_FLUSH && b->settling)
		return BLK_HELD;
	if (r->type == VIRTIO_BLK_T_FLUSH && b->unsynced)
		return lost_writes(b, r, status);
	if (r->type == VIRTIO_BLK_T_FLUSH)
		return done(status, VIRTIO_BLK_S_OK);
	if (transfer && (result == 0 || (uint32_t)result > r->io.bytes))
		return blk_failed(b, r, EIO, "the image has become shorter", status);
	r->done += transfer ? (uint32_t)result : r->io.bytes;
	r->tries = 0;
	return r->done < r->bytes ? BLK_STEP : done(status, VIRTIO_BLK_S_OK);
}
