/*
 * x86-64: the machine's fixed shape, what is made before the vCPUs, and boot. Owner's thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/log.h"
#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/kvm.h"
#include "vmm/memory.h"
#include "vmm/power_ports.h"
#include "vmm/tree.h"
#include "vmm/vcpu.h"
#include "vmm/x86_64/acpi.h"
#include "vmm/x86_64/arch_internal.h"
#include "vmm/x86_64/boot.h"
#include "vmm/x86_64/layout.h"

const char arch_compatible[] = "godwit,x86_64";

const char arch_default_cmdline[] = "console=ttyS0 panic=-1";

const struct arch_capability arch_capabilities[] = {
	{ KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP", "interrupt controllers in the kernel", true },
	{ KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK", "carrying the guest's clock on", true },
	{ KVM_CAP_PIT2, "KVM_CAP_PIT2", "the timer of a PC", true },
	{ KVM_CAP_XSAVE2, "KVM_CAP_XSAVE2", "large vector registers", false },
	{ KVM_CAP_TSC_CONTROL, "KVM_CAP_TSC_CONTROL",
	  "guests born on hosts with another TSC frequency", false },
	{ .name = NULL },
};

static int add_memory(struct tree *t, uint64_t gpa, uint64_t bytes, struct err *e)
{
	char path[TREE_PATH_MAX];

	snprintf(path, sizeof(path), "/memory@%" PRIx64, gpa);
	return tree_set_str(t, path, "device_type", "memory", e) ||
			       tree_set_u64_pair(t, path, "reg", gpa, bytes, e)
		       ? -1
		       : 0;
}

int arch_tree_memory(struct tree *t, uint64_t bytes, struct err *e)
{
	uint64_t low = bytes < X86_HOLE_GPA ? bytes : X86_HOLE_GPA;

	if (add_memory(t, 0, low, e))
		return -1;
	return bytes > low ? add_memory(t, X86_ABOVE_4G_GPA, bytes - low, e) : 0;
}

/* How many nodes below /devices have a place on the virtio-mmio bus already. */
static uint32_t count_placed(const struct tree *t)
{
	char path[TREE_PATH_MAX];
	unsigned int it = 0;
	uint32_t n = 0;

	while (tree_next_child(t, "/devices", &it, path))
		n += tree_has(t, path, "reg");
	return n;
}

int arch_tree_place(struct tree *t, const char *path, struct err *e)
{
	static const uint32_t gsis[] = X86_VIRTIO_GSIS;
	const uint32_t max = sizeof(gsis) / sizeof(gsis[0]);
	const char *model;
	uint32_t n;

	if (tree_str(t, path, "model", &model, e))
		return -1;
	if (!strcmp(model, "serial-8250"))
		return tree_set_u32_pair(t, path, "port", X86_SERIAL_PORT, 8, e) ||
				       tree_set_u32(t, path, "interrupts", X86_SERIAL_GSI, e)
			       ? -1
			       : 0;
	if (!strcmp(model, "power"))
		return tree_set_u32_pair(t, path, "port", X86_POWER_PORT, 8, e) ||
				       tree_set_u32(t, path, "interrupts", X86_POWER_GSI, e)
			       ? -1
			       : 0;
	if (!strcmp(model, "i8042"))
		return tree_set_u32_pair(t, path, "port", X86_I8042_PORT, 5, e);
	n = count_placed(t);
	if (n >= max)
		return err_set(e, "%s: more than %u virtio devices (each needs an interrupt pin)",
			       path, max);
	return tree_set_u64_pair(t, path, "reg", X86_VIRTIO_GPA + n * 0x1000ull, 0x1000, e) ||
			       tree_set_u32(t, path, "interrupts", gsis[n], e)
		       ? -1
		       : 0;
}

static int probe_msrs(struct tree *t, const struct kvm *kvm, const struct cpuid_table *guest,
		      struct err *e)
{
	struct x86_features host, features;

	if (x86_features_of_host(kvm, &host, e))
		return -1;
	x86_features_for_guest(&host, guest, &features);
	return x86_features_to_tree(&features, t, e) || x86_msrs_to_tree(kvm, guest, t, e) ? -1 : 0;
}

int arch_tree_probe(struct tree *t, const struct kvm *kvm, struct err *e)
{
	struct cpuid_table *supported = malloc(2 * sizeof(*supported));
	struct cpuid_table *guest = supported + 1;
	uint32_t n_cpus, khz;
	int rc = -1;

	if (!supported)
		return err_set(e, "out of memory");
	khz = x86_tsc_host_khz(kvm);
	if (tree_u32(t, "/cpus", "count", &n_cpus, e) || cpuid_supported(kvm, supported, e))
		goto out;
	cpuid_for_guest(supported, n_cpus, khz, guest);
	if (cpuid_to_tree(guest, t, e) || tree_set_u32(t, "/cpus", "tsc-khz", khz, e) ||
	    probe_msrs(t, kvm, guest, e))
		goto out;
	rc = 0;
out:
	free(supported);
	return rc;
}

uint32_t arch_max_vcpus(const struct kvm *kvm)
{
	return kvm->max_vcpus < X86_CPUS_MAX ? kvm->max_vcpus : X86_CPUS_MAX;
}

static int check_cpu(struct arch *a, struct err *e)
{
	struct cpuid_table *supported = malloc(sizeof(*supported));
	uint32_t xsave = cpuid_word(&a->cpuid, 0xd, 0, CPUID_ECX);
	int rc;

	if (!supported)
		return err_set(e, "out of memory");
	rc = cpuid_supported(a->kvm, supported, e) || cpuid_check(&a->cpuid, supported, e) ||
	     x86_features_of_host(a->kvm, &a->host_features, e) ||
	     x86_features_check(&a->features, &a->host_features, e);
	free(supported);
	if (!rc && xsave > a->xsave_bytes)
		rc = err_set(e,
			     "the guest's extended state is of %" PRIu32
			     " bytes, this host's KVM keeps %" PRIu32,
			     xsave, a->xsave_bytes);
	return rc ? err_context(e, "/cpus") : 0;
}

/*
 * KVM's own routing gives each of the first 16 lines to the 8259s as well. Nobody sets those up,
 * and they then interrupt with vectors that are exceptions: a Linux before 5.4 leaves LINT0 open.
 */
static int route_to_ioapic(const struct kvm *kvm, struct err *e)
{
	struct kvm_irq_routing *routing = calloc(
		1, sizeof(*routing) + KVM_IOAPIC_NUM_PINS * sizeof(routing->entries[0]));
	int rc;

	if (!routing)
		return err_set(e, "out of memory");
	routing->nr = KVM_IOAPIC_NUM_PINS;
	for (uint32_t pin = 0; pin < routing->nr; pin++)
		routing->entries[pin] = (struct kvm_irq_routing_entry){
			.gsi = pin,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC, .pin = pin },
		};
	rc = kvm_vm_ioctl(kvm, KVM_SET_GSI_ROUTING, routing, "KVM_SET_GSI_ROUTING", e);
	free(routing);
	return rc < 0 ? -1 : 0;
}

static int make_chips(const struct kvm *kvm, struct err *e)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	uint64_t identity = X86_KVM_IDENTITY_GPA;

	/* Pages that Intel hosts need for real mode; others ignore them. */
	if (kvm_vm_ioctl(kvm, KVM_SET_IDENTITY_MAP_ADDR, &identity, "KVM_SET_IDENTITY_MAP_ADDR",
			 e) < 0 ||
	    kvm_vm_ioctl(kvm, KVM_SET_TSS_ADDR, (void *)X86_KVM_TSS_GPA, "KVM_SET_TSS_ADDR", e) <
		    0 ||
	    kvm_vm_ioctl(kvm, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP", e) < 0 ||
	    kvm_vm_ioctl(kvm, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2", e) < 0)
		return -1;
	return route_to_ioapic(kvm, e);
}

/* What this KVM can do that older ones cannot. */
static int find_abilities(struct arch *a, struct err *e)
{
	struct kvm_enable_cap triple = { .cap = KVM_CAP_X86_TRIPLE_FAULT_EVENT, .args[0] = 1 };
	int xsave = kvm_has(a->kvm, KVM_CAP_XSAVE2);

	a->xsave_bytes = xsave > (int)sizeof(struct kvm_xsave) ? (uint32_t)xsave
							       : sizeof(struct kvm_xsave);
	if (a->xsave_bytes > X86_XSAVE_MAX)
		return err_set(e, "/cpus: the extended state of this CPU is %u bytes, more than %d",
			       a->xsave_bytes, X86_XSAVE_MAX);
	a->sregs2 = kvm_has(a->kvm, KVM_CAP_SREGS2);
	a->triple_fault = kvm_has(a->kvm, KVM_CAP_X86_TRIPLE_FAULT_EVENT) &&
			  kvm_ioctl(a->kvm, a->kvm->vm_fd, KVM_ENABLE_CAP, &triple) == 0;
	return 0;
}

int arch_init(struct arch **out, struct kvm *kvm, const struct tree *t, struct err *e)
{
	struct arch *a = calloc(1, sizeof(*a));

	if (!a)
		return err_set(e, "out of memory");
	a->kvm = kvm;
	a->agreed_offset = calloc(1, sizeof(*a->agreed_offset));
	if (!a->agreed_offset) {
		err_set(e, "out of memory");
		goto fail;
	}
	if (cpuid_from_tree(t, &a->cpuid, e) || x86_features_from_tree(t, &a->features, e) ||
	    x86_msrs_from_tree(t, a, e) || tree_u32(t, "/cpus", "tsc-khz", &a->tsc_khz, e) ||
	    find_abilities(a, e) || check_cpu(a, e) || make_chips(kvm, e))
		goto fail;
	*out = a;
	return 0;
fail:
	arch_free(a);
	return -1;
}

void arch_free(struct arch *a)
{
	if (a)
		free(a->agreed_offset);
	free(a);
}

static int set_cpuid(const struct arch *a, struct vcpu *v, struct err *e)
{
	struct cpuid_table *mine = malloc(sizeof(*mine));
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + sizeof(mine->entries));
	int rc = -1;

	if (!mine || !c) {
		err_set(e, "out of memory");
		goto out;
	}
	cpuid_for_vcpu(&a->cpuid, v->index, mine);
	c->nent = mine->n;
	memcpy(c->entries, mine->entries, mine->n * sizeof(mine->entries[0]));
	rc = x86_vcpu_ioctl(v, KVM_SET_CPUID2, c);
	if (rc)
		rc = err_errno(e, errno, "/cpus: KVM does not take the CPUID table");
out:
	free(c);
	free(mine);
	return rc;
}

/*
 * KVM draws its map from APIC ids to vCPUs while it makes a LAPIC, and some versions do so before
 * the new vCPU is listed: INIT and SIPI would never reach it. Setting the LAPIC draws it again.
 */
static int enter_apic_map(struct vcpu *v, struct err *e)
{
	struct kvm_lapic_state lapic = { 0 };

	if (x86_vcpu_ioctl(v, KVM_GET_LAPIC, &lapic) || x86_vcpu_ioctl(v, KVM_SET_LAPIC, &lapic))
		return err_errno(e, errno, "vCPU %u: its LAPIC cannot be set up", v->index);
	return 0;
}

int arch_vcpu_init(struct arch *a, struct vcpu *v, struct err *e)
{
	if (x86_tsc_init(a, v, e) || set_cpuid(a, v, e) || enter_apic_map(v, e))
		return -1;
	/* As CPUID: what the CPU is, also after a reset. */
	if (x86_msrs_set(a, v, a->features.numbers, a->features.values, a->features.n, e))
		return err_context(e, "/cpus");
	if (a->msrs_known)
		return 0;
	a->msrs_known = true;
	return x86_msrs_find(a, v, e) || x86_msrs_check(a, v, e) ? -1 : 0;
}

int arch_ready(struct arch *a, struct err *e)
{
	/* KVM's irqchip is complete before the vCPUs. */
	(void)a;
	(void)e;
	return 0;
}

static int find_power_port(const struct tree *t, uint32_t *port, struct err *e)
{
	char path[TREE_PATH_MAX];
	unsigned int it = 0;
	const char *model;
	uint32_t ports;

	while (tree_next_child(t, "/devices", &it, path)) {
		if (tree_str(t, path, "model", &model, e))
			return -1;
		if (!strcmp(model, "power"))
			return tree_u32_pair(t, path, "port", port, &ports, e);
	}
	return err_set(e, "/devices: there is no power device");
}

/*
 * What stands where a PC's firmware begins. Linux that was not started by EFI, on a machine that is
 * hardware-reduced, does not reboot by ACPI's reset register: it goes back to real mode and jumps
 * here. So this writes the register in its place.
 */
static int put_reset_vector(struct memory *m, const struct tree *t, struct err *e)
{
	/* mov al, value; mov dx, port; out dx, al; and until that has its effect: hlt; jmp to hlt
	 */
	uint8_t code[] = { 0xb0, POWER_RESET_VALUE, 0xba, 0, 0, 0xee, 0xf4, 0xeb, 0xfd };
	uint32_t port;

	if (find_power_port(t, &port, e))
		return -1;
	port += POWER_RESET;
	code[3] = (uint8_t)port;
	code[4] = (uint8_t)(port >> 8);
	if (memory_write(m, X86_RESET_VECTOR, code, sizeof(code)))
		return err_set(e, "there is no memory for the reset vector");
	return 0;
}

int arch_boot(struct arch *a, struct memory *m, const struct tree *t, struct vcpu *boot_cpu,
	      const struct arch_boot *b, struct err *e)
{
	struct boot_source source = {
		.kernel_fd = b->kernel_fd,
		.kernel_name = b->kernel_name,
		.initrd_fd = b->initrd_fd,
		.initrd_name = b->initrd_name,
		.rsdp_gpa = X86_ACPI_GPA,
		.memory_is_fresh = b->memory_is_fresh,
	};
	struct boot_entry entry;
	long acpi_bytes;
	void *acpi;

	(void)a;
	if (tree_str(t, "/chosen", "bootargs", &source.cmdline, e))
		return -1;
	acpi = memory_host(m, X86_ACPI_GPA, X86_ACPI_MAX);
	if (!acpi)
		return err_set(
			e, "%" PRIu64 " KiB of memory are too little: the first MiB does not fit",
			memory_bytes(m) >> 10);
	acpi_bytes = acpi_build(t, X86_ACPI_GPA, acpi, X86_RESET_VECTOR - X86_ACPI_GPA, e);
	if (acpi_bytes < 0 || put_reset_vector(m, t, e))
		return -1;
	memory_mark(m, X86_ACPI_GPA, (uint64_t)acpi_bytes);
	if (boot_load(m, &source, &entry, e))
		return -1;
	return x86_set_entry(boot_cpu, &entry, e);
}

static void port_exit(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *value = (uint8_t *)run + run->io.data_offset;
	uint32_t i;

	for (i = 0; i < run->io.count; i++, value += run->io.size)
		bus_access(v->env->port_bus, run->io.port, value, run->io.size,
			   run->io.direction == KVM_EXIT_IO_OUT);
}

enum arch_exit arch_vcpu_exit(struct vcpu *v)
{
	char where[160];

	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		port_exit(v);
		return ARCH_EXIT_DONE;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return ARCH_EXIT_DONE;
	case KVM_EXIT_SHUTDOWN: /* a triple fault: what resets a PC */
		arch_vcpu_describe(v, where, sizeof(where));
		log_verbose("vcpu%u: a triple fault resets the machine; %s", v->index, where);
		return ARCH_EXIT_RESET;
	default:
		return ARCH_EXIT_UNKNOWN;
	}
}

void arch_vcpu_was_parked(struct vcpu *v)
{
	/* EINVAL when the guest does not use kvmclock. */
	(void)!x86_vcpu_ioctl(v, KVM_KVMCLOCK_CTRL, NULL);
}

void arch_vcpu_describe(struct vcpu *v, char *text, unsigned int size)
{
	struct kvm_regs regs = { 0 };
	struct kvm_sregs sregs = { 0 };

	if (x86_vcpu_ioctl(v, KVM_GET_REGS, &regs) || x86_vcpu_ioctl(v, KVM_GET_SREGS, &sregs)) {
		snprintf(text, size, "its registers cannot be read");
		return;
	}
	snprintf(text, size, "rip 0x%llx, rsp 0x%llx, cs 0x%x (CPL %u), cr0 0x%llx, cr3 0x%llx",
		 regs.rip, regs.rsp, sregs.cs.selector, sregs.ss.dpl, sregs.cr0, sregs.cr3);
}
