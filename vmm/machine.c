/*
 * The machine: see machine.h. All functions run on its owner's thread, but for machine_request.
 *
 * A snapshot holds the plain state of everything; machine_states_save and _load put the tree
 * encoding around it, and a reset is the load of the snapshot that was taken when the machine had
 * just been built. So there is one way in and one way out for state.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/arch.h"
#include "vmm/base/err.h"
#include "vmm/base/log.h"
#include "vmm/dirty_ring.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"

#define DEVICES_MAX 64

/* Plain states of all parts of one machine, each of its state_desc's size. */
struct snapshot {
	void *vm;
	void **vcpus;	/* n_vcpus */
	void **devices; /* n_devices; NULL for one without state */
};

struct machine {
	/* Set by machine_build, then constant. */
	struct tree tree;
	const char *name; /* in the tree */
	struct kvm kvm;
	struct memory memory;
	struct dirty_rings rings; /* if the tree wants them */
	struct bus port_bus, mmio_bus;
	struct loop io;
	bool io_made, io_started, kvm_made;
	struct arch *arch;
	struct device_env env;
	struct device *devices[DEVICES_MAX];
	unsigned int n_devices;
	struct vcpu *vcpus;
	unsigned int n_vcpus;
	struct loop *owner_loop;
	struct machine_events events;
	struct snapshot pristine;

	/* Owner's thread. */
	enum machine_status status;
	bool running; /* devices active, vCPUs not asked to park */
	bool held, run_after_hold;
	bool released; /* machine_release gave up what only one side may have */
	bool announce; /* the next resume is the first one on this host */
	bool stands;   /* since a moment that is known */
	struct arch_moment stood_at;
	int kernel_fd, initrd_fd;
	bool used; /* guest memory is no longer all zero */

	uint32_t requested; /* atomic: the weightiest request not yet delivered */
};

static const char *const status_names[] = {
	[MACHINE_PRELAUNCH] = "prelaunch",
	[MACHINE_RUNNING] = "running",
	[MACHINE_PAUSED] = "paused",
	[MACHINE_INMIGRATE] = "inmigrate",
	[MACHINE_FINISH_MIGRATE] = "finish-migrate",
	[MACHINE_POSTMIGRATE] = "postmigrate",
	[MACHINE_SHUTDOWN] = "shutdown",
	[MACHINE_INTERNAL_ERROR] = "internal-error",
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

/* -- snapshots -- */

static void snapshot_free(struct machine *m, struct snapshot *s)
{
	unsigned int i;

	for (i = 0; s->vcpus && i < m->n_vcpus; i++)
		free(s->vcpus[i]);
	for (i = 0; s->devices && i < m->n_devices; i++)
		free(s->devices[i]);
	free(s->vcpus);
	free(s->devices);
	free(s->vm);
	*s = (struct snapshot){ 0 };
}

static int snapshot_alloc(struct machine *m, struct snapshot *s, struct err *e)
{
	unsigned int i;
	bool ok;

	s->vm = calloc(1, arch_vm_state.size);
	s->vcpus = calloc(m->n_vcpus, sizeof(s->vcpus[0]));
	s->devices = calloc(m->n_devices ? m->n_devices : 1, sizeof(s->devices[0]));
	ok = s->vm && s->vcpus && s->devices;
	for (i = 0; ok && i < m->n_vcpus; i++)
		ok = (s->vcpus[i] = calloc(1, arch_vcpu_state.size));
	for (i = 0; ok && i < m->n_devices; i++)
		if (m->devices[i]->model->state)
			ok = (s->devices[i] = calloc(1, m->devices[i]->model->state->size));
	if (ok)
		return 0;
	snapshot_free(m, s);
	return err_set(e, "out of memory");
}

/* What the vCPU threads do at the same time, each for itself. */
struct vcpu_work {
	struct machine *m;
	struct snapshot *s;
	const struct arch_moment *now;
	bool load;
	struct vcpu_result {
		int rc;
		struct err e;
	} * results;
};

static void vcpu_work(struct vcpu *v, void *arg)
{
	struct vcpu_work *w = arg;
	struct vcpu_result *r = &w->results[v->index];
	void *st = w->s->vcpus[v->index];

	r->rc = w->load ? arch_vcpu_load(w->m->arch, v, w->now, st, &r->e)
			: arch_vcpu_save(w->m->arch, v, w->now, st, &r->e);
}

static int all_vcpus(struct machine *m, struct snapshot *s, const struct arch_moment *now,
		     bool load, struct err *e)
{
	struct vcpu_work work = { .m = m, .s = s, .now = now, .load = load };
	unsigned int i;
	int rc = 0;

	work.results = calloc(m->n_vcpus, sizeof(work.results[0]));
	if (!work.results)
		return err_set(e, "out of memory");
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_job(&m->vcpus[i], vcpu_work, &work);
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_wait(&m->vcpus[i]);
	for (i = 0; i < m->n_vcpus && !rc; i++)
		if (work.results[i].rc)
			rc = err_set(e, "%s", work.results[i].e.text);
	free(work.results);
	return rc;
}

/*
 * A parked guest's time stands, however long it takes to write its memory down: its states are
 * those of this moment.
 */
static void stand_now(struct machine *m)
{
	m->stands = arch_moment_now(&m->kvm, &m->stood_at, NULL) == 0;
}

static int snapshot_take(struct machine *m, struct snapshot *s, struct err *e)
{
	struct arch_moment then;
	unsigned int i;

	if (snapshot_alloc(m, s, e))
		return -1;
	if (m->stands)
		then = m->stood_at;
	else if (arch_moment_now(&m->kvm, &then, e))
		goto fail;
	if (all_vcpus(m, s, &then, false, e) || arch_vm_save(m->arch, &then, s->vm, e))
		goto fail;
	for (i = 0; i < m->n_devices; i++)
		if (s->devices[i])
			m->devices[i]->model->save(m->devices[i], s->devices[i]);
	return 0;
fail:
	snapshot_free(m, s);
	return -1;
}

/* The snapshot has been checked. KVM may still refuse a value: then the machine must not run. */
static int snapshot_apply(struct machine *m, struct snapshot *s, uint64_t advance_ns, struct err *e)
{
	struct arch_moment now;
	unsigned int i;

	if (arch_moment_now(&m->kvm, &now, e))
		return -1;
	now.advance_ns = advance_ns;
	if (all_vcpus(m, s, &now, true, e) || arch_vm_load(m->arch, &now, s->vm, e))
		return -1;
	for (i = 0; i < m->n_devices; i++)
		if (s->devices[i])
			m->devices[i]->model->load(m->devices[i], s->devices[i]);
	stand_now(m);
	return 0;
}

static void vcpu_path(unsigned int index, char path[TREE_PATH_MAX])
{
	snprintf(path, TREE_PATH_MAX, "/cpus/cpu@%u", index);
}

int machine_states_save(struct machine *m, struct tree *states, struct err *e)
{
	struct snapshot s = { 0 };
	char path[TREE_PATH_MAX];
	unsigned int i;
	int rc;

	if (m->running)
		return err_set(e, "the machine is running");
	if (tree_init(states, e))
		return -1;
	if (snapshot_take(m, &s, e)) {
		tree_free(states);
		return -1;
	}
	rc = state_save(states, "/vm", &arch_vm_state, s.vm, e);
	for (i = 0; !rc && i < m->n_vcpus; i++) {
		vcpu_path(i, path);
		rc = state_save(states, path, &arch_vcpu_state, s.vcpus[i], e);
	}
	for (i = 0; !rc && i < m->n_devices; i++)
		if (s.devices[i])
			rc = state_save(states, m->devices[i]->path, m->devices[i]->model->state,
					s.devices[i], e);
	snapshot_free(m, &s);
	if (rc) {
		tree_free(states);
		return -1;
	}
	tree_pack(states);
	return 0;
}

/* A state that nobody here has would be lost silently: it is refused. */
static int check_nodes(struct machine *m, const struct tree *states, struct err *e)
{
	static const char *const groups[] = { "/cpus", "/devices" };
	char path[TREE_PATH_MAX], cpu[TREE_PATH_MAX];
	unsigned int g, i, it = 0;
	bool known;

	while (tree_next_child(states, "/", &it, path))
		if (strcmp(path, "/vm") && strcmp(path, "/cpus") && strcmp(path, "/devices"))
			return err_set(e, "%s: a state that this version does not know", path);
	for (g = 0; g < 2; g++)
		for (it = 0; tree_next_child(states, groups[g], &it, path);) {
			known = false;
			for (i = 0; g == 0 && i < m->n_vcpus && !known; i++) {
				vcpu_path(i, cpu);
				known = !strcmp(path, cpu);
			}
			for (i = 0; g == 1 && i < m->n_devices && !known; i++)
				known = m->devices[i]->model->state &&
					!strcmp(path, m->devices[i]->path);
			if (!known)
				return err_set(e,
					       "%s: the state of something that this machine "
					       "does not have",
					       path);
		}
	return 0;
}

static int decode(struct machine *m, const struct tree *states, struct snapshot *s, struct err *e)
{
	char path[TREE_PATH_MAX];
	unsigned int i;

	if (check_nodes(m, states, e) || state_load(states, "/vm", &arch_vm_state, s->vm, e))
		return -1;
	for (i = 0; i < m->n_vcpus; i++) {
		vcpu_path(i, path);
		if (state_load(states, path, &arch_vcpu_state, s->vcpus[i], e))
			return -1;
	}
	for (i = 0; i < m->n_devices; i++) {
		struct device *d = m->devices[i];

		if (!s->devices[i])
			continue;
		if (state_load(states, d->path, d->model->state, s->devices[i], e))
			return -1;
		if (d->model->fits && d->model->fits(d, s->devices[i], e))
			return err_context(e, "%s", d->path);
	}
	return 0;
}

int machine_states_load(struct machine *m, const struct tree *states, uint64_t advance_ns,
			struct err *e)
{
	struct snapshot s = { 0 };
	int rc;

	if (m->running)
		return err_set(e, "the machine is running");
	if (snapshot_alloc(m, &s, e))
		return -1;
	m->used = true;
	rc = decode(m, states, &s, e) || snapshot_apply(m, &s, advance_ns, e) ? -1 : 0;
	snapshot_free(m, &s);
	return rc;
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
	if (m->kvm.ring_entries) {
		if (dirty_rings_init(&m->rings, &m->kvm, &m->memory, n, e))
			return -1;
		m->memory.rings = &m->rings;
	}
	while (m->n_vcpus < n) {
		struct vcpu *v = &m->vcpus[m->n_vcpus];

		m->n_vcpus++;
		if (vcpu_init(v, m->n_vcpus - 1, &m->env, e) || arch_vcpu_init(m->arch, v, e) ||
		    (m->memory.rings && dirty_rings_add(&m->rings, v->fd, e)))
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
	if (memory_attach(&m->memory, &m->kvm, e) || arch_init(&m->arch, &m->kvm, &m->tree, e) ||
	    loop_init(&m->io, e))
		return -1;
	m->io_made = true;
	m->env = (struct device_env){
		.kvm = &m->kvm,
		.memory = &m->memory,
		.io = &m->io,
		.port_bus = &m->port_bus,
		.mmio_bus = &m->mmio_bus,
		.request = machine_request,
		.machine = m,
		.incoming = origin == ORIGIN_INCOMING,
	};
	m->announce = origin == ORIGIN_INCOMING;
	return build_devices(m, models, e) || build_vcpus(m, e) ? -1 : 0;
}

int machine_launch(struct machine *m, struct err *e)
{
	unsigned int i;

	for (i = 0; i < m->n_vcpus; i++)
		if (vcpu_start(&m->vcpus[i], e))
			return -1;
	if (snapshot_take(m, &m->pristine, e) || loop_start(&m->io, "io", e))
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
	if (m->memory.rings)
		dirty_rings_free(&m->rings);
	if (m->io_started)
		loop_join(&m->io);
	for (i = m->n_devices; i-- > 0;)
		m->devices[i]->model->destroy(m->devices[i]);
	snapshot_free(m, &m->pristine);
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
	free(m);
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

static void set_ballooned(struct machine *m, uint64_t bytes)
{
	struct balloon_call c = { .m = m, .set = true, .b.wanted_bytes = bytes };

	loop_call(&m->io, call_balloon, &c);
}

static int ask_balloon(struct machine *m, struct device_balloon *b, struct err *e)
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

	if (ask_balloon(m, &b, e))
		return -1;
	set_ballooned(m, bytes < all ? all - bytes : 0);
	return 0;
}

int machine_balloon(struct machine *m, uint64_t *bytes, struct err *e)
{
	uint64_t all = memory_bytes(&m->memory);
	struct device_balloon b;

	if (ask_balloon(m, &b, e))
		return -1;
	*bytes = b.actual_bytes < all ? all - b.actual_bytes : 0;
	return 0;
}

/* -- boot and reset -- */

static int open_image(const struct tree *t, const char *prop, int *fd, const char **name,
		      struct err *e)
{
	struct stat st;

	if (tree_str(t, "/host/boot", prop, name, e))
		return -1;
	if (*fd >= 0)
		return 0;
	/* NONBLOCK so that a FIFO without a writer does not hold us here; means nothing to files.
	 */
	*fd = open(*name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (*fd < 0)
		return err_errno(e, errno, "%s: cannot open the %s", *name, prop);
	if (fstat(*fd, &st) || !S_ISREG(st.st_mode)) {
		close(*fd);
		*fd = -1;
		return err_set(e, "%s: the %s is not a regular file", *name, prop);
	}
	return 0;
}

int machine_open_boot(struct machine *m, struct err *e)
{
	const char *name;

	if (open_image(&m->tree, "kernel", &m->kernel_fd, &name, e))
		return -1;
	if (tree_has(&m->tree, "/host/boot", "initrd") &&
	    open_image(&m->tree, "initrd", &m->initrd_fd, &name, e))
		return -1;
	return 0;
}

int machine_boot(struct machine *m, struct err *e)
{
	struct arch_boot b = { 0 };

	if (machine_open_boot(m, e) ||
	    tree_str(&m->tree, "/host/boot", "kernel", &b.kernel_name, e))
		return -1;
	if (m->initrd_fd >= 0 && tree_str(&m->tree, "/host/boot", "initrd", &b.initrd_name, e))
		return -1;
	b.kernel_fd = m->kernel_fd;
	b.initrd_fd = m->initrd_fd;
	b.memory_is_fresh = !m->used;
	m->used = true;
	return arch_boot(m->arch, &m->memory, &m->tree, &m->vcpus[0], &b, e);
}

/*
 * A guest that has asked for a reset often does so again at once, in another way; and each vCPU for
 * itself. All that came before it was parked is one reset; what follows would hit the next life.
 */
static void forget_resets(struct machine *m)
{
	uint32_t asked = __atomic_load_n(&m->requested, __ATOMIC_ACQUIRE);

	while ((asked == REQUEST_RESET || asked == REQUEST_HOST_RESET) &&
	       !__atomic_compare_exchange_n(&m->requested, &asked, REQUEST_NONE, false,
					    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		;
}

int machine_reset(struct machine *m, struct err *e)
{
	struct device_balloon b;
	bool ballooned;

	machine_park(m);
	forget_resets(m);
	ballooned = ask_balloon(m, &b, NULL) == 0;
	if (snapshot_apply(m, &m->pristine, 0, e) || machine_boot(m, e)) {
		m->status = MACHINE_INTERNAL_ERROR;
		return -1;
	}
	/* The host's wish, not the guest's: it outlives this life of his. */
	if (ballooned)
		set_ballooned(m, b.wanted_bytes);
	return 0;
}

/* -- running and parked -- */

struct activation {
	struct machine *m;
	unsigned int n_active;
	int rc;
	struct err *e;
};

static void activate_devices(void *arg)
{
	struct activation *a = arg;
	struct machine *m = a->m;

	for (; a->n_active < m->n_devices; a->n_active++) {
		struct device *d = m->devices[a->n_active];

		a->rc = d->model->activate(d, a->e);
		if (a->rc)
			break;
	}
	if (!a->rc)
		return;
	while (a->n_active-- > 0)
		m->devices[a->n_active]->model->quiesce(m->devices[a->n_active]);
}

static void announce_devices(void *arg)
{
	struct machine *m = arg;
	unsigned int i;

	for (i = 0; i < m->n_devices; i++)
		if (m->devices[i]->model->announce)
			m->devices[i]->model->announce(m->devices[i]);
}

static void quiesce_devices(void *arg)
{
	struct machine *m = arg;
	unsigned int i;

	for (i = 0; i < m->n_devices; i++)
		m->devices[i]->model->quiesce(m->devices[i]);
}

int machine_resume(struct machine *m, struct err *e)
{
	struct activation a = { .m = m, .e = e };
	unsigned int i;

	if (m->held)
		return err_set(e, "the machine is held by a migration");
	if (m->running)
		return 0;
	loop_call(&m->io, activate_devices, &a);
	if (a.rc)
		return -1;
	m->running = true;
	m->status = MACHINE_RUNNING;
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_resume(&m->vcpus[i]);
	if (m->announce)
		loop_call(&m->io, announce_devices, m);
	m->announce = false;
	return 0;
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
	loop_call(&m->io, quiesce_devices, m);
	/* Not before the devices have ended their work: to a guest that would be time lost. */
	stand_now(m);
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
	m->status = MACHINE_PAUSED;
	if (m->released && machine_acquire(m, e))
		return -1;
	return m->run_after_hold ? machine_resume(m, e) : 0;
}

bool machine_runs_after_hold(const struct machine *m)
{
	return m->run_after_hold;
}

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

static void sync_devices(void *arg)
{
	struct each_device *a = arg;
	unsigned int i;

	for (i = 0; i < a->m->n_devices && !a->rc; i++)
		if (a->m->devices[i]->model->sync)
			a->rc = a->m->devices[i]->model->sync(a->m->devices[i], a->e);
}

int machine_sync(struct machine *m, struct err *e)
{
	struct each_device a = { .m = m, .e = e };

	loop_call(&m->io, sync_devices, &a);
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

int machine_log_start(struct machine *m, struct err *e)
{
	return memory_log_start(&m->memory, &m->kvm, e);
}

int machine_log_fetch(struct machine *m, unsigned int block, uint64_t *bits, struct err *e)
{
	return memory_log_fetch(&m->memory, &m->kvm, block, bits, e);
}

int machine_log_clear(struct machine *m, unsigned int block, uint64_t first, uint64_t n,
		      const uint64_t *bits, struct err *e)
{
	return memory_log_clear(&m->memory, &m->kvm, block, first, n, bits, e);
}

void machine_log_stop(struct machine *m)
{
	memory_log_stop(&m->memory, &m->kvm);
}

uint64_t machine_vcpu_dirty_pages(struct machine *m, unsigned int vcpu)
{
	return m->memory.rings && vcpu < m->n_vcpus ? dirty_rings_count(&m->rings, vcpu) : 0;
}

void machine_throttle(struct machine *m, unsigned int vcpu, unsigned int permille)
{
	if (vcpu < m->n_vcpus)
		vcpu_throttle(&m->vcpus[vcpu], permille);
}

int machine_dirty_limit(struct machine *m, uint64_t bytes_per_s, struct err *e)
{
	unsigned int i;

	if (bytes_per_s && !m->memory.rings)
		return err_set(e, "a dirty limit needs dirty rings: the VM runs without "
				  "--dirty-ring");
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_dirty_limit(&m->vcpus[i], bytes_per_s);
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

/* -- small questions -- */

enum machine_status machine_status(const struct machine *m)
{
	return m->status;
}

void machine_set_status(struct machine *m, enum machine_status s)
{
	m->status = s;
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
