/*
 * The state of the VM beside its vCPUs (x86-64): both PICs and the IOAPIC, PIT, kvmclock. All vCPUs
 * are parked; loading comes after theirs, because an interrupt controller delivers to LAPICs.
 *
 * Time: a snapshot is of one moment (arch_moment_now): the host's TSC and the guest's clock at it.
 * Loading takes a moment of its own, sets each TSC so that it had the saved value then, and the
 * clock likewise, advanced by what has passed since. So TSC and kvmclock of a guest keep their
 * distance, on all vCPUs.
 */
#include <linux/kvm.h>
#include <string.h>
#include <x86intrin.h>

#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/kvm.h"
#include "vmm/state.h"
#include "vmm/x86_64/arch_internal.h"

struct vm_state {
	struct kvm_pic_state pic[2];
	struct kvm_ioapic_state ioapic;
	struct kvm_pit_state2 pit;
	uint64_t clock_ns;
};

static void vm_fields(struct state *s, void *p)
{
	struct vm_state *st = p;

	state_bytes(s, "pic-master", &st->pic[0], sizeof(st->pic[0]));
	state_bytes(s, "pic-slave", &st->pic[1], sizeof(st->pic[1]));
	state_bytes(s, "ioapic", &st->ioapic, sizeof(st->ioapic));
	state_bytes(s, "pit", &st->pit, sizeof(st->pit));
	state_u64(s, "clock-ns", &st->clock_ns);
}

static int vm_check(const void *p, struct err *e)
{
	const struct vm_state *st = p;

	/* Above this, KVM's own arithmetic on the clock would wrap within the guest's life. */
	if (st->clock_ns >> 62)
		return err_set(e, "field 'clock-ns' is more than a century");
	return 0;
}

const struct state_desc arch_vm_state = {
	.size = sizeof(struct vm_state),
	.fields = vm_fields,
	.check = vm_check,
};

int arch_moment_now(const struct kvm *kvm, struct arch_moment *now, struct err *e)
{
	struct kvm_clock_data clock = { 0 };

	if (kvm_vm_ioctl(kvm, KVM_GET_CLOCK, &clock, "KVM_GET_CLOCK", e) < 0)
		return -1;
	now->clock_ns = clock.clock;
	now->advance_ns = 0;
	now->host_counter = clock.flags & KVM_CLOCK_HOST_TSC ? clock.host_tsc : __rdtsc();
	return 0;
}

static int get_chip(const struct kvm *kvm, uint32_t id, void *out, size_t len, struct err *e)
{
	struct kvm_irqchip chip = { .chip_id = id };

	if (kvm_vm_ioctl(kvm, KVM_GET_IRQCHIP, &chip, "KVM_GET_IRQCHIP", e) < 0)
		return -1;
	memcpy(out, &chip.chip, len);
	return 0;
}

static int set_chip(const struct kvm *kvm, uint32_t id, const void *from, size_t len, struct err *e)
{
	struct kvm_irqchip chip = { .chip_id = id };

	memcpy(&chip.chip, from, len);
	return kvm_vm_ioctl(kvm, KVM_SET_IRQCHIP, &chip, "KVM_SET_IRQCHIP", e) < 0 ? -1 : 0;
}

int arch_vm_save(const struct arch *a, const struct arch_moment *now, void *p, struct err *e)
{
	struct vm_state *st = p;

	st->clock_ns = now->clock_ns;
	if (get_chip(a->kvm, KVM_IRQCHIP_PIC_MASTER, &st->pic[0], sizeof(st->pic[0]), e) ||
	    get_chip(a->kvm, KVM_IRQCHIP_PIC_SLAVE, &st->pic[1], sizeof(st->pic[1]), e) ||
	    get_chip(a->kvm, KVM_IRQCHIP_IOAPIC, &st->ioapic, sizeof(st->ioapic), e))
		return -1;
	return kvm_vm_ioctl(a->kvm, KVM_GET_PIT2, &st->pit, "KVM_GET_PIT2", e) < 0 ? -1 : 0;
}

/* What has passed since `then`, by this host's TSC. */
static uint64_t ns_since(const struct arch *a, const struct arch_moment *then)
{
	uint64_t ticks = __rdtsc() - then->host_counter;
	uint32_t khz = a->host_khz ? a->host_khz : a->tsc_khz;

	return khz ? mul_div(ticks, 1000000, khz) : 0;
}

int arch_vm_load(const struct arch *a, const struct arch_moment *now, const void *p, struct err *e)
{
	const struct vm_state *st = p;
	struct kvm_pit_state2 pit = st->pit;
	struct kvm_clock_data clock = { 0 };

	if (set_chip(a->kvm, KVM_IRQCHIP_PIC_MASTER, &st->pic[0], sizeof(st->pic[0]), e) ||
	    set_chip(a->kvm, KVM_IRQCHIP_PIC_SLAVE, &st->pic[1], sizeof(st->pic[1]), e) ||
	    set_chip(a->kvm, KVM_IRQCHIP_IOAPIC, &st->ioapic, sizeof(st->ioapic), e) ||
	    kvm_vm_ioctl(a->kvm, KVM_SET_PIT2, &pit, "KVM_SET_PIT2", e) < 0)
		return -1;
	clock.clock = st->clock_ns + now->advance_ns + ns_since(a, now);
	return kvm_vm_ioctl(a->kvm, KVM_SET_CLOCK, &clock, "KVM_SET_CLOCK", e) < 0 ? -1 : 0;
}
