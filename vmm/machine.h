/*
 * A machine: built from a tree, started, parked, resumed, its states saved and loaded, destroyed.
 *
 *   build --> launch --> boot or states_load --> resume <--> park ... --> destroy
 *
 * Threads: the thread of owner_loop calls these functions; vCPUs and devices talk back only by
 * machine_request(), which any thread may call. A migration holds the machine (machine_hold, by a
 * loop_call to the owner): until it lets go, the owner does not run it, and the migration's thread
 * may save and load the states.
 * Nothing here ends the process.
 */
#ifndef GODWIT_MACHINE_H
#define GODWIT_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/device.h"
#include "vmm/loop.h"
#include "vmm/memory.h"
#include "vmm/tree.h"

struct err;
struct machine;

/* QEMU's RunState names, as query-status tells them. */
enum machine_status {
	MACHINE_PRELAUNCH, /* built, never ran */
	MACHINE_RUNNING,
	MACHINE_PAUSED,
	MACHINE_INMIGRATE,	/* waits for its state from another host */
	MACHINE_FINISH_MIGRATE, /* parked to be saved or handed over */
	MACHINE_POSTMIGRATE,	/* its guest runs on another host, or lies in a file */
	MACHINE_SHUTDOWN,	/* the guest powered off */
	MACHINE_INTERNAL_ERROR, /* the guest met what KVM cannot run */
	MACHINE_IO_ERROR, /* paused because the host could not do what the guest asked of a disk */
};

/* "prelaunch", "running", "paused", "inmigrate", "finish-migrate", ... */
const char *machine_status_name(enum machine_status s);

/* Events for the owner, called on its loop's thread. */
struct machine_events {
	void (*request)(void *arg, enum machine_request r);
	void *arg;
	/* A device could not do what the guest asked; if `stop`, call machine_stop_for_error. */
	void (*io_error)(void *arg, const char *id, const struct device_io_error *x);
};

/*
 * Makes everything that the tree describes and opens what it needs of the host: memory, VM,
 * irqchip, vCPUs, each device from `models` (NULL-terminated). It starts no thread. A fresh machine
 * comes from a command line: machine_build first adds to its tree what the guest will see of this
 * host (the models' and the processors' probe). Any other tree is complete, and is refused if this
 * host cannot provide it. Requests are delivered on `owner_loop`. On -1 nothing is left; the
 * sentence begins with the path or id of what could not be provided. The machine keeps its own
 * packed copy of the tree.
 */
enum machine_origin {
	ORIGIN_FRESH,	 /* from a command line */
	ORIGIN_FILE,	 /* its states lie in a file */
	ORIGIN_INCOMING, /* its guest still runs elsewhere, with the same disks */
};

int machine_build(struct tree *t, enum machine_origin origin,
		  const struct device_model *const *models, struct loop *owner_loop,
		  const struct machine_events *events, struct machine **out, struct err *e);

/*
 * Starts the threads, all of them waiting. The process gives up its rights between build and
 * launch, because each thread has rights of its own.
 */
int machine_launch(struct machine *m, struct err *e);
void machine_destroy(struct machine *m);

/*
 * Opens the kernel (and initrd) that /host/boot names, for when the guest reboots. Before rights
 * are given up. A machine that came from another host runs on without them.
 */
int machine_open_boot(struct machine *m, struct err *e);

/* Loads kernel and initrd, before the first start of a fresh machine. */
int machine_boot(struct machine *m, struct err *e);

/* Lets the guest run, for the first time or after machine_park(). Idempotent. -1 while held. */
int machine_resume(struct machine *m, struct err *e);

/* Stops all vCPUs, then the devices, which finish their I/O. Idempotent. */
void machine_park(struct machine *m);

/*
 * Parks a guest that runs. The status is IO_ERROR until machine_resume, which tries again what
 * failed. False if the guest did not run.
 */
bool machine_stop_for_error(struct machine *m);

/*
 * After machine_resume, not on the owner's thread: waits up to `ms` until KVM has run every vCPU.
 * 0: it has, as far as can be known. -1: one of them cannot run (and the machine has also sent its
 * owner REQUEST_FAILED).
 */
int machine_await_entry(struct machine *m, unsigned int ms, struct err *e);

/* Parked: whether KVM may have run anything of the guest since the last machine_resume. */
bool machine_has_run(struct machine *m);

/* Takes back a request that was not delivered yet; whether there was one of that kind. */
bool machine_take_request(struct machine *m, enum machine_request r);

/*
 * Parks the guest for a migration: the status becomes FINISH_MIGRATE. If the guest has just asked
 * for a reboot, that is carried out first, so that it is not lost. -1: the guest has ended, or is
 * about to, and is not held. machine_unhold goes back to how it was, running or paused. (-1: the
 * guest cannot run, and is paused.)
 */
int machine_hold(struct machine *m, struct err *e);
int machine_unhold(struct machine *m, struct err *e);
bool machine_runs_after_hold(const struct machine *m);

/*
 * Calls fn for each device on the I/O thread, which does nothing else meanwhile, until one returns
 * other than 0; returns that. Any thread but vCPUs'.
 */
int machine_each_device(struct machine *m, int (*fn)(struct device *d, void *arg), void *arg);

/*
 * What only one side of a hand-over may have (the locks of disks). A machine that was built as
 * `incoming` has only enough of it to keep a third one from taking it, until it is first resumed,
 * or acquires it. The source releases when it is held and synced; machine_unhold takes back.
 */
void machine_release(struct machine *m);
int machine_acquire(struct machine *m, struct err *e);

/* Whether the host's side of the machine is what its tree says, for another host to take it over;
 * the sentence says what to do. Owner's thread. */
int machine_check_host(struct machine *m, struct err *e);

/*
 * Makes the disk `id` `bytes` large, 0: as large as its image is now. A disk never shrinks. The
 * guest is told, and the tree is changed: so not while a migration may have sent it. Owner's
 * thread.
 */
int machine_resize_disk(struct machine *m, const char *id, uint64_t bytes, struct err *e);

/* The dirty log of a memory block (dirty_log.h). One thread: the migration's. */
int machine_log_start(struct machine *m, struct err *e);
int machine_log_fetch(struct machine *m, unsigned int block, uint64_t *bits, struct err *e);
int machine_log_clear(struct machine *m, unsigned int block, uint64_t first, uint64_t n,
		      const uint64_t *bits, struct err *e);
void machine_log_stop(struct machine *m);

/*
 * Pages that the vCPU has dirtied while the log ran. A page counts again after it was protected
 * again; the number only ever grows. 0 without dirty rings. Any thread.
 */
uint64_t machine_vcpu_dirty_pages(struct machine *m, unsigned int vcpu);
bool machine_has_dirty_rings(const struct machine *m);

/*
 * Keeps a vCPU from running for this share of its time, in permille, up to THROTTLE_MAX_PERMILLE
 * (throttle.h); 0: it runs freely. It naps for at most 10 ms at a time, and any request ends a nap.
 * The throttle stays while the guest is parked, and over a reset. Any thread.
 */
void machine_throttle(struct machine *m, unsigned int vcpu, unsigned int permille);

/*
 * Limits how much each vCPU dirties, in bytes a second; 0: no limit. A vCPU that would dirty more
 * naps, as if throttled; the others run freely. Pages are counted as by machine_vcpu_dirty_pages,
 * so the limit works only while the log runs. -1 without dirty rings. Any thread.
 */
int machine_dirty_limit(struct machine *m, uint64_t bytes_per_s, struct err *e);

/* Parks the guest, sets the machine back to how it was built, and loads the kernel again. The
 * caller resumes it. */
int machine_reset(struct machine *m, struct err *e);

/*
 * Parked only: all states as a tree, and back, with the guest's clocks advanced by `advance_ns`. A
 * tree that is refused has changed nothing; if KVM itself does not take a value that was checked,
 * the machine must not run (destroy or reset it).
 */
int machine_states_save(struct machine *m, struct tree *states, struct err *e);
int machine_states_load(struct machine *m, const struct tree *states, uint64_t advance_ns,
			struct err *e);

/* What the parts of a pause cost on this host, as rehearsed; 0: not known. */
struct machine_costs {
	uint64_t park_us, start_us; /* all vCPUs have heard that they are to stand, or to run */
	uint64_t save_us, load_us;  /* the states are collected, or checked and loaded */
	uint64_t states_bytes;	    /* of their tree */
};

/*
 * Rehearses those parts of a pause that can be rehearsed while the guest runs, and says what all
 * parts cost (load_us only of a machine that was built as `incoming`). Not while states are saved
 * or loaded. Any thread.
 */
int machine_rehearse(struct machine *m, struct machine_costs *out, struct err *e);

/*
 * Connects to the guest's end of a channel, like a program of this host that uses the channel's
 * socket. Returns a non-blocking socket, which the caller closes. -1: there is no such channel, a
 * program of this host is connected to it, or nothing in the guest listens. Any thread except the
 * I/O thread.
 */
int machine_channel_open(struct machine *m, const char *name, struct err *e);

/*
 * Asks the guest to keep `bytes` of its RAM, at least a page, and to give the rest to the host. It
 * does so as far as it can, now or when it runs, and again after a reset. machine_balloon says how
 * much it has. -1: the machine has no balloon. Owner's thread.
 */
int machine_set_balloon(struct machine *m, uint64_t bytes, struct err *e);
int machine_balloon(struct machine *m, uint64_t *bytes, struct err *e);

/* The guest has gone to another host: lets go of the programs of this host that talked to it. */
void machine_depart(struct machine *m);

/* The ACPI power button. */
void machine_press_power_button(struct machine *m);

enum machine_status machine_status(const struct machine *m);
/* For the statuses that vmm/ does not set by itself: INMIGRATE, FINISH_MIGRATE, POSTMIGRATE. */
void machine_set_status(struct machine *m, enum machine_status s);

/* Whether a guest that is still coming will run here. Until somebody decides: as it was at the
 * source. */
enum machine_arrival { ARRIVAL_AS_IT_WAS, ARRIVAL_PAUSED, ARRIVAL_RUNNING };

/* Owner's thread. */
void machine_set_arrival(struct machine *m, enum machine_arrival a);
enum machine_arrival machine_arrival(const struct machine *m);

/* How a guest that comes here is announced to the network. Before it runs. */
void machine_set_announce(struct machine *m, const struct announce *a);

const char *machine_name(const struct machine *m);
const struct tree *machine_tree(const struct machine *m);
struct memory *machine_memory(struct machine *m);
unsigned int machine_n_vcpus(const struct machine *m);
int machine_vcpu_thread_id(const struct machine *m, unsigned int vcpu);

/* Any thread; delivered on the owner's loop. A later request of more weight wins. */
void machine_request(void *machine, enum machine_request r);

#endif
