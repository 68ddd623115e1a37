/*
 * The guest's time stamp counter: its frequency (set once, while the vCPU is made) and its value at
 * a moment (the vCPU's own thread, parked).
 */
#include <cpuid.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>

#include "vmm/base/err.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"
#include "vmm/x86_64/arch_x86.h"

#define HYGON_EBX 0x6f677948u /* "Hygo" */

static struct kvm_device_attr offset_attr(uint64_t *offset)
{
	return (struct kvm_device_attr){
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};
}

/* The guest's TSC must tick here as it did where it was born, within what KVM tolerates. */
static int set_khz(struct arch *a, struct vcpu *v, struct err *e)
{
	int here = x86_vcpu_ioctl(v, KVM_GET_TSC_KHZ, NULL);
	uint64_t tolerance;

	a->host_khz = here > 0 ? (uint32_t)here : 0;
	if (!a->tsc_khz || here <= 0)
		return 0;
	tolerance = (uint64_t)here * 250 / 1000000;
	if (a->tsc_khz + tolerance >= (uint64_t)here && a->tsc_khz <= (uint64_t)here + tolerance)
		return 0;
	if (x86_vcpu_ioctl(v, KVM_SET_TSC_KHZ, (void *)(uintptr_t)a->tsc_khz) < 0)
		return err_set(e,
			       "/cpus: the guest's time stamp counter runs at %u kHz, this host's "
			       "at %d kHz, and KVM cannot scale it here",
			       a->tsc_khz, here);
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

	return (uint64_t)((unsigned __int128)ns * khz / 1000000);
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
	*tsc = one.head.entries[0].data;
	return rc < 0 ? -1 : 0;
}

int x86_tsc_save(const struct arch *a, struct vcpu *v, const struct arch_moment *now, uint64_t *tsc,
		 struct err *e)
{
	uint64_t offset = 0;
	struct kvm_device_attr attr = offset_attr(&offset);

	if (!a->tsc_offset)
		return tsc_msr(v, false, tsc, e);
	if (VCPU_IOCTL(v, KVM_GET_DEVICE_ATTR, &attr, e) < 0)
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
	if (!a->tsc_offset)
		return tsc_msr(v, true, &tsc, e);
	return VCPU_IOCTL(v, KVM_SET_DEVICE_ATTR, &attr, e) < 0 ? -1 : 0;
}
