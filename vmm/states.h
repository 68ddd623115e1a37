/*
 * The tree of all states of a machine, from and into plain structs. Pure; each thing costs the same
 * however many there are: the tree is written from beginning to end, and gone through once.
 */
#ifndef GODWIT_STATES_H
#define GODWIT_STATES_H

#include <stdint.h>

#include "vmm/tree.h"

struct err;
struct state_desc;

/* One thing that has a state: "/vm", or one of a group as "/cpus/cpu@3". */
struct state_thing {
	char path[TREE_PATH_MAX];
	const struct state_desc *desc;
	void *st; /* desc->size bytes, of the caller */
	int node; /* while loading: where it is; 0: not seen */
};

/* Things of one group are side by side. `bytes`: how large the tree will be, or 0; the caller frees
 * it. */
int states_write(const struct state_thing *things, unsigned int n, size_t bytes, struct tree *out,
		 struct err *e);

/*
 * Fills all the plain structs, checked. A thing whose state is missing, or comes twice, and a state
 * of which there is no thing, are errors. `steps`: see state_load_at.
 */
int states_read(const struct tree *states, struct state_thing *things, unsigned int n,
		uint64_t *steps, struct err *e);

/* The same in two steps: where each thing is; then one at a time, also several threads at once. */
int states_find(const struct tree *states, struct state_thing *things, unsigned int n,
		uint64_t *steps, struct err *e);
int states_read_one(const struct tree *states, const struct state_thing *t, uint64_t *steps,
		    struct err *e);

#endif
