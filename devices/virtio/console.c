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

#include "devices/models.h"
#include "devices/virtio/console_internal.h"
#include "vmm/base/err.h"

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
