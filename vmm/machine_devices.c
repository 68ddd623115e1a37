/*
 * What is asked of the devices of a machine. Each question is one call on the I/O thread, which
 * has the devices to itself meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/machine_internal.h"

struct each_device {
	struct machine *m;
	int (*fn)(struct device *d, void *arg);
	void *arg;
	int rc;
};

static void each_device(void *arg)
{
	struct each_device *a = arg;

	for (unsigned int i = 0; i < a->m->n_devices && !a->rc; i++)
		a->rc = a->fn(a->m->devices[i], a->arg);
}

int machine_each_device(struct machine *m, int (*fn)(struct device *d, void *arg), void *arg)
{
	struct each_device a = { .m = m, .fn = fn, .arg = arg };

	loop_call(&m->io, each_device, &a);
	return a.rc;
}

/* -- the host's side -- */

static int release_device(struct device *d, void *arg)
{
	(void)arg;
	if (d->model->handover)
		d->model->handover->release(d);
	return 0;
}

void machine_release(struct machine *m)
{
	m->released = true;
	m->announce = true; /* if it runs here again, it may have run elsewhere before */
	machine_each_device(m, release_device, NULL);
}

static int acquire_device(struct device *d, void *e)
{
	return d->model->handover ? d->model->handover->acquire(d, e) : 0;
}

int machine_acquire(struct machine *m, struct err *e)
{
	int rc = machine_each_device(m, acquire_device, e);

	m->released = rc != 0;
	return rc;
}

static int check_device_host(struct device *d, void *e)
{
	return d->model->handover ? d->model->handover->check_host(d, e) : 0;
}

int machine_check_host(struct machine *m, struct err *e)
{
	return machine_each_device(m, check_device_host, e);
}

struct resize {
	struct machine *m;
	const char *id;
	uint64_t bytes;
	char have[200]; /* the disks there are, for the sentence */
	struct err *e;
};

/* 1: done; -1: refused. */
static int resize_if_named(struct device *d, void *arg)
{
	struct resize *r = arg;
	size_t n = strlen(r->have);

	if (!d->model->resize)
		return 0;
	if (!strcmp(d->id, r->id))
		return d->model->resize(d, &r->m->tree, r->bytes, r->e) ? -1 : 1;
	snprintf(r->have + n, sizeof(r->have) - n, "%s%s", n ? ", " : "", d->id);
	return 0;
}

int machine_resize_disk(struct machine *m, const char *id, uint64_t bytes, struct err *e)
{
	struct resize r = { .m = m, .id = id, .bytes = bytes, .e = e };
	int rc = machine_each_device(m, resize_if_named, &r);

	if (!rc)
		return err_set(e, "there is no disk '%.63s' (the VM has %s)", id,
			       r.have[0] ? r.have : "none");
	return rc < 0 ? -1 : 0;
}

/* -- memory that the guest does without -- */

/* Of the first one, as no command line makes two. */
static int set_balloon(struct device *d, void *bytes)
{
	if (!d->model->balloon)
		return 0;
	d->model->balloon->set(d, *(uint64_t *)bytes);
	return 1;
}

void machine_set_ballooned(struct machine *m, uint64_t bytes)
{
	machine_each_device(m, set_balloon, &bytes);
}

static int ask_balloon(struct device *d, void *b)
{
	if (!d->model->balloon)
		return 0;
	d->model->balloon->ask(d, b);
	return 1;
}

int machine_ask_balloon(struct machine *m, struct device_balloon *b, struct err *e)
{
	return machine_each_device(m, ask_balloon, b) ? 0
						      : err_set(e, "the machine has no balloon");
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

/* -- channels, and people -- */

struct channel_attach {
	const char *name;
	int fd;
	struct err *e;
};

/* 1: done; -1: refused. */
static int attach_channel(struct device *d, void *arg)
{
	const struct channel_attach *a = arg;
	int rc = d->model->channel_attach ? d->model->channel_attach(d, a->name, a->fd, a->e) : 1;

	return rc < 0 ? -1 : rc == 0;
}

int machine_channel_open(struct machine *m, const char *name, struct err *e)
{
	struct channel_attach a = { .name = name, .e = e };
	int fds[2], rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
		return err_errno(e, errno, "cannot make a socket");
	a.fd = fds[1];
	rc = machine_each_device(m, attach_channel, &a);
	if (rc > 0)
		return fds[0];
	close(fds[0]);
	close(fds[1]);
	return rc ? -1 : err_set(e, "the VM has no channel %s", name);
}

static int depart(struct device *d, void *arg)
{
	(void)arg;
	if (d->model->depart)
		d->model->depart(d);
	return 0;
}

void machine_depart(struct machine *m)
{
	machine_each_device(m, depart, NULL);
}

static int press_power_button(struct device *d, void *arg)
{
	(void)arg;
	if (d->model->press_power_button)
		d->model->press_power_button(d);
	return 0;
}

void machine_press_power_button(struct machine *m)
{
	machine_each_device(m, press_power_button, NULL);
}
