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
	uint32_t tsc_khz;	  /* the guest's, from the tree */
	uint32_t n_msrs;	  /* those that KVM saves and this CPU can read */
	uint32_t msrs[X86_MSRS_MAX];
	uint32_t xsave_bytes;
	bool msrs_known;
	bool tsc_offset; /* KVM_VCPU_TSC_OFFSET is there */
};

/* vcpu_state.c: fills a->msrs with what vCPU `v` can really read. */
int x86_find_msrs(struct arch *a, struct vcpu *v, struct err *e);

struct boot_entry;
/* vcpu_state.c: registers for the first instruction. */
int x86_set_entry(struct vcpu *v, const struct boot_entry *entry, struct err *e);

#endif
