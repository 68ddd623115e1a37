/*
 * The machine, from its building to its end. All functions run on its owner's thread, except
 * machine_request and those whose contract says so.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/log.h"
#include "vmm/machine_internal.h"

static const char *const status_names[] = {
	[MACHINE_PRELAUNCH] = "prelaunch",
	[MACHINE_RUNNING] = "running",
	[MACHINE_PAUSED] = "paused",
	[MACHINE_INMIGRATE] = "inmigrate",
	[MACHINE_FINISH_MIGRATE] = "finish-migrate",
	[MACHINE_POSTMIGRATE] = "postmigrate",
	[MACHINE_SHUTDOWN] = "shutdown",
	[MACHINE_INTERNAL_ERROR] = "internal-error",
	[MACHINE_IO_ERROR] = "io-error",
};

const char *machine_status_name(enum machine_status s)
{
	return status_names[s];
}

/* -- requests from vCPUs and devices -- */

static void deliver(void *arg)
{
	struct machine *m = arg;
	uint32_t r = __atomic_exchange_n(&m->requested, REQUEST_NONE, __ATOMIC_ACQ_REL);

	if (r != REQUEST_NONE)
		m->events.request(m->events.arg, (enum machine_request)r);
}

void machine_request(void *machine, enum machine_request r)
{
	struct machine *m = machine;
	uint32_t before = __atomic_load_n(&m->requested, __ATOMIC_ACQUIRE);

	while (before < (uint32_t)r)
		if (__atomic_compare_exchange_n(&m->requested, &before, (uint32_t)r, false,
						__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
			if (loop_post(m->owner_loop, deliver, m))
				log_warn("out of memory: a request of the guest is lost");
			return;
		}
}

/* -- building -- */

static const struct device_model *find_model(const struct device_model *const *models,
					     const char *name)
{
	for (; *models; models++)
		if (!strcmp((*models)->name, name))
			return *models;
	return NULL;
}

/* What the guest of a fresh machine will see of this host goes into its tree. */
static int probe(struct tree *t, const struct kvm *kvm, const struct device_model *const *models,
		 struct err *e)
{
	const struct device_model *model;
	char path[TREE_PATH_MAX];
	unsigned int it = 0;
	const char *name;

	while (tree_next_child(t, "/devices", &it, path)) {
		if (tree_str(t, path, "model", &name, e))
			return -1;
		model = find_model(models, name);
		if (model && model->probe && model->probe(t, path, e))
			return -1;
	}
	return arch_tree_probe(t, kvm, e);
}

static int build_devices(struct machine *m, const struct device_model *const *models, struct err *e)
{
	const struct device_model *model;
	char path[TREE_PATH_MAX];
	unsigned int it = 0;
	const char *name;

	while (tree_next_child(&m->tree, "/devices", &it, path)) {
		if (tree_str(&m->tree, path, "model", &name, e))
			return -1;
		model = find_model(models, name);
		if (!model)
			return err_set(e, "%s: this version has no device model '%s'", path, name);
		if (m->n_devices == DEVICES_MAX)
			return err_set(e, "%s: more than %d devices", path, DEVICES_MAX);
		if (model->create(&m->env, &m->tree, path, &m->devices[m->n_devices], e))
			return -1;
		m->n_devices++;
	}
	return 0;
}

static int build_vcpus(struct machine *m, struct err *e)
{
	uint32_t n, max = arch_max_vcpus(&m->kvm);

	if (tree_u32(&m->tree, "/cpus", "count", &n, e))
		return -1;
	if (n < 1 || n > max)
		return err_set(e,
			       "/cpus: %" PRIu32 " vCPUs, this host's KVM can have 1 to %" PRIu32,
			       n, max);
	m->vcpus = calloc(n, sizeof(m->vcpus[0]));
	if (!m->vcpus)
		return err_set(e, "out of memory");
	if (dirty_log_init(&m->log, &m->kvm, &m->memory, n, e))
		return -1;
	while (m->n_vcpus < n) {
		struct vcpu *v = &m->vcpus[m->n_vcpus];

		m->n_vcpus++;
		if (vcpu_init(v, m->n_vcpus - 1, &m->env, e) || arch_vcpu_init(m->arch, v, e) ||
		    dirty_log_add_vcpu(&m->log, v->fd, e))
			return -1;
	}
	return 0;
}

static int build(struct machine *m, enum machine_origin origin,
		 const struct device_model *const *models, struct err *e)
{
	const char *compatible;
	uint32_t ring_entries;

	if (tree_str(&m->tree, "/", "compatible", &compatible, e))
		return -1;
	if (strcmp(compatible, arch_compatible))
		return err_set(e, "the machine is of kind '%s', this host runs '%s'", compatible,
			       arch_compatible);
	if (memory_init(&m->memory, &m->tree, e) || vcpu_signal_init(e) ||
	    dirty_ring_entries(&m->tree, &ring_entries, e) || kvm_init(&m->kvm, ring_entries, e))
		return -1;
	m->kvm_made = true;
	if (origin == ORIGIN_FRESH && probe(&m->tree, &m->kvm, models, e))
		return -1;
	tree_pack(&m->tree); /* complete: strings in it stay where they are */
	if (tree_str(&m->tree, "/", "label", &m->name, e))
		return -1;
	if (memory_attach(&m->memory, &m->kvm, false, e) ||
	    arch_init(&m->arch, &m->kvm, &m->tree, e) || loop_init(&m->io, e))
		return -1;
	m->io_made = true;
	m->env = (struct device_env){
		.kvm = &m->kvm,
		.memory = &m->memory,
		.log = &m->log,
		.io = &m->io,
		.port_bus = &m->port_bus,
		.mmio_bus = &m->mmio_bus,
		.request = machine_request,
		.io_error = machine_io_error,
		.machine = m,
		.incoming = origin == ORIGIN_INCOMING,
		.announce = ANNOUNCE_DEFAULT,
	};
	m->announce = origin != ORIGIN_FRESH; /* a restored one may have been elsewhere */
	/* In this order: an interrupt controller may need to know its vCPUs before a device
	 * connects an interrupt line to it. */
	if (build_vcpus(m, e) || arch_ready(m->arch, e) || build_devices(m, models, e))
		return -1;
	return 0;
}

int machine_launch(struct machine *m, struct err *e)
{
	unsigned int i;

	for (i = 0; i < m->n_vcpus; i++)
		if (vcpu_start(&m->vcpus[i], e))
			return -1;
	if (machine_first_snapshot(m, e) || loop_start(&m->io, "io", e))
		return -1;
	m->io_started = true;
	return 0;
}

int machine_build(struct tree *t, enum machine_origin origin,
		  const struct device_model *const *models, struct loop *owner_loop,
		  const struct machine_events *events, struct machine **out, struct err *e)
{
	struct machine *m = calloc(1, sizeof(*m));

	if (!m)
		return err_set(e, "out of memory");
	machine_errors_init(m);
	m->kernel_fd = m->initrd_fd = -1;
	m->owner_loop = owner_loop;
	m->events = *events;
	tree_pack(t); /* what was written to it has left room behind */
	if (tree_copy(&m->tree, t->fdt, tree_bytes_used(t), e) || build(m, origin, models, e)) {
		machine_destroy(m);
		return -1;
	}
	*out = m;
	return 0;
}

void machine_destroy(struct machine *m)
{
	unsigned int i;

	machine_park(m);
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_free(&m->vcpus[i]);
	dirty_log_free(&m->log);
	if (m->io_started)
		loop_join(&m->io);
	for (i = m->n_devices; i-- > 0;)
		m->devices[i]->model->destroy(m->devices[i]);
	machine_snapshot_free(m, &m->pristine);
	machine_snapshot_free(m, &m->moved);
	free(m->vcpus);
	if (m->io_made)
		loop_free(&m->io);
	arch_free(m->arch);
	if (m->kvm_made)
		kvm_free(&m->kvm);
	memory_free(&m->memory);
	if (m->kernel_fd >= 0)
		close(m->kernel_fd);
	if (m->initrd_fd >= 0)
		close(m->initrd_fd);
	tree_free(&m->tree);
	machine_errors_free(m);
	free(m);
}

/* -- running and parked -- */

static int quiesce_before(struct device *d, void *end)
{
	if (d == end)
		return 1;
	d->model->quiesce(d);
	return 0;
}

struct activation {
	struct device *failed;
	struct err *e;
};

static int activate_device(struct device *d, void *arg)
{
	struct activation *a = arg;

	if (!d->model->activate(d, a->e))
		return 0;
	a->failed = d;
	return -1;
}

static int activate_devices(struct machine *m, struct err *e)
{
	struct activation a = { .e = e };

	if (!machine_each_device(m, activate_device, &a))
		return 0;
	machine_each_device(m, quiesce_before, a.failed);
	return -1;
}

void machine_set_announce(struct machine *m, const struct announce *a)
{
	m->env.announce = *a;
}

static int announce_device(struct device *d, void *arg)
{
	(void)arg;
	if (d->model->announce)
		d->model->announce(d);
	return 0;
}

static int quiesce_device(struct device *d, void *arg)
{
	(void)arg;
	d->model->quiesce(d);
	return 0;
}

int machine_resume(struct machine *m, struct err *e)
{
	unsigned int i;

	if (m->held)
		return err_set(e, "the machine is held by a migration");
	if (m->running)
		return 0;
	machine_errors_forget(m);
	if (activate_devices(m, e))
		return -1;
	m->running = true;
	m->status = MACHINE_RUNNING;
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_resume(&m->vcpus[i]);
	if (m->announce)
		machine_each_device(m, announce_device, NULL);
	m->announce = false;
	return 0;
}

/* How long all are waited for before those that are not known to run are asked. */
#define ENTRY_LOOK_NS 1000000u

int machine_await_entry(struct machine *m, unsigned int ms, struct err *e)
{
	uint64_t now = clock_ns(), end = now + (uint64_t)ms * 1000000;
	unsigned int i, unknown = 1, failed = 0;
	int rc;

	for (; unknown && !failed && now < end; now = clock_ns()) {
		unknown = 0;
		for (i = 0; i < m->n_vcpus; i++) {
			vcpu_await_entry(&m->vcpus[i], now + ENTRY_LOOK_NS);
			rc = vcpu_is_entered(&m->vcpus[i]);
			failed += rc < 0;
			unknown += rc == 0;
			if (rc == 0)
				vcpu_prove_entry(&m->vcpus[i]);
		}
	}
	if (unknown && !failed)
		log_warn("%u vCPU%s have not run within %u ms: this host is overloaded", unknown,
			 unknown == 1 ? "" : "s", ms);
	return failed ? err_set(e, "KVM cannot run the guest on this host (the log says why)") : 0;
}

bool machine_has_run(struct machine *m)
{
	unsigned int i;
	int rc;

	for (i = 0; i < m->n_vcpus; i++) {
		rc = vcpu_is_entered(&m->vcpus[i]);
		if (rc == 1 || rc == -2)
			return true;
	}
	return false;
}

bool machine_take_request(struct machine *m, enum machine_request r)
{
	uint32_t expected = r;

	return __atomic_compare_exchange_n(&m->requested, &expected, REQUEST_NONE, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

void machine_park(struct machine *m)
{
	unsigned int i;

	if (!m->running)
		return;
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_park(&m->vcpus[i]);
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_wait(&m->vcpus[i]);
	machine_each_device(m, quiesce_device, NULL);
	/* Not before the devices have ended their work: to a guest that would be time lost. */
	machine_stand_now(m);
	m->running = false;
	m->status = MACHINE_PAUSED;
}

/* Why there is no guest any more that could be moved; always -1. */
static int ended(enum machine_request why, struct err *e)
{
	switch (why) {
	case REQUEST_POWEROFF:
		return err_set(e, "the guest has powered off");
	case REQUEST_FAILED:
		return err_set(e, "the guest met what KVM cannot run");
	default:
		return err_set(e, "the VM was ended");
	}
}

int machine_hold(struct machine *m, struct err *e)
{
	uint32_t pending;

	if (m->status == MACHINE_SHUTDOWN || m->status == MACHINE_INTERNAL_ERROR)
		return ended(m->status == MACHINE_SHUTDOWN ? REQUEST_POWEROFF : REQUEST_FAILED, e);
	m->run_after_hold = m->running;
	machine_park(m);
	pending = __atomic_exchange_n(&m->requested, REQUEST_NONE, __ATOMIC_ACQ_REL);
	if (pending > REQUEST_HOST_RESET) {
		machine_request(m, (enum machine_request)pending);
		return ended((enum machine_request)pending, e);
	}
	if (pending != REQUEST_NONE && machine_reset(m, e)) {
		machine_request(m, REQUEST_FAILED);
		return -1;
	}
	m->held = true;
	m->status = MACHINE_FINISH_MIGRATE;
	return 0;
}

int machine_unhold(struct machine *m, struct err *e)
{
	m->held = false;
	m->status = m->stopped_by_error ? MACHINE_IO_ERROR : MACHINE_PAUSED;
	if (m->released && machine_acquire(m, e))
		return -1;
	return m->run_after_hold ? machine_resume(m, e) : 0;
}

bool machine_runs_after_hold(const struct machine *m)
{
	return m->run_after_hold;
}

int machine_log_start(struct machine *m, struct err *e)
{
	return dirty_log_start(&m->log, e);
}

int machine_log_fetch(struct machine *m, unsigned int block, uint64_t *bits, struct err *e)
{
	return dirty_log_fetch(&m->log, block, bits, e);
}

int machine_log_clear(struct machine *m, unsigned int block, uint64_t first, uint64_t n,
		      const uint64_t *bits, struct err *e)
{
	return dirty_log_clear(&m->log, block, first, n, bits, e);
}

void machine_log_stop(struct machine *m)
{
	dirty_log_stop(&m->log);
}

uint64_t machine_vcpu_dirty_pages(struct machine *m, unsigned int vcpu)
{
	return dirty_log_dirtied(&m->log, vcpu);
}

bool machine_has_dirty_rings(const struct machine *m)
{
	return m->log.has_rings;
}

void machine_throttle(struct machine *m, unsigned int vcpu, unsigned int permille)
{
	if (vcpu < m->n_vcpus)
		vcpu_throttle(&m->vcpus[vcpu], permille);
}

int machine_dirty_limit(struct machine *m, uint64_t bytes_per_s, struct err *e)
{
	unsigned int i;

	if (bytes_per_s && !m->log.has_rings)
		return err_set(e, "a dirty limit needs dirty rings: the VM runs without "
				  "--dirty-ring");
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_dirty_limit(&m->vcpus[i], bytes_per_s);
	return 0;
}

/* -- small questions -- */

enum machine_status machine_status(const struct machine *m)
{
	return m->status;
}

void machine_set_status(struct machine *m, enum machine_status s)
{
	m->status = s;
}

void machine_set_arrival(struct machine *m, enum machine_arrival a)
{
	m->arrival = a;
}

enum machine_arrival machine_arrival(const struct machine *m)
{
	return m->arrival;
}

const char *machine_name(const struct machine *m)
{
	return m->name;
}

const struct tree *machine_tree(const struct machine *m)
{
	return &m->tree;
}

struct memory *machine_memory(struct machine *m)
{
	return &m->memory;
}

unsigned int machine_n_vcpus(const struct machine *m)
{
	return m->n_vcpus;
}

int machine_vcpu_thread_id(const struct machine *m, unsigned int vcpu)
{
	return vcpu < m->n_vcpus ? (int)m->vcpus[vcpu].thread_id : -1;
}
