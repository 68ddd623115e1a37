/*
 * All that the migration engine knows of a VM. guest_machine.c implements it over a machine; the
 * unit tests implement it over plain memory and threads that dirty it, without /dev/kvm.
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

/* How a guest that has arrived is announced; the times in ms. */
struct guest_announce {
	unsigned int rounds, initial_ms, step_ms, max_ms;
};

/* Pages [first, first + n) of a block. */
typedef void guest_found_fn(void *arg, unsigned int block, uint64_t first, uint64_t n);

/* Asked right before a guest that has arrived is let run: -1, with the reason, keeps it from that.
 * Called on the thread that owns the machine. */
struct guest_last {
	int (*ask)(void *arg, struct err *e);
	void *arg;
};

/*
 * All are mandatory. They are called on the migration's thread, except those for which another
 * thread is named.
 */
struct guest_ops {
	/* -- both sides -- */

	/*
	 * Sets bits of `touched` (cleared by the caller) for the pages of [first, first + n) that
	 * may be other than zero.
	 */
	int (*touched)(struct guest *g, unsigned int block, uint64_t first, uint64_t n,
		       uint64_t *touched, struct err *e);
	/*
	 * Opens a connection to the guest's agent (migrate/agent/agent.h) while the guest runs: a
	 * non-blocking socket, which the caller closes. -1: there is no agent, or its channel is in
	 * use. Any thread.
	 */
	int (*agent_open)(struct guest *g, struct err *e);

	/* -- the source, while the guest runs -- */

	/*
	 * The dirty log of one block; see vmm/dirty_log.h. fetch adds to `bits`. The bits of clear
	 * begin at page `first`.
	 */
	int (*log_start)(struct guest *g, struct err *e);
	int (*log_fetch)(struct guest *g, unsigned int block, uint64_t *bits, struct err *e);
	int (*log_clear)(struct guest *g, unsigned int block, uint64_t first, uint64_t n,
			 const uint64_t *bits, struct err *e);
	void (*log_stop)(struct guest *g);
	/*
	 * Free page hints. names_free_pages: whether the guest would name pages that it does not
	 * use; only then are the others called, in the order name, stop, done, while the log runs.
	 * After `name` the guest tells `found` of each page, on another thread, until `stop`
	 * returns. It may never answer. It may write to a named page at any time, also before
	 * `found` is told. It does not count on what such a page holds before `done`, and may do so
	 * afterwards.
	 */
	bool (*names_free_pages)(struct guest *g);
	void (*free_pages_name)(struct guest *g, guest_found_fn *found, void *arg);
	void (*free_pages_stop)(struct guest *g);
	void (*free_pages_done)(struct guest *g);
	/* What the parts of a pause cost on this host, measured now or when the guest was made. -1:
	 * nothing is known. */
	int (*rehearse)(struct guest *g, struct guest_costs *out, struct err *e);
	/* on: a migration to another host begins. Off: it is over, and the guest is still here. */
	void (*share)(struct guest *g, bool on);
	/* The guest will soon be parked: begins to sync its disks, and does not wait. */
	void (*settle)(struct guest *g);
	/*
	 * Keeps a vCPU from running for that share of its time, in permille, by naps of at most
	 * 10 ms (vmm/throttle.h); 0: no throttle. It holds until it is set anew, so the caller that
	 * set it must set 0 at the end. Any thread.
	 */
	void (*throttle)(struct guest *g, unsigned int vcpu, unsigned int permille);
	/*
	 * Lets each vCPU dirty that many bytes a second; 0: no limit. A vCPU that would dirty more
	 * naps. Holds like the throttle, and beside it. -1 unless vcpu_dirty_known.
	 */
	int (*dirty_limit)(struct guest *g, uint64_t bytes_per_s, struct err *e);
	/*
	 * The pages that a vCPU has dirtied while the log ran. The number only grows; it stays 0
	 * unless vcpu_dirty_known. A page counts again after it was protected again. Any thread.
	 */
	uint64_t (*vcpu_dirty_pages)(struct guest *g, unsigned int vcpu);

	/* -- the source, hand-over -- */

	/* Stops vCPUs and devices; -1 if the guest has ended just now. */
	int (*park)(struct guest *g, struct err *e);
	/* Back to what it was before park, running or paused, with all it had (disk locks). */
	int (*unpark)(struct guest *g, struct err *e);
	/* Parked: collects the states. */
	int (*states_save)(struct guest *g, struct tree *states, struct err *e);
	/* Parked: whether the guest ran before park. */
	bool (*ran)(struct guest *g);
	/*
	 * Parked: makes what the guest wrote to its disks readable by other hosts. sync_begin
	 * begins that. sync_done: 1 done, 0 not yet, -1 it cannot be done. Neither waits for a
	 * disk; unpark may come in between.
	 */
	void (*sync_begin)(struct guest *g);
	int (*sync_done)(struct guest *g, struct err *e);
	/* Parked: gives up what only one side may hold, so that the other side can take it. */
	void (*release)(struct guest *g);

	/* -- the destination -- */

	/* Loads the states; the guest's clock is advanced by `advance_ns`. */
	int (*states_load)(struct guest *g, const struct tree *states, uint64_t advance_ns,
			   struct err *e);
	/*
	 * Lets the guest run, or leaves it paused. When nothing can come in between any more,
	 * `last` is asked; if it says no, the result is -1. 0: every vCPU has run, or the guest is
	 * paused. -1: nothing of it has run or ever will, so the source may have it again. 1: it
	 * has run, and cannot go on.
	 */
	int (*start)(struct guest *g, bool run, const struct guest_last *last, struct err *e);

	/* -- on the thread that owns the machine, while no migration runs -- */

	/* -1: the guest cannot leave in its present status. */
	int (*may_leave)(struct guest *g, struct err *e);
	/* -1: the host's side of the machine is not what its tree says. */
	int (*check_host)(struct guest *g, struct err *e);
	/* The guest now runs elsewhere, or lies in a file. */
	void (*left)(struct guest *g);
	/* How a guest that is about to arrive will be announced to the network. */
	void (*set_announce)(struct guest *g, const struct guest_announce *a);
	/*
	 * Source, after a hand-over of which nobody knows the end: the guest is here again, as it
	 * was before park. 0, or -1 and nothing has changed: the other side holds what only one may
	 * have. 1: it is here again and nobody else's, but it cannot run, and is paused.
	 */
	int (*take_back)(struct guest *g, struct err *e);
	/* The same at the destination: lets it run, or leaves it paused. 0, or -1: as before. */
	int (*take_over)(struct guest *g, bool run, struct err *e);
};

/* Embedded first in each kind's own struct; set up before the migration, then constant. */
struct guest {
	const struct guest_ops *ops;
	const struct tree *tree; /* the machine tree */
	struct guest_block blocks[GUEST_BLOCKS_MAX];
	unsigned int n_blocks;
	unsigned int n_vcpus;
	bool vcpu_dirty_known; /* there are dirty rings: it is known how much each vCPU dirties */
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

/* `owner_loop` is the loop whose thread owns the machine: the guest is parked there. */
void guest_machine_init(struct guest_machine *g, struct machine *m, struct loop *owner_loop);

#endif
