/*
 * The machine's states: see machine.h and machine_internal.h. Owner's thread; the vCPUs' threads
 * each for their own.
 *
 * A snapshot holds the plain state of everything; machine_states_save and _load put the tree
 * encoding around it, and a reset is the load of the snapshot that was taken when the machine had
 * just been built. So there is one way in and one way out for state.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/machine_internal.h"
#include "vmm/states.h"

/* A tree of states is about as large as the one before it: registers and queues change in value. */
#define STATES_BYTES_SPARE 65536u

void machine_snapshot_free(struct machine *m, struct snapshot *s)
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
	machine_snapshot_free(m, s);
	return err_set(e, "out of memory");
}

/* What the vCPU threads do at the same time, each for itself. */
struct vcpu_work {
	struct machine *m;
	struct snapshot *s;
	enum { VCPU_SAVE, VCPU_READ, VCPU_LOAD } what;
	const struct arch_moment *now;	  /* to save or load */
	const struct tree *states;	  /* to read */
	const struct state_thing *things; /* to read: those of the vCPUs */
	struct vcpu_result {
		int rc;
		struct err e;
	} * results;
};

static int do_work(const struct vcpu_work *w, struct vcpu *v, struct err *e)
{
	void *st = w->s->vcpus[v->index];

	switch (w->what) {
	case VCPU_SAVE:
		return arch_vcpu_save(w->m->arch, v, w->now, st, e);
	case VCPU_READ:
		return states_read_one(w->states, &w->things[v->index], NULL, e);
	case VCPU_LOAD:
		return arch_vcpu_load(w->m->arch, v, w->now, st, e);
	}
	return 0;
}

static void vcpu_work(struct vcpu *v, void *arg)
{
	struct vcpu_work *w = arg;
	struct vcpu_result *r = &w->results[v->index];

	r->rc = do_work(w, v, &r->e);
}

static int all_vcpus(struct machine *m, struct vcpu_work *w, struct err *e)
{
	unsigned int i;
	int rc = 0;

	w->m = m;
	w->results = calloc(m->n_vcpus, sizeof(w->results[0]));
	if (!w->results)
		return err_set(e, "out of memory");
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_job(&m->vcpus[i], vcpu_work, w);
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_wait(&m->vcpus[i]);
	for (i = 0; i < m->n_vcpus && !rc; i++)
		if (w->results[i].rc)
			rc = err_set(e, "%s", w->results[i].e.text);
	free(w->results);
	return rc;
}

void machine_stand_now(struct machine *m)
{
	m->stands = arch_moment_now(&m->kvm, &m->stood_at, NULL) == 0;
}

int machine_snapshot_take(struct machine *m, struct snapshot *s, struct err *e)
{
	struct arch_moment then;
	struct vcpu_work work = { .s = s, .what = VCPU_SAVE, .now = &then };
	unsigned int i;

	if (!s->vm && snapshot_alloc(m, s, e))
		return -1;
	if (m->stands)
		then = m->stood_at;
	else if (arch_moment_now(&m->kvm, &then, e))
		return -1;
	if (all_vcpus(m, &work, e) || arch_vm_save(m->arch, &then, s->vm, e))
		return -1;
	for (i = 0; i < m->n_devices; i++)
		if (s->devices[i])
			m->devices[i]->model->save(m->devices[i], s->devices[i]);
	return 0;
}

/* What KVM has. */
static int apply_to_kvm(struct machine *m, struct snapshot *s, uint64_t advance_ns, struct err *e)
{
	struct arch_moment now;
	struct vcpu_work work = { .s = s, .what = VCPU_LOAD, .now = &now };

	if (arch_moment_now(&m->kvm, &now, e))
		return -1;
	now.advance_ns = advance_ns;
	return all_vcpus(m, &work, e) || arch_vm_load(m->arch, &now, s->vm, e) ? -1 : 0;
}

int machine_snapshot_apply(struct machine *m, struct snapshot *s, uint64_t advance_ns,
			   struct err *e)
{
	unsigned int i;

	if (apply_to_kvm(m, s, advance_ns, e))
		return -1;
	for (i = 0; i < m->n_devices; i++)
		if (s->devices[i])
			m->devices[i]->model->load(m->devices[i], s->devices[i]);
	machine_stand_now(m);
	return 0;
}

/* All that has a state, with the place of it in `s`: VM, devices, vCPUs. */
static unsigned int list_things(struct machine *m, const struct snapshot *s,
				struct state_thing *things)
{
	struct state_thing *t = things;
	unsigned int i;

	*t = (struct state_thing){ .path = "/vm", .desc = &arch_vm_state, .st = s->vm };
	t++;
	for (i = 0; i < m->n_devices; i++) {
		if (!s->devices[i])
			continue;
		t->desc = m->devices[i]->model->state;
		t->st = s->devices[i];
		snprintf(t++->path, sizeof(t->path), "%s", m->devices[i]->path);
	}
	for (i = 0; i < m->n_vcpus; i++) {
		t->desc = &arch_vcpu_state;
		t->st = s->vcpus[i];
		snprintf(t++->path, sizeof(t->path), "/cpus/cpu@%u", i);
	}
	return (unsigned int)(t - things);
}

static struct state_thing *new_things(const struct machine *m, struct err *e)
{
	struct state_thing *t = calloc(1 + m->n_devices + m->n_vcpus, sizeof(*t));

	if (!t)
		err_set(e, "out of memory");
	return t;
}

/* An owner of memory that is not touched yet pays for that when it is: now, and not in a pause. */
static int make_moved(struct machine *m, struct err *e)
{
	struct snapshot *s = &m->moved;
	unsigned int i;

	if (s->vm)
		return 0;
	if (snapshot_alloc(m, s, e))
		return -1;
	for (i = 0; i < m->n_vcpus; i++)
		memset(s->vcpus[i], 0, arch_vcpu_state.size);
	return 0;
}

static int encode(struct machine *m, const struct snapshot *s, struct tree *states, struct err *e)
{
	struct state_thing *things = new_things(m, e);
	int rc;

	if (!things)
		return -1;
	rc = states_write(things, list_things(m, s, things), m->states_bytes, states, e);
	free(things);
	if (!rc)
		m->states_bytes = tree_bytes_used(states) + STATES_BYTES_SPARE;
	return rc;
}

int machine_states_save(struct machine *m, struct tree *states, struct err *e)
{
	if (m->running)
		return err_set(e, "the machine is running");
	return make_moved(m, e) || machine_snapshot_take(m, &m->moved, e) ||
			       encode(m, &m->moved, states, e)
		       ? -1
		       : 0;
}

/* A state that fits no device as it is here, the network of another size say. */
static int check_devices(struct machine *m, const struct snapshot *s, struct err *e)
{
	unsigned int i;

	for (i = 0; i < m->n_devices; i++) {
		struct device *d = m->devices[i];

		if (s->devices[i] && d->model->fits && d->model->fits(d, s->devices[i], e))
			return err_context(e, "%s", d->path);
	}
	return 0;
}

/* The vCPUs come last among the things, and are most of it: each reads its own. */
static int read_states(struct machine *m, const struct tree *states, struct snapshot *s,
		       struct err *e)
{
	struct state_thing *things = new_things(m, e);
	struct vcpu_work work = { .s = s, .what = VCPU_READ, .states = states };
	unsigned int i, n, others;
	int rc;

	if (!things)
		return -1;
	n = list_things(m, s, things);
	others = n - m->n_vcpus;
	work.things = things + others;
	rc = states_find(states, things, n, NULL, e);
	for (i = 0; i < others && !rc; i++)
		rc = states_read_one(states, &things[i], NULL, e);
	if (!rc)
		rc = all_vcpus(m, &work, e);
	free(things);
	return rc;
}

static int decode(struct machine *m, const struct tree *states, struct snapshot *s, struct err *e)
{
	return read_states(m, states, s, e) || check_devices(m, s, e) ? -1 : 0;
}

int machine_states_load(struct machine *m, const struct tree *states, uint64_t advance_ns,
			struct err *e)
{
	if (m->running)
		return err_set(e, "the machine is running");
	if (make_moved(m, e))
		return -1;
	m->used = true;
	return decode(m, states, &m->moved, e) ||
			       machine_snapshot_apply(m, &m->moved, advance_ns, e)
		       ? -1
		       : 0;
}

static void no_work(struct vcpu *v, void *arg)
{
	(void)v;
	(void)arg;
}

static void wake_all_vcpus(struct machine *m)
{
	unsigned int i;

	for (i = 0; i < m->n_vcpus; i++)
		vcpu_job(&m->vcpus[i], no_work, NULL);
	for (i = 0; i < m->n_vcpus; i++)
		vcpu_wait(&m->vcpus[i]);
}

/* The least counts: what other programs of this host had a part in says nothing of this machine. */
#define REHEARSALS 2

static void count_least(uint64_t *cost_us, uint64_t start_us)
{
	uint64_t us = clock_us() - start_us;

	if (!*cost_us || us < *cost_us)
		*cost_us = us;
}

/* All that a destination does with the bytes that come; the devices are left as they are, since
 * what they load is plain memory. */
static int load_once(struct machine *m, const struct tree *sent, struct err *e)
{
	struct tree states;
	int rc;

	if (tree_copy(&states, sent->fdt, tree_bytes_used(sent), e))
		return -1;
	rc = read_states(m, &states, &m->moved, e) || apply_to_kvm(m, &m->moved, 0, e) ? -1 : 0;
	tree_free(&states);
	return rc;
}

static int rehearse_load(struct machine *m, struct err *e)
{
	struct tree states;
	unsigned int i;
	int rc = 0;

	if (make_moved(m, e) || encode(m, &m->pristine, &states, e))
		return -1;
	for (i = 0; i < REHEARSALS && !rc; i++) {
		uint64_t start = clock_us();

		rc = load_once(m, &states, e);
		count_least(&m->costs.load_us, start);
	}
	tree_free(&states);
	return rc ? err_context(e, "a rehearsal of loading the states") : 0;
}

int machine_first_snapshot(struct machine *m, struct err *e)
{
	uint64_t start;
	unsigned int i;

	for (i = 0; i < REHEARSALS; i++) {
		start = clock_us();
		wake_all_vcpus(m);
		count_least(&m->costs.park_us, start);
		start = clock_us();
		if (machine_snapshot_take(m, &m->pristine, e))
			return -1;
		count_least(&m->costs.save_us, start);
	}
	m->costs.start_us = m->costs.park_us;
	return m->env.incoming ? rehearse_load(m, e) : 0;
}

int machine_rehearse(struct machine *m, struct machine_costs *out, struct err *e)
{
	uint64_t encode_us = 0;
	unsigned int i;

	if (make_moved(m, e))
		return -1;
	*out = m->costs;
	for (i = 0; i < REHEARSALS; i++) {
		uint64_t start = clock_us();
		struct tree states;

		if (encode(m, &m->pristine, &states, e))
			return -1;
		count_least(&encode_us, start);
		out->states_bytes = tree_bytes_used(&states);
		tree_free(&states);
	}
	out->save_us += encode_us;
	return 0;
}
