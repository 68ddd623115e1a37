/*
 * What the host's side of a device could not do for the guest: told by the device on any thread,
 * heard by the machine's owner on its loop, who may stop the guest for it (machine_stop_for_error).
 * The invariant: one error of each device waits at most, so a guest cannot make them many; one that
 * wants the guest stopped stays until it was heard, or the guest was resumed, which tries again.
 */
#include "vmm/base/log.h"
#include "vmm/machine_internal.h"

void machine_errors_init(struct machine *m)
{
	pthread_mutex_init(&m->errors.lock, NULL);
}

void machine_errors_free(struct machine *m)
{
	pthread_mutex_destroy(&m->errors.lock);
}

/* Owner's thread. */
static void deliver(void *arg)
{
	struct machine *m = arg;
	struct device_io_error x;
	unsigned int i;
	bool waits;

	for (i = 0; i < m->n_devices; i++) {
		pthread_mutex_lock(&m->errors.lock);
		waits = m->errors.waits[i];
		x = m->errors.of[i];
		m->errors.waits[i] = false;
		pthread_mutex_unlock(&m->errors.lock);
		if (waits && m->events.io_error)
			m->events.io_error(m->events.arg, m->devices[i]->id, &x);
	}
}

void machine_io_error(void *machine, const struct device *d, const struct device_io_error *x)
{
	struct machine *m = machine;
	bool post = false;
	unsigned int i;

	pthread_mutex_lock(&m->errors.lock);
	for (i = 0; i < m->n_devices && m->devices[i] != d; i++)
		;
	if (i < m->n_devices && (x->stop || !m->errors.waits[i])) {
		post = !m->errors.waits[i];
		m->errors.waits[i] = true;
		m->errors.of[i] = *x;
	}
	pthread_mutex_unlock(&m->errors.lock);
	if (post && loop_post(m->owner_loop, deliver, m))
		log_warn("out of memory: an error of %s is not told", d->id);
}

void machine_errors_forget(struct machine *m)
{
	unsigned int i;

	pthread_mutex_lock(&m->errors.lock);
	for (i = 0; i < m->n_devices; i++)
		m->errors.waits[i] = m->errors.waits[i] && !m->errors.of[i].stop;
	pthread_mutex_unlock(&m->errors.lock);
	m->stopped_by_error = false;
}

bool machine_stop_for_error(struct machine *m)
{
	if (!m->running)
		return false;
	machine_park(m);
	m->status = MACHINE_IO_ERROR;
	m->stopped_by_error = true;
	return true;
}
