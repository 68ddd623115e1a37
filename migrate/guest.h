/*
 * All that the migration engine knows of a VM. guest_machine.c implements it over a machine; the
 * unit tests over plain memory and threads that dirty it, without /dev/kvm.
 *
 * Called on the migration's thread.
 */
#ifndef GODWIT_MIGRATE_GUEST_H
#define GODWIT_MIGRATE_GUEST_H

#include <stdint.h>

#include "vmm/tree.h"

struct err;
struct guest;

#define GUEST_BLOCKS_MAX 8

struct guest_block {
	uint8_t *host;
	uint64_t pages;
};

struct guest_ops {
	/* Stops vCPUs and devices; -1 when the guest has ended just now. */
	int (*park)(struct guest *g, struct err *e);
	/* As it was before park, running or paused. */
	int (*unpark)(struct guest *g, struct err *e);
	/* Sets bits of `touched` (cleared by the caller) for pages that may be other than zero. */
	int (*touched)(struct guest *g, unsigned int block, uint64_t first, uint64_t n,
		       uint64_t *touched, struct err *e);
	/* Parked only. */
	int (*states_save)(struct guest *g, struct tree *states, struct err *e);
	int (*states_load)(struct guest *g, const struct tree *states, struct err *e);
};

/* Embedded first in each kind's own struct; set up before the migration, then constant. */
struct guest {
	const struct guest_ops *ops;
	const struct tree *tree; /* the machine tree */
	struct guest_block blocks[GUEST_BLOCKS_MAX];
	unsigned int n_blocks;
};

struct loop;
struct machine;

struct guest_machine {
	struct guest guest; /* first */
	struct machine *machine;
	struct loop *owner_loop;
};

/* `owner_loop` is the one whose thread owns the machine: parking is done there. */
void guest_machine_init(struct guest_machine *g, struct machine *m, struct loop *owner_loop);

#endif
