/*
 * What the files of vmm/x86_64/ share among themselves; nobody else includes it.
 */
#ifndef GODWIT_X86_64_ARCH_INTERNAL_H
#define GODWIT_X86_64_ARCH_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/arch.h"
#include "vmm/x86_64/cpuid.h"
#include "vmm/x86_64/features.h"

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
	struct x86_features features;	   /* the guest's, from the tree */
	struct x86_features host_features; /* what this host could give */
	uint32_t xsave_bytes;		   /* of KVM's area here */
	bool msrs_known;
	bool sregs2, triple_fault; /* KVM knows PDPTRs; pending triple faults */
	uint32_t n_born_with;	   /* MSRs where the VM was born, from the tree; 0: not known */
	uint32_t born_with[X86_MSRS_MAX];
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
/*
 * The MSRs that the guest's machine was born with: into its tree (/cpus `msrs`), and from there.
 * Check refuses a host without one that this guest may use although its CPUID does not tell of it.
 */
int x86_msrs_to_tree(const struct kvm *kvm, const struct cpuid_table *guest, struct tree *t,
		     struct err *e);
int x86_msrs_from_tree(const struct tree *t, struct arch *a, struct err *e);
int x86_msrs_check(const struct arch *a, struct vcpu *v, struct err *e);
/* The values of a->msrs, in their order. */
int x86_msrs_get(const struct arch *a, struct vcpu *v, uint64_t *values, struct err *e);
/* Those that this guest does not see are left out. */
int x86_msrs_set(const struct arch *a, struct vcpu *v, const uint32_t *numbers,
		 const uint64_t *values, uint32_t n, struct err *e);
/*
 * Whether MSR `number` is of something that this CPUID hides from its guest: it is neither saved
 * nor loaded then, since another host's may hold something else. Pure.
 */
bool x86_msr_is_hidden(const struct cpuid_table *c, uint32_t number);

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
