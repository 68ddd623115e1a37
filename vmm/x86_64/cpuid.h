/*
 * The guest's CPUID: a table that is made once, from what KVM supports on the host where the VM
 * was born, and travels in the machine tree (/cpus `cpuid`: seven u32 per entry: function, index,
 * flags, eax, ebx, ecx, edx). Topology: one socket, one thread a core; the APIC id is the vCPU's
 * number. Sources: Intel SDM vol. 2A CPUID, AMD APM vol. 3 appendix E, KVM api.rst 4.46.
 */
#ifndef GODWIT_X86_64_CPUID_H
#define GODWIT_X86_64_CPUID_H

#include <stdint.h>

#include <linux/kvm.h>

struct err;
struct kvm;
struct tree;

#define CPUID_ENTRIES_MAX 256

struct cpuid_table {
	uint32_t n;
	struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
};

enum cpuid_reg { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* One register of a leaf; 0 when it is not there. */
uint32_t cpuid_word(const struct cpuid_table *c, uint32_t function, uint32_t index,
		    enum cpuid_reg reg);

/* What KVM supports here (KVM_GET_SUPPORTED_CPUID on the /dev/kvm fd), with the CPU's name, which
 * KVM does not give. */
int cpuid_supported(const struct kvm *kvm, struct cpuid_table *out, struct err *e);

/* The table for a new guest of `n_cpus`: supported features, hypervisor bit, TSC deadline, x2APIC,
 * topology leaves (1, 4, 0xb, 0x1f, 0x80000008, 0x8000001d, 0x8000001e), 0x40000010 (tsc_khz).
 * tsc_khz 0: not known, so the guest is not told that it can count on its TSC. Pure. */
void cpuid_for_guest(const struct cpuid_table *supported, uint32_t n_cpus, uint32_t tsc_khz,
		     struct cpuid_table *out);

int cpuid_to_tree(const struct cpuid_table *c, struct tree *t, struct err *e);
int cpuid_from_tree(const struct tree *t, struct cpuid_table *out, struct err *e);

/* 0 when everything the table promises exists in `supported`; else -1, naming the features. */
int cpuid_check(const struct cpuid_table *c, const struct cpuid_table *supported, struct err *e);

/* The table as vCPU `index` sees it (APIC ids filled in), ready for KVM_SET_CPUID2. Pure. */
void cpuid_for_vcpu(const struct cpuid_table *c, uint32_t index, struct cpuid_table *out);

#endif
