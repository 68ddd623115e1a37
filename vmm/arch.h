/*
 * The seam between the machine and its processor architecture: all that differs by architecture is
 * behind these functions, in vmm/<arch>/. No #ifdef anywhere else.
 */
#ifndef GODWIT_ARCH_H
#define GODWIT_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/state.h"

struct err;
struct kvm;
struct memory;
struct probe_result;
struct tree;
struct vcpu;

/* Making a tree: pure, the host is not asked. */

/* "godwit,x86_64": the machine tree's `compatible`. */
extern const char arch_compatible[];

/* The kernel command line of a VM that was given none. */
extern const char arch_default_cmdline[];

/* The /memory@ nodes for so many bytes of RAM. */
int arch_tree_memory(struct tree *t, uint64_t bytes, struct err *e);

/* Gives a device node its place by its model (port or reg, interrupts); -1 when there is none. */
int arch_tree_place(struct tree *t, const char *device_path, struct err *e);

/* Only when a machine is made from a command line: what the processors of this host offer. */
int arch_tree_probe(struct tree *t, const struct kvm *kvm, struct err *e);

/* What an architecture keeps of a machine: constant once made. */
struct arch;

/* Makes what comes before the vCPUs (interrupt controllers, timers); checks the tree's CPU. */
int arch_init(struct arch **out, struct kvm *kvm, const struct tree *t, struct err *e);
void arch_free(struct arch *a);
uint32_t arch_max_vcpus(const struct kvm *kvm);

/* After KVM_CREATE_VCPU: makes it the CPU that the tree says. */
int arch_vcpu_init(struct arch *a, struct vcpu *v, struct err *e);

/* All vCPUs are made, and no device is yet: completes what devices connect to. (An interrupt
 * controller that needs to know its vCPUs takes no irqfd before this.) */
int arch_ready(struct arch *a, struct err *e);

/*
 * The states. A snapshot is of one moment: arch_moment_now() before saving or loading the vCPUs,
 * the same moment for all of them, so that their clocks agree.
 */
struct arch_moment {
	uint64_t host_counter; /* x86_64: this host's TSC */
	uint64_t clock_ns;     /* the guest's clock (x86_64: kvmclock); only when saving */
	uint64_t advance_ns;   /* loading: how much later than the saved moment this one is */
};

int arch_moment_now(const struct kvm *kvm, struct arch_moment *now, struct err *e);

extern const struct state_desc arch_vcpu_state, arch_vm_state;

/* On the vCPU's own thread, parked. */
int arch_vcpu_save(const struct arch *a, struct vcpu *v, const struct arch_moment *now, void *st,
		   struct err *e);
int arch_vcpu_load(const struct arch *a, struct vcpu *v, const struct arch_moment *now,
		   const void *st, struct err *e);

/* All vCPUs parked; loading: after they were loaded. */
int arch_vm_save(const struct arch *a, const struct arch_moment *now, void *st, struct err *e);
int arch_vm_load(const struct arch *a, const struct arch_moment *now, const void *st,
		 struct err *e);

/* Kernel and initrd (-1: none) into memory, and the boot CPU to its first instruction. */
struct arch_boot {
	int kernel_fd, initrd_fd;
	bool memory_is_fresh; /* all zero: the first boot */
	const char *kernel_name, *initrd_name;
};
int arch_boot(struct arch *a, struct memory *m, const struct tree *t, struct vcpu *boot_cpu,
	      const struct arch_boot *b, struct err *e);

/* KVM left the guest for a reason that vcpu.c does not know: handles it. vCPU's thread. */
enum arch_exit {
	ARCH_EXIT_DONE,
	ARCH_EXIT_RESET,   /* the guest is to be reset */
	ARCH_EXIT_UNKNOWN, /* nobody knows that reason */
};
enum arch_exit arch_vcpu_exit(struct vcpu *v);

/* The vCPU is about to run, maybe after it stood or came from elsewhere: tell the guest's
 * watchdogs; vCPU's thread. */
void arch_vcpu_was_parked(struct vcpu *v);

/* Where a vCPU stands, for the message that it cannot go on; vCPU's thread. */
void arch_vcpu_describe(struct vcpu *v, char *text, unsigned int size);

/* For `godwit doctor`: what KVM needs to have, or should have, on this architecture. */
struct arch_capability {
	int number;
	const char *name, *use; /* a NULL name ends the list */
	bool needed;
};
extern const struct arch_capability arch_capabilities[];

/* Measures how kernel and user mode are run (probe.h). Takes some ten milliseconds, on a slow host
 * half a second. -1: the guest did not run to its end. */
int arch_probe_modes(struct probe_result *out, struct err *e);

#endif
