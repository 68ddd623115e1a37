/*
 * What the ports of a console say: control messages, bytes out of the guest, and the host's side.
 */
#include "devices/virtio/console_internal.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/err.h"

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
	int rc = queue_pop_or_ask(q, &d->chain, &e);

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
void console_tell_all(struct console *d)
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

static enum virtio_took console_take_message(struct virtio_device *v, unsigned int q,
					     struct queue_chain *c, uint32_t *written, void *turn)
{
	unsigned int *chains = turn;
	struct console_control m;

	(void)written;
	if (queue_chain_read(&v->queues[q], c, 0, &m, sizeof(m)) == sizeof(m))
		console_message((struct console *)v, &m);
	return ++*chains == TURN_CHAINS ? VIRTIO_TOOK_LAST : VIRTIO_TOOK;
}

void console_control_out(struct console *d)
{
	unsigned int chains = 0;

	if (virtio_drain(&d->v, QUEUE_CONTROL_OUT, "control output queue", &d->chain,
			 console_take_message, &chains))
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

struct out_turn {
	struct port *port;
	unsigned int chains;
	size_t left;
};

static enum virtio_took console_take_out(struct virtio_device *v, unsigned int q,
					 struct queue_chain *c, uint32_t *written, void *arg)
{
	struct out_turn *turn = arg;

	(void)c;
	(void)written;
	switch (port_put_chain((struct console *)v, turn->port, &v->queues[q], &turn->left)) {
	case PUT_FULL:
		return VIRTIO_BLOCKED; /* until the host's side is writable */
	case PUT_ENOUGH:
		return VIRTIO_LATER;
	default:
		return ++turn->chains == TURN_CHAINS ? VIRTIO_TOOK_LAST : VIRTIO_TOOK;
	}
}

void console_out(struct console *d, struct port *p, unsigned int queue)
{
	struct out_turn turn = { .port = p, .left = TURN_BYTES };
	char name[32];

	snprintf(name, sizeof(name), "output queue %u", queue);
	virtio_drain(&d->v, queue, name, &d->chain, console_take_out, &turn);
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
	rc = queue_pop_or_ask(q, c, &e);
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

const struct chardev_ops port_host_ops = {
	.room = port_room,
	.input = port_input,
	.writable = port_writable,
	.connected = port_connected,
};
