/*
 * The transport virtio-mmio, version 2 (virtio 1.2, section 4.2.2): one window of registers, the
 * configuration space at 0x100. Runs on vCPU threads.
 *
 * The invariant: a register access never fails and never works for the device, it only changes
 * what `lock` guards; the work is the I/O thread's. What the specification reserves, forbids or
 * calls read-only reads as zero and is not written.
 */
#include "devices/virtio/device.h"

#include <inttypes.h>
#include <string.h>

#include "vmm/base/log.h"
#include "vmm/bus.h"

#define MAGIC  0x74726976u /* "virt" */
#define VENDOR 0x74776467u /* "gdwt" */

#define REG_MAGIC		0x000
#define REG_VERSION		0x004
#define REG_DEVICE_ID		0x008
#define REG_VENDOR_ID		0x00c
#define REG_DEVICE_FEATURES	0x010
#define REG_DEVICE_FEATURES_SEL 0x014
#define REG_DRIVER_FEATURES	0x020
#define REG_DRIVER_FEATURES_SEL 0x024
#define REG_QUEUE_SEL		0x030
#define REG_QUEUE_NUM_MAX	0x034
#define REG_QUEUE_NUM		0x038
#define REG_QUEUE_READY		0x044
#define REG_QUEUE_NOTIFY	VIRTIO_MMIO_QUEUE_NOTIFY
#define REG_INTERRUPT_STATUS	0x060
#define REG_INTERRUPT_ACK	0x064
#define REG_STATUS		0x070
#define REG_QUEUE_DESC_LOW	0x080
#define REG_QUEUE_DESC_HIGH	0x084
#define REG_QUEUE_DRIVER_LOW	0x090
#define REG_QUEUE_DRIVER_HIGH	0x094
#define REG_QUEUE_DEVICE_LOW	0x0a0
#define REG_QUEUE_DEVICE_HIGH	0x0a4
#define REG_SHM_LEN_LOW		0x0b0
#define REG_SHM_BASE_HIGH	0x0bc
#define REG_CONFIG_GENERATION	0x0fc
#define REG_CONFIG		0x100

/* What a driver should not do and what does no harm: one line a device, for its author. */
static void misuse(struct virtio_device *v, const char *what, uint64_t offset)
{
	if (!v->misuse_logged)
		log_verbose("%s: ignored: %s (register 0x%" PRIx64 "; said once)", v->dev.id, what,
			    offset);
	v->misuse_logged = true;
}

/* The queue that QueueSel names, or NULL. */
static struct queue *selected(struct virtio_device *v)
{
	return v->st.queue_sel < v->n_queues ? &v->queues[v->st.queue_sel] : NULL;
}

static uint32_t queue_num_max(const struct virtio_device *v)
{
	return v->ops->queue_size ? v->ops->queue_size : QUEUE_SIZE_MAX;
}

static uint32_t read_register(struct virtio_device *v, uint64_t offset)
{
	const struct queue *q = selected(v);
	uint32_t sel = v->st.device_features_sel;

	switch (offset) {
	case REG_MAGIC:
		return MAGIC;
	case REG_VERSION:
		return 2;
	case REG_DEVICE_ID:
		return v->ops->device_id;
	case REG_VENDOR_ID:
		return VENDOR;
	case REG_DEVICE_FEATURES:
		return sel < 2 ? (uint32_t)(v->features >> (32 * sel)) : 0;
	case REG_QUEUE_NUM_MAX:
		return q ? queue_num_max(v) : 0;
	case REG_QUEUE_READY:
		return q && q->st.ready;
	case REG_STATUS:
		return v->st.status;
	case REG_CONFIG_GENERATION:
		return v->st.config_generation;
	case REG_SHM_LEN_LOW ... REG_SHM_BASE_HIGH:
		return UINT32_MAX; /* a length of -1: there is no such region (4.2.2.1) */
	default:
		misuse(v, "a read of what cannot be read", offset);
		return 0;
	}
}

static void write_half(uint64_t *gpa, uint32_t value, bool high)
{
	if (high)
		*gpa = (*gpa & UINT32_MAX) | (uint64_t)value << 32;
	else
		*gpa = (*gpa & ~(uint64_t)UINT32_MAX) | value;
}

/* Registers of the selected queue: only between FEATURES_OK and the queue's being ready. */
static void write_queue(struct virtio_device *v, uint64_t offset, uint32_t value)
{
	struct queue *q = selected(v);

	if (!q) {
		misuse(v, "a write to a queue that does not exist", offset);
		return;
	}
	if (offset == REG_QUEUE_READY && !value) {
		virtio_set_queue_ready(v, v->st.queue_sel, false);
		return;
	}
	if (!(v->st.status & VIRTIO_STATUS_FEATURES_OK)) {
		misuse(v, "a queue is set up before FEATURES_OK", offset);
		return;
	}
	if (q->st.ready) {
		misuse(v, "a queue in use is set up", offset);
		return;
	}
	switch (offset) {
	case REG_QUEUE_NUM:
		if (!value || (value & (value - 1)) || value > queue_num_max(v))
			virtio_fail(v,
				    "queue %" PRIu32 ": a size of %" PRIu32
				    " (expected a power of two up to %" PRIu32 ")",
				    v->st.queue_sel, value, queue_num_max(v));
		else
			q->st.size = (uint16_t)value;
		break;
	case REG_QUEUE_DESC_LOW:
	case REG_QUEUE_DESC_HIGH:
		write_half(&q->st.desc_gpa, value, offset == REG_QUEUE_DESC_HIGH);
		break;
	case REG_QUEUE_DRIVER_LOW:
	case REG_QUEUE_DRIVER_HIGH:
		write_half(&q->st.avail_gpa, value, offset == REG_QUEUE_DRIVER_HIGH);
		break;
	case REG_QUEUE_DEVICE_LOW:
	case REG_QUEUE_DEVICE_HIGH:
		write_half(&q->st.used_gpa, value, offset == REG_QUEUE_DEVICE_HIGH);
		break;
	case REG_QUEUE_READY:
		virtio_set_queue_ready(v, v->st.queue_sel, true);
		break;
	}
}

static void write_register(struct virtio_device *v, uint64_t offset, uint32_t value)
{
	uint32_t sel = v->st.driver_features_sel;

	switch (offset) {
	case REG_DEVICE_FEATURES_SEL:
		v->st.device_features_sel = value;
		break;
	case REG_DRIVER_FEATURES_SEL:
		v->st.driver_features_sel = value;
		break;
	case REG_DRIVER_FEATURES:
		if (v->st.status & VIRTIO_STATUS_FEATURES_OK)
			misuse(v, "features are chosen after FEATURES_OK", offset);
		else if (sel < 2)
			write_half(&v->st.driver_features, value, sel);
		break;
	case REG_QUEUE_SEL:
		v->st.queue_sel = value;
		break;
	case REG_QUEUE_NUM:
	case REG_QUEUE_READY:
	case REG_QUEUE_DESC_LOW:
	case REG_QUEUE_DESC_HIGH:
	case REG_QUEUE_DRIVER_LOW:
	case REG_QUEUE_DRIVER_HIGH:
	case REG_QUEUE_DEVICE_LOW:
	case REG_QUEUE_DEVICE_HIGH:
		write_queue(v, offset, value);
		break;
	case REG_STATUS:
		virtio_set_status(v, value);
		break;
	case 0x0ac: /* SHMSel: there are no shared memory regions to choose from */
		break;
	default:
		misuse(v, "a write of what cannot be written", offset);
	}
}

static void access_config(struct virtio_device *v, uint64_t offset, void *value, unsigned int len,
			  bool is_write)
{
	if (is_write) {
		if (v->ops->config_write && offset < v->config_size &&
		    len <= v->config_size - offset)
			v->ops->config_write(v, (uint32_t)offset, value, len);
		else
			misuse(v, "a write of read-only configuration", REG_CONFIG + offset);
		return;
	}
	/* Zeroes behind the end: drivers read fields of features that were not offered. */
	memset(value, 0, len);
	if (offset < v->config_size)
		memcpy(value, (const uint8_t *)v->config + offset,
		       len <= v->config_size - offset ? len : v->config_size - offset);
}

void virtio_mmio_access(void *dev, uint64_t offset, void *value, unsigned int len, bool is_write)
{
	struct virtio_device *v = dev;
	uint64_t n;

	/* The ones on the way of every request come first, and without the lock: the I/O thread
	 * may hold it for a whole batch. */
	if (offset == REG_QUEUE_NOTIFY && is_write) {
		/* Only where KVM did not take it: no ioeventfd, or an odd width. */
		n = bus_value(value, len);
		if (n < v->n_queues)
			virtio_ring_later(v, (unsigned int)n);
		return;
	}
	if (offset == REG_INTERRUPT_STATUS && !is_write && len == 4) {
		bus_answer(value, len, __atomic_load_n(&v->interrupt_status, __ATOMIC_SEQ_CST));
		return;
	}
	if (offset == REG_INTERRUPT_ACK && is_write && len == 4) {
		__atomic_fetch_and(&v->interrupt_status, ~(uint32_t)bus_value(value, len),
				   __ATOMIC_SEQ_CST);
		return;
	}
	pthread_mutex_lock(&v->lock);
	if (offset >= REG_CONFIG) {
		access_config(v, offset - REG_CONFIG, value, len, is_write);
	} else if (len != 4 || offset % 4) {
		misuse(v, "an access that is not one of 32 aligned bits", offset);
		if (!is_write)
			bus_answer(value, len, 0);
	} else if (is_write) {
		write_register(v, offset, (uint32_t)bus_value(value, len));
	} else {
		bus_answer(value, len, read_register(v, offset));
	}
	pthread_mutex_unlock(&v->lock);
}
