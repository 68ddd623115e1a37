/*
 * A KVM that is not there: it answers what vmm/x86_64/ asks as the KVM of some host would, and
 * keeps what it was told, so that hosts are tested that nobody here has. One thread.
 */
#ifndef GODWIT_TESTS_FAKE_KVM_H
#define GODWIT_TESTS_FAKE_KVM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/device.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"
#include "vmm/x86_64/cpuid.h"

#define FAKE_MSRS_MAX 64
#define FAKE_FDS_MAX  256

struct fake_msrs {
	uint32_t n;
	struct kvm_msr_entry entries[FAKE_MSRS_MAX];
};

struct fake_kvm {
	struct kvm kvm; /* first */
	struct device_env env;

	/* The host; a test changes what it is about, before it makes a vCPU. */
	uint32_t khz;	       /* of its TSC; 0: KVM does not tell */
	bool vm_tells_khz;     /* since Linux 5.18 */
	bool scales;	       /* KVM_CAP_TSC_CONTROL */
	bool has_tsc_offset;   /* KVM_VCPU_TSC_OFFSET, since 5.16 */
	bool has_sregs2;       /* since 5.14 */
	bool has_triple_fault; /* since 6.0 */
	int xsave2;	       /* bytes, since 5.17; 0: not there */
	uint64_t xfeatures;    /* components that KVM_SET_XSAVE takes */
	struct cpuid_table cpuid;
	struct fake_msrs features; /* as the device's fd tells them */
	struct fake_msrs msrs;	   /* those that are listed, with their values after a reset */
	struct fake_msrs unlisted; /* those that are there, but not listed */

	/* What it was told; a test may also change it, as a guest would. */
	unsigned int n_vms, n_vcpus;
	bool ran; /* from now on feature MSRs are what they are */
	uint32_t n_routes;
	struct kvm_irq_routing_entry routes[64];
	bool triple_fault_enabled;
	uint32_t vcpu_khz;
	struct fake_msrs values;
	uint64_t tsc_offset;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	uint64_t pdptrs[4];
	bool pdptrs_set; /* by KVM_SET_SREGS2 */
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_mp_state mp;
	uint8_t xsave[16384];

	uint8_t kinds[FAKE_FDS_MAX]; /* what an fd is */
};

/* An Intel host of 2 GHz with Linux 6.1. */
void fake_kvm_init(struct fake_kvm *f);
/* The same host with Linux 5.10. */
void fake_kvm_init_5_10(struct fake_kvm *f);
void fake_kvm_free(struct fake_kvm *f);

/* Its vCPU 0, without a thread. */
void fake_kvm_vcpu(struct fake_kvm *f, struct vcpu *v);

void fake_msr_set(struct fake_msrs *m, uint32_t index, uint64_t value);
void fake_msr_drop(struct fake_msrs *m, uint32_t index);
/* Its value; the test fails if there is none. */
uint64_t fake_msr(const struct fake_msrs *m, uint32_t index);

/* The entry of the host's CPUID table. */
struct kvm_cpuid_entry2 *fake_cpuid(struct fake_kvm *f, uint32_t function, uint32_t index);

#endif
