/*
 * The ops of guest.h over a machine. No other file of migrate/ knows vmm/machine.h. The ops run on
 * the migration's thread; those that change what the machine does call its owner's thread.
 */
#include "migrate/guest.h"

#include <stdlib.h>

#include "migrate/agent/agent.h"
#include "vmm/base/err.h"
#include "vmm/loop.h"
#include "vmm/machine.h"
#include "vmm/memory.h"

/* How long start waits for every vCPU to enter the guest. RUNNING must be said well before the
 * source gives up (handover.h). */
#define ENTRY_MS 8000u

struct call {
	struct machine *machine;
	bool run; /* of start: let it run */
	const struct guest_last *last;
	int rc;
	struct err *e;
};

static void hold(void *arg)
{
	struct call *c = arg;

	c->rc = machine_hold(c->machine, c->e);
}

static void unhold(void *arg)
{
	struct call *c = arg;

	c->rc = machine_unhold(c->machine, c->e);
}

/* Gives back what only one side may hold: the source takes it again once it has heard FAILED. */
static void give_back(void *arg)
{
	struct call *c = arg;

	machine_park(c->machine);
	machine_set_status(c->machine, MACHINE_INMIGRATE);
	machine_release(c->machine);
}

/* The guest could not go on: parks it, and gives it back if nothing of it has run here. */
static void end_start(void *arg)
{
	struct call *c = arg;

	machine_park(c->machine);
	/* The end of this migration tells it already. */
	machine_take_request(c->machine, REQUEST_FAILED);
	c->run = machine_has_run(c->machine);
	if (!c->run)
		give_back(c);
}

static void start(void *arg)
{
	struct call *c = arg;

	c->rc = machine_acquire(c->machine, c->e);
	/* This comes after the step that may take long, so that a yes is still true. */
	if (!c->rc && c->last)
		c->rc = c->last->ask(c->last->arg, c->e);
	if (!c->rc) {
		machine_set_status(c->machine, MACHINE_PAUSED);
		/* A wish from while it came goes before how it was at the source. */
		if (machine_arrival(c->machine) != ARRIVAL_AS_IT_WAS)
			c->run = machine_arrival(c->machine) == ARRIVAL_RUNNING;
		if (c->run)
			c->rc = machine_resume(c->machine, c->e);
	}
	if (c->rc)
		give_back(c);
}

static struct machine *machine_of(struct guest *g)
{
	return ((struct guest_machine *)g)->machine;
}

static int on_owner(struct guest *g, void (*fn)(void *arg), bool run, struct err *e)
{
	struct call c = { .machine = machine_of(g), .run = run, .e = e };

	loop_call(((struct guest_machine *)g)->owner_loop, fn, &c);
	return c.rc;
}

static int guest_dirty_log_start(struct guest *g, struct err *e)
{
	return machine_log_start(machine_of(g), e);
}

static int guest_dirty_log_fetch(struct guest *g, unsigned int block, uint64_t *bits, struct err *e)
{
	return machine_log_fetch(machine_of(g), block, bits, e);
}

static int guest_dirty_log_clear(struct guest *g, unsigned int block, uint64_t first, uint64_t n,
				 const uint64_t *bits, struct err *e)
{
	return machine_log_clear(machine_of(g), block, first, n, bits, e);
}

static void guest_dirty_log_stop(struct guest *g)
{
	machine_log_stop(machine_of(g));
}

static int guest_touched(struct guest *g, unsigned int block, uint64_t first, uint64_t n,
			 uint64_t *bits, struct err *e)
{
	const struct memory *m = machine_memory(machine_of(g));

	return memory_touched(m, &m->blocks[block], first, n, bits, e);
}

/* -- pages that the guest does not use -- */

static int names_free_pages(struct device *d, void *arg)
{
	(void)arg;
	return d->model->balloon && d->model->balloon->names_free_pages(d);
}

static bool guest_names_free_pages(struct guest *g)
{
	return machine_each_device(machine_of(g), names_free_pages, NULL);
}

static int step_free_pages(struct device *d, void *f)
{
	if (d->model->balloon)
		d->model->balloon->free_pages(d, f);
	return 0;
}

/* On the I/O thread. */
static void on_found(void *arg, uint64_t gpa, uint64_t len)
{
	struct guest_machine *g = arg;
	const struct memory *m = machine_memory(g->machine);
	unsigned int i;

	for (i = 0; i < m->n_blocks; i++)
		if (gpa >= m->blocks[i].gpa && gpa - m->blocks[i].gpa < m->blocks[i].size)
			g->found(g->found_arg, i, (gpa - m->blocks[i].gpa) / PAGE_SIZE,
				 len / PAGE_SIZE);
}

static void guest_free_pages_name(struct guest *g, guest_found_fn *found, void *arg)
{
	struct free_pages f = { FREE_PAGES_NAME, on_found, g };

	((struct guest_machine *)g)->found = found;
	((struct guest_machine *)g)->found_arg = arg;
	machine_each_device(machine_of(g), step_free_pages, &f);
}

static void guest_free_pages_stop(struct guest *g)
{
	struct free_pages f = { .step = FREE_PAGES_STOP };

	machine_each_device(machine_of(g), step_free_pages, &f);
}

static void guest_free_pages_done(struct guest *g)
{
	struct free_pages f = { .step = FREE_PAGES_DONE };

	machine_each_device(machine_of(g), step_free_pages, &f);
}

static int guest_park(struct guest *g, struct err *e)
{
	return on_owner(g, hold, false, e);
}

static int guest_unpark(struct guest *g, struct err *e)
{
	return on_owner(g, unhold, false, e);
}

static int guest_states_save(struct guest *g, struct tree *states, struct err *e)
{
	return machine_states_save(machine_of(g), states, e);
}

static bool guest_ran(struct guest *g)
{
	return machine_runs_after_hold(machine_of(g));
}

static int guest_rehearse(struct guest *g, struct guest_costs *out, struct err *e)
{
	struct machine_costs c;

	if (machine_rehearse(machine_of(g), &c, e))
		return -1;
	*out = (struct guest_costs){ c.park_us, c.save_us, c.states_bytes, c.load_us, c.start_us };
	return 0;
}

static int share_device(struct device *d, void *on)
{
	if (d->model->handover)
		d->model->handover->share(d, *(bool *)on);
	return 0;
}

static void guest_share(struct guest *g, bool on)
{
	machine_each_device(machine_of(g), share_device, &on);
}

static int settle_device(struct device *d, void *arg)
{
	(void)arg;
	if (d->model->handover)
		d->model->handover->settle(d);
	return 0;
}

static void guest_settle(struct guest *g)
{
	machine_each_device(machine_of(g), settle_device, NULL);
}

static void guest_throttle(struct guest *g, unsigned int vcpu, unsigned int permille)
{
	machine_throttle(machine_of(g), vcpu, permille);
}

static int guest_dirty_limit(struct guest *g, uint64_t bytes_per_s, struct err *e)
{
	return machine_dirty_limit(machine_of(g), bytes_per_s, e);
}

static uint64_t guest_vcpu_dirty_pages(struct guest *g, unsigned int vcpu)
{
	return machine_vcpu_dirty_pages(machine_of(g), vcpu);
}

static int begin_device_sync(struct device *d, void *arg)
{
	(void)arg;
	if (d->model->handover)
		d->model->handover->sync_begin(d);
	return 0;
}

static void guest_sync_begin(struct guest *g)
{
	machine_each_device(machine_of(g), begin_device_sync, NULL);
}

struct sync {
	bool all_done;
	struct err *e;
};

static int ask_device_sync(struct device *d, void *arg)
{
	struct sync *s = arg;
	int rc = d->model->handover ? d->model->handover->sync_done(d, s->e) : 1;

	s->all_done &= rc == 1;
	return rc < 0 ? -1 : 0;
}

static int guest_sync_done(struct guest *g, struct err *e)
{
	struct sync s = { .all_done = true, .e = e };

	return machine_each_device(machine_of(g), ask_device_sync, &s) ? -1 : s.all_done;
}

static void guest_release(struct guest *g)
{
	machine_release(machine_of(g));
}

static int guest_agent_open(struct guest *g, struct err *e)
{
	return machine_channel_open(machine_of(g), AGENT_CHANNEL, e);
}

static int guest_states_load(struct guest *g, const struct tree *states, uint64_t advance_ns,
			     struct err *e)
{
	return machine_states_load(machine_of(g), states, advance_ns, e);
}

static int guest_start(struct guest *g, bool run, const struct guest_last *last, struct err *e)
{
	struct call c = { .machine = machine_of(g), .run = run, .last = last, .e = e };

	loop_call(((struct guest_machine *)g)->owner_loop, start, &c);
	if (c.rc)
		return -1;
	if (!c.run || machine_await_entry(c.machine, ENTRY_MS, e) == 0)
		return 0;
	loop_call(((struct guest_machine *)g)->owner_loop, end_start, &c);
	return c.run ? 1 : -1;
}

/* -- on the owner's thread -- */

static int guest_may_leave(struct guest *g, struct err *e)
{
	enum machine_status s = machine_status(machine_of(g));

	if (s == MACHINE_RUNNING || s == MACHINE_PAUSED || s == MACHINE_PRELAUNCH ||
	    s == MACHINE_IO_ERROR)
		return 0;
	return err_set(e, "the VM cannot be migrated: its status is '%s'", machine_status_name(s));
}

static int guest_check_host(struct guest *g, struct err *e)
{
	return machine_check_host(machine_of(g), e);
}

static void guest_left(struct guest *g)
{
	machine_set_status(machine_of(g), MACHINE_POSTMIGRATE);
}

static void guest_set_announce(struct guest *g, const struct guest_announce *a)
{
	const struct announce announce = { .rounds = a->rounds,
					   .initial_ms = a->initial_ms,
					   .step_ms = a->step_ms,
					   .max_ms = a->max_ms };

	machine_set_announce(machine_of(g), &announce);
}

/* Takes what only one side may hold. -1: the other side has it, and nothing has changed here. */
static int acquire(struct machine *m, struct err *e)
{
	if (machine_acquire(m, e) == 0)
		return 0;
	machine_release(m);
	return -1;
}

static int guest_take_back(struct guest *g, struct err *e)
{
	if (acquire(machine_of(g), e))
		return -1;
	machine_log_stop(machine_of(g));
	return machine_unhold(machine_of(g), e) ? 1 : 0;
}

static int guest_take_over(struct guest *g, bool run, struct err *e)
{
	struct machine *m = machine_of(g);

	if (acquire(m, e))
		return -1;
	machine_set_status(m, MACHINE_PAUSED);
	if (!run || machine_resume(m, e) == 0)
		return 0;
	machine_set_status(m, MACHINE_INMIGRATE);
	machine_release(m);
	return -1;
}

static const struct guest_ops ops = {
	.log_start = guest_dirty_log_start,
	.log_fetch = guest_dirty_log_fetch,
	.log_clear = guest_dirty_log_clear,
	.log_stop = guest_dirty_log_stop,
	.touched = guest_touched,
	.names_free_pages = guest_names_free_pages,
	.free_pages_name = guest_free_pages_name,
	.free_pages_stop = guest_free_pages_stop,
	.free_pages_done = guest_free_pages_done,
	.park = guest_park,
	.unpark = guest_unpark,
	.states_save = guest_states_save,
	.ran = guest_ran,
	.rehearse = guest_rehearse,
	.share = guest_share,
	.settle = guest_settle,
	.throttle = guest_throttle,
	.dirty_limit = guest_dirty_limit,
	.vcpu_dirty_pages = guest_vcpu_dirty_pages,
	.sync_begin = guest_sync_begin,
	.sync_done = guest_sync_done,
	.release = guest_release,
	.agent_open = guest_agent_open,
	.states_load = guest_states_load,
	.start = guest_start,
	.may_leave = guest_may_leave,
	.check_host = guest_check_host,
	.left = guest_left,
	.set_announce = guest_set_announce,
	.take_back = guest_take_back,
	.take_over = guest_take_over,
};

void guest_machine_init(struct guest_machine *g, struct machine *m, struct loop *owner_loop)
{
	const struct memory *memory = machine_memory(m);
	unsigned int i;

	*g = (struct guest_machine){
		.guest = { .ops = &ops,
			   .tree = machine_tree(m),
			   .n_blocks = memory->n_blocks,
			   .n_vcpus = machine_n_vcpus(m),
			   .vcpu_dirty_known = machine_has_dirty_rings(m) },
		.machine = m,
		.owner_loop = owner_loop,
	};
	for (i = 0; i < memory->n_blocks; i++)
		g->guest.blocks[i] = (struct guest_block){
			.host = memory->blocks[i].host,
			.pages = memory->blocks[i].size / PAGE_SIZE,
		};
}
