/*
 * What is asked of all devices of a machine: see machine.h and machine_internal.h. Each is one call
 * on the I/O thread, which has the devices to itself meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/machine_internal.h"

/* One op of all devices, up to the first that fails; on the I/O thread. */
struct each_device {
	struct machine *m;
	bool on;
	int rc;
	struct err *e;
};

static void share_devices(void *arg)
{
	struct each_device *a = arg;
	unsigned int i;

	for (i = 0; i < a->m->n_devices; i++)
		if (a->m->devices[i]->model->share)
			a->m->devices[i]->model->share(a->m->devices[i], a->on);
}

void machine_share(struct machine *m, bool on)
{
	struct each_device a = { .m = m, .on = on };

	loop_call(&m->io, share_devices, &a);
}

static void settle_devices(void *arg)
{
	struct machine *m = arg;
	unsigned int i;

	for (i = 0; i < m->n_devices; i++)
		if (m->devices[i]->model->settle)
			m->devices[i]->model->settle(m->devices[i]);
}

void machine_settle(struct machine *m)
{
	loop_call(&m->io, settle_devices, m);
}

static void begin_syncs(void *arg)
{
	struct machine *m = arg;
	unsigned int i;

	for (i = 0; i < m->n_devices; i++)
		if (m->devices[i]->model->sync_begin)
			m->devices[i]->model->sync_begin(m->devices[i]);
}

void machine_sync_begin(struct machine *m)
{
	loop_call(&m->io, begin_syncs, m);
}

/* 1 when all are, 0 when one is not yet, -1 when one cannot be. */
static void ask_syncs(void *arg)
{
	struct each_device *a = arg;
	unsigned int i;
	int rc;

	a->rc = 1;
	for (i = 0; i < a->m->n_devices && a->rc >= 0; i++) {
		if (!a->m->devices[i]->model->sync_done)
			continue;
		rc = a->m->devices[i]->model->sync_done(a->m->devices[i], a->e);
		a->rc = rc < a->rc ? rc : a->rc;
	}
}

int machine_sync_done(struct machine *m, struct err *e)
{
	struct each_device a = { .m = m, .e = e };

	loop_call(&m->io, ask_syncs, &a);
	return a.rc;
}

static void release_devices(void *arg)
{
	struct machine *m = arg;
	unsigned int i;

	for (i = 0; i < m->n_devices; i++)
		if (m->devices[i]->model->release)
			m->devices[i]->model->release(m->devices[i]);
}

void machine_release(struct machine *m)
{
	m->released = true;
	m->announce = true; /* if it runs here again, it may have run elsewhere before */
	loop_call(&m->io, release_devices, m);
}

static void acquire_devices(void *arg)
{
	struct each_device *a = arg;
	unsigned int i;

	for (i = 0; i < a->m->n_devices && !a->rc; i++)
		if (a->m->devices[i]->model->acquire)
			a->rc = a->m->devices[i]->model->acquire(a->m->devices[i], a->e);
}

int machine_acquire(struct machine *m, struct err *e)
{
	struct each_device a = { .m = m, .e = e };

	loop_call(&m->io, acquire_devices, &a);
	m->released = a.rc != 0;
	return a.rc;
}

static void check_devices(void *arg)
{
	struct each_device *a = arg;
	unsigned int i;

	for (i = 0; i < a->m->n_devices && !a->rc; i++)
		if (a->m->devices[i]->model->check_host)
			a->rc = a->m->devices[i]->model->check_host(a->m->devices[i], a->e);
}

int machine_check_host(struct machine *m, struct err *e)
{
	struct each_device a = { .m = m, .e = e };

	loop_call(&m->io, check_devices, &a);
	return a.rc;
}

struct resize {
	struct machine *m;
	struct device *device;
	uint64_t bytes;
	int rc;
	struct err *e;
};

static void resize(void *arg)
{
	struct resize *r = arg;

	r->rc = r->device->model->resize(r->device, &r->m->tree, r->bytes, r->e);
}

int machine_resize_disk(struct machine *m, const char *id, uint64_t bytes, struct err *e)
{
	struct resize r = { .m = m, .bytes = bytes, .e = e };
	char have[200] = "";
	size_t n = 0;
	unsigned int i;

	for (i = 0; i < m->n_devices && !r.device; i++) {
		struct device *d = m->devices[i];

		if (!d->model->resize)
			continue;
		if (!strcmp(d->id, id))
			r.device = d;
		else if (n < sizeof(have))
			n += (size_t)snprintf(have + n, sizeof(have) - n, "%s%s", n ? ", " : "",
					      d->id);
	}
	if (!r.device)
		return err_set(e, "there is no disk '%.63s' (the VM has %s)", id,
			       n ? have : "none");
	loop_call(&m->io, resize, &r);
	return r.rc;
}

/* -- what the guest does without -- */

struct balloon_call {
	struct machine *m;
	bool set;
	struct device_balloon b; /* of all devices together */
	unsigned int devices;
};

static void call_balloon(void *arg)
{
	struct balloon_call *c = arg;
	struct device_balloon b;
	unsigned int i;

	for (i = 0; i < c->m->n_devices; i++) {
		struct device *d = c->m->devices[i];

		if (!d->model->balloon)
			continue;
		c->devices++;
		if (c->set) {
			d->model->set_balloon(d, c->b.wanted_bytes);
			return;
		}
		d->model->balloon(d, &b);
		c->b.wanted_bytes += b.wanted_bytes;
		c->b.actual_bytes += b.actual_bytes;
	}
}

void machine_set_ballooned(struct machine *m, uint64_t bytes)
{
	struct balloon_call c = { .m = m, .set = true, .b.wanted_bytes = bytes };

	loop_call(&m->io, call_balloon, &c);
}

int machine_ask_balloon(struct machine *m, struct device_balloon *b, struct err *e)
{
	struct balloon_call c = { .m = m };

	loop_call(&m->io, call_balloon, &c);
	*b = c.b;
	return c.devices ? 0 : err_set(e, "the machine has no balloon");
}

int machine_set_balloon(struct machine *m, uint64_t bytes, struct err *e)
{
	uint64_t all = memory_bytes(&m->memory);
	struct device_balloon b;

	if (machine_ask_balloon(m, &b, e))
		return -1;
	machine_set_ballooned(m, bytes < all ? all - bytes : 0);
	return 0;
}

int machine_balloon(struct machine *m, uint64_t *bytes, struct err *e)
{
	uint64_t all = memory_bytes(&m->memory);
	struct device_balloon b;

	if (machine_ask_balloon(m, &b, e))
		return -1;
	*bytes = b.actual_bytes < all ? all - b.actual_bytes : 0;
	return 0;
}

struct channel_attach {
	struct machine *m;
	const char *name;
	int fd, rc;
	struct err *e;
};

static void attach_channel(void *arg)
{
	struct channel_attach *a = arg;
	unsigned int i;

	a->rc = 1;
	for (i = 0; i < a->m->n_devices && a->rc > 0; i++) {
		struct device *d = a->m->devices[i];

		if (d->model->channel_attach)
			a->rc = d->model->channel_attach(d, a->name, a->fd, a->e);
	}
}

int machine_channel_open(struct machine *m, const char *name, struct err *e)
{
	struct channel_attach a = { .m = m, .name = name, .e = e };
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
		return err_errno(e, errno, "cannot make a socket");
	a.fd = fds[1];
	loop_call(&m->io, attach_channel, &a);
	if (a.rc == 0)
		return fds[0];
	close(fds[0]);
	close(fds[1]);
	return a.rc > 0 ? err_set(e, "the VM has no channel %s", name) : -1;
}

/* -- pages that the guest does not use -- */

struct free_pages_call {
	struct machine *m;
	const struct free_pages *f; /* NULL: only asks */
	bool any;
};

static void call_free_pages(void *arg)
{
	struct free_pages_call *c = arg;
	unsigned int i;

	for (i = 0; i < c->m->n_devices; i++) {
		struct device *d = c->m->devices[i];

		if (!d->model->free_pages)
			continue;
		if (c->f)
			d->model->free_pages(d, c->f);
		else
			c->any |= d->model->names_free_pages(d);
	}
}

bool machine_names_free_pages(struct machine *m)
{
	struct free_pages_call c = { .m = m };

	loop_call(&m->io, call_free_pages, &c);
	return c.any;
}

void machine_free_pages(struct machine *m, const struct free_pages *f)
{
	struct free_pages_call c = { .m = m, .f = f };

	loop_call(&m->io, call_free_pages, &c);
}

static void depart(void *arg)
{
	struct machine *m = arg;
	unsigned int i;

	for (i = 0; i < m->n_devices; i++)
		if (m->devices[i]->model->depart)
			m->devices[i]->model->depart(m->devices[i]);
}

void machine_depart(struct machine *m)
{
	loop_call(&m->io, depart, m);
}

static void press_power_button(void *arg)
{
	struct machine *m = arg;
	unsigned int i;

	for (i = 0; i < m->n_devices; i++)
		if (m->devices[i]->model->press_power_button)
			m->devices[i]->model->press_power_button(m->devices[i]);
}

void machine_press_power_button(struct machine *m)
{
	loop_call(&m->io, press_power_button, m);
}
