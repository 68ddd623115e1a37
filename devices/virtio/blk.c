/*
 * The virtio block device (virtio 1.2, section 5.2): one queue of requests, done by the kernel
 * through io_uring on a raw image or a block device. Requests are taken and finished on the I/O
 * thread; a reset on a vCPU thread waits for those in flight. All under the device's lock. The
 * image's own lock (disk.h) is the I/O thread's alone.
 *
 * The invariants: a chain in flight has exactly one request of the fixed pool, so a guest can make
 * nothing grow; after `stop` none is in flight, so there is no state but the queue's and the heads
 * of requests that are kept (blk_errors.c). A turn on the I/O thread is bounded in requests and in
 * bytes; what is left rings again.
 */
#include "devices/virtio/blk.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "devices/models.h"
#include "vmm/base/err.h"
#include "vmm/tree.h"

/* Instead of a request's number: settles[n], a flush that no request asked for. */
#define SETTLE(n) (UINT64_MAX - (n))

#define TURN_REQUESTS 64u
#define TURN_BYTES    (8u << 20)

/* Hands what was prepared to the kernel. What it does not take now stays prepared. */
static void submit(struct blk *b)
{
	while (io_uring_sq_ready(&b->uring) && io_uring_submit(&b->uring) > 0)
		;
	if (!io_uring_sq_ready(&b->uring))
		b->n_iovs = 0;
}

/* Whether one more step can be prepared, of any size. */
static bool has_room(struct blk *b)
{
	if (io_uring_sq_space_left(&b->uring) && b->n_iovs + QUEUE_BUFFERS_MAX <= BLK_IOVS)
		return true;
	submit(b);
	return io_uring_sq_space_left(&b->uring) && b->n_iovs + QUEUE_BUFFERS_MAX <= BLK_IOVS;
}

static bool turn_is_over(const struct blk *b)
{
	return b->turn_requests >= TURN_REQUESTS || b->turn_bytes >= TURN_BYTES;
}

static void begin_turn(struct blk *b)
{
	b->turn_requests = 0;
	b->turn_bytes = 0;
}

static unsigned int in_flight(const struct blk *b)
{
	return BLK_REQUESTS - b->n_free;
}

static void let_go(struct blk *b, struct blk_request *r)
{
	b->flight_bytes -= r->bytes;
	b->of_head[r->chain.head] = 0;
	b->free[b->n_free++] = (uint16_t)(r - b->requests);
}

static void finish(struct blk *b, struct blk_request *r, uint8_t status)
{
	struct queue *q = &b->v.queues[0];
	uint32_t written = 1;
	struct err e;

	let_go(b, r);
	/* A broken device touches nothing any more. */
	if (b->v.st.status & VIRTIO_STATUS_NEEDS_RESET)
		return;
	if (status == VIRTIO_BLK_S_OK &&
	    (r->type == VIRTIO_BLK_T_IN || r->type == VIRTIO_BLK_T_GET_ID))
		written += (uint32_t)r->done;
	queue_chain_write(q, &r->chain, r->chain.in_bytes - 1, &status, 1);
	if (queue_push(q, r->chain.head, written, &e) < 0)
		virtio_fail(&b->v, "queue 0: %s", e.text);
}

/* Room was asked for. */
static void go_on(struct blk *b, struct blk_request *r, enum blk_next next, uint8_t status)
{
	struct io_uring_sqe *sqe;

	if (next == BLK_HELD) {
		r->held = true;
		b->n_held++;
		return;
	}
	if (next == BLK_STEP && !(b->v.st.status & VIRTIO_STATUS_NEEDS_RESET)) {
		sqe = io_uring_get_sqe(&b->uring);
		if (sqe) {
			blk_request_step(b, r, sqe);
			io_uring_sqe_set_data64(sqe, (uint64_t)(r - b->requests));
			b->turn_requests++;
			b->turn_bytes += r->io.bytes;
			return;
		}
		status = VIRTIO_BLK_S_IOERR;
	}
	b->turn_requests++;
	if (next == BLK_KEEP) {
		let_go(b, r);
		blk_keep(b, r->chain.head);
		return;
	}
	finish(b, r, status);
}

/*
 * Takes the next chain, of those that are to be begun anew or from the queue: 1, 0 when there is
 * none, -1 when it is broken.
 */
static int take(struct blk *b)
{
	struct blk_request *r = &b->requests[b->free[b->n_free - 1]];
	struct queue *q = &b->v.queues[0];
	uint8_t status = VIRTIO_BLK_S_IOERR;
	enum blk_next next;
	struct err e;
	int rc;

	rc = b->n_retry ? queue_chain_at(q, blk_unkeep(b), &r->chain, &e)
			: queue_pop(q, &r->chain, &e);
	if (rc < 0)
		virtio_fail(&b->v, "queue 0: %s", e.text);
	if (rc <= 0)
		return rc;
	if (b->of_head[r->chain.head]) {
		virtio_fail(&b->v, "queue 0: descriptor %u begins two requests at once",
			    r->chain.head);
		return -1;
	}
	next = blk_request_parse(b, r, &status);
	if (next == BLK_BROKEN)
		return -1;
	b->n_free--;
	b->flight_bytes += r->bytes;
	b->of_head[r->chain.head] = (uint16_t)(r - b->requests + 1);
	go_on(b, r, next, status);
	return 1;
}

/* A flush that was under way beside a settle ends with it: the kernel tells one of them of an
 * error. */
static void end_held(struct blk *b)
{
	uint8_t status = b->unsynced ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
	unsigned int i;

	if (!b->n_held || b->settling)
		return;
	for (i = 0; i < BLK_REQUESTS; i++)
		if (b->requests[i].held) {
			b->requests[i].held = false;
			go_on(b, &b->requests[i], BLK_DONE, status);
		}
	b->n_held = 0;
	b->unsynced = 0;
}

static void settled(struct blk *b, struct blk_settle *s, int res)
{
	int result = disk_done(&b->disk, &s->io, res);

	s->busy = false;
	b->settling--;
	if (result == -EAGAIN || result == -EINTR || result == -ECANCELED)
		b->sync_due = true; /* nothing was done; counts only for a sync */
	else if (result < 0)
		b->unsynced = -result;
	end_held(b);
}

static void reap_one(struct blk *b, struct io_uring_cqe *cqe)
{
	uint64_t which = io_uring_cqe_get_data64(cqe);
	uint8_t status = VIRTIO_BLK_S_IOERR;
	int res = cqe->res;
	struct blk_request *r;
	enum blk_next next;

	io_uring_cqe_seen(&b->uring, cqe);
	if (which > SETTLE(BLK_SETTLES)) {
		settled(b, &b->settles[UINT64_MAX - which], res);
		return;
	}
	r = &b->requests[which];
	next = blk_request_stepped(b, r, disk_done(&b->disk, &r->io, res), &status);
	go_on(b, r, next, status);
}

/* Finishes what the kernel has done so far; what the turn leaves keeps the ring's fd readable. */
static void reap(struct blk *b)
{
	struct io_uring_cqe *cqe;

	while (!turn_is_over(b) && has_room(b) && io_uring_peek_cqe(&b->uring, &cqe) == 0)
		reap_one(b, cqe);
}

static void end_turn(struct blk *b, bool again)
{
	submit(b);
	/* What the page cache could answer is done already. */
	reap(b);
	submit(b);
	virtio_interrupt(&b->v, 0);
	if (b->full && b->flight_bytes < BLK_FLIGHT_BYTES) {
		b->full = false;
		again = true;
	}
	if (again || io_uring_sq_ready(&b->uring))
		virtio_ring_later(&b->v, 0);
}

static void blk_ring(struct virtio_device *v, unsigned int index)
{
	struct blk *b = (struct blk *)v;
	struct queue *q = &v->queues[index];
	bool again = false;
	int rc = 0;

	if (blk_is_stalled(b))
		return;
	begin_turn(b);
	do {
		queue_ask_rings(q, false);
		do {
			again = turn_is_over(b) || !has_room(b);
			b->full = b->flight_bytes >= BLK_FLIGHT_BYTES;
			if (!again && !b->full)
				rc = take(b);
		} while (!again && !b->full && rc > 0);
	} while (!again && !b->full && rc == 0 && queue_ask_rings(q, true));
	end_turn(b, again);
}

/* The kernel has finished something. */
static void completed(void *arg, uint32_t events)
{
	struct blk *b = arg;

	(void)events;
	pthread_mutex_lock(&b->v.lock);
	begin_turn(b);
	reap(b);
	end_turn(b, false);
	pthread_mutex_unlock(&b->v.lock);
}

static int blk_start(struct virtio_device *v, struct err *e)
{
	struct blk *b = (struct blk *)v;

	(void)e;
	/* The driver has taken its queue back, with all that it had given. */
	if (!v->queues[0].st.ready)
		blk_forget_kept(b);
	b->n_retry = b->n_kept;
	return 0;
}

static void blk_reset(struct virtio_device *v)
{
	blk_forget_kept((struct blk *)v);
}

/* Waits until nothing is in flight. What fails meanwhile is kept as ever. */
static void blk_stop(struct virtio_device *v)
{
	struct blk *b = (struct blk *)v;
	struct io_uring_cqe *cqe;

	while (in_flight(b)) {
		submit(b);
		/* Nothing is with the kernel: it is short of memory, and takes it sooner or later.
		 */
		if (io_uring_sq_ready(&b->uring) == in_flight(b) - b->n_held + b->settling)
			sched_yield();
		else if (io_uring_peek_cqe(&b->uring, &cqe) == 0 ||
			 io_uring_wait_cqe(&b->uring, &cqe) == 0)
			if (has_room(b))
				reap_one(b, cqe);
	}
	b->full = false;
	virtio_interrupt(v, 0);
}

/* -- what goes with a hand-over; the I/O thread -- */

/* Hands a flush to the kernel that no request asked for; false when it takes none now. */
static bool settle(struct blk *b)
{
	struct io_uring_sqe *sqe;
	unsigned int n = 0;

	while (n < BLK_SETTLES && b->settles[n].busy)
		n++;
	if (n == BLK_SETTLES || !has_room(b) || !(sqe = io_uring_get_sqe(&b->uring)))
		return false;
	disk_prep_flush(&b->disk, &b->settles[n].io, sqe);
	io_uring_sqe_set_data64(sqe, SETTLE(n));
	b->settles[n].busy = true;
	b->settling++;
	submit(b);
	return true;
}

/* So that little is left to be written when the guest stands still. */
static void blk_settle(struct device *dev)
{
	struct blk *b = (struct blk *)dev;

	pthread_mutex_lock(&b->v.lock);
	if (!b->settling && !b->disk.readonly)
		settle(b);
	pthread_mutex_unlock(&b->v.lock);
}

/* Quiesced. One that is under way already may not cover what was written last. */
static void blk_sync_begin(struct device *dev)
{
	struct blk *b = (struct blk *)dev;

	pthread_mutex_lock(&b->v.lock);
	b->sync_due = !b->disk.readonly && !settle(b);
	pthread_mutex_unlock(&b->v.lock);
}

/* Quiesced: nothing but settles is with the kernel. */
static int blk_sync_done(struct device *dev, struct err *e)
{
	struct blk *b = (struct blk *)dev;
	struct io_uring_cqe *cqe;
	int rc;

	pthread_mutex_lock(&b->v.lock);
	b->sync_due = b->sync_due && !settle(b);
	submit(b);
	while (b->settling && io_uring_peek_cqe(&b->uring, &cqe) == 0)
		reap_one(b, cqe);
	rc = !b->settling && !b->sync_due;
	if (rc && b->unsynced)
		rc = err_errno(e, b->unsynced, "%s: what the guest wrote does not get onto %s",
			       b->disk.name, b->disk.path);
	pthread_mutex_unlock(&b->v.lock);
	return rc;
}

static int blk_activate(struct virtio_device *v, struct err *e)
{
	struct blk *b = (struct blk *)v;

	if (blk_acquire(&v->dev, e) < 0)
		return -1;
	return loop_add(v->dev.env->io, &b->watch, EPOLLIN, e);
}

static void blk_quiesce(struct virtio_device *v)
{
	struct blk *b = (struct blk *)v;

	loop_remove(v->dev.env->io, &b->watch);
}

static const struct virtio_ops blk_ops = {
	.device_id = 2,
	.known_features = BLK_FEATURES,
	.activate = blk_activate,
	.quiesce = blk_quiesce,
	.start = blk_start,
	.stop = blk_stop,
	.reset = blk_reset,
	.ring = blk_ring,
};

static int make_ring(struct blk *b, struct err *e)
{
	/* Room for the answer of every request, so none is ever kept back in the kernel. */
	struct io_uring_params p = { .flags = IORING_SETUP_CQSIZE,
				     .cq_entries = 2 * QUEUE_SIZE_MAX };
	int rc = io_uring_queue_init_params(BLK_RING, &b->uring, &p);

	if (rc < 0)
		return err_errno(e, -rc, "%s: this host gives no io_uring", b->v.dev.id);
	b->uring_made = true;
	if (!(p.features & IORING_FEAT_SUBMIT_STABLE) || !(p.features & IORING_FEAT_NODROP))
		return err_set(e, "%s: this host's io_uring is too old (Linux 5.5 is needed)",
			       b->v.dev.id);
	b->watch = (struct loop_watch){ .fd = b->uring.ring_fd, .fn = completed, .arg = b };
	b->requests = calloc(BLK_REQUESTS, sizeof(*b->requests));
	if (!b->requests)
		return err_set(e, "%s: out of memory", b->v.dev.id);
	for (unsigned int i = 0; i < BLK_REQUESTS; i++)
		b->free[b->n_free++] = (uint16_t)(BLK_REQUESTS - 1 - i);
	return 0;
}

static void blk_destroy(struct device *d)
{
	struct blk *b = (struct blk *)d;

	virtio_destroy(&b->v);
	blk_stop_retaking(b);
	if (b->uring_made)
		io_uring_queue_exit(&b->uring);
	disk_close(&b->disk);
	free(b->requests);
	free(b);
}

static int blk_create(const struct device_env *env, const struct tree *t, const char *path,
		      struct device **out, struct err *e)
{
	struct blk *b = calloc(1, sizeof(*b));

	if (!b)
		return err_set(e, "%s: out of memory", path);
	b->disk.fd = -1;
	b->retake = (struct loop_watch){ .fd = -1, .fn = blk_retake_again, .arg = b };
	if (virtio_init(&b->v, &virtio_blk_model, &blk_ops, 1, env, t, path, e) < 0) {
		free(b);
		return -1;
	}
	if (blk_fill_config(b, t, path, e) < 0 || blk_open_host(b, t, e) < 0 ||
	    make_ring(b, e) < 0) {
		blk_destroy(&b->v.dev);
		return -1;
	}
	*out = &b->v.dev;
	return 0;
}

static void blk_fields(struct state *s, void *p)
{
	struct blk_state *st = p;

	virtio_fields(s, &st->v);
	state_u32_array_optional(s, "kept", st->kept, &st->n_kept, QUEUE_SIZE_MAX);
}

static int blk_check(const void *p, struct err *e)
{
	const struct blk_state *st = p;

	return virtio_state_check(&st->v, e) || blk_kept_check(st, e) ? -1 : 0;
}

static void blk_save(struct device *d, void *p)
{
	struct blk_state *st = p;

	virtio_save((struct virtio_device *)d, &st->v);
	blk_kept_save((struct blk *)d, st);
}

static void blk_load(struct device *d, const void *p)
{
	const struct blk_state *st = p;

	virtio_load((struct virtio_device *)d, &st->v);
	blk_kept_load((struct blk *)d, st);
}

static const struct state_desc blk_state_desc = {
	.size = sizeof(struct blk_state),
	.fields = blk_fields,
	.check = blk_check,
};

static const struct device_handover blk_handover = {
	.share = blk_share,
	.settle = blk_settle,
	.sync_begin = blk_sync_begin,
	.sync_done = blk_sync_done,
	.release = blk_release,
	.acquire = blk_acquire,
	.check_host = blk_check_host,
};

const struct device_model virtio_blk_model = {
	.name = "virtio-blk",
	.state = &blk_state_desc,
	.probe = blk_probe,
	.create = blk_create,
	.destroy = blk_destroy,
	.activate = virtio_activate,
	.quiesce = virtio_quiesce,
	.save = blk_save,
	.fits = virtio_plain_fits,
	.load = blk_load,
	.handover = &blk_handover,
	.resize = blk_resize,
};
