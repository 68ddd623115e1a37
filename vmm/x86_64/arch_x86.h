/*
 * What the files of vmm/x86_64/ share among themselves; nobody else includes it.
 */
#ifndef GODWIT_X86_64_ARCH_X86_H
#define GODWIT_X86_64_ARCH_X86_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/arch.h"
#include "vmm/x86_64/cpuid.h"

#define X86_MSRS_MAX  512
#define X86_XSAVE_MAX 16384
#define X86_CPUS_MAX  254 /* 8-bit APIC ids, 255 is broadcast */

/* Constant once the first vCPU was made. */
struct arch {
	struct kvm *kvm;
	struct cpuid_table cpuid; /* the guest's, from the tree */
	uint32_t tsc_khz;	  /* the guest's, from the tree; 0: as the host's */
	uint32_t host_khz;	  /* what this host's TSC ticks at; 0: KVM does not say */
	bool tsc_scaled;	  /* they differ, and KVM scales */
	uint32_t n_msrs;	  /* those that KVM saves and this CPU can read */
	uint32_t msrs[X86_MSRS_MAX];
	uint32_t xsave_bytes;
	bool msrs_known;
	bool tsc_offset; /* KVM_VCPU_TSC_OFFSET is there */
};

/* vm_state.c: the guest's counter without its offset, when this host's stands at `host`. */
uint64_t x86_scaled_counter(const struct arch *a, uint64_t host);
/* What the guest's counter advances in so many ns. */
uint64_t x86_guest_ticks(const struct arch *a, uint64_t ns);

/* vcpu_state.c: fills a->msrs with what vCPU `v` can really read. */
int x86_find_msrs(struct arch *a, struct vcpu *v, struct err *e);

struct boot_entry;
/* vcpu_state.c: registers for the first instruction. */
int x86_set_entry(struct vcpu *v, const struct boot_entry *entry, struct err *e);

#endif
