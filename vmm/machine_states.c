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

#include "vmm/base/err.h"
#include "vmm/machine_internal.h"

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

void machine_stand_now(struct machine *m)
{
	m->stands = arch_moment_now(&m->kvm, &m->stood_at, NULL) == 0;
}

int machine_snapshot_take(struct machine *m, struct snapshot *s, struct err *e)
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
	machine_snapshot_free(m, s);
	return -1;
}

int machine_snapshot_apply(struct machine *m, struct snapshot *s, uint64_t advance_ns,
			   struct err *e)
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
	machine_stand_now(m);
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
	if (machine_snapshot_take(m, &s, e)) {
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
	machine_snapshot_free(m, &s);
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
	rc = decode(m, states, &s, e) || machine_snapshot_apply(m, &s, advance_ns, e) ? -1 : 0;
	machine_snapshot_free(m, &s);
	return rc;
}
