/*
 * What a processor with KVM really does: a tiny guest without any kernel, run for some thousand
 * instructions in kernel mode and in user mode. Nested hypervisors exist that run one of the two
 * by interpreting it. Architecture-specific (vmm/<arch>/probe.c).
 */
#ifndef GODWIT_PROBE_H
#define GODWIT_PROBE_H

#include <stdint.h>

struct err;

struct probe_result {
	uint64_t kernel_ns, user_ns; /* for `loops` turns of a loop of two instructions */
	uint32_t loops;
};

/* Takes a few milliseconds at most. -1: KVM did not run the guest to its end. */
int probe_modes(struct probe_result *out, struct err *e);

#endif
