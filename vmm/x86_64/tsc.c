/*
 * The guest's time stamp counter: its frequency (set once, while the vCPU is made) and its value at
 * a moment (the vCPU's own thread, parked).
 */
#include <cpuid.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <unistd.h>
#include <x86intrin.h>

#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"
#include "vmm/x86_64/arch_internal.h"

#define HYGON_EBX 0x6f677948u /* "Hygo" */

static struct kvm_device_attr offset_attr(uint64_t *offset)
{
	return (struct kvm_device_attr){
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};
}

/*
 * Kernels before 5.18 tell it by the fd of a vCPU only, and the machine's own vCPUs cannot be made
 * yet when its tree is: so one of another VM is asked.
 */
static int khz_of_other_vcpu(const struct kvm *kvm)
{
	int vm = kvm_ioctl(kvm, kvm->dev_fd, KVM_CREATE_VM, NULL), vcpu = -1, khz = 0;

	if (vm >= 0)
		vcpu = kvm_ioctl(kvm, vm, KVM_CREATE_VCPU, NULL);
	if (vcpu >= 0) {
		khz = kvm_ioctl(kvm, vcpu, KVM_GET_TSC_KHZ, NULL);
		close(vcpu);
	}
	if (vm >= 0)
		close(vm);
	return khz;
}

uint32_t x86_tsc_host_khz(const struct kvm *kvm)
{
	int khz = kvm_ioctl(kvm, kvm->vm_fd, KVM_GET_TSC_KHZ, NULL);

	if (khz <= 0)
		khz = khz_of_other_vcpu(kvm);
	return khz > 0 ? (uint32_t)khz : 0;
}

/* Whether the guest was told that it may count on the TSC's frequency. */
static bool guest_counts_on_it(const struct cpuid_table *c)
{
	return cpuid_word(c, 0x80000007, 0, CPUID_EDX) & 1u << 8 ||
	       cpuid_word(c, 1, 0, CPUID_ECX) & 1u << 24;
}

static int check_khz(const struct arch *a, struct err *e)
{
	if (!a->tsc_khz && guest_counts_on_it(&a->cpuid))
		return err_set(e, "/cpus: it is not known at which frequency the guest's time "
				  "stamp counter runs (the VM was started by an older version on a "
				  "Linux before 5.18), and the guest counts on it; start it anew");
	if (a->tsc_khz && !a->host_khz)
		return err_set(e,
			       "/cpus: the guest's time stamp counter runs at %u kHz, and this "
			       "host's KVM does not tell the frequency of its own",
			       a->tsc_khz);
	return 0;
}

/* The guest's TSC must tick here as it did where it was born, within what KVM tolerates. */
static int set_khz(struct arch *a, struct vcpu *v, struct err *e)
{
	int here = x86_vcpu_ioctl(v, KVM_GET_TSC_KHZ, NULL);
	uint64_t tolerance;

	a->host_khz = here > 0 ? (uint32_t)here : 0;
	if (check_khz(a, e))
		return -1;
	tolerance = (uint64_t)a->host_khz * 250 / 1000000;
	if (!a->tsc_khz || ((uint64_t)a->tsc_khz + tolerance >= a->host_khz &&
			    a->tsc_khz <= a->host_khz + tolerance))
		return 0;
	/* Without scaling, KVM says yes to what is faster: it then moves the TSC forward at times.
	 */
	if (!kvm_has(a->kvm, KVM_CAP_TSC_CONTROL))
		return err_set(e,
			       "/cpus: the guest's time stamp counter runs at %u kHz, this host's "
			       "at %u kHz, and this host's KVM cannot scale it "
			       "(KVM_CAP_TSC_CONTROL)",
			       a->tsc_khz, a->host_khz);
	if (x86_vcpu_ioctl(v, KVM_SET_TSC_KHZ, (void *)(uintptr_t)a->tsc_khz) < 0)
		return err_errno(e, errno,
				 "/cpus: the guest's time stamp counter runs at %u kHz, this "
				 "host's at %u kHz, and KVM does not scale it",
				 a->tsc_khz, a->host_khz);
	a->tsc_scaled = true;
	return 0;
}

int x86_tsc_init(struct arch *a, struct vcpu *v, struct err *e)
{
	struct kvm_device_attr attr = offset_attr(NULL);

	if (set_khz(a, v, e))
		return -1;
	a->tsc_offset = x86_vcpu_ioctl(v, KVM_HAS_DEVICE_ATTR, &attr) == 0;
	return 0;
}

/*
 * KVM multiplies by a fixed-point ratio, with 32 fractional bits for AMD's hardware and 48 for
 * Intel's. Computed as KVM does, so that all vCPUs keep the counters they had, to the tick.
 */
static uint64_t scaled_counter(const struct arch *a, uint64_t host)
{
	unsigned int eax, ebx = 0, ecx, edx, bits;
	unsigned __int128 ratio;

	if (!a->tsc_scaled)
		return host;
	__get_cpuid(0, &eax, &ebx, &ecx, &edx);
	bits = ebx == signature_AMD_ebx || ebx == HYGON_EBX ? 32 : 48;
	ratio = ((unsigned __int128)a->tsc_khz << bits) / a->host_khz;
	return (uint64_t)((unsigned __int128)host * (uint64_t)ratio >> bits);
}

/* What the guest's counter advances in so many ns. */
static uint64_t guest_ticks(const struct arch *a, uint64_t ns)
{
	uint32_t khz = a->tsc_scaled || !a->host_khz ? a->tsc_khz : a->host_khz;

	return mul_div(ns, khz, 1000000);
}

/* The TSC itself: for kernels without the offset attribute (before 5.16). */
static int tsc_msr(struct vcpu *v, bool set, uint64_t *tsc, struct err *e)
{
	union {
		struct kvm_msrs head; /* its entry follows it */
		uint8_t bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} one = { .head.nmsrs = 1 };
	int rc;

	one.head.entries[0] = (struct kvm_msr_entry){ .index = X86_MSR_TSC, .data = *tsc };
	rc = set ? VCPU_IOCTL(v, KVM_SET_MSRS, &one, e) : VCPU_IOCTL(v, KVM_GET_MSRS, &one, e);
	if (rc == 0)
		rc = err_set(e, "vCPU %u: KVM does not %s its time stamp counter", v->index,
			     set ? "take" : "give");
	*tsc = one.head.entries[0].data;
	return rc < 0 ? -1 : 0;
}

/*
 * Each vCPU measures its offset for itself, and KVM gives one to all: what differs by less than
 * AGREED_US is measured badly. Were it kept, the guest's clock would differ among its processors.
 */
#define AGREED_US 50

static uint64_t agree_on(const struct arch *a, uint64_t offset)
{
	const uint64_t near = (uint64_t)a->host_khz * AGREED_US / 1000;
	uint64_t agreed = __atomic_load_n(a->agreed_offset, __ATOMIC_ACQUIRE);

	do {
		if (offset - agreed + near <= 2 * near)
			return agreed;
	} while (!__atomic_compare_exchange_n(a->agreed_offset, &agreed, offset, false,
					      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
	return offset;
}

/* By reading the TSC itself, between two looks at the host's: the closest of a few. */
static int measure_offset(const struct arch *a, struct vcpu *v, uint64_t *offset, struct err *e)
{
	uint64_t before, window, best = UINT64_MAX, tsc = 0;

	for (unsigned int i = 0; i < 4; i++) {
		before = __rdtsc();
		if (tsc_msr(v, false, &tsc, e))
			return -1;
		window = __rdtsc() - before;
		if (window < best) {
			best = window;
			*offset = tsc - scaled_counter(a, before + window / 2);
		}
	}
	*offset = agree_on(a, *offset);
	return 0;
}

int x86_tsc_save(const struct arch *a, struct vcpu *v, const struct arch_moment *now, uint64_t *tsc,
		 struct err *e)
{
	uint64_t offset = 0;
	struct kvm_device_attr attr = offset_attr(&offset);

	if (a->tsc_offset ? VCPU_IOCTL(v, KVM_GET_DEVICE_ATTR, &attr, e) < 0
			  : measure_offset(a, v, &offset, e))
		return -1;
	*tsc = scaled_counter(a, now->host_counter) + offset;
	return 0;
}

int x86_tsc_load(const struct arch *a, struct vcpu *v, const struct arch_moment *now, uint64_t tsc,
		 struct err *e)
{
	uint64_t offset;
	struct kvm_device_attr attr = offset_attr(&offset);

	tsc += guest_ticks(a, now->advance_ns);
	offset = tsc - scaled_counter(a, now->host_counter);
	if (a->tsc_offset)
		return VCPU_IOCTL(v, KVM_SET_DEVICE_ATTR, &attr, e) < 0 ? -1 : 0;
	/* What it would show by now. KVM makes out of this one offset for all vCPUs. */
	tsc = scaled_counter(a, __rdtsc()) + offset;
	return tsc_msr(v, true, &tsc, e);
}
