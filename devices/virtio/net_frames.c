/*
 * Frames between the guest's rings and the tap.
 */
#include "devices/virtio/net_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/log.h"

/* -- receive -- */

/*
 * Pops the next chain of buffers for the held frame: 1, 0 = there is none, the guest will ring,
 * -1 = broken.
 */
static int net_rx_pop(struct net *n, struct queue_chain *c, uint64_t least)
{
	struct queue *q = &n->v.queues[QUEUE_RX];
	struct err e;
	int rc;

	/*
	 * If there is none, all that the guest has given is popped, so the ring that is asked for
	 * comes with the next one, also if these are put back.
	 */
	rc = queue_pop_or_ask(q, c, &e);
	if (rc < 0)
		virtio_fail(&n->v, "receive queue: %s", e.text);
	if (rc <= 0)
		return rc;
	if (c->n_out || c->in_bytes < least) {
		virtio_fail(&n->v,
			    "receive queue: a buffer of %llu writable and %llu readable bytes "
			    "(expected %llu or more, writable)",
			    (unsigned long long)c->in_bytes, (unsigned long long)c->out_bytes,
			    (unsigned long long)least);
		return -1;
	}
	return 1;
}

/* The guest chooses its buffers, so the log is not its to fill. */
static void net_log_misfit(struct net *n, uint32_t bytes)
{
	if (!n->misfit_logged)
		log_verbose("%s: a frame of %u bytes does not fit the guest's buffers (said once)",
			    n->v.dev.id, bytes);
	n->misfit_logged = true;
}

/* Puts `taken` chains back: 0, or 1 when they are all that a queue can have: it never fits. */
static int net_rx_put_back(struct net *n, uint16_t taken)
{
	struct queue *q = &n->v.queues[QUEUE_RX];
	bool never = taken >= q->st.size;

	while (taken--)
		queue_unpop(q);
	if (!never)
		return 0;
	net_log_misfit(n, n->held_bytes);
	n->held_bytes = 0;
	return 1;
}

/* Gives the held frame to the guest: 1 = it is gone, 0 = not enough buffers, -1 = broken. */
static int net_deliver(struct net *n)
{
	struct queue *q = &n->v.queues[QUEUE_RX];
	bool mergeable = virtio_has(&n->v, NET_F_MRG_RXBUF);
	uint32_t done = 0;
	uint16_t taken = 0, count;
	struct err e;

	while (done < n->held_bytes) {
		struct queue_chain *c = taken ? &n->chain : &n->first;
		uint32_t left = n->held_bytes - done;
		int rc = net_rx_pop(n, c, taken ? 1 : HEADER_BYTES);

		if (rc < 0)
			return -1;
		if (rc == 0)
			return net_rx_put_back(n, taken);
		taken++;
		if (!mergeable && c->in_bytes < left) {
			/* Section 5.1.6.3: its buffers had to hold any frame it allowed. */
			net_log_misfit(n, left);
			n->held_bytes = 0;
			queue_unpop(q);
			return 1;
		}
		if (left > c->in_bytes)
			left = (uint32_t)c->in_bytes;
		queue_chain_write(q, c, 0, n->held + done, left);
		if (queue_fill(q, taken - 1, c->head, left, &e))
			goto broken;
		done += left;
	}
	count = htole16(taken);
	queue_chain_write(q, &n->first, HEADER_NUM_BUFFERS, &count, sizeof(count));
	n->held_bytes = 0;
	if (queue_publish(q, taken, &e))
		goto broken;
	return 1;
broken:
	virtio_fail(&n->v, "receive queue: %s", e.text);
	return -1;
}

/* Reads a frame: 1, or 0 when there is none. */
static int net_read(struct net *n)
{
	ssize_t len;

	do
		len = read(n->tap, n->held, sizeof(n->held));
	while (len < 0 && errno == EINTR);
	/* EINVAL, ENOMEM: a frame was lost on the way; anything else does not go away. */
	if (len < 0 && errno != EAGAIN && errno != EINVAL && errno != ENOMEM)
		net_lose_tap(n);
	if (len <= HEADER_BYTES)
		return 0;
	n->held_bytes = (uint32_t)len;
	return 1;
}

void net_receive(struct net *n)
{
	unsigned int frames;
	int rc = 1;

	if (n->gone)
		return;
	/* What is left after this many frames is told by the watch again, after others' turn. */
	for (frames = 0; frames < TURN_FRAMES; frames++) {
		if (!n->held_bytes && !net_read(n))
			break;
		rc = net_deliver(n);
		if (rc <= 0)
			break;
	}
	n->starved = rc == 0;
	if (frames)
		virtio_interrupt(&n->v, QUEUE_RX);
}

/* -- transmit -- */

/* Sends the popped chain: 1 = it is done with, 0 = the tap is full, -1 = broken. */
static int net_send(struct net *n, const struct queue *q)
{
	struct iovec iov[QUEUE_BUFFERS_MAX];
	struct queue_chain *c = &n->chain;
	ssize_t len;
	int count;

	if (c->out_bytes < HEADER_BYTES || c->n_in) {
		virtio_fail(&n->v,
			    "transmit queue: a frame of %llu readable and %llu writable bytes "
			    "(expected a header of %d, all readable)",
			    (unsigned long long)c->out_bytes, (unsigned long long)c->in_bytes,
			    HEADER_BYTES);
		return -1;
	}
	if (c->out_bytes > FRAME_MAX || n->gone)
		return 1;
	count = queue_chain_iov(q, c, false, 0, c->out_bytes, iov, QUEUE_BUFFERS_MAX);
	if (count < 0) {
		virtio_fail(&n->v, "transmit queue: a frame outside guest memory");
		return -1;
	}
	do
		len = writev(n->tap, iov, count);
	while (len < 0 && errno == EINTR);
	if (len >= 0)
		return 1;
	if (errno == EAGAIN)
		return 0;
	if (errno == EBADFD)
		net_lose_tap(n);
	/* A header that makes no sense, an interface that is down: networks may lose frames. */
	return 1;
}

struct transmit_turn {
	unsigned int frames;
	uint64_t bytes;
};

static enum virtio_took net_take_frame(struct virtio_device *v, unsigned int q,
				       struct queue_chain *c, uint32_t *written, void *arg)
{
	struct transmit_turn *turn = arg;
	struct net *n = (struct net *)v;
	int rc = net_send(n, &v->queues[q]);

	(void)written;
	n->blocked = rc == 0;
	if (rc <= 0)
		return rc < 0 ? VIRTIO_BROKEN : VIRTIO_BLOCKED;
	turn->bytes += c->out_bytes;
	return ++turn->frames == TURN_FRAMES || turn->bytes > TURN_BYTES ? VIRTIO_TOOK_LAST
									 : VIRTIO_TOOK;
}

void net_transmit(struct net *n)
{
	struct transmit_turn turn = { 0 };

	n->blocked = false;
	virtio_drain(&n->v, QUEUE_TX, "transmit queue", &n->chain, net_take_frame, &turn);
}
