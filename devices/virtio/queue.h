/*
 * A split virtqueue, device side (virtio 1.2, section 2.7), with event index and indirect
 * descriptors. Everything in it is written by the guest and believed by nobody: an index, a loop,
 * an address or a length that cannot be is an error, never an overrun. The device then asks for a
 * reset (virtio_fail).
 *
 * This is the one place besides memory.c where devices meet guest memory. Each write is marked
 * after it was made. One thread at a time (the device's lock).
 */
#ifndef GODWIT_VIRTIO_QUEUE_H
#define GODWIT_VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct err;
struct memory;
struct state;

#define QUEUE_SIZE_MAX	  256 /* descriptors a queue can have here */
#define QUEUE_BUFFERS_MAX 256 /* buffers in one chain, indirect ones included */

/* What migrates of a queue. */
struct queue_state {
	uint16_t size; /* set by the driver: a power of two up to QUEUE_SIZE_MAX */
	bool ready;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	uint16_t next_avail;  /* free running: the next entry of the available ring to take */
	uint16_t next_used;   /* free running: the next entry of the used ring to fill */
	uint16_t signalled;   /* next_used at the last interrupt that was decided on */
	bool signalled_valid; /* event index: whether `signalled` means anything */
};

struct queue {
	struct queue_state st;
	struct memory *memory;
	bool event_idx; /* VIRTIO_F_EVENT_IDX was negotiated */
	bool indirect;	/* VIRTIO_F_INDIRECT_DESC was negotiated */
};

/* One buffer of a chain, by guest address; checked to be inside RAM when it was popped. */
struct queue_buffer {
	uint64_t gpa;
	uint32_t len;
};

/* A chain of buffers: first those the device reads, then those it writes. */
struct queue_chain {
	uint16_t head;
	uint16_t n_out, n_in; /* buffers [0, n_out) are read, [n_out, n_out + n_in) written */
	uint64_t out_bytes, in_bytes;
	struct queue_buffer buffers[QUEUE_BUFFERS_MAX];
};

void queue_fields(struct state *s, void *queue_state);
int queue_state_check(const struct queue_state *st, struct err *e);

/* Whether the rings lie inside RAM and are aligned; called when the driver makes a queue ready. */
int queue_check_rings(const struct queue *q, struct err *e);

/*
 * The next chain: 1 = got one, 0 = the queue is empty (or not ready), -1 = the guest's rings are
 * broken. Buffers of no bytes are left out.
 */
int queue_pop(struct queue *q, struct queue_chain *c, struct err *e);

/* The chain that begins at `head`, which was popped before and not given back: 1 or -1. */
int queue_chain_at(struct queue *q, uint16_t head, struct queue_chain *c, struct err *e);

/* Puts the last popped chain back, as if it had not been taken. */
void queue_unpop(struct queue *q);

/*
 * Gives a chain back with `written` bytes of its writable buffers filled (those have been marked
 * by then: by queue_chain_write, or queue_chain_mark after I/O straight into the buffers).
 * Returns -1 when the used ring cannot be written.
 */
int queue_push(struct queue *q, uint16_t head, uint32_t written, struct err *e);

/* For mergeable receive buffers: fills used entry next_used + ahead without publishing it, then
 * publishes `n` of them at once. */
int queue_fill(struct queue *q, uint16_t ahead, uint16_t head, uint32_t written, struct err *e);
int queue_publish(struct queue *q, uint16_t n, struct err *e);

/* Whether the driver wants an interrupt for what was pushed since this was last asked. */
bool queue_wants_interrupt(struct queue *q);

/*
 * Asks the driver not to ring (false), or to ring again (true): then it returns true when there is
 * something in the queue already. So a turn (virtio_drain) is:
 *
 *     do {
 *             queue_ask_rings(q, false);
 *             while (queue_pop(...) > 0) ...
 *     } while (queue_ask_rings(q, true));
 */
bool queue_ask_rings(struct queue *q, bool rings);

/* queue_pop; an empty queue is asked to ring, so the driver rings when there is a chain again. */
int queue_pop_or_ask(struct queue *q, struct queue_chain *c, struct err *e);

/* Copies from the readable (into the writable) bytes of a chain, from byte `offset` of them;
 * returns how many bytes there were to copy (at most len). Writes are marked. */
size_t queue_chain_read(const struct queue *q, const struct queue_chain *c, uint64_t offset,
			void *to, size_t len);
size_t queue_chain_write(struct queue *q, const struct queue_chain *c, uint64_t offset,
			 const void *from, size_t len);

/*
 * Host addresses of `len` bytes from byte `offset` of the readable (in = false) or writable (in =
 * true) part, for one readv/writev/io_uring request: the number of entries, or -1 when there are
 * not so many bytes or more than `max` pieces. Mark what was written afterwards.
 */
int queue_chain_iov(const struct queue *q, const struct queue_chain *c, bool in, uint64_t offset,
		    uint64_t len, struct iovec *iov, int max);
void queue_chain_mark(struct queue *q, const struct queue_chain *c, uint64_t offset, uint64_t len);

#endif
