/*
 * The console device with many ports (virtio 1.2, section 5.3): each port is a named channel
 * between a program in the guest and a unix socket of the host. Port 0, the one without a name,
 * is not offered; ports begin at 1.
 *
 * Queues: 0, 1 port 0 (input, output); 2, 3 control; 2 * (n + 1), 2 * (n + 1) + 1 port n.
 *
 * All work is done on the I/O thread, under the device's lock. The invariant: a byte taken out of
 * a queue is in the host's ring, and one taken from the host is in the guest's buffers. Between
 * the two only the position inside a chain is kept, so a port may be moved at any time.
 */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/backend/chardev.h"
#include "devices/models.h"
#include "devices/virtio/device.h"
#include "vmm/base/err.h"

#define CONSOLE_DEVICE_ID   3
#define CONSOLE_F_MULTIPORT 1

#define CONSOLE_FEATURES                                                        \
	(VIRTIO_BIT(CONSOLE_F_MULTIPORT) | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | \
	 VIRTIO_BIT(VIRTIO_F_EVENT_IDX) | VIRTIO_BIT(VIRTIO_F_VERSION_1))

#define QUEUE_PORT0_OUT	  1
#define QUEUE_CONTROL_IN  2
#define QUEUE_CONTROL_OUT 3
#define QUEUES(n_ports)	  (2 * ((n_ports) + 2))
#define PORTS_MAX	  (VIRTIO_QUEUES_MAX / 2 - 2)
#define NAME_MAX_BYTES	  63

/* How much is done before other devices have their turn. */
#define TURN_CHAINS 64
#define TURN_BYTES  (1u << 20)

enum console_event {
	EVENT_DEVICE_READY = 0,
	EVENT_PORT_ADD = 1,
	EVENT_PORT_READY = 3,
	EVENT_PORT_OPEN = 6,
	EVENT_PORT_NAME = 7,
};

struct console_control {
	uint32_t id; /* little endian, as the others */
	uint16_t event, value;
};

/* What the guest is still to be told of a port; a later one makes an earlier of its kind void. */
#define TELL_ADD   0x01
#define TELL_NAME  0x02
#define TELL_CLOSE 0x04
#define TELL_OPEN  0x08
#define TELL_MASK  0x0f

struct port_state {
	bool ready;	 /* the driver has taken the port */
	bool guest_open; /* a program in the guest has */
	bool host_open;	 /* as the guest knows it, or will when it was told */
	uint8_t tell;
	uint32_t out_done; /* bytes of the next output chain that the host has already */
};

struct console_state {
	struct virtio_state virtio;
	uint32_t n_ports;
	struct port_state ports[PORTS_MAX];
};

struct console;

struct port {
	struct console *console;
	unsigned int id; /* from 1 */
	char name[NAME_MAX_BYTES + 1];
	struct chardev *host;
	struct port_state st; /* under lock */
};

struct console {
	struct virtio_device v; /* first */
	struct {
		uint16_t cols, rows;
		uint32_t max_nr_ports, emerg_wr; /* little endian */
	} config;
	unsigned int n_ports;
	struct port ports[PORTS_MAX];
	struct queue_chain chain; /* under lock; too large for a stack */
};

static unsigned int port_queue_in(const struct port *p)
{
	return 2 * (p->id + 1);
}

static unsigned int port_queue_out(const struct port *p)
{
	return 2 * (p->id + 1) + 1;
}

/* NULL: there is no such port. */
static struct port *console_port(struct console *d, uint32_t id)
{
	return id >= 1 && id <= d->n_ports ? &d->ports[id - 1] : NULL;
}

/* ---- control messages; lock held ---- */

/* One message: 1, 0 = the guest has no buffer for it now, -1 = broken. */
static int console_tell(struct console *d, const struct port *p, enum console_event event,
			uint16_t value)
{
	struct queue *q = &d->v.queues[QUEUE_CONTROL_IN];
	struct console_control head = { htole32(p->id), htole16(event), htole16(value) };
	uint8_t message[sizeof(head) + NAME_MAX_BYTES];
	size_t len = sizeof(head);
	struct err e;
	int rc = queue_pop(q, &d->chain, &e);

	if (rc == 0 && queue_ask_rings(q, true))
		rc = queue_pop(q, &d->chain, &e);
	if (rc == 0)
		return 0;
	memcpy(message, &head, sizeof(head));
	if (event == EVENT_PORT_NAME) {
		memcpy(message + len, p->name, strlen(p->name)); /* no NUL: 5.3.6.2 */
		len += strlen(p->name);
	}
	if (rc > 0 && (d->chain.n_out || d->chain.in_bytes < len)) {
		rc = err_set(&e, "a buffer of %llu writable bytes, for a message of %zu",
			     (unsigned long long)d->chain.in_bytes, len);
	} else if (rc > 0) {
		queue_chain_write(q, &d->chain, 0, message, len);
		rc = queue_push(q, d->chain.head, (uint32_t)len, &e);
	}
	if (rc < 0) {
		virtio_fail(&d->v, "control input queue: %s", e.text);
		return -1;
	}
	return 1;
}

/* Tells what is left to tell, as far as there are buffers. Each port's own in this order. */
static void console_tell_all(struct console *d)
{
	static const struct {
		uint8_t bit;
		enum console_event event;
		uint16_t value;
	} order[] = {
		{ TELL_ADD, EVENT_PORT_ADD, 1 },
		{ TELL_NAME, EVENT_PORT_NAME, 1 },
		{ TELL_CLOSE, EVENT_PORT_OPEN, 0 },
		{ TELL_OPEN, EVENT_PORT_OPEN, 1 },
	};
	unsigned int i, o;
	bool told = false;

	for (i = 0; i < d->n_ports; i++) {
		struct port *p = &d->ports[i];

		for (o = 0; o < sizeof(order) / sizeof(order[0]); o++) {
			int rc;

			if (!(p->st.tell & order[o].bit))
				continue;
			rc = console_tell(d, p, order[o].event, order[o].value);
			if (rc < 0)
				return;
			if (rc == 0)
				goto out;
			p->st.tell &= (uint8_t)~order[o].bit;
			told = true;
		}
	}
out:
	if (told)
		virtio_interrupt(&d->v, QUEUE_CONTROL_IN);
}

/* The guest gives no room as long as it has not opened the port: what the host sends waits. */
static void port_set_guest_open(struct port *p, bool open)
{
	p->st.guest_open = open;
	if (open)
		chardev_input_ready(p->host);
}

static void console_message(struct console *d, const struct console_control *m)
{
	struct port *p = console_port(d, le32toh(m->id));
	bool value = le16toh(m->value);
	unsigned int i;

	switch (le16toh(m->event)) {
	case EVENT_DEVICE_READY:
		for (i = 0; value && i < d->n_ports; i++)
			d->ports[i].st.tell |= TELL_ADD;
		break;
	case EVENT_PORT_READY:
		if (!p || !value)
			break;
		p->st.ready = true;
		p->st.tell |= TELL_NAME | (p->st.host_open ? TELL_OPEN : 0);
		break;
	case EVENT_PORT_OPEN:
		if (p)
			port_set_guest_open(p, value);
		break;
	default: /* what later versions may say */
		break;
	}
}

static void console_control_out(struct console *d)
{
	struct queue *q = &d->v.queues[QUEUE_CONTROL_OUT];
	struct console_control m;
	unsigned int chains = 0;
	struct err e;
	int rc;

	do {
		queue_ask_rings(q, false);
		while ((rc = queue_pop(q, &d->chain, &e)) > 0) {
			if (queue_chain_read(q, &d->chain, 0, &m, sizeof(m)) == sizeof(m))
				console_message(d, &m);
			rc = queue_push(q, d->chain.head, 0, &e);
			if (rc < 0)
				break;
			if (++chains == TURN_CHAINS) {
				virtio_ring_later(&d->v, QUEUE_CONTROL_OUT);
				goto out;
			}
		}
		if (rc < 0) {
			virtio_fail(&d->v, "control output queue: %s", e.text);
			return;
		}
	} while (queue_ask_rings(q, true));
out:
	if (chains)
		virtio_interrupt(&d->v, QUEUE_CONTROL_OUT);
	console_tell_all(d);
}

/* ---- bytes out of the guest; lock held ---- */

enum put_result { PUT_ALL, PUT_FULL, PUT_ENOUGH };

/*
 * Moves the popped chain to the host, from where it stood. A chain can hold 4 GiB (all in one page
 * of RAM), so `left`, the bytes that this turn may move, is looked at as well.
 */
static enum put_result port_put_chain(struct console *d, struct port *p, const struct queue *q,
				      size_t *left)
{
	uint8_t bytes[4096];
	size_t n, taken;

	/* Port 0 has no host's side; and without a client nothing needs to be copied. */
	while (p && p->st.host_open) {
		n = queue_chain_read(q, &d->chain, p->st.out_done, bytes, sizeof(bytes));
		if (!n)
			break;
		if (*left < n)
			return PUT_ENOUGH;
		taken = chardev_put(p->host, bytes, n);
		p->st.out_done += (uint32_t)taken;
		*left -= taken;
		if (taken < n)
			return PUT_FULL;
	}
	if (p)
		p->st.out_done = 0;
	return PUT_ALL;
}

static void console_out(struct console *d, struct port *p, unsigned int queue)
{
	struct queue *q = &d->v.queues[queue];
	unsigned int chains = 0;
	size_t left = TURN_BYTES;
	enum put_result put;
	struct err e;
	int rc;

	do {
		queue_ask_rings(q, false);
		while ((rc = queue_pop(q, &d->chain, &e)) > 0) {
			put = port_put_chain(d, p, q, &left);
			if (put == PUT_ALL)
				rc = queue_push(q, d->chain.head, 0, &e);
			else
				queue_unpop(q);
			if (rc < 0)
				break;
			if (put == PUT_FULL)
				goto out; /* until the host's side is writable */
			if (put == PUT_ENOUGH || ++chains == TURN_CHAINS) {
				virtio_ring_later(&d->v, queue);
				goto out;
			}
		}
		if (rc < 0) {
			virtio_fail(&d->v, "output queue %u: %s", queue, e.text);
			return;
		}
	} while (queue_ask_rings(q, true));
out:
	virtio_interrupt(&d->v, queue);
}

/* ---- the host's side; I/O thread, lock not held ---- */

/* Pops a chain for input: 1, 0 = the port takes none now. */
static int port_pop_in(struct port *p)
{
	struct virtio_device *v = &p->console->v;
	struct queue *q = &v->queues[port_queue_in(p)];
	struct queue_chain *c = &p->console->chain;
	struct err e;
	int rc;

	if (!virtio_working(v) || !p->st.guest_open)
		return 0;
	rc = queue_pop(q, c, &e);
	if (rc == 0 && queue_ask_rings(q, true))
		rc = queue_pop(q, c, &e);
	if (rc > 0 && (c->n_out || !c->in_bytes))
		rc = err_set(&e, "a buffer that cannot be written");
	if (rc < 0)
		virtio_fail(v, "input queue %u: %s", port_queue_in(p), e.text);
	return rc > 0;
}

static size_t port_room(void *arg)
{
	struct port *p = arg;
	struct console *d = p->console;
	size_t room = 0;

	pthread_mutex_lock(&d->v.lock);
	if (port_pop_in(p)) {
		room = d->chain.in_bytes;
		queue_unpop(&d->v.queues[port_queue_in(p)]);
	}
	pthread_mutex_unlock(&d->v.lock);
	return room;
}

static void port_input(void *arg, const uint8_t *bytes, size_t len)
{
	struct port *p = arg;
	struct console *d = p->console;
	struct queue *q = &d->v.queues[port_queue_in(p)];
	struct err e;

	pthread_mutex_lock(&d->v.lock);
	/* Only a reset of the device since port_room() was called changes the answer. */
	if (port_pop_in(p)) {
		len = queue_chain_write(q, &d->chain, 0, bytes, len);
		if (queue_push(q, d->chain.head, (uint32_t)len, &e))
			virtio_fail(&d->v, "input queue %u: %s", port_queue_in(p), e.text);
		else
			virtio_interrupt(&d->v, port_queue_in(p));
	}
	pthread_mutex_unlock(&d->v.lock);
}

static void port_writable(void *arg)
{
	struct port *p = arg;
	struct virtio_device *v = &p->console->v;

	pthread_mutex_lock(&v->lock);
	if (virtio_working(v) && v->queues[port_queue_out(p)].st.ready)
		console_out(p->console, p, port_queue_out(p));
	pthread_mutex_unlock(&v->lock);
}

static void port_connected(void *arg, bool connected)
{
	struct port *p = arg;
	struct console *d = p->console;

	pthread_mutex_lock(&d->v.lock);
	if (p->st.host_open != connected) {
		p->st.host_open = connected;
		/* Somebody new is not who was there before, also when the guest never heard. */
		if (p->st.ready && connected)
			p->st.tell |= TELL_OPEN;
		else if (p->st.ready)
			p->st.tell = (uint8_t)((p->st.tell & ~TELL_OPEN) | TELL_CLOSE);
		if (virtio_working(&d->v))
			console_tell_all(d);
	}
	pthread_mutex_unlock(&d->v.lock);
}

static const struct chardev_ops port_host_ops = {
	.room = port_room,
	.input = port_input,
	.writable = port_writable,
	.connected = port_connected,
};

/* ---- ops; lock held ---- */

static void console_ring(struct virtio_device *v, unsigned int q)
{
	struct console *d = (struct console *)v;
	struct port *p = console_port(d, q / 2 - 1);

	if (q == QUEUE_CONTROL_IN)
		console_tell_all(d);
	else if (q == QUEUE_CONTROL_OUT)
		console_control_out(d);
	else if (q == QUEUE_PORT0_OUT)
		console_out(d, NULL, q);
	else if (p && q == port_queue_out(p))
		console_out(d, p, q);
	else if (p)
		chardev_input_ready(p->host);
}

static void console_reset(struct virtio_device *v)
{
	struct console *d = (struct console *)v;
	unsigned int i;

	/* Whether somebody is at the host's end is not the driver's to forget. */
	for (i = 0; i < d->n_ports; i++)
		d->ports[i].st = (struct port_state){ .host_open = d->ports[i].st.host_open };
}

static void console_quiesce(struct virtio_device *v)
{
	struct console *d = (struct console *)v;
	unsigned int i;

	for (i = 0; i < d->n_ports; i++)
		chardev_pause(d->ports[i].host);
}

static int console_activate(struct virtio_device *v, struct err *e)
{
	struct console *d = (struct console *)v;
	unsigned int i;

	for (i = 0; i < d->n_ports; i++) {
		if (chardev_resume(d->ports[i].host, e)) {
			console_quiesce(v);
			return -1;
		}
	}
	return 0;
}

static const struct virtio_ops console_ops = {
	.device_id = CONSOLE_DEVICE_ID,
	.known_features = CONSOLE_FEATURES,
	.activate = console_activate,
	.quiesce = console_quiesce,
	.reset = console_reset,
	.ring = console_ring,
};

/* ---- life; I/O thread ---- */

static int console_probe(struct tree *t, const char *path, struct err *e)
{
	return tree_set_u64(t, path, "features", CONSOLE_FEATURES, e);
}

static void console_destroy(struct device *dev)
{
	struct console *d = (struct console *)dev;
	unsigned int i;

	virtio_quiesce(dev);
	for (i = 0; i < d->n_ports; i++)
		chardev_close(d->ports[i].host);
	d->n_ports = 0;
	virtio_destroy(&d->v);
	free(d);
}

/* The subnodes port@1, port@2 ... of the node, in any order but without gaps. */
static int count_ports(const struct tree *t, const char *path, unsigned int *n, struct err *e)
{
	char child[TREE_PATH_MAX];
	unsigned int it = 0, children = 0;

	while (tree_next_child(t, path, &it, child))
		children++;
	if (children < 1 || children > PORTS_MAX)
		return err_set(e, "%s: %u ports, expected 1 to %d", path, children, PORTS_MAX);
	*n = children;
	return 0;
}

static int port_open(struct port *p, const struct device_env *env, const struct tree *t,
		     const char *path, struct err *e)
{
	struct device *dev = &p->console->v.dev;
	char node[TREE_PATH_MAX], host[TREE_PATH_MAX], spec[512];
	const char *name, *socket;
	char key[20];

	if (snprintf(node, sizeof(node), "%s/port@%u", path, p->id) >= (int)sizeof(node))
		return err_set(e, "%s: its path is too long", path);
	if (tree_str(t, node, "label", &name, e))
		return -1;
	if (!*name || strlen(name) > NAME_MAX_BYTES)
		return err_set(e, "%s: 'label' has %zu characters, expected 1 to %d", node,
			       strlen(name), NAME_MAX_BYTES);
	memcpy(p->name, name, strlen(name) + 1);
	device_host_path(dev, host);
	snprintf(key, sizeof(key), "socket-%u", p->id);
	if (tree_str(t, host, key, &socket, e))
		return -1;
	if (snprintf(spec, sizeof(spec), "unix:%s", socket) >= (int)sizeof(spec))
		return err_set(e,
			       "channel %s: the path of its socket has %zu characters, expected at "
			       "most 107",
			       name, strlen(socket));
	if (chardev_open(&p->host, spec, env, &port_host_ops, p, e))
		return err_context(e, "channel %s", name);
	return 0;
}

static int console_create(const struct device_env *env, const struct tree *t, const char *path,
			  struct device **out, struct err *e)
{
	struct console *d;
	unsigned int i, n = 0;

	if (count_ports(t, path, &n, e))
		return -1;
	d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(e, "%s: out of memory", path);
	if (virtio_init(&d->v, &virtio_console_model, &console_ops, QUEUES(n), env, t, path, e)) {
		free(d);
		return -1;
	}
	d->config.max_nr_ports = htole32(n + 1);
	d->v.config = &d->config;
	d->v.config_size = sizeof(d->config);
	for (i = 0; i < n; i++) {
		struct port *p = &d->ports[i];

		p->console = d;
		p->id = i + 1;
		if (port_open(p, env, t, path, e)) {
			console_destroy(&d->v.dev);
			return -1;
		}
		d->n_ports = i + 1;
	}
	*out = &d->v.dev;
	return 0;
}

static int console_channel_attach(struct device *dev, const char *name, int fd, struct err *e)
{
	struct console *d = (struct console *)dev;
	struct port *p = NULL;
	bool active, open;
	unsigned int i;

	for (i = 0; i < d->n_ports && !p; i++)
		if (!strcmp(d->ports[i].name, name))
			p = &d->ports[i];
	if (!p)
		return 1;
	pthread_mutex_lock(&d->v.lock);
	active = d->v.active;
	open = virtio_working(&d->v) && p->st.guest_open;
	pthread_mutex_unlock(&d->v.lock);
	if (!active)
		return err_set(e, "the guest is paused");
	if (!open)
		return err_set(e, "no program in the guest has opened the channel %s", name);
	if (chardev_attach(p->host, fd))
		return err_set(e, "a program of this host is connected to the channel %s", name);
	return 0;
}

/* ---- state ---- */

static void port_fields(struct state *s, void *p)
{
	struct port_state *st = p;

	state_bool(s, "ready", &st->ready);
	state_bool(s, "guest-open", &st->guest_open);
	state_bool(s, "host-open", &st->host_open);
	state_u8(s, "tell", &st->tell);
	state_u32(s, "out-done", &st->out_done);
}

static void console_fields(struct state *s, void *p)
{
	struct console_state *st = p;

	virtio_fields(s, &st->virtio);
	state_u32(s, "ports", &st->n_ports);
	/* Too many are refused by console_check. */
	state_list(s, "port", st->ports, sizeof(st->ports[0]),
		   st->n_ports <= PORTS_MAX ? st->n_ports : 0, port_fields);
}

static int console_check(const void *p, struct err *e)
{
	const struct console_state *st = p;
	uint32_t i;

	if (st->n_ports > PORTS_MAX)
		return err_set(e, "%u ports, expected at most %d", st->n_ports, PORTS_MAX);
	for (i = 0; i < st->n_ports; i++)
		if (st->ports[i].tell & ~TELL_MASK)
			return err_set(e, "port %u: 'tell' is 0x%x, expected at most 0x%x", i + 1,
				       st->ports[i].tell, TELL_MASK);
	return virtio_state_check(&st->virtio, e);
}

static void console_save(struct device *dev, void *p)
{
	struct console *d = (struct console *)dev;
	struct console_state *st = p;
	unsigned int i;

	virtio_save(&d->v, &st->virtio);
	pthread_mutex_lock(&d->v.lock);
	st->n_ports = d->n_ports;
	for (i = 0; i < d->n_ports; i++)
		st->ports[i] = d->ports[i].st;
	pthread_mutex_unlock(&d->v.lock);
}

static int console_fits(struct device *dev, const void *p, struct err *e)
{
	struct console *d = (struct console *)dev;
	const struct console_state *st = p;

	if (st->n_ports != d->n_ports)
		return err_set(e, "%s: the state has %u ports, the device %u", dev->id, st->n_ports,
			       d->n_ports);
	return virtio_fits(&d->v, &st->virtio, e);
}

static void console_load(struct device *dev, const void *p)
{
	struct console *d = (struct console *)dev;
	const struct console_state *st = p;
	unsigned int i;

	virtio_load(&d->v, &st->virtio);
	pthread_mutex_lock(&d->v.lock);
	/* Who is really at the host's end is told at the resume; the guest hears of a change. */
	for (i = 0; i < d->n_ports; i++)
		d->ports[i].st = st->ports[i];
	pthread_mutex_unlock(&d->v.lock);
}

static void console_depart(struct device *dev)
{
	struct console *d = (struct console *)dev;
	unsigned int i;

	for (i = 0; i < d->n_ports; i++)
		chardev_depart(d->ports[i].host);
}

static const struct state_desc console_state_desc = {
	.size = sizeof(struct console_state),
	.fields = console_fields,
	.check = console_check,
};

const struct device_model virtio_console_model = {
	.name = "virtio-console",
	.state = &console_state_desc,
	.probe = console_probe,
	.create = console_create,
	.destroy = console_destroy,
	.activate = virtio_activate,
	.quiesce = virtio_quiesce,
	.depart = console_depart,
	.save = console_save,
	.fits = console_fits,
	.load = console_load,
	.channel_attach = console_channel_attach,
};
