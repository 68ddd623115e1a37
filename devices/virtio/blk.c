/*
 * The virtio block device (virtio 1.2, section 5.2): one queue of requests, done by the kernel
 * through io_uring on a raw image or a block device. Requests are taken and finished on the I/O
 * thread; a reset on a vCPU thread waits for those in flight. All under the device's lock. The
 * image's own lock (disk.h) is the I/O thread's alone.
 *
 * The invariants: a chain in flight has exactly one request of the fixed pool, so a guest can make
 * nothing grow; after `stop` none is in flight, so there is no state but the queue's. A turn on the
 * I/O thread is bounded in requests and in bytes; what is left rings again.
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

/* In place of a request's number: the fdatasync that nobody waits for. */
#define SETTLE UINT64_MAX

/* How often a half of the lock is asked for that another process has still. */
#define RETAKE_MS 100

#define TURN_REQUESTS 64u
#define TURN_BYTES    (8u << 20)

#define BLK_COMMON                                                               \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) |       \
	 VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | \
	 VIRTIO_BIT(VIRTIO_BLK_F_SIZE_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | \
	 VIRTIO_BIT(VIRTIO_BLK_F_FLUSH))
#define BLK_WRITABLE (VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES))
#define BLK_READONLY VIRTIO_BIT(VIRTIO_BLK_F_RO)

/* As the driver sees it: up to the fields of the features above. */
#define CONFIG_BYTES (offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 4)

struct blk_state {
	struct virtio_state v;
};

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

static void finish(struct blk *b, struct blk_request *r, uint8_t status)
{
	struct queue *q = &b->v.queues[0];
	uint32_t written = 1;
	struct err e;

	b->flight_bytes -= r->bytes;
	b->of_head[r->chain.head] = 0;
	b->free[b->n_free++] = (uint16_t)(r - b->requests);
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
			b->turn_bytes += r->step;
			return;
		}
		status = VIRTIO_BLK_S_IOERR;
	}
	b->turn_requests++;
	finish(b, r, status);
}

/* Takes the next chain from the queue: 1, 0 when it is empty, -1 when it is broken. */
static int take(struct blk *b)
{
	struct blk_request *r = &b->requests[b->free[b->n_free - 1]];
	uint8_t status = VIRTIO_BLK_S_IOERR;
	enum blk_next next;
	struct err e;
	int rc;

	rc = queue_pop(&b->v.queues[0], &r->chain, &e);
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

	if (!b->n_held)
		return;
	for (i = 0; i < BLK_REQUESTS; i++)
		if (b->requests[i].held) {
			b->requests[i].held = false;
			go_on(b, &b->requests[i], BLK_DONE, status);
		}
	b->n_held = 0;
	b->unsynced = 0;
}

static void reap_one(struct blk *b, struct io_uring_cqe *cqe)
{
	uint64_t which = io_uring_cqe_get_data64(cqe);
	uint8_t status = VIRTIO_BLK_S_IOERR;
	int result = cqe->res;
	struct blk_request *r;
	enum blk_next next;

	io_uring_cqe_seen(&b->uring, cqe);
	if (which == SETTLE) {
		b->settling = false;
		if (result < 0 && result != -EAGAIN && result != -EINTR && result != -ECANCELED)
			b->unsynced = -result;
		end_held(b);
		return;
	}
	r = &b->requests[which];
	next = blk_request_stepped(b, r, result, &status);
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

/* Waits until nothing is in flight. */
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

/* -- the lock, and what goes with it; the I/O thread, or before it runs -- */

static void stop_retaking(struct blk *b)
{
	if (b->retake.fd < 0)
		return;
	loop_remove(b->v.dev.env->io, &b->retake);
	close(b->retake.fd);
	b->retake.fd = -1;
}

/*
 * Whoever had the image reserved may need a moment to end. KEEP alone keeps all others out, so the
 * guest does not wait for that; where there is no timer, the next migration's end asks again.
 */
static void retake_later(struct blk *b)
{
	const struct itimerspec every = { { 0, RETAKE_MS * 1000000 }, { 0, RETAKE_MS * 1000000 } };

	if (b->retake.fd >= 0)
		return;
	b->retake.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (b->retake.fd < 0)
		return;
	timerfd_settime(b->retake.fd, 0, &every, NULL);
	if (loop_add(b->v.dev.env->io, &b->retake, EPOLLIN, NULL) < 0)
		stop_retaking(b);
}

static int retake(struct blk *b, struct err *e)
{
	if (disk_retake(&b->disk, e) < 0)
		return -1;
	if (b->disk.held != DISK_ALL)
		retake_later(b);
	else
		stop_retaking(b);
	return 0;
}

static void retake_again(void *arg, uint32_t events)
{
	struct blk *b = arg;
	uint64_t n;

	(void)events;
	if (read(b->retake.fd, &n, sizeof(n)) == sizeof(n))
		retake(b, NULL);
}

static int blk_acquire(struct device *dev, struct err *e)
{
	struct blk *b = (struct blk *)dev;

	if (b->owner)
		return b->disk.held == DISK_NOTHING ? retake(b, e) : 0;
	if (disk_lock(&b->disk, e) < 0)
		return -1;
	b->owner = true;
	disk_forget(&b->disk);
	return 0;
}

static void blk_share(struct device *dev, bool on)
{
	struct blk *b = (struct blk *)dev;

	if (on) {
		stop_retaking(b);
		disk_share(&b->disk);
	} else if (b->owner && b->disk.held != DISK_NOTHING) {
		retake(b, NULL);
	}
}

/* So that little is left to be written when the guest stands still. */
static void blk_settle(struct device *dev)
{
	struct blk *b = (struct blk *)dev;
	struct io_uring_sqe *sqe;

	pthread_mutex_lock(&b->v.lock);
	if (!b->settling && !b->disk.readonly && has_room(b) &&
	    (sqe = io_uring_get_sqe(&b->uring))) {
		io_uring_prep_fsync(sqe, b->disk.fd, IORING_FSYNC_DATASYNC);
		io_uring_sqe_set_data64(sqe, SETTLE);
		b->settling = true;
		submit(b);
	}
	pthread_mutex_unlock(&b->v.lock);
}

/* Quiesced. */
static int blk_sync(struct device *dev, struct err *e)
{
	struct blk *b = (struct blk *)dev;
	struct io_uring_cqe *cqe;
	int rc = 0;

	pthread_mutex_lock(&b->v.lock);
	while (b->settling) {
		submit(b);
		if (io_uring_sq_ready(&b->uring))
			sched_yield();
		else if (io_uring_wait_cqe(&b->uring, &cqe) == 0)
			reap_one(b, cqe);
	}
	if (!b->disk.readonly && !b->unsynced && fdatasync(b->disk.fd) < 0)
		b->unsynced = errno;
	if (b->unsynced)
		rc = err_errno(e, b->unsynced, "%s: what the guest wrote does not get onto %s",
			       b->disk.name, b->disk.path);
	pthread_mutex_unlock(&b->v.lock);
	return rc;
}

static void blk_release(struct device *dev)
{
	struct blk *b = (struct blk *)dev;

	stop_retaking(b);
	disk_release(&b->disk);
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
	.known_features = BLK_COMMON | BLK_WRITABLE | BLK_READONLY,
	.activate = blk_activate,
	.quiesce = blk_quiesce,
	.stop = blk_stop,
	.ring = blk_ring,
};

static bool is_readonly(const struct tree *t, const char *path)
{
	const void *value;
	uint32_t flag;
	size_t len;

	/* Either a number or a property that is there or not. */
	if (!tree_has(t, path, "readonly"))
		return false;
	if (tree_u32(t, path, "readonly", &flag, NULL) == 0)
		return flag != 0;
	return tree_bytes(t, path, "readonly", &value, &len, NULL) == 0;
}

static int open_disk(struct disk *d, const struct tree *t, const char *id, bool readonly,
		     struct err *e)
{
	char host[TREE_PATH_MAX];
	const char *image;

	snprintf(host, sizeof(host), "/host/%.63s", id);
	if (tree_str(t, host, "path", &image, e) < 0)
		return err_context(e, "%s: no image is given", id);
	return (tree_is_without_links(t, host, "path") ? disk_open_without_links
						       : disk_open)(d, id, image, readonly, e);
}

static int blk_probe(struct tree *t, const char *path, struct err *e)
{
	bool readonly = is_readonly(t, path);
	struct disk d;
	const char *id;
	int rc;

	if (tree_str(t, path, "id", &id, e) < 0 || open_disk(&d, t, id, readonly, e) < 0)
		return -1;
	rc = tree_set_u64(t, path, "features",
			  BLK_COMMON | (readonly ? BLK_READONLY : BLK_WRITABLE), e);
	if (rc == 0)
		rc = tree_set_u64(t, path, "capacity", d.sectors, e);
	if (rc == 0)
		rc = tree_set_u32(t, path, "block-size", d.block_bytes, e);
	disk_close(&d);
	return rc;
}

/* What the driver reads, from the node alone: the same on every host. */
static int fill_config(struct blk *b, const struct tree *t, const char *path, struct err *e)
{
	struct virtio_blk_config *c = &b->config;
	const char *serial = "";
	uint32_t block_bytes;
	uint64_t sectors;

	if (tree_u64(t, path, "capacity", &sectors, e) < 0 ||
	    tree_u32(t, path, "block-size", &block_bytes, e) < 0)
		return -1;
	if (block_bytes < DISK_SECTOR || block_bytes > 4096 || (block_bytes & (block_bytes - 1)))
		return err_set(e, "%s: blocks of %" PRIu32 " bytes (expected 512 to 4096)", path,
			       block_bytes);
	if (tree_has(t, path, "serial") && tree_str(t, path, "serial", &serial, e) < 0)
		return -1;
	if (strlen(serial) > sizeof(b->id))
		return err_set(e, "%s: the serial number '%s' is longer than %zu characters",
			       b->v.dev.id, serial, sizeof(b->id));
	memcpy(b->id, serial, strlen(serial)); /* no zero at the end of a full one (5.2.6) */
	c->capacity = htole64(sectors);
	c->seg_max = htole32(QUEUE_BUFFERS_MAX - 2); /* the header and the status are buffers too */
	c->size_max = htole32(BLK_SEGMENT_BYTES);
	c->blk_size = htole32(block_bytes);
	c->max_discard_sectors = htole32(BLK_RANGE_SECTORS);
	c->max_discard_seg = htole32(1);
	c->discard_sector_alignment = htole32(block_bytes / DISK_SECTOR);
	c->max_write_zeroes_sectors = htole32(BLK_ZERO_SECTORS);
	c->max_write_zeroes_seg = htole32(1);
	c->write_zeroes_may_unmap = 1;
	b->v.config = c;
	b->v.config_size = CONFIG_BYTES;
	return 0;
}

static int open_host(struct blk *b, const struct tree *t, struct err *e)
{
	bool readonly = b->v.features & BLK_READONLY;
	uint64_t sectors = le64toh(b->config.capacity);
	const struct disk *d = &b->disk;

	if (open_disk(&b->disk, t, b->v.dev.id, readonly, e) < 0)
		return -1;
	if (d->sectors != sectors)
		return err_set(e,
			       "%s: %s has %" PRIu64 " sectors, the machine was made with %" PRIu64,
			       d->name, d->path, d->sectors, sectors);
	b->owner = !b->v.dev.env->incoming;
	if ((b->owner ? disk_lock(&b->disk, e) : disk_reserve(&b->disk, e)) < 0)
		return -1;
	/* Again at a hand-over; but more takes longer then, and less is permitted. */
	disk_forget(&b->disk);
	return 0;
}

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
	stop_retaking(b);
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
	b->retake = (struct loop_watch){ .fd = -1, .fn = retake_again, .arg = b };
	if (virtio_init(&b->v, &virtio_blk_model, &blk_ops, 1, env, t, path, e) < 0) {
		free(b);
		return -1;
	}
	if (fill_config(b, t, path, e) < 0 || open_host(b, t, e) < 0 || make_ring(b, e) < 0) {
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
}

static int blk_check(const void *p, struct err *e)
{
	const struct blk_state *st = p;

	return virtio_state_check(&st->v, e);
}

static void blk_save(struct device *d, void *p)
{
	struct blk_state *st = p;

	virtio_save((struct virtio_device *)d, &st->v);
}

static int blk_fits(struct device *d, const void *p, struct err *e)
{
	const struct blk_state *st = p;

	return virtio_fits((struct virtio_device *)d, &st->v, e);
}

static void blk_load(struct device *d, const void *p)
{
	const struct blk_state *st = p;

	virtio_load((struct virtio_device *)d, &st->v);
}

static const struct state_desc blk_state_desc = {
	.size = sizeof(struct blk_state),
	.fields = blk_fields,
	.check = blk_check,
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
	.fits = blk_fits,
	.load = blk_load,
	.share = blk_share,
	.release = blk_release,
	.acquire = blk_acquire,
	.settle = blk_settle,
	.sync = blk_sync,
};
