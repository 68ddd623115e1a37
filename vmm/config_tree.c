/*
 * struct config -> machine tree, and the host's side into a tree that came from elsewhere: see
 * config.h and tree.h. Main thread, before the machine is built. Only here are the command line's
 * words given their place in a tree; addresses and interrupts are the architecture's.
 */
#include "vmm/config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/arch.h"
#include "vmm/base/err.h"
#include "vmm/tree.h"

#define SOCKET_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

/* The path as seen from "/", links left as they are: a VM goes on when its shell is elsewhere. */
static int absolute(const char *path, char out[PATH_MAX], struct err *e)
{
	size_t n = 0;

	if (path[0] != '/') {
		if (!getcwd(out, PATH_MAX - 1))
			return err_errno(e, errno, "%s: cannot tell the current directory", path);
		n = strlen(out);
		if (out[n - 1] != '/')
			out[n++] = '/';
	}
	if (n + strlen(path) >= PATH_MAX)
		return err_set(e, "%.60s...: the path has %zu characters (at most %d)", path,
			       n + strlen(path), PATH_MAX - 1);
	memcpy(out + n, path, strlen(path) + 1);
	return 0;
}

static int set_path(struct tree *t, const char *node, const char *prop, const char *path,
		    struct err *e)
{
	char out[PATH_MAX];

	return absolute(path, out, e) || tree_set_str(t, node, prop, out, e) ? -1 : 0;
}

static int set_socket(struct tree *t, const char *node, const char *prop, const char *path,
		      struct err *e)
{
	char out[PATH_MAX];

	if (absolute(path, out, e))
		return -1;
	if (strlen(out) > SOCKET_PATH_MAX)
		return err_set(e, "%s: the path has %zu characters; a socket's path may have %zu",
			       out, strlen(out), SOCKET_PATH_MAX);
	return tree_set_str(t, node, prop, out, e);
}

/* stdio, null, or file:PATH and unix:PATH with the path made absolute. */
static int set_console(struct tree *t, const char *console, struct err *e)
{
	char text[PATH_MAX + 8];
	char out[PATH_MAX];

	if (strncmp(console, "file:", 5) && strncmp(console, "unix:", 5))
		return tree_set_str(t, "/host/serial0", "console", console, e);
	if (absolute(console + 5, out, e))
		return -1;
	if (!strncmp(console, "unix:", 5) && strlen(out) > SOCKET_PATH_MAX)
		return err_set(e,
			       "console %s: the path has %zu characters; a socket's path may have "
			       "%zu",
			       out, strlen(out), SOCKET_PATH_MAX);
	snprintf(text, sizeof(text), "%.5s%s", console, out);
	return tree_set_str(t, "/host/serial0", "console", text, e);
}

/* A device's node up to what only its kind has; `node` and `host` become its paths. */
static int begin_device(struct tree *t, const char *model, const char *id, char node[TREE_PATH_MAX],
			char host[TREE_PATH_MAX], struct err *e)
{
	snprintf(node, TREE_PATH_MAX, "/devices/%s", id);
	snprintf(host, TREE_PATH_MAX, "/host/%s", id);
	return tree_set_str(t, node, "model", model, e) || tree_set_str(t, node, "id", id, e) ||
			       arch_tree_place(t, node, e)
		       ? -1
		       : 0;
}

static int add_plain(struct tree *t, const char *model, const char *id, struct err *e)
{
	char node[TREE_PATH_MAX], host[TREE_PATH_MAX];

	return begin_device(t, model, id, node, host, e);
}

static int add_disk(struct tree *t, const struct config_disk *d, struct err *e)
{
	char node[TREE_PATH_MAX], host[TREE_PATH_MAX];

	if (begin_device(t, "virtio-blk", d->id, node, host, e))
		return -1;
	if (d->readonly && tree_set_bytes(t, node, "readonly", "", 0, e))
		return -1;
	if (d->serial && tree_set_str(t, node, "serial", d->serial, e))
		return -1;
	if (d->on_error && tree_set_str(t, node, "on-error", d->on_error, e))
		return -1;
	return set_path(t, host, "path", d->path, e);
}

static int add_net(struct tree *t, const struct config_net *n, struct err *e)
{
	char node[TREE_PATH_MAX], host[TREE_PATH_MAX];

	if (begin_device(t, "virtio-net", n->id, node, host, e))
		return -1;
	return tree_set_bytes(t, node, "mac", n->mac, sizeof(n->mac), e) ||
			       tree_set_str(t, host, "tap", n->tap, e)
		       ? -1
		       : 0;
}

static int add_channels(struct tree *t, const struct config *c, struct err *e)
{
	char node[TREE_PATH_MAX], host[TREE_PATH_MAX], port[TREE_PATH_MAX], prop[32];

	if (c->n_channels == 0)
		return 0;
	if (begin_device(t, "virtio-console", "channels", node, host, e))
		return -1;
	for (unsigned int i = 0; i < c->n_channels; i++) {
		snprintf(port, sizeof(port), "/devices/channels/port@%u", i + 1);
		snprintf(prop, sizeof(prop), "socket-%u", i + 1);
		if (tree_set_str(t, port, "label", c->channels[i].name, e) ||
		    set_socket(t, host, prop, c->channels[i].socket, e))
			return -1;
	}
	return 0;
}

static int set_boot(const struct config *c, struct tree *t, struct err *e)
{
	if (c->kernel && set_path(t, "/host/boot", "kernel", c->kernel, e))
		return -1;
	if (c->initrd && set_path(t, "/host/boot", "initrd", c->initrd, e))
		return -1;
	return 0;
}

/* None is nothing in the tree; but where one came along, it says that there is none here. */
static int set_dirty_ring(const struct config *c, struct tree *t, struct err *e)
{
	if (!c->dirty_ring && !tree_has(t, "/host", "dirty-ring"))
		return 0;
	return tree_set_u32(t, "/host", "dirty-ring", c->dirty_ring, e);
}

int config_tree(const struct config *c, struct tree *t, struct err *e)
{
	if (tree_set_str(t, "/", "compatible", arch_compatible, e) ||
	    tree_set_str(t, "/", "label", c->name, e) ||
	    tree_set_str(t, "/chosen", "bootargs", c->cmdline, e) ||
	    arch_tree_memory(t, c->memory_bytes, e) ||
	    tree_set_u32(t, "/cpus", "count", c->cpus, e) ||
	    add_plain(t, "serial-8250", "serial0", e) || set_console(t, c->console, e) ||
	    add_plain(t, "power", "power", e) || add_plain(t, "i8042", "i8042", e))
		return -1;
	for (unsigned int i = 0; i < c->n_disks; i++)
		if (add_disk(t, &c->disks[i], e))
			return -1;
	for (unsigned int i = 0; i < c->n_nets; i++)
		if (add_net(t, &c->nets[i], e))
			return -1;
	return add_channels(t, c, e) || add_plain(t, "virtio-rng", "rng0", e) ||
			       add_plain(t, "virtio-balloon", "balloon0", e) || set_boot(c, t, e) ||
			       set_dirty_ring(c, t, e)
		       ? -1
		       : 0;
}

/* Whether the tree has a device `id` of that model; else -1, with the ids that it has. */
static int find_device(const struct tree *t, const char *model, const char *what, const char *id,
		       struct err *e)
{
	char child[TREE_PATH_MAX], have[160] = "";
	const char *its_model, *its_id;
	unsigned int it = 0;
	size_t n = 0;

	while (tree_next_child(t, "/devices", &it, child)) {
		if (tree_str(t, child, "model", &its_model, NULL) ||
		    tree_str(t, child, "id", &its_id, NULL) || strcmp(its_model, model))
			continue;
		/* The host's side is found by the id, so it must be the node's name as well. */
		if (!strcmp(its_id, id) && !strcmp(child + strlen("/devices/"), id))
			return 0;
		if (n < sizeof(have))
			n += (size_t)snprintf(have + n, sizeof(have) - n, "%s%s", n ? ", " : "",
					      its_id);
	}
	return err_set(e, "the machine has no %s '%s' (it has %s)", what, id, n ? have : "none");
}

static int override_channel(const struct config_channel *ch, struct tree *t, struct err *e)
{
	char child[TREE_PATH_MAX], prop[32], have[160] = "";
	const char *name;
	unsigned int it = 0, number;
	size_t n = 0;

	while (tree_next_child(t, "/devices/channels", &it, child)) {
		if (sscanf(child, "/devices/channels/port@%u", &number) != 1 ||
		    tree_str(t, child, "label", &name, NULL))
			continue;
		if (!strcmp(name, ch->name)) {
			snprintf(prop, sizeof(prop), "socket-%u", number);
			return set_socket(t, "/host/channels", prop, ch->socket, e);
		}
		if (n < sizeof(have))
			n += (size_t)snprintf(have + n, sizeof(have) - n, "%s%s", n ? ", " : "",
					      name);
	}
	return err_set(e, "the machine has no channel '%s' (it has %s)", ch->name,
		       n ? have : "none");
}

int config_override_tree(const struct config *c, struct tree *t, struct err *e)
{
	char host[TREE_PATH_MAX];

	if (c->name_given && tree_set_str(t, "/", "label", c->name, e))
		return -1;
	if (c->console && set_console(t, c->console, e))
		return -1;
	for (unsigned int i = 0; i < c->n_disk_overrides; i++) {
		const struct config_override *o = &c->disk_overrides[i];

		snprintf(host, sizeof(host), "/host/%s", o->id);
		if (find_device(t, "virtio-blk", "disk", o->id, e) ||
		    set_path(t, host, "path", o->value, e) ||
		    (o->copy && tree_set_bytes(t, host, "copy", "", 0, e)))
			return -1;
	}
	for (unsigned int i = 0; i < c->n_net_overrides; i++) {
		const struct config_override *o = &c->net_overrides[i];

		snprintf(host, sizeof(host), "/host/%s", o->id);
		if (find_device(t, "virtio-net", "network card", o->id, e) ||
		    tree_set_str(t, host, "tap", o->value, e))
			return -1;
	}
	for (unsigned int i = 0; i < c->n_channels; i++)
		if (override_channel(&c->channels[i], t, e))
			return -1;
	if (c->dirty_ring_given && set_dirty_ring(c, t, e))
		return -1;
	return set_boot(c, t, e);
}
