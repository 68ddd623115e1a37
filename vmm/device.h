/*
 * What a device is to the machine. vmm/ names no device: main.c hands a table of models to
 * machine_build(), which creates a device for each node below /devices from the model it names.
 *
 * Threads: a device's bus functions run on vCPU threads, everything else on the I/O thread, or
 * before it starts. The machine calls quiesce, save, load and activate only while all vCPUs are
 * parked.
 *
 *   create --> [load] --> activate --> quiesce --> save / load --> activate ... --> destroy
 *
 * A reset of the machine is: quiesce, load of the state that the device had when it was created,
 * activate. So there is no other reset path, and load must work on a device that has been used.
 */
#ifndef GODWIT_DEVICE_H
#define GODWIT_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/bus.h"
#include "vmm/state.h"
#include "vmm/tree.h"

struct err;
struct kvm;
struct loop;
struct memory;
struct dirty_log;

/* What a device may ask of the machine; any thread. */
enum machine_request {
	REQUEST_NONE,
	REQUEST_RESET,	    /* the guest asks for a reboot */
	REQUEST_HOST_RESET, /* the person at this end does */
	REQUEST_POWEROFF,   /* the guest has powered off */
	REQUEST_FAILED,	    /* the guest cannot go on: a vCPU met what KVM cannot run */
	REQUEST_QUIT, /* the person at this end wants the VM to end (console, signal, control) */
};

/* How often a guest that has come to this host is announced, and the pauses between in ms: the
 * first, by how much they grow, the longest. */
struct announce {
	unsigned int rounds, initial_ms, step_ms, max_ms;
};

/* QEMU's. */
#define ANNOUNCE_DEFAULT                                                     \
	(struct announce)                                                    \
	{                                                                    \
		.rounds = 5, .initial_ms = 50, .step_ms = 100, .max_ms = 550 \
	}

/* What the host's side could not do for the guest. */
struct device_io_error {
	bool write;    /* else a read */
	bool no_space; /* it has no room */
	bool stop;     /* the device waits for the guest to be stopped and resumed, and tries again;
			* else the guest was told */
	char reason[80];
};

struct device;

/* The part of the machine that devices use. Constant while the machine lives, but for `announce`,
 * which is set before the guest comes. */
struct device_env {
	struct kvm *kvm;
	struct memory *memory;
	struct dirty_log *log; /* for vCPUs */
	struct loop *io;
	struct bus *port_bus, *mmio_bus;
	void (*request)(void *machine, enum machine_request r);
	/* Any thread; may be called with the device's lock held. */
	void (*io_error)(void *machine, const struct device *d, const struct device_io_error *x);
	void *machine;
	bool incoming; /* the guest still runs elsewhere: leave it all that only one may have */
	struct announce announce;
};

struct device_model;

/* Embedded first in each device's own struct. */
struct device {
	const struct device_model *model;
	const struct device_env *env;
	char path[TREE_PATH_MAX]; /* of its node: names its state as well */
	char id[64];		  /* what messages call it */
};

/*
 * What a hand-over of the guest to another host asks of a device whose host side is shared with
 * that host: a disk. I/O thread. Nothing here waits for the host's disk.
 */
struct device_handover {
	/* A migration begins (its other side may prepare to take over), or it is over and the guest
	 * is still here. */
	void (*share)(struct device *d, bool on);

	/* The guest will soon be parked: begin to write out what it wrote. */
	void (*settle)(struct device *d);
	/* Quiesced. sync_begin begins to write out the rest. sync_done: 1 when that is done, 0 when
	 * not yet, -1 when it cannot be. activate may come in between. */
	void (*sync_begin)(struct device *d);
	int (*sync_done)(struct device *d, struct err *e);

	/* What only one side may have (a disk's lock). release: quiesced and synced; gives it up.
	 * acquire: takes it, again or for the first time; activate does that too. */
	void (*release)(struct device *d);
	int (*acquire)(struct device *d, struct err *e);

	/* Whether the host's side is still what the node says. Asked before the machine is moved or
	 * saved. */
	int (*check_host)(struct device *d, struct err *e);
};

struct device_balloon {
	uint64_t wanted_bytes, actual_bytes;
};

/*
 * FREE_PAGES_NAME: the guest is asked to name pages that it does not use. Each is told to `found`,
 * on the I/O thread, until the next step. The guest may never answer. It may write to a page that
 * it has named, even before `found` is told: a caller that leaves pages out must watch for writes
 * to them before it asks. FREE_PAGES_STOP: names are of no use any more. FREE_PAGES_DONE: pages
 * that are left out keep their content from now on. Before that the guest reads such a page at its
 * own risk.
 */
enum free_pages_step { FREE_PAGES_NAME, FREE_PAGES_STOP, FREE_PAGES_DONE };

struct free_pages {
	enum free_pages_step step;
	void (*found)(void *arg, uint64_t gpa, uint64_t len); /* whole pages of one block */
	void *arg;
};

/* Memory that the guest does without. I/O thread. */
struct device_balloon_ops {
	/* How much the guest shall give the host; and how much it has given. */
	void (*set)(struct device *d, uint64_t bytes);
	void (*ask)(struct device *d, struct device_balloon *b);

	/* Whether the guest would name pages that it does not use now; and the steps of that. */
	bool (*names_free_pages)(struct device *d);
	void (*free_pages)(struct device *d, const struct free_pages *f);
};

struct device_model {
	const char *name; /* the node's `model` */

	/* What is saved; NULL only for a device that has no state at all, which says why. */
	const struct state_desc *state;
	const char *stateless;

	/*
	 * Only when a machine is made from a command line: adds to the node what the guest will
	 * see of the host's side (a disk's capacity). May be NULL.
	 */
	int (*probe)(struct tree *t, const char *path, struct err *e);

	/* Opens the host's side as /host/ID says; refuses what does not fit the node. */
	int (*create)(const struct device_env *env, const struct tree *t, const char *path,
		      struct device **out, struct err *e);
	void (*destroy)(struct device *d); /* also one that was never activated */

	/* Starts work: watches its fds, looks at its queues, repeats a pending interrupt. */
	int (*activate)(struct device *d, struct err *e);

	/* Finishes or takes back what is under way, and touches nothing until activate. */
	void (*quiesce)(struct device *d);

	/* Copies the state out; `st` has state->size bytes, zeroed. */
	void (*save)(struct device *d, void *st);

	/*
	 * Takes a checked state in. Whether it fits this device is asked first, for all devices
	 * of the machine, with `fits` (may be NULL); then `load` cannot fail.
	 */
	int (*fits)(struct device *d, const void *st, struct err *e);
	void (*load)(struct device *d, const void *st);

	/* Groups of functions that few devices have. NULL: this device has none of the group. */
	const struct device_handover *handover;
	const struct device_balloon_ops *balloon;

	/* Single functions that few devices have; NULL if not. I/O thread. */

	/* Quiesced for good, since the guest runs on another host: lets go of programs of this host
	 * that talked to it. */
	void (*depart)(struct device *d);

	/* A disk becomes `bytes` large (0: as large as its image is now): the guest is told, and
	 * the node says so from then on. */
	int (*resize)(struct device *d, struct tree *t, uint64_t bytes, struct err *e);

	/* The guest has just come from another host or a file, and runs: tell the network. */
	void (*announce)(struct device *d);

	/*
	 * A channel between a program in the guest and one of this host: `fd` (a non-blocking
	 * socket, which is the device's once this returns 0) becomes the host's end of the one of
	 * that name, until the other end of the socket is closed. 1: it has no such channel. -1: it
	 * is not free, or nobody listens at the guest's end.
	 */
	int (*channel_attach)(struct device *d, const char *name, int fd, struct err *e);

	/* A person presses the machine's power button. */
	void (*press_power_button)(struct device *d);
};

/* Fills the common part from the node; for the models' create. */
int device_init(struct device *d, const struct device_model *model, const struct device_env *env,
		const struct tree *t, const char *path, struct err *e);

/*
 * Where the registers of a device are that has `bytes` of them, as its node says: `reg` is a range
 * of memory, `port` one of ports.
 */
struct device_window {
	struct bus *bus;
	uint64_t base;
};
int device_find_window(const struct device_env *env, const struct tree *t, const char *path,
		       uint32_t bytes, struct device_window *w, struct err *e);

/* The path "/host/ID" of the device's host side. */
void device_host_path(const struct device *d, char path[TREE_PATH_MAX]);

#endif
