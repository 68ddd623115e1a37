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
 */

#include <endian.h>
#include <errno.h>
#include <linux/if_tun.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/models.h"
#include "devices/virtio/net_internal.h"
#include "vmm/base/err.h"
#include "vmm/base/log.h"

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
void net_lose_tap(struct net *n)
{
	if (n->gone)
		return;
	n->gone = true;
	n->blocked = false;
	log_warn("%s: its tap interface was removed; the guest's network is down", n->v.dev.id);
	net_set_link(n, false);
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

static enum virtio_took net_take_command(struct virtio_device *v, unsigned int q,
					 struct queue_chain *c, uint32_t *written, void *turn)
{
	struct queue *queue = &v->queues[q];
	unsigned int *commands = turn;
	uint8_t head[2], ack;

	if (queue_chain_read(queue, c, 0, head, sizeof(head)) < sizeof(head) || !c->in_bytes) {
		virtio_fail(v,
			    "control queue: a command of %llu bytes with %llu for "
			    "the answer",
			    (unsigned long long)c->out_bytes, (unsigned long long)c->in_bytes);
		return VIRTIO_BROKEN;
	}
	ack = net_command((struct net *)v, head[0], head[1]);
	queue_chain_write(queue, c, 0, &ack, sizeof(ack));
	*written = sizeof(ack);
	return ++*commands == TURN_COMMANDS ? VIRTIO_TOOK_LAST : VIRTIO_TOOK;
}

static void net_control(struct net *n)
{
	unsigned int commands = 0;

	if (virtio_has(&n->v, NET_F_CTRL_VQ))
		virtio_drain(&n->v, QUEUE_CONTROL, "control queue", &n->chain, net_take_command,
			     &commands);
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
	net_announce_init(n);
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
	.fits = virtio_plain_fits,
	.load = net_load,
	.announce = net_announce,
};
