/*
 * All that the migration engine knows of a VM. guest_machine.c implements it over a machine; the
 * unit tests over plain memory and threads that dirty it, without /dev/kvm.
 *
 * Called on the migration's thread.
 */
#ifndef GODWIT_MIGRATE_GUEST_H
#define GODWIT_MIGRATE_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/tree.h"

struct err;
struct guest;

#define GUEST_BLOCKS_MAX 8

struct guest_block {
	uint8_t *host;
	uint64_t pages;
};

/* What parts of a pause cost on one host; 0: not known. */
struct guest_costs {
	uint64_t park_us;      /* source: vCPUs stop */
	uint64_t save_us;      /* source: the states are collected */
	uint64_t states_bytes; /* that are sent then */
	uint64_t load_us;      /* destination: they are checked and loaded */
	uint64_t start_us;     /* destination: vCPUs start */
};

/* Pages [first, first + n) of a block. */
typedef void guest_found_fn(void *arg, unsigned int block, uint64_t first, uint64_t n);

/* The last moment to say no, before a guest that has arrived is let run: -1 with the reason. Called
 * on the thread that owns the machine. */
struct guest_last {
	int (*ask)(void *arg, struct err *e);
	void *arg;
};

struct guest_ops {
	/* The dirty log of one block; see vmm/dirty_log.h. fetch adds to `bits`; those of clear begin
	 * at page `first`. */
	int (*log_start)(struct guest *g, struct err *e);
	int (*log_fetch)(struct guest *g, unsigned int block, uint64_t *bits, struct err *e);
	int (*log_clear)(struct guest *g, unsigned int block, uint64_t first, uint64_t n,
			 const uint64_t *bits, struct err *e);
	void (*log_stop)(struct guest *g);

	/* Sets bits of `touched` (cleared by the caller) for pages that may be other than zero. */
	int (*touched)(struct guest *g, unsigned int block, uint64_t first, uint64_t n,
		       uint64_t *touched, struct err *e);

	/*
	 * Source, while the log runs: whether the guest would name pages that it does not use
	 * (NULL: no). `name` asks it to; each is told to `found`, on another thread, until `stop`
	 * returns. It may never answer, and write to what it has named at any time, also before
	 * `found` is told. Before `done` it does not count on what such a page holds; from then on
	 * it may. The order is name, stop, done.
	 */
	bool (*names_free_pages)(struct guest *g);
	void (*free_pages_name)(struct guest *g, guest_found_fn *found, void *arg);
	void (*free_pages_stop)(struct guest *g);
	void (*free_pages_done)(struct guest *g);

	/* Stops vCPUs and devices; -1 when the guest has ended just now. */
	int (*park)(struct guest *g, struct err *e);
	/* As it was before park, running or paused, with all it had (disk locks). */
	int (*unpark)(struct guest *g, struct err *e);

	/* Parked only: the states; and whether the guest ran before park. */
	int (*states_save)(struct guest *g, struct tree *states, struct err *e);
	bool (*ran)(struct guest *g);

	/*
	 * Source, while the guest runs: what the parts of a pause cost on this host, measured now
	 * or when the guest was made. NULL, or -1: nothing is known.
	 */
	int (*rehearse)(struct guest *g, struct guest_costs *out, struct err *e);

	/* Source: a migration to another host begins; or it is over, and the guest still here. */
	void (*share)(struct guest *g, bool on);
	/* Source: the guest will soon be parked: begins what makes sync short, and does not wait.
	 */
	void (*settle)(struct guest *g);
	/*
	 * Source: keeps a vCPU from running for that share of its time, in permille, by naps
	 * of at most 10 ms (vmm/throttle.h); 0: none. Holds until it is set anew: whoever set it
	 * takes it off. Any thread.
	 */
	void (*throttle)(struct guest *g, unsigned int vcpu, unsigned int permille);
	/* Source: lets each vCPU dirty so many bytes a second, 0: no limit; one that would dirty
	 * more naps. Holds like the throttle, and beside it. -1 unless vcpu_dirty_known. */
	int (*dirty_limit)(struct guest *g, uint64_t bytes_per_s, struct err *e);
	/* Pages that a vCPU has dirtied while the log ran, which only ever grows; NULL, or always
	 * 0, where that is not known. A page counts again when it was protected again. Any thread.
	 */
	uint64_t (*vcpu_dirty_pages)(struct guest *g, unsigned int vcpu);

	/* Source, parked: what the guest wrote to its disks is to be there, for other hosts to
	 * read. sync_begin begins that; sync_done: 1 it is there, 0 not yet, -1 it cannot be.
	 * Neither waits for a disk; unpark may come in between. */
	void (*sync_begin)(struct guest *g);
	int (*sync_done)(struct guest *g, struct err *e);
	/* Source, parked: gives up what only one side may hold, so that the other can take it. */
	void (*release)(struct guest *g);

	/*
	 * A connection to the guest's agent (migrate/agent/agent.h), while the guest runs: a
	 * non-blocking socket, which the caller closes; -1: there is no agent, or the channel to it
	 * is not free. NULL: never. Any thread.
	 */
	int (*agent_open)(struct guest *g, struct err *e);

	/* Destination: takes the states in, the guest's clock advanced by `advance_ns`. */
	int (*states_load)(struct guest *g, const struct tree *states, uint64_t advance_ns,
			   struct err *e);
	/*
	 * Destination: lets it run, or leaves it paused. Where nothing can come in between any
	 * more, `last` is asked first: -1 there, and nothing was started. 0: every vCPU has run, or
	 * it is paused. -1: nothing of it has run, and never will: the source may have it all
	 * again. 1: it has run, and cannot go on.
	 */
	int (*start)(struct guest *g, bool run, const struct guest_last *last, struct err *e);
};

/* Embedded first in each kind's own struct; set up before the migration, then constant. */
struct guest {
	const struct guest_ops *ops;
	const struct tree *tree; /* the machine tree */
	struct guest_block blocks[GUEST_BLOCKS_MAX];
	unsigned int n_blocks;
	unsigned int n_vcpus;
	bool vcpu_dirty_known; /* there are dirty rings: who dirties how much */
};

struct loop;
struct machine;

struct guest_machine {
	struct guest guest; /* first */
	struct machine *machine;
	struct loop *owner_loop;
	guest_found_fn *found; /* who hears of free pages: set while nobody is told */
	void *found_arg;
};

/* A destination needs no log; a source needs all. `owner_loop` is the one whose thread owns the
 * machine: parking is done there. */
void guest_machine_init(struct guest_machine *g, struct machine *m, struct loop *owner_loop);

#endif
