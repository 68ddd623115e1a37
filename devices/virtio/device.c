/*
 * The part that all virtio devices share: see device.h for the threads. The invariant: an op of
 * the kind runs only under `lock`; `start` and `stop` alternate, and `started` says which was
 * last. What the guest does wrong ends in virtio_fail: the device asks for a reset, and nothing
 * else of the VM notices.
 */
#include "devices/virtio/device.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/log.h"
#include "vmm/base/wake.h"
#include "vmm/memory.h"
#include "vmm/state.h"
#include "vmm/tree.h"

#define INTERRUPT_QUEUE	 1u
#define INTERRUPT_CONFIG 2u

#define STATUS_KNOWN                                                                  \
	(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_DRIVER_OK | \
	 VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_NEEDS_RESET | VIRTIO_STATUS_FAILED)

static bool has(const struct virtio_state *st, unsigned int feature)
{
	return (st->status & VIRTIO_STATUS_FEATURES_OK) &&
	       (st->driver_features & VIRTIO_BIT(feature));
}

bool virtio_has(const struct virtio_device *v, unsigned int feature)
{
	return has(&v->st, feature);
}

static unsigned int queue_size_max(const struct virtio_device *v)
{
	return v->ops->queue_size ? v->ops->queue_size : QUEUE_SIZE_MAX;
}

/* What was negotiated decides how the rings are read. */
static void apply_features(struct virtio_device *v)
{
	for (unsigned int i = 0; i < v->n_queues; i++) {
		v->queues[i].event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);
		v->queues[i].indirect = virtio_has(v, VIRTIO_F_INDIRECT_DESC);
	}
}

static void raise_interrupt(struct virtio_device *v, uint32_t why)
{
	/* The reason first: the driver's handler asks for it as soon as the line was pulsed. */
	__atomic_fetch_or(&v->interrupt_status, why, __ATOMIC_SEQ_CST);
	/* A parked machine's interrupt controllers are left alone: activate repeats it. */
	if (v->active)
		irq_pulse(&v->irq);
}

void virtio_interrupt(struct virtio_device *v, unsigned int q)
{
	if (queue_wants_interrupt(&v->queues[q]))
		raise_interrupt(v, INTERRUPT_QUEUE);
}

void virtio_config_changed(struct virtio_device *v)
{
	v->st.config_generation++;
	if (v->st.status & VIRTIO_STATUS_DRIVER_OK)
		raise_interrupt(v, INTERRUPT_CONFIG);
}

void virtio_fail(struct virtio_device *v, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	if (v->st.status & VIRTIO_STATUS_NEEDS_RESET)
		return;
	v->st.status |= VIRTIO_STATUS_NEEDS_RESET;
	if (v->st.status & VIRTIO_STATUS_DRIVER_OK)
		raise_interrupt(v, INTERRUPT_CONFIG);
	/* A guest can fail and reset device or machine in a circle; the log is not its to fill. */
	if (v->failed_logged)
		return;
	v->failed_logged = true;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_warn("%s: %s; the device waits for the guest to reset it (said once)", v->dev.id, text);
}

void virtio_ring_later(struct virtio_device *v, unsigned int q)
{
	wake_signal(v->doorbells[q].fd);
}

/* A doorbell, on the I/O thread. */
static void rung(void *arg, uint32_t events)
{
	struct virtio_doorbell *b = arg;
	struct virtio_device *v = b->v;

	(void)events;
	/* Drained before the queue is read, so that a ring during the work comes again. */
	if (!wake_drain(b->fd))
		return;
	pthread_mutex_lock(&v->lock);
	if (virtio_working(v) && v->queues[b->queue].st.ready)
		v->ops->ring(v, b->queue);
	pthread_mutex_unlock(&v->lock);
}

/* From here on the guest's write to QueueNotify reaches the I/O thread without an exit. */
static void tie_doorbell(struct virtio_device *v, unsigned int q)
{
	struct virtio_doorbell *b = &v->doorbells[q];
	struct err e;

	/* Once for each queue that is ever used, so the guest cannot make KVM's bus churn. */
	if (b->tied)
		return;
	if (doorbell_add(v->dev.env->kvm, b->fd, v->mmio_gpa + VIRTIO_MMIO_QUEUE_NOTIFY, q, &e) ==
	    0) {
		b->tied = true;
		return;
	}
	if (!b->untied_logged)
		log_verbose("%s: queue %u is rung by exits: %s (said once)", v->dev.id, q, e.text);
	b->untied_logged = true;
}

static void start(struct virtio_device *v)
{
	struct err e = { .text = "" };

	if (v->started || !v->active || !(v->st.status & VIRTIO_STATUS_DRIVER_OK) ||
	    (v->st.status & VIRTIO_STATUS_NEEDS_RESET))
		return;
	if (v->ops->start && v->ops->start(v, &e) < 0) {
		virtio_fail(v, "%s", e.text);
		return;
	}
	v->started = true;
	for (unsigned int i = 0; i < v->n_queues; i++)
		if (v->queues[i].st.ready)
			virtio_ring_later(v, i);
}

static void stop(struct virtio_device *v)
{
	if (!v->started)
		return;
	if (v->ops->stop)
		v->ops->stop(v);
	v->started = false;
}

static void reset(struct virtio_device *v)
{
	uint32_t generation = v->st.config_generation;

	stop(v);
	memset(&v->st, 0, sizeof(v->st));
	v->st.config_generation = generation;
	for (unsigned int i = 0; i < v->n_queues; i++)
		memset(&v->queues[i].st, 0, sizeof(v->queues[i].st));
	apply_features(v);
	__atomic_store_n(&v->interrupt_status, 0, __ATOMIC_SEQ_CST);
	if (v->ops->reset)
		v->ops->reset(v);
}

void virtio_set_status(struct virtio_device *v, uint32_t status)
{
	uint32_t now = v->st.status;

	if (!status) {
		reset(v);
		return;
	}
	/* The driver only ever adds bits, and NEEDS_RESET is ours alone. */
	now |= status & (STATUS_KNOWN & ~VIRTIO_STATUS_NEEDS_RESET);
	if (now & ~v->st.status & VIRTIO_STATUS_FEATURES_OK) {
		uint64_t features = v->st.driver_features;

		/* The driver reads the bit back to learn that its choice was refused. */
		if ((features & ~v->features) || !(features & VIRTIO_BIT(VIRTIO_F_VERSION_1)))
			now &= ~(uint32_t)VIRTIO_STATUS_FEATURES_OK;
	}
	if (!(now & VIRTIO_STATUS_FEATURES_OK))
		now &= ~(uint32_t)VIRTIO_STATUS_DRIVER_OK;
	v->st.status = now;
	apply_features(v);
	start(v);
}

void virtio_set_queue_ready(struct virtio_device *v, unsigned int q, bool ready)
{
	struct queue *queue = &v->queues[q];
	bool was_started = v->started;
	struct err e;

	if (queue->st.ready == ready)
		return;
	if (!ready) {
		/* Whatever is under way may use the queue: the kind finishes it first. */
		stop(v);
		queue->st.ready = false;
		if (was_started)
			start(v);
		return;
	}
	queue->st.next_avail = queue->st.next_used = queue->st.signalled = 0;
	queue->st.signalled_valid = true;
	if (queue_check_rings(queue, &e) < 0) {
		virtio_fail(v, "queue %u: %s", q, e.text);
		return;
	}
	queue->st.ready = true;
	tie_doorbell(v, q);
	if (v->started)
		virtio_ring_later(v, q);
}

int virtio_init(struct virtio_device *v, const struct device_model *model,
		const struct virtio_ops *ops, unsigned int n_queues, const struct device_env *env,
		const struct tree *t, const char *path, struct err *e)
{
	uint64_t size;
	uint32_t gsi;

	memset(v, 0, sizeof(*v));
	v->irq.fd = -1;
	if (n_queues > VIRTIO_QUEUES_MAX)
		return err_set(e, "%s: %u queues (expected at most %u)", path, n_queues,
			       VIRTIO_QUEUES_MAX);
	if (device_init(&v->dev, model, env, t, path, e) < 0 ||
	    tree_u64_pair(t, path, "reg", &v->mmio_gpa, &size, e) < 0 ||
	    tree_u32(t, path, "interrupts", &gsi, e) < 0 ||
	    tree_u64(t, path, "features", &v->features, e) < 0)
		return -1;
	if (size != VIRTIO_MMIO_WINDOW)
		return err_set(e, "%s: a window of 0x%" PRIx64 " bytes (expected 0x%x)", path, size,
			       VIRTIO_MMIO_WINDOW);
	if (v->features & ~ops->known_features)
		return err_set(e, "%s: features 0x%" PRIx64 " are not known to this version", path,
			       v->features & ~ops->known_features);
	if (!(v->features & VIRTIO_BIT(VIRTIO_F_VERSION_1)))
		return err_set(e, "%s: the features 0x%" PRIx64 " lack VERSION_1", path,
			       v->features);
	v->ops = ops;
	v->n_queues = n_queues;
	for (unsigned int i = 0; i < n_queues; i++) {
		v->queues[i].memory = env->memory;
		v->doorbells[i] = (struct virtio_doorbell){ .v = v, .queue = i, .fd = -1 };
	}
	pthread_mutex_init(&v->lock, NULL);
	for (unsigned int i = 0; i < n_queues; i++) {
		struct virtio_doorbell *b = &v->doorbells[i];

		if (wake_init(&b->fd, e)) {
			err_context(e, "%s: doorbell %u", path, i);
			goto fail;
		}
		b->watch = (struct loop_watch){ .fd = b->fd, .fn = rung, .arg = b };
	}
	if (irq_init(&v->irq, env->kvm, gsi, e) < 0 ||
	    bus_add(env->mmio_bus, v->mmio_gpa, size, virtio_mmio_access, v, e) < 0) {
		err_context(e, "%s", path);
		goto fail;
	}
	return 0;
fail:
	virtio_destroy(v);
	return -1;
}

void virtio_destroy(struct virtio_device *v)
{
	virtio_quiesce(&v->dev);
	for (unsigned int i = 0; i < v->n_queues; i++) {
		struct virtio_doorbell *b = &v->doorbells[i];

		if (b->tied)
			doorbell_remove(v->dev.env->kvm, b->fd,
					v->mmio_gpa + VIRTIO_MMIO_QUEUE_NOTIFY, i);
		wake_free(&b->fd);
	}
	irq_free(&v->irq);
	pthread_mutex_destroy(&v->lock);
}

int virtio_activate(struct device *d, struct err *e)
{
	struct virtio_device *v = (struct virtio_device *)d;
	int rc = 0;

	pthread_mutex_lock(&v->lock);
	if (v->active)
		goto out;
	for (unsigned int i = 0; i < v->n_queues && rc == 0; i++)
		rc = loop_add(d->env->io, &v->doorbells[i].watch, EPOLLIN, e);
	if (rc == 0 && v->ops->activate)
		rc = v->ops->activate(v, e);
	if (rc < 0) {
		err_context(e, "%s", d->id);
		for (unsigned int i = 0; i < v->n_queues; i++)
			loop_remove(d->env->io, &v->doorbells[i].watch);
		goto out;
	}
	v->active = true;
	for (unsigned int i = 0; i < v->n_queues; i++)
		if (v->queues[i].st.ready)
			tie_doorbell(v, i);
	start(v);
	/* An edge that was under way when the state was saved is lost; a second one is harmless. */
	if (__atomic_load_n(&v->interrupt_status, __ATOMIC_SEQ_CST))
		irq_pulse(&v->irq);
out:
	pthread_mutex_unlock(&v->lock);
	return rc;
}

void virtio_quiesce(struct device *d)
{
	struct virtio_device *v = (struct virtio_device *)d;

	pthread_mutex_lock(&v->lock);
	if (v->active) {
		stop(v);
		if (v->ops->quiesce)
			v->ops->quiesce(v);
		for (unsigned int i = 0; i < v->n_queues; i++)
			loop_remove(d->env->io, &v->doorbells[i].watch);
		v->active = false;
	}
	pthread_mutex_unlock(&v->lock);
}

void virtio_fields(struct state *s, struct virtio_state *st)
{
	state_u32(s, "status", &st->status);
	state_u32(s, "device-features-sel", &st->device_features_sel);
	state_u32(s, "driver-features-sel", &st->driver_features_sel);
	state_u32(s, "queue-sel", &st->queue_sel);
	state_u64(s, "driver-features", &st->driver_features);
	state_u32(s, "interrupt-status", &st->interrupt_status);
	state_u32(s, "config-generation", &st->config_generation);
	state_u32(s, "queues", &st->n_queues);
	/* A number from elsewhere that is too large reads no queue; virtio_state_check refuses it.
	 */
	state_list(s, "queue", st->queues, sizeof(st->queues[0]),
		   st->n_queues <= VIRTIO_QUEUES_MAX ? st->n_queues : 0, queue_fields);
}

int virtio_state_check(const struct virtio_state *st, struct err *e)
{
	if (st->n_queues > VIRTIO_QUEUES_MAX)
		return err_set(e, "%" PRIu32 " queues (expected at most %u)", st->n_queues,
			       VIRTIO_QUEUES_MAX);
	if (st->status & ~(uint32_t)STATUS_KNOWN)
		return err_set(e, "status 0x%" PRIx32 " has bits that virtio 1.2 does not know",
			       st->status);
	if (st->interrupt_status & ~(INTERRUPT_QUEUE | INTERRUPT_CONFIG))
		return err_set(e, "interrupt status 0x%" PRIx32 " (expected 0 to 3)",
			       st->interrupt_status);
	if ((st->status & VIRTIO_STATUS_FEATURES_OK) && !has(st, VIRTIO_F_VERSION_1))
		return err_set(e, "features agreed on without VERSION_1");
	if ((st->status & VIRTIO_STATUS_DRIVER_OK) && !(st->status & VIRTIO_STATUS_FEATURES_OK))
		return err_set(e, "a running driver that has not agreed on features");
	for (unsigned int i = 0; i < st->n_queues; i++) {
		if (queue_state_check(&st->queues[i], e) < 0)
			return err_context(e, "queue %u", i);
		if (st->queues[i].ready && !(st->status & VIRTIO_STATUS_FEATURES_OK))
			return err_set(e, "queue %u is ready before features were agreed on", i);
	}
	return 0;
}

void virtio_save(struct virtio_device *v, struct virtio_state *st)
{
	pthread_mutex_lock(&v->lock);
	*st = v->st;
	st->interrupt_status = __atomic_load_n(&v->interrupt_status, __ATOMIC_SEQ_CST);
	st->n_queues = v->n_queues;
	for (unsigned int i = 0; i < v->n_queues; i++)
		st->queues[i] = v->queues[i].st;
	pthread_mutex_unlock(&v->lock);
}

int virtio_fits(struct virtio_device *v, const struct virtio_state *st, struct err *e)
{
	if (st->n_queues != v->n_queues)
		return err_set(e, "%s: the state has %" PRIu32 " queues, the device %u", v->dev.id,
			       st->n_queues, v->n_queues);
	if ((st->status & VIRTIO_STATUS_FEATURES_OK) && (st->driver_features & ~v->features))
		return err_set(e,
			       "%s: the driver uses features 0x%" PRIx64
			       " that the device does not offer",
			       v->dev.id, st->driver_features & ~v->features);
	for (unsigned int i = 0; i < st->n_queues; i++) {
		struct queue q = { .st = st->queues[i], .memory = v->dev.env->memory };

		if (q.st.size > queue_size_max(v))
			return err_set(e,
				       "%s: queue %u has %u descriptors (the device can have %u)",
				       v->dev.id, i, q.st.size, queue_size_max(v));
		if (q.st.ready && queue_check_rings(&q, e) < 0)
			return err_context(e, "%s: queue %u", v->dev.id, i);
	}
	return 0;
}

void virtio_load(struct virtio_device *v, const struct virtio_state *st)
{
	virtio_quiesce(&v->dev);
	pthread_mutex_lock(&v->lock);
	reset(v);
	v->st = *st;
	for (unsigned int i = 0; i < v->n_queues; i++)
		v->queues[i].st = st->queues[i];
	apply_features(v);
	__atomic_store_n(&v->interrupt_status, st->interrupt_status, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&v->lock);
}

/* -- a turn -- */

static bool fail_queue(struct virtio_device *v, unsigned int q, const char *name,
		       const struct err *e)
{
	if (name)
		virtio_fail(v, "%s: %s", name, e->text);
	else
		virtio_fail(v, "queue %u: %s", q, e->text);
	return false;
}

bool virtio_drain(struct virtio_device *v, unsigned int q, const char *name, struct queue_chain *c,
		  virtio_take_fn *take, void *turn)
{
	enum virtio_took took = VIRTIO_TOOK;
	struct queue *queue = &v->queues[q];
	bool pushed = false;
	uint32_t written;
	struct err e;
	int rc;

	do {
		queue_ask_rings(queue, false);
		while (took == VIRTIO_TOOK && (rc = queue_pop(queue, c, &e)) != 0) {
			if (rc < 0)
				return fail_queue(v, q, name, &e);
			written = 0;
			took = take(v, q, c, &written, turn);
			if (took == VIRTIO_BROKEN)
				return false;
			if (took == VIRTIO_LATER || took == VIRTIO_BLOCKED)
				queue_unpop(queue);
			else if (queue_push(queue, c->head, written, &e) < 0)
				return fail_queue(v, q, name, &e);
			else
				pushed = true;
		}
	} while (took == VIRTIO_TOOK && queue_ask_rings(queue, true));
	if (took == VIRTIO_TOOK_LAST || took == VIRTIO_LATER)
		virtio_ring_later(v, q);
	if (pushed)
		virtio_interrupt(v, q);
	return true;
}

/* -- kinds without a state of their own -- */

static void plain_fields(struct state *s, void *p)
{
	virtio_fields(s, p);
}

static int plain_check(const void *p, struct err *e)
{
	return virtio_state_check(p, e);
}

const struct state_desc virtio_plain_state = {
	.size = sizeof(struct virtio_state),
	.fields = plain_fields,
	.check = plain_check,
};

void virtio_plain_save(struct device *d, void *virtio_state)
{
	virtio_save((struct virtio_device *)d, virtio_state);
}

int virtio_plain_fits(struct device *d, const void *state, struct err *e)
{
	return virtio_fits((struct virtio_device *)d, state, e);
}

void virtio_plain_load(struct device *d, const void *virtio_state)
{
	virtio_load((struct virtio_device *)d, virtio_state);
}
