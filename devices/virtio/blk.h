/*
 * The virtio block device's own parts, shared by blk.c (the device, its turns and its ring of
 * requests to the kernel), blk_request.c (what one request is and what its next step is),
 * blk_errors.c (what becomes of one that failed) and blk_image.c (its image and the image's lock).
 * Everything is guarded by the device's lock; see blk.c.
 */
#ifndef GODWIT_VIRTIO_BLK_H
#define GODWIT_VIRTIO_BLK_H

#include <liburing.h>
#include <linux/virtio_blk.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "devices/backend/disk.h"
#include "devices/virtio/device.h"

/* At most this much data goes to the kernel at once: a step that the page cache answers at once
 * keeps the I/O thread for less than a millisecond. */
#define BLK_STEP_BYTES (1u << 20)
/* The same for discards and zeroes, which only waiting for them at a stop makes long. */
#define BLK_RANGE_STEP_BYTES (64u << 20)
/* The largest discard and the largest write of zeroes, in sectors: drivers are told of them, and
 * more is refused. Zeroes may have to be written, and parking waits for that: so they are less. */
#define BLK_RANGE_SECTORS (1u << 21)
#define BLK_ZERO_SECTORS  (1u << 17)

/* A request moves at most so much, in segments of at most so much: parking waits for all that is
 * in flight, so a guest must not be able to make that long. */
#define BLK_SEGMENT_BYTES  (64u << 10)
#define BLK_TRANSFER_BYTES ((uint64_t)QUEUE_BUFFERS_MAX * BLK_SEGMENT_BYTES)

/* While so much is in flight no further request is begun, for the same reason. */
#define BLK_FLIGHT_BYTES (64u << 20)

/* How zeroes get onto the disk: the first way that the host can is taken. */
enum blk_way { BLK_PUNCH, BLK_ZERO_RANGE, BLK_WRITE_ZEROES };

/* Of features, what the code can do; a disk offers a part of them. */
#define BLK_COMMON                                                               \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) |       \
	 VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | \
	 VIRTIO_BIT(VIRTIO_BLK_F_SIZE_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | \
	 VIRTIO_BIT(VIRTIO_BLK_F_FLUSH))
#define BLK_WRITABLE (VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES))
#define BLK_READONLY VIRTIO_BIT(VIRTIO_BLK_F_RO)
#define BLK_FEATURES (BLK_COMMON | BLK_WRITABLE | BLK_READONLY)

struct blk_request {
	uint32_t type;	 /* VIRTIO_BLK_T_* */
	uint64_t offset; /* on the disk, bytes */
	uint64_t bytes, done;
	bool held;	    /* a flush that waits for the outcome of a settle */
	struct disk_io io;  /* the step that the kernel works on */
	enum blk_way way;   /* of discards and zeroes */
	unsigned int tries; /* of a step that was to be tried again */
	struct queue_chain chain;
};

/* After an error of the host, for a request that can be repeated: a guest is stopped, or told. */
enum blk_on_error {
	BLK_ON_NO_SPACE /* stopped if the host has no room, as QEMU */,
	BLK_STOP,
	BLK_REPORT
};

struct blk_state {
	struct virtio_state v;
	uint32_t n_kept, kept[QUEUE_SIZE_MAX]; /* blk_errors.c */
};

/* In place of a request's number. */
#define BLK_KEPT UINT16_MAX

/* One more than a queue can have chains in flight: the one that is being taken. */
#define BLK_REQUESTS (QUEUE_SIZE_MAX + 1)
#define BLK_RING     64
#define BLK_IOVS     (4 * QUEUE_BUFFERS_MAX)

/* One that is under way may not cover what was written last: then a second one follows at once. */
#define BLK_SETTLES 2

struct blk {
	struct virtio_device v; /* first */
	struct disk disk;
	struct virtio_blk_config config;
	uint8_t id[VIRTIO_BLK_ID_BYTES]; /* what GET_ID answers */
	enum blk_on_error on_error;

	/* Under the device's lock. */
	struct io_uring uring;
	bool uring_made;
	struct loop_watch watch;	  /* of the ring: completions */
	struct blk_request *requests;	  /* BLK_REQUESTS */
	uint16_t free[BLK_REQUESTS];	  /* a stack, so that few are ever touched */
	uint16_t of_head[QUEUE_SIZE_MAX]; /* the request of a chain in flight, + 1; or BLK_KEPT; 0:
					     none */
	unsigned int n_free;
	uint64_t flight_bytes; /* of all requests that have begun */
	bool full;	       /* no further one was begun for that reason */
	unsigned int n_held;   /* flushes */
	unsigned int turn_requests;
	uint64_t turn_bytes;
	bool cannot[BLK_WRITE_ZEROES + 1]; /* ways that this host refused */
	/* Heads of requests that could not be done, oldest first; the first n_retry of them are to
	 * be begun anew, and as long as there are others no more requests are taken. */
	uint16_t kept[QUEUE_SIZE_MAX];
	unsigned int n_kept, n_retry;
	uint64_t told_us; /* when the machine was last told of an error that the guest got; 0: never
			   */
	bool error_logged;
	unsigned int settling; /* flushes that no request asked for are with the kernel */
	struct blk_settle {
		struct disk_io io;
		bool busy;
	} settles[BLK_SETTLES];
	bool sync_due; /* one is to be handed to it, which it did not take yet */
	int unsynced;  /* errno of one that failed: the guest's next flush must fail, too */

	/* I/O thread: the image's lock, and who has it (disk.h). */
	bool owner;		  /* the guest has run here, or is about to */
	struct loop_watch retake; /* a timerfd while another one has it still, else fd -1 */

	/* Pieces of steps that are not yet submitted: the kernel copies them at the submit. */
	unsigned int n_iovs;
	struct iovec iovs[BLK_IOVS];
};

enum blk_next {
	BLK_STEP,   /* blk_request_step() is to be called */
	BLK_HELD,   /* with nothing to do until the settle that is under way has ended */
	BLK_DONE,   /* finished: with *status */
	BLK_KEEP,   /* to be begun anew when the guest is resumed (blk_errors.c) */
	BLK_BROKEN, /* no request at all: virtio_fail was called */
};

/* Reads the popped chain of `r`: nothing in it is believed. */
enum blk_next blk_request_parse(struct blk *b, struct blk_request *r, uint8_t *status);

/* Fills `sqe` with the next step; uses up to QUEUE_BUFFERS_MAX of b->iovs. */
void blk_request_step(struct blk *b, struct blk_request *r, struct io_uring_sqe *sqe);

/* A step has ended with `result` (bytes, or -errno). */
enum blk_next blk_request_stepped(struct blk *b, struct blk_request *r, int result,
				  uint8_t *status);

/* -- blk_errors.c -- */

/* on-error=TEXT */
int blk_on_error_parse(struct blk *b, const char *text, struct err *e);

/* The host could not do it; `why` NULL: as errnum says. BLK_DONE or BLK_KEEP. */
enum blk_next blk_failed(struct blk *b, const struct blk_request *r, int errnum, const char *why,
			 uint8_t *status);

void blk_keep(struct blk *b, uint16_t head);
uint16_t blk_unkeep(struct blk *b); /* the oldest of those that are to be begun anew */
void blk_forget_kept(struct blk *b);

/* Whether a request has failed since the guest was last resumed: it is about to be stopped. */
static inline bool blk_is_stalled(const struct blk *b)
{
	return b->n_kept > b->n_retry;
}

int blk_kept_check(const struct blk_state *st, struct err *e);
void blk_kept_save(const struct blk *b, struct blk_state *st);
void blk_kept_load(struct blk *b, const struct blk_state *st);

/* -- blk_image.c; the I/O thread, or before it runs -- */

int blk_probe(struct tree *t, const char *path, struct err *e);

/* From the node alone: the same on every host. */
int blk_fill_config(struct blk *b, const struct tree *t, const char *path, struct err *e);

/* Opens what the node's host side names; refuses what is not the disk that the node describes. */
int blk_open_host(struct blk *b, const struct tree *t, struct err *e);

/* Members of the model: see vmm/device.h. */
void blk_share(struct device *dev, bool on);
void blk_release(struct device *dev);
int blk_acquire(struct device *dev, struct err *e);
int blk_check_host(struct device *dev, struct err *e);
int blk_resize(struct device *dev, struct tree *t, uint64_t bytes, struct err *e);

/* The watch's function while another process has a half of the lock still, and its end. */
void blk_retake_again(void *arg, uint32_t events);
void blk_stop_retaking(struct blk *b);

#endif
