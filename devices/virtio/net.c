/*
 * The network device (virtio 1.2, section 5.1) on a tap interface of the host. Queues: 0 receive,
 * 1 transmit, 2 control.
 *
 * All work is done on the I/O thread, under the device's lock. The invariant: a frame is read from
 * the tap only when the guest took the one before; so what the guest has no buffers for waits in
 * the interface's own queue, and nothing is watched that cannot be worked on.
 *
 * Frames carry the header of section 5.1.6 on both sides, so checksum and segmentation are
 * between the guest and the kernel, which checks what a guest says there.
 *
 * A guest that came from another host is announced a few times: by a RARP frame in its name, from
 * which switches learn where its address is now, and by asking it to speak for itself (section
 * 5.1.6.5.4), since it alone knows its VLANs and IP addresses.
 */

#include <endian.h>
#include <errno.h>
#include <linux/if_tun.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "devices/backend/tap.h"
#include "devices/models.h"
#include "devices/virtio/device.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/log.h"

#define QUEUE_RX      0
#define QUEUE_TX      1
#define QUEUE_CONTROL 2
#define QUEUES	      3

#define NET_DEVICE_ID	     1
#define NET_F_CSUM	     0
#define NET_F_GUEST_CSUM     1
#define NET_F_MAC	     5
#define NET_F_GUEST_TSO4     7
#define NET_F_GUEST_TSO6     8
#define NET_F_GUEST_ECN	     9
#define NET_F_HOST_TSO4	     11
#define NET_F_HOST_TSO6	     12
#define NET_F_HOST_ECN	     13
#define NET_F_MRG_RXBUF	     15
#define NET_F_STATUS	     16
#define NET_F_CTRL_VQ	     17
#define NET_F_GUEST_ANNOUNCE 21

#define NET_FEATURES                                                                               \
	(VIRTIO_BIT(NET_F_CSUM) | VIRTIO_BIT(NET_F_GUEST_CSUM) | VIRTIO_BIT(NET_F_MAC) |           \
	 VIRTIO_BIT(NET_F_GUEST_TSO4) | VIRTIO_BIT(NET_F_GUEST_TSO6) |                             \
	 VIRTIO_BIT(NET_F_GUEST_ECN) | VIRTIO_BIT(NET_F_HOST_TSO4) | VIRTIO_BIT(NET_F_HOST_TSO6) | \
	 VIRTIO_BIT(NET_F_HOST_ECN) | VIRTIO_BIT(NET_F_MRG_RXBUF) | VIRTIO_BIT(NET_F_STATUS) |     \
	 VIRTIO_BIT(NET_F_CTRL_VQ) | VIRTIO_BIT(NET_F_GUEST_ANNOUNCE) |                            \
	 VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) |                     \
	 VIRTIO_BIT(VIRTIO_F_VERSION_1))

#define NET_STATUS_LINK_UP  1
#define NET_STATUS_ANNOUNCE 2

#define NET_CTRL_ANNOUNCE     3
#define NET_CTRL_ANNOUNCE_ACK 0
#define NET_OK		      0
#define NET_ERR		      1

/* Bytes of the header in front of a frame, and where it says how many buffers a frame took. */
#define HEADER_BYTES	   TAP_HEADER_BYTES
#define HEADER_NUM_BUFFERS 10

#define FRAME_MAX (HEADER_BYTES + 65535 + 64) /* the largest segment, Ethernet and VLAN headers */

/* How much is done before other devices have their turn. */
#define TURN_FRAMES   64
#define TURN_BYTES    (1u << 20)
#define TURN_COMMANDS 16

struct net_state {
	struct virtio_state virtio;
	bool announce;	 /* the guest was asked to, and has not yet */
	uint8_t link_up; /* what it was told of its link */
};

struct net {
	struct virtio_device v; /* first */
	int tap;
	struct loop_watch watch;

	/* Under lock. */
	struct {
		uint8_t mac[6];
		uint16_t status; /* little endian */
	} config;
	bool starved; /* the guest has no buffers: the tap is not read */
	bool blocked; /* the tap takes no more: until EPOLLOUT */
	bool gone;    /* the interface was removed */
	bool misfit_logged;
	uint32_t watched;    /* the events that are watched for now; 0: none */
	uint32_t held_bytes; /* a frame that was read and not given to the guest yet */
	uint8_t held[FRAME_MAX];
	struct queue_chain chain, first; /* too large for a stack */

	/* I/O thread. */
	struct loop_watch announcing; /* a timerfd, -1 before the first announcement */
	unsigned int announced;	      /* rounds so far */
};

_Static_assert(offsetof(struct net, config.status) == offsetof(struct net, config.mac) + 6,
	       "the configuration space has no holes");

static void net_set_status(struct net *n, uint16_t bits, bool on)
{
	uint16_t status = le16toh(n->config.status);

	n->config.status = htole16((uint16_t)(on ? status | bits : status & ~bits));
}

/* What the guest sees of its link becomes `up`; it is told when that is news. */
static void net_set_link(struct net *n, bool up)
{
	if (up == !!(le16toh(n->config.status) & NET_STATUS_LINK_UP))
		return;
	net_set_status(n, NET_STATUS_LINK_UP, up);
	virtio_config_changed(&n->v);
}

/* Watches the tap for what can be worked on now. */
static void net_watch(struct net *n)
{
	struct loop *io = n->v.dev.env->io;
	uint32_t events = (n->starved ? 0 : EPOLLIN) | (n->blocked ? EPOLLOUT : 0);

	if (n->gone)
		events = 0;
	if (events == n->watched)
		return;
	if (!events)
		loop_remove(io, &n->watch);
	else if (n->watched)
		loop_change(io, &n->watch, events);
	else if (loop_add(io, &n->watch, events, NULL))
		return; /* no memory for a watch: the next ring tries again */
	n->watched = events;
}

static void net_unwatch(struct net *n)
{
	loop_remove(n->v.dev.env->io, &n->watch);
	n->watched = 0;
}

/*
 * The interface was removed on the host: as a cable that was pulled out. The next net_watch sees
 * to the watch.
 */
static void net_lose_tap(struct net *n)
{
	if (n->gone)
		return;
	n->gone = true;
	n->blocked = false;
	log_warn("%s: its tap interface was removed; the guest's network is down", n->v.dev.id);
	net_set_link(n, false);
}

/* ---- receive ---- */

/*
 * Pops the next chain of buffers for the held frame: 1, 0 = there is none, the guest will ring,
 * -1 = broken.
 */
static int net_rx_pop(struct net *n, struct queue_chain *c, uint64_t least)
{
	struct queue *q = &n->v.queues[QUEUE_RX];
	struct err e;
	int rc = queue_pop(q, c, &e);

	/*
	 * All that the guest has given is popped now, so the ring that is asked for comes with the
	 * next one, also if these are put back.
	 */
	if (rc == 0 && queue_ask_rings(q, true))
		rc = queue_pop(q, c, &e);
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

static void net_receive(struct net *n)
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

/* ---- transmit ---- */

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

static void net_transmit(struct net *n)
{
	struct queue *q = &n->v.queues[QUEUE_TX];
	unsigned int frames = 0;
	uint64_t bytes = 0;
	struct err e;
	int rc;

	n->blocked = false;
	do {
		queue_ask_rings(q, false);
		while ((rc = queue_pop(q, &n->chain, &e)) > 0) {
			rc = net_send(n, q);
			if (rc < 0)
				return;
			if (rc == 0) {
				queue_unpop(q);
				n->blocked = true;
				goto out;
			}
			rc = queue_push(q, n->chain.head, 0, &e);
			if (rc < 0)
				break;
			bytes += n->chain.out_bytes;
			if (++frames == TURN_FRAMES || bytes > TURN_BYTES) {
				virtio_ring_later(&n->v, QUEUE_TX);
				goto out;
			}
		}
		if (rc < 0) {
			virtio_fail(&n->v, "transmit queue: %s", e.text);
			return;
		}
	} while (queue_ask_rings(q, true));
out:
	if (frames)
		virtio_interrupt(&n->v, QUEUE_TX);
}

/* ---- control ---- */

static uint8_t net_command(struct net *n, uint8_t class, uint8_t command)
{
	if (class == NET_CTRL_ANNOUNCE && command == NET_CTRL_ANNOUNCE_ACK &&
	    virtio_has(&n->v, NET_F_GUEST_ANNOUNCE)) {
		net_set_status(n, NET_STATUS_ANNOUNCE, false);
		return NET_OK;
	}
	return NET_ERR; /* nothing else was offered */
}

static void net_control(struct net *n)
{
	struct queue *q = &n->v.queues[QUEUE_CONTROL];
	struct queue_chain *c = &n->chain;
	unsigned int commands = 0;
	uint8_t head[2], ack;
	struct err e;
	int rc;

	if (!virtio_has(&n->v, NET_F_CTRL_VQ))
		return;
	do {
		queue_ask_rings(q, false);
		while ((rc = queue_pop(q, c, &e)) > 0) {
			if (queue_chain_read(q, c, 0, head, sizeof(head)) < sizeof(head) ||
			    !c->in_bytes) {
				virtio_fail(&n->v,
					    "control queue: a command of %llu bytes with %llu for "
					    "the answer",
					    (unsigned long long)c->out_bytes,
					    (unsigned long long)c->in_bytes);
				return;
			}
			ack = net_command(n, head[0], head[1]);
			queue_chain_write(q, c, 0, &ack, sizeof(ack));
			rc = queue_push(q, c->head, sizeof(ack), &e);
			if (rc < 0)
				break;
			if (++commands == TURN_COMMANDS) {
				virtio_ring_later(&n->v, QUEUE_CONTROL);
				goto out;
			}
		}
		if (rc < 0) {
			virtio_fail(&n->v, "control queue: %s", e.text);
			return;
		}
	} while (queue_ask_rings(q, true));
out:
	if (commands)
		virtio_interrupt(&n->v, QUEUE_CONTROL);
}

/* ---- announcing; I/O thread ---- */

/* "Who am I?" from the guest's address to all (RFC 903), behind an empty header. */
struct rarp_frame {
	uint8_t header[HEADER_BYTES];
	uint8_t to[6], from[6], ethertype[2];
	uint8_t hardware[2], protocol[2], address_bytes[2], operation[2];
	uint8_t sender[6], sender_ip[4], target[6], target_ip[4];
	uint8_t padding[18]; /* to the least that Ethernet takes */
};

_Static_assert(sizeof(struct rarp_frame) == HEADER_BYTES + 60, "a frame of 60 bytes");

static void net_send_rarp(const struct net *n)
{
	struct rarp_frame f = {
		.to = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
		.ethertype = { 0x80, 0x35 },
		.hardware = { 0, 1 },
		.protocol = { 8, 0 },
		.address_bytes = { 6, 4 },
		.operation = { 0, 3 },
	};

	memcpy(f.from, n->config.mac, 6);
	memcpy(f.sender, n->config.mac, 6);
	memcpy(f.target, n->config.mac, 6);
	/* What the tap does not take now goes with the next round. */
	if (write(n->tap, &f, sizeof(f)) < 0)
		log_verbose("%s: an announcement was not sent: %s", n->v.dev.id, strerror(errno));
}

static void net_stop_announcing(struct net *n)
{
	if (n->announcing.fd < 0)
		return;
	loop_remove(n->v.dev.env->io, &n->announcing);
	close(n->announcing.fd);
	n->announcing.fd = -1;
}

/* One round; then the timer is set for the next one, if there is one. */
static void net_announce_once(struct net *n)
{
	const struct announce *a = &n->v.dev.env->announce;
	unsigned int ms = a->initial_ms + n->announced * a->step_ms;
	struct itimerspec at = { 0 };

	pthread_mutex_lock(&n->v.lock);
	if (!n->gone)
		net_send_rarp(n);
	if (virtio_has(&n->v, NET_F_GUEST_ANNOUNCE) && virtio_has(&n->v, NET_F_CTRL_VQ)) {
		net_set_status(n, NET_STATUS_ANNOUNCE, true);
		virtio_config_changed(&n->v);
	}
	pthread_mutex_unlock(&n->v.lock);
	if (++n->announced >= a->rounds) {
		net_stop_announcing(n);
		return;
	}
	ms = ms < a->max_ms ? ms : a->max_ms;
	at.it_value = clock_timespec(ms ? ms * 1000000ull : 1);
	timerfd_settime(n->announcing.fd, 0, &at, NULL);
}

static void net_announce_again(void *arg, uint32_t events)
{
	struct net *n = arg;
	uint64_t expired;

	(void)events;
	if (read(n->announcing.fd, &expired, sizeof(expired)) == sizeof(expired))
		net_announce_once(n);
}

/* The guest has just come here. */
static void net_announce(struct device *d)
{
	struct net *n = (struct net *)d;

	unsigned int rounds = d->env->announce.rounds;

	net_stop_announcing(n);
	if (!rounds)
		return;
	n->announcing.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	/* Without a timer it is announced once. */
	n->announced = rounds - 1;
	if (n->announcing.fd >= 0 && loop_add(n->v.dev.env->io, &n->announcing, EPOLLIN, NULL) == 0)
		n->announced = 0;
	net_announce_once(n);
}

/* ---- ops; lock held ---- */

static void net_ring(struct virtio_device *v, unsigned int q)
{
	struct net *n = (struct net *)v;

	switch (q) {
	case QUEUE_RX:
		/* Only a queue that ran empty is of interest: then the rings are asked for. */
		queue_ask_rings(&v->queues[q], false);
		net_receive(n);
		break;
	case QUEUE_TX:
		net_transmit(n);
		break;
	default:
		net_control(n);
	}
	if (virtio_working(v))
		net_watch(n);
	else
		net_unwatch(n);
}

/* The tap has something, or room. */
static void net_tap_ready(void *arg, uint32_t events)
{
	struct net *n = arg;

	pthread_mutex_lock(&n->v.lock);
	if (virtio_working(&n->v)) {
		if (events & EPOLLIN)
			net_receive(n);
		if (virtio_working(&n->v) && events & EPOLLOUT)
			net_transmit(n);
		if (events & (EPOLLERR | EPOLLHUP))
			net_lose_tap(n);
	}
	if (virtio_working(&n->v))
		net_watch(n);
	else
		net_unwatch(n);
	pthread_mutex_unlock(&n->v.lock);
}

/* What the kernel may leave to a guest that agreed to `features`. */
static unsigned int net_offload(uint64_t features)
{
	unsigned int flags = 0;

	if (!(features & VIRTIO_BIT(NET_F_GUEST_CSUM)))
		return 0;
	flags |= TUN_F_CSUM;
	if (features & VIRTIO_BIT(NET_F_GUEST_TSO4))
		flags |= TUN_F_TSO4;
	if (features & VIRTIO_BIT(NET_F_GUEST_TSO6))
		flags |= TUN_F_TSO6;
	if (flags != TUN_F_CSUM && features & VIRTIO_BIT(NET_F_GUEST_ECN))
		flags |= TUN_F_TSO_ECN;
	return flags;
}

static int net_start(struct virtio_device *v, struct err *e)
{
	struct net *n = (struct net *)v;

	n->starved = n->blocked = false;
	if (n->gone || tap_set_offload(n->tap, net_offload(v->st.driver_features), e) == 0)
		return 0;
	if (errno != EBADFD)
		return -1;
	net_lose_tap(n); /* while the guest was parked, or had no driver */
	return 0;
}

static void net_reset(struct virtio_device *v)
{
	struct net *n = (struct net *)v;

	n->held_bytes = 0;
	net_set_status(n, NET_STATUS_ANNOUNCE, false);
}

static void net_stop_watching(struct virtio_device *v)
{
	struct net *n = (struct net *)v;

	net_unwatch(n);
	net_stop_announcing(n);
}

static const struct virtio_ops net_ops = {
	.device_id = NET_DEVICE_ID,
	.known_features = NET_FEATURES,
	.start = net_start,
	.reset = net_reset,
	.ring = net_ring,
	.quiesce = net_stop_watching,
};

/* ---- life; I/O thread ---- */

static int net_probe(struct tree *t, const char *path, struct err *e)
{
	return tree_set_u64(t, path, "features", NET_FEATURES, e);
}

static void net_destroy(struct device *d)
{
	struct net *n = (struct net *)d;

	virtio_destroy(&n->v);
	net_stop_announcing(n);
	if (n->tap >= 0)
		close(n->tap);
	free(n);
}

static int net_open_tap(struct net *n, const struct tree *t, struct err *e)
{
	char host[TREE_PATH_MAX];
	const char *name;

	device_host_path(&n->v.dev, host);
	if (tree_str(t, host, "tap", &name, e))
		return -1;
	n->tap = tap_open(name, e);
	if (n->tap < 0 || tap_set_offload(n->tap, net_offload(n->v.features), e))
		return err_context(e, "%s", n->v.dev.id);
	n->watch = (struct loop_watch){ .fd = n->tap, .fn = net_tap_ready, .arg = n };
	return 0;
}

static int net_create(const struct device_env *env, const struct tree *t, const char *path,
		      struct device **out, struct err *e)
{
	struct net *n = calloc(1, sizeof(*n));
	const void *mac;
	size_t len;

	if (!n)
		return err_set(e, "%s: out of memory", path);
	n->tap = -1;
	n->announcing = (struct loop_watch){ .fd = -1, .fn = net_announce_again, .arg = n };
	if (virtio_init(&n->v, &virtio_net_model, &net_ops, QUEUES, env, t, path, e)) {
		free(n);
		return -1;
	}
	n->watch.fd = -1;
	if (tree_bytes(t, path, "mac", &mac, &len, e))
		goto fail;
	if (len != sizeof(n->config.mac) || *(const uint8_t *)mac & 1) {
		err_set(e, "%s: 'mac' is not the address of one interface (%zu bytes, expected 6)",
			path, len);
		goto fail;
	}
	memcpy(n->config.mac, mac, len);
	net_set_status(n, NET_STATUS_LINK_UP, true);
	n->v.config = &n->config;
	n->v.config_size = sizeof(n->config);
	if (net_open_tap(n, t, e))
		goto fail;
	*out = &n->v.dev;
	return 0;
fail:
	net_destroy(&n->v.dev);
	return -1;
}

/* ---- state ---- */

static void net_fields(struct state *s, void *p)
{
	struct net_state *st = p;

	virtio_fields(s, &st->virtio);
	state_bool(s, "announce", &st->announce);
	/* Later than the rest: nearly every guest that was saved before had its link. */
	state_u8_optional(s, "link-up", &st->link_up, 1);
}

static int net_check(const void *p, struct err *e)
{
	const struct net_state *st = p;

	if (st->link_up > 1)
		return err_set(e, "link-up is %u, expected 0 or 1", st->link_up);
	return virtio_state_check(&st->virtio, e);
}

static void net_save(struct device *d, void *p)
{
	struct net *n = (struct net *)d;
	struct net_state *st = p;

	virtio_save(&n->v, &st->virtio);
	st->announce = le16toh(n->config.status) & NET_STATUS_ANNOUNCE;
	st->link_up = !!(le16toh(n->config.status) & NET_STATUS_LINK_UP);
}

static int net_fits(struct device *d, const void *p, struct err *e)
{
	return virtio_fits((struct virtio_device *)d, &((const struct net_state *)p)->virtio, e);
}

static void net_load(struct device *d, const void *p)
{
	struct net *n = (struct net *)d;
	const struct net_state *st = p;

	virtio_load(&n->v, &st->virtio);
	pthread_mutex_lock(&n->v.lock);
	net_set_status(n, NET_STATUS_ANNOUNCE, st->announce);
	/* It remembers the link of the host where it was; this host's may be another. */
	net_set_status(n, NET_STATUS_LINK_UP, st->link_up);
	net_set_link(n, !n->gone);
	pthread_mutex_unlock(&n->v.lock);
}

static const struct state_desc net_state_desc = {
	.size = sizeof(struct net_state),
	.fields = net_fields,
	.check = net_check,
};

const struct device_model virtio_net_model = {
	.name = "virtio-net",
	.state = &net_state_desc,
	.probe = net_probe,
	.create = net_create,
	.destroy = net_destroy,
	.activate = virtio_activate,
	.quiesce = virtio_quiesce,
	.save = net_save,
	.fits = net_fits,
	.load = net_load,
	.announce = net_announce,
};
