/*
 * The part that all virtio devices share (virtio 1.2, section 2): features, status, queues,
 * configuration space, interrupts, reset and state; and its transport, virtio-mmio version 2
 * (section 4.2; mmio.c). A kind of device gives a struct virtio_ops and does only its own work.
 *
 * Threads: the guest's register accesses come on vCPU threads, doorbells and host events on the
 * I/O thread; both hold `lock`. All ops below are called with it held. Only the interrupt status
 * is atomic and taken without it.
 *
 * Watches belong to the loop's thread, but the guest starts and stops a device from a vCPU. So
 * start and stop never touch watches and nobody waits for the other thread with the lock held:
 * - the doorbells are watched from activate to quiesce, whatever the status is;
 * - `ring` always runs on the I/O thread: after a start every ready queue is rung, through its
 *   doorbell. A kind adds and changes watches in activate, quiesce, ring and in its watches' own
 *   functions, nowhere else;
 * - a watch's own function takes the lock and asks virtio_working() first; when that is false it
 *   removes its watch (loop_remove) and returns. The next `ring` adds it again.
 */
#ifndef GODWIT_VIRTIO_DEVICE_H
#define GODWIT_VIRTIO_DEVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "devices/virtio/queue.h"
#include "vmm/device.h"
#include "vmm/irq.h"
#include "vmm/loop.h"

#define VIRTIO_QUEUES_MAX 64

/* Feature bits that are not of one kind of device (section 6). */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX     29
#define VIRTIO_F_VERSION_1     32
#define VIRTIO_BIT(n)	       (1ull << (n))

/* Device status (section 2.1). */
#define VIRTIO_STATUS_ACKNOWLEDGE 1
#define VIRTIO_STATUS_DRIVER	  2
#define VIRTIO_STATUS_DRIVER_OK	  4
#define VIRTIO_STATUS_FEATURES_OK 8
#define VIRTIO_STATUS_NEEDS_RESET 64
#define VIRTIO_STATUS_FAILED	  128

/* What migrates of every virtio device; kinds embed it first in their own state struct. */
struct virtio_state {
	uint32_t status;
	uint32_t device_features_sel, driver_features_sel, queue_sel;
	uint64_t driver_features; /* as written; negotiated once FEATURES_OK is set */
	uint32_t interrupt_status;
	uint32_t config_generation;
	uint32_t n_queues;
	struct queue_state queues[VIRTIO_QUEUES_MAX];
};

struct virtio_device;

/* A kind of device. Constant. */
struct virtio_ops {
	uint32_t device_id;	 /* section 5 */
	uint64_t known_features; /* what the code can do; the node's `features` are among them */
	uint16_t queue_size;	 /* QueueNumMax; 0: QUEUE_SIZE_MAX */

	/* The configuration space is `config_size` bytes at `config`; a write is offered here
	 * (NULL: all read-only). */
	void (*config_write)(struct virtio_device *v, uint32_t offset, const void *value,
			     uint32_t len);

	/* I/O thread: the machine runs, or is about to park (after `stop`): the places to add and
	 * remove watches of the host side. `quiesce` may find them removed. Both may be NULL. */
	int (*activate)(struct virtio_device *v, struct err *e);
	void (*quiesce)(struct virtio_device *v);

	/* Any thread: the driver has set DRIVER_OK, or the machine was loaded or resumed in that
	 * state. Then `ring` is called for every ready queue. May be NULL. */
	int (*start)(struct virtio_device *v, struct err *e);

	/* Any thread: the driver resets the device or takes a queue back, or the machine parks. No
	 * request is under way and no chain is held when it returns: waits for I/O that cannot be
	 * taken back, puts back (queue_unpop) what was not begun. May be NULL. */
	void (*stop)(struct virtio_device *v);

	/* Forget what belongs to the driver's use of the device; after stop. May be NULL. */
	void (*reset)(struct virtio_device *v);

	/* I/O thread: the guest rang the ready queue `q` (or may have): work until it is empty, but
	 * no longer than is fair to other devices: then virtio_ring_later() and return. */
	void (*ring)(struct virtio_device *v, unsigned int q);
};

struct virtio_device {
	struct device dev; /* first */
	const struct virtio_ops *ops;

	/* Set at creation. */
	uint64_t features; /* offered, from the tree */
	unsigned int n_queues;
	const void *config;
	uint32_t config_size;
	uint64_t mmio_gpa;
	struct irq irq;
	struct virtio_doorbell {
		struct virtio_device *v;
		unsigned int queue;
		int fd;	   /* eventfd */
		bool tied; /* KVM signals it for the guest's write, without an exit */
		bool untied_logged;
		struct loop_watch watch;
	} doorbells[VIRTIO_QUEUES_MAX];

	/* Under lock. */
	pthread_mutex_t lock;
	struct virtio_state st; /* but for the queues' part, which lives in queues[] while in use */
	struct queue queues[VIRTIO_QUEUES_MAX];
	bool active;			   /* the machine runs: between activate and quiesce */
	bool started;			   /* ops->start was called, ops->stop not yet */
	bool failed_logged, misuse_logged; /* once in the VM's life: no reset changes them */

	uint32_t interrupt_status; /* atomic */
};

/*
 * The common part of a kind's create: reads node `path` (reg, interrupts, features), puts the
 * window on the MMIO bus. On -1 nothing is left. The kind then fills `config`. virtio_destroy frees
 * what init made, not `v` itself.
 */
int virtio_init(struct virtio_device *v, const struct device_model *model,
		const struct virtio_ops *ops, unsigned int n_queues, const struct device_env *env,
		const struct tree *t, const char *path, struct err *e);
void virtio_destroy(struct virtio_device *v);

/*
 * Common members of a kind's struct device_model and state list. A kind's `load` calls virtio_load
 * first: it forgets (ops->reset) what the kind held for the driver before.
 */
int virtio_activate(struct device *d, struct err *e);
void virtio_quiesce(struct device *d);
void virtio_fields(struct state *s, struct virtio_state *st);
int virtio_state_check(const struct virtio_state *st, struct err *e);
void virtio_save(struct virtio_device *v, struct virtio_state *st);
int virtio_fits(struct virtio_device *v, const struct virtio_state *st, struct err *e);
void virtio_load(struct virtio_device *v, const struct virtio_state *st);

/*
 * The same members for a kind without a state of its own. virtio_plain_fits is also for a kind
 * whose own state fits every device.
 */
extern const struct state_desc virtio_plain_state;
void virtio_plain_save(struct device *d, void *virtio_state);
int virtio_plain_fits(struct device *d, const void *state, struct err *e);
void virtio_plain_load(struct device *d, const void *virtio_state);

/* Whether a feature bit was negotiated. */
bool virtio_has(const struct virtio_device *v, unsigned int feature);

/* Whether the device may work: started, and not broken (virtio_fail). */
static inline bool virtio_working(const struct virtio_device *v)
{
	return v->started && !(v->st.status & VIRTIO_STATUS_NEEDS_RESET);
}

/* Rings queue `q` as the guest would: `ring` comes again after the loop looked at other fds. */
void virtio_ring_later(struct virtio_device *v, unsigned int q);

/* The queue's interrupt, if the driver wants one for what was pushed. */
void virtio_interrupt(struct virtio_device *v, unsigned int q);

/* What a kind did with a popped chain. */
enum virtio_took {
	VIRTIO_TOOK,	  /* all of it: it is given back */
	VIRTIO_TOOK_LAST, /* the same, and the turn is over: the queue is rung again */
	VIRTIO_LATER,	  /* it is put back and the turn is over: the queue is rung again */
	VIRTIO_BLOCKED,	  /* it is put back until the kind itself goes on with the queue */
	VIRTIO_BROKEN,	  /* virtio_fail was called */
};

/* `written` is 0 at first: how many bytes of the writable buffers were filled. */
typedef enum virtio_took virtio_take_fn(struct virtio_device *v, unsigned int q,
					struct queue_chain *c, uint32_t *written, void *turn);

/*
 * A kind's turn on queue `q`: `take` is called for each chain until none is left or it ends the
 * turn; then the driver gets an interrupt for what was given back. `c` is the kind's, for one chain
 * at a time; `name` is what messages call the queue (NULL: "queue N"). False: the device is broken.
 */
bool virtio_drain(struct virtio_device *v, unsigned int q, const char *name, struct queue_chain *c,
		  virtio_take_fn *take, void *turn);

/* The configuration has changed: new generation and an interrupt. */
void virtio_config_changed(struct virtio_device *v);

/*
 * The guest broke the rules: DEVICE_NEEDS_RESET is set and signalled, the device does no more work
 * until it is reset, and one line goes to the log.
 */
void virtio_fail(struct virtio_device *v, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The window's bus function (mmio.c) and what it drives (device.c); lock not held. */
#define VIRTIO_MMIO_WINDOW	 0x1000u
#define VIRTIO_MMIO_QUEUE_NOTIFY 0x50u
void virtio_mmio_access(void *v, uint64_t offset, void *value, unsigned int len, bool is_write);

void virtio_set_status(struct virtio_device *v, uint32_t status);		  /* lock held */
void virtio_set_queue_ready(struct virtio_device *v, unsigned int q, bool ready); /* lock held */

#endif
