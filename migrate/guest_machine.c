/*
 * A machine as the engine sees it: see guest.h. The only file here that knows vmm/machine.h. Runs
 * on the migration's thread; what changes the machine's course is done on its owner's thread.
 */
#include "migrate/guest.h"

#include <stdlib.h>

#include "vmm/base/err.h"
#include "vmm/loop.h"
#include "vmm/machine.h"
#include "vmm/memory.h"

struct call {
	struct machine *machine;
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

static int on_owner(struct guest *g, void (*fn)(void *arg), struct err *e)
{
	struct guest_machine *gm = (struct guest_machine *)g;
	struct call c = { .machine = gm->machine, .e = e };

	loop_call(gm->owner_loop, fn, &c);
	return c.rc;
}

static int park(struct guest *g, struct err *e)
{
	return on_owner(g, hold, e);
}

static int unpark(struct guest *g, struct err *e)
{
	return on_owner(g, unhold, e);
}

static int touched(struct guest *g, unsigned int block, uint64_t first, uint64_t n, uint64_t *bits,
		   struct err *e)
{
	const struct memory *m = machine_memory(((struct guest_machine *)g)->machine);

	return memory_touched(m, &m->blocks[block], first, n, bits, e);
}

static int states_save(struct guest *g, struct tree *states, struct err *e)
{
	return machine_states_save(((struct guest_machine *)g)->machine, states, e);
}

static int states_load(struct guest *g, const struct tree *states, struct err *e)
{
	return machine_states_load(((struct guest_machine *)g)->machine, states, e);
}

static const struct guest_ops ops = {
	.park = park,
	.unpark = unpark,
	.touched = touched,
	.states_save = states_save,
	.states_load = states_load,
};

void guest_machine_init(struct guest_machine *g, struct machine *m, struct loop *owner_loop)
{
	const struct memory *memory = machine_memory(m);
	unsigned int i;

	*g = (struct guest_machine){
		.guest = { .ops = &ops, .tree = machine_tree(m), .n_blocks = memory->n_blocks },
		.machine = m,
		.owner_loop = owner_loop,
	};
	for (i = 0; i < memory->n_blocks; i++)
		g->guest.blocks[i] = (struct guest_block){
			.host = memory->blocks[i].host,
			.pages = memory->blocks[i].size / PAGE_SIZE,
		};
}
