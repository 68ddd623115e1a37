/*
 * What a guest knows of its CPU by MSRs: the few that only tell (KVM_GET_MSR_FEATURE_INDEX_LIST),
 * and of those the ones that a guest relies on: which faults its CPU has not
 * (IA32_ARCH_CAPABILITIES), whether LFENCE waits (AMD's DE_CFG). As with CPUID they are made once,
 * travel in the machine tree
 * (/cpus `feature-msrs`: u32 number, u64 value, for each), and are refused by the names of their
 * bits if another host cannot keep them. Owner's thread, but for x86_feature_fits.
 */
#ifndef GODWIT_X86_64_FEATURES_H
#define GODWIT_X86_64_FEATURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cpuid_table;
struct err;
struct kvm;
struct tree;

#define X86_FEATURES_MAX 2

struct x86_features {
	uint32_t n;
	uint32_t numbers[X86_FEATURES_MAX];
	uint64_t values[X86_FEATURES_MAX];
};

/* Those that this KVM tells of; none where it is too old to tell. */
int x86_features_of_host(const struct kvm *kvm, struct x86_features *out, struct err *e);

/* Those of them that a guest with that CPUID can see. Pure. */
void x86_features_for_guest(const struct x86_features *host, const struct cpuid_table *c,
			    struct x86_features *out);

int x86_features_to_tree(const struct x86_features *f, struct tree *t, struct err *e);
/* Machines of older versions do not say: none. */
int x86_features_from_tree(const struct tree *t, struct x86_features *out, struct err *e);

/* -1 when `guest` says what a CPU of `host` does not keep; names the bits. Pure. */
int x86_features_check(const struct x86_features *guest, const struct x86_features *host,
		       struct err *e);

/* The same for the value of one MSR of a vCPU's state; other MSRs fit. Any thread. */
int x86_feature_fits(const struct x86_features *host, uint32_t number, uint64_t value,
		     struct err *e);

/* Whether it is one of these. */
bool x86_is_feature(uint32_t number);

#endif
