/*
 * The machine from within: for machine.c, which builds it and runs it, machine_boot.c, which loads
 * its kernel, machine_states.c, which saves and loads its state, machine_devices.c, which asks
 * something of all devices, and machine_errors.c. Nobody else includes this.
 */
#ifndef GODWIT_MACHINE_INTERNAL_H
#define GODWIT_MACHINE_INTERNAL_H

#include <pthread.h>

#include "vmm/arch.h"
#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/dirty_log.h"
#include "vmm/kvm.h"
#include "vmm/loop.h"
#include "vmm/machine.h"
#include "vmm/memory.h"
#include "vmm/vcpu.h"

#define DEVICES_MAX 64

/* What devices could not do, for the owner to hear: machine_errors.c. */
struct machine_errors {
	pthread_mutex_t lock;
	struct device_io_error of[DEVICES_MAX];
	bool waits[DEVICES_MAX];
};

/* Plain states of all parts of one machine, each of its state_desc's size. */
struct snapshot {
	void *vm;
	void **vcpus;	/* n_vcpus */
	void **devices; /* n_devices; NULL for one without state */
};

struct machine {
	/* Set by machine_build, then constant. */
	struct tree tree;
	const char *name; /* in the tree */
	struct kvm kvm;
	struct memory memory;
	struct dirty_log log;
	struct bus port_bus, mmio_bus;
	struct loop io;
	bool io_made, io_started, kvm_made;
	struct arch *arch;
	struct device_env env;
	struct device *devices[DEVICES_MAX];
	unsigned int n_devices;
	struct vcpu *vcpus;
	unsigned int n_vcpus;
	struct loop *owner_loop;
	struct machine_events events;
	struct snapshot pristine;
	/* For states_save and states_load: made by the first of them, then kept, since memory that
	 * is touched for the first time costs more than what is done with it. */
	struct snapshot moved;
	size_t states_bytes; /* of the last tree of states, and some more; 0: there was none */
	struct machine_costs costs; /* of taking the pristine one, and of loading it again */

	/* Owner's thread. */
	enum machine_status status;
	enum machine_arrival arrival;
	bool running; /* devices active, vCPUs not asked to park */
	bool held, run_after_hold;
	bool released; /* machine_release gave up what only one side may have */
	bool announce; /* the guest has been elsewhere: the next resume tells the network */
	bool stands;   /* since a moment that is known */
	struct arch_moment stood_at;
	int kernel_fd, initrd_fd;
	bool used; /* guest memory is no longer all zero */

	bool stopped_by_error; /* until it is resumed or reset */

	struct machine_errors errors;
	uint32_t requested; /* atomic: the weightiest request not yet delivered */
};

/* -- machine_states.c -- */

/* The pristine snapshot, at launch. What it costs is measured, and of a machine whose guest will
 * come from elsewhere also what loading costs, by loading what it is anyway. */
int machine_first_snapshot(struct machine *m, struct err *e);

/* All of it as it is now, into what a snapshot has already, or into a new one; the caller frees it.
 */
int machine_snapshot_take(struct machine *m, struct snapshot *s, struct err *e);
/* One that has been checked; the guest's clocks have gone on by so much. KVM may still refuse a
 * value: then the machine must not run. */
int machine_snapshot_apply(struct machine *m, struct snapshot *s, uint64_t advance_ns,
			   struct err *e);
void machine_snapshot_free(struct machine *m, struct snapshot *s);

/* A parked guest's time stands, however long it takes to write its memory down: its states are
 * those of this moment. */
void machine_stand_now(struct machine *m);

/* -- machine_errors.c -- */

void machine_errors_init(struct machine *m);
void machine_errors_free(struct machine *m);
void machine_io_error(void *machine, const struct device *d, const struct device_io_error *x);
/* The guest goes on, or begins anew: what it was to be stopped for is tried again, or forgotten. */
void machine_errors_forget(struct machine *m);

/* -- machine_devices.c -- */

/* What the host has of the guest's RAM by the balloon, as wanted and as it is. */
int machine_ask_balloon(struct machine *m, struct device_balloon *b, struct err *e);
void machine_set_ballooned(struct machine *m, uint64_t bytes);

#endif
