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

#define X86_MSR_TSC	     0x10u
#define X86_MSR_TSC_DEADLINE 0x6e0u

/* Constant once the first vCPU was made. */
struct arch {
	struct kvm *kvm;
	struct cpuid_table cpuid; /* the guest's, from the tree */
	uint32_t tsc_khz;  /* the guest's, from the tree; 0: the guest does not count on it */
	uint32_t host_khz; /* what this host's TSC ticks at; 0: KVM does not say */
	bool tsc_scaled;   /* they differ, and KVM scales */
	uint32_t n_msrs;   /* those that KVM saves and this CPU can read */
	uint32_t msrs[X86_MSRS_MAX];
	uint32_t xsave_bytes;
	bool msrs_known;
	bool tsc_offset;	 /* KVM_VCPU_TSC_OFFSET is there */
	uint64_t *agreed_offset; /* atomic; if it is not: of all vCPUs, as they measured it */
};

/* vcpu_state.c: as ioctl(2) on the vCPU's fd. */
int x86_vcpu_ioctl(const struct vcpu *v, unsigned long request, const void *arg);
/* The same with the request's name in the sentence; -1 or what KVM returned. */
int x86_vcpu_ioctl_named(const struct vcpu *v, unsigned long request, const void *arg,
			 const char *name, struct err *e);
#define VCPU_IOCTL(v, request, arg, e) x86_vcpu_ioctl_named(v, request, arg, #request, e)

/* msrs.c: fills a->msrs with what vCPU `v` can really read. */
int x86_msrs_find(struct arch *a, struct vcpu *v, struct err *e);
/* The values of a->msrs, in their order. */
int x86_msrs_get(const struct arch *a, struct vcpu *v, uint64_t *values, struct err *e);
int x86_msrs_set(struct vcpu *v, const uint32_t *numbers, const uint64_t *values, uint32_t n,
		 struct err *e);

/* tsc.c: what this host's TSC ticks at; 0: KVM does not tell. */
uint32_t x86_tsc_host_khz(const struct kvm *kvm);
/* Lets the vCPU's TSC tick as the tree says. */
int x86_tsc_init(struct arch *a, struct vcpu *v, struct err *e);
/* What it showed at that moment; and makes it have shown `tsc` then, advanced as the moment is. */
int x86_tsc_save(const struct arch *a, struct vcpu *v, const struct arch_moment *now, uint64_t *tsc,
		 struct err *e);
int x86_tsc_load(const struct arch *a, struct vcpu *v, const struct arch_moment *now, uint64_t tsc,
		 struct err *e);

struct boot_entry;
/* vcpu_state.c: registers for the first instruction. */
int x86_set_entry(struct vcpu *v, const struct boot_entry *entry, struct err *e);

#endif
