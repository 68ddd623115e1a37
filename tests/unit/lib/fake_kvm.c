/*
 * A KVM that is not there: see fake_kvm.h.
 */
#include "tests/unit/lib/fake_kvm.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

enum kind { NOTHING, DEVICE, VM, VCPU };

static int refuse(int error)
{
	errno = error;
	return -1;
}

static int new_fd(struct fake_kvm *f, enum kind kind)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	ck_assert(fd >= 0 && fd < FAKE_FDS_MAX);
	f->kinds[fd] = (uint8_t)kind;
	return fd;
}

/* -- MSRs -- */

static struct kvm_msr_entry *find_msr(const struct fake_msrs *m, uint32_t index)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (m->entries[i].index == index)
			return (struct kvm_msr_entry *)&m->entries[i];
	return NULL;
}

void fake_msr_set(struct fake_msrs *m, uint32_t index, uint64_t value)
{
	struct kvm_msr_entry *one = find_msr(m, index);

	if (!one) {
		ck_assert(m->n < FAKE_MSRS_MAX);
		one = &m->entries[m->n++];
	}
	*one = (struct kvm_msr_entry){ .index = index, .data = value };
}

void fake_msr_drop(struct fake_msrs *m, uint32_t index)
{
	struct kvm_msr_entry *one = find_msr(m, index);

	if (one)
		*one = m->entries[--m->n];
}

uint64_t fake_msr(const struct fake_msrs *m, uint32_t index)
{
	const struct kvm_msr_entry *one = find_msr(m, index);

	ck_assert_msg(one != NULL, "there is no MSR 0x%x", index);
	return one->data;
}

static int list_msrs(const struct fake_msrs *m, struct kvm_msr_list *list)
{
	uint32_t room = list->nmsrs;

	list->nmsrs = m->n;
	if (room < m->n)
		return refuse(E2BIG);
	for (uint32_t i = 0; i < m->n; i++)
		list->indices[i] = m->entries[i].index;
	return 0;
}

static int get_msrs(const struct fake_kvm *f, const struct fake_msrs *m, struct kvm_msrs *list)
{
	uint32_t i;

	for (i = 0; i < list->nmsrs; i++) {
		struct kvm_msr_entry *want = &list->entries[i];
		const struct kvm_msr_entry *one = find_msr(m, want->index);

		if (want->index == 0x10 && m == &f->values)
			want->data = __rdtsc() + f->tsc_offset;
		else if (!one)
			break;
		else
			want->data = one->data;
	}
	return (int)i;
}

static int set_msrs(struct fake_kvm *f, const struct kvm_msrs *list)
{
	uint32_t i;

	for (i = 0; i < list->nmsrs; i++) {
		struct kvm_msr_entry new = list->entries[i];
		struct kvm_msr_entry *one = find_msr(&f->values, new.index);

		if (new.index == 0x10)
			f->tsc_offset = new.data - __rdtsc();
		else if (!one ||
			 (f->ran && find_msr(&f->features, new.index) && one->data != new.data))
			break;
		else
			one->data = new.data;
	}
	return (int)i;
}

/* -- what it is asked -- */

static int check_extension(const struct fake_kvm *f, uintptr_t capability)
{
	switch (capability) {
	case KVM_CAP_IRQ_ROUTING:
		return 4096;
	case KVM_CAP_GET_MSR_FEATURES:
		return 1;
	case KVM_CAP_TSC_CONTROL:
		return f->scales;
	case KVM_CAP_XSAVE2:
		return f->xsave2;
	case KVM_CAP_SREGS2:
		return f->has_sregs2;
	case KVM_CAP_X86_TRIPLE_FAULT_EVENT:
		return f->has_triple_fault;
	default:
		return 0;
	}
}

static int supported_cpuid(const struct fake_kvm *f, struct kvm_cpuid2 *c)
{
	if (c->nent < f->cpuid.n)
		return refuse(E2BIG);
	c->nent = f->cpuid.n;
	memcpy(c->entries, f->cpuid.entries, f->cpuid.n * sizeof(c->entries[0]));
	return 0;
}

static int device_ioctl(struct fake_kvm *f, unsigned long request, void *arg)
{
	switch (request) {
	case KVM_CREATE_VM:
		f->n_vms++;
		return new_fd(f, VM);
	case KVM_GET_SUPPORTED_CPUID:
		return supported_cpuid(f, arg);
	case KVM_GET_MSR_INDEX_LIST:
		return list_msrs(&f->msrs, arg);
	case KVM_GET_MSR_FEATURE_INDEX_LIST:
		return list_msrs(&f->features, arg);
	case KVM_GET_MSRS:
		return get_msrs(f, &f->features, arg);
	default:
		return refuse(ENOTTY);
	}
}

static int enable_cap(struct fake_kvm *f, const struct kvm_enable_cap *cap)
{
	if (cap->cap != KVM_CAP_X86_TRIPLE_FAULT_EVENT || !f->has_triple_fault)
		return refuse(EINVAL);
	f->triple_fault_enabled = cap->args[0];
	return 0;
}

static int vm_ioctl(struct fake_kvm *f, unsigned long request, void *arg)
{
	const struct kvm_irq_routing *routing = arg;

	switch (request) {
	case KVM_CHECK_EXTENSION:
		return check_extension(f, (uintptr_t)arg);
	case KVM_GET_TSC_KHZ:
		return f->vm_tells_khz ? (int)f->khz : refuse(EINVAL);
	case KVM_CREATE_VCPU:
		f->n_vcpus++;
		f->vcpu_khz = f->khz;
		return new_fd(f, VCPU);
	case KVM_SET_IDENTITY_MAP_ADDR:
	case KVM_SET_TSS_ADDR:
	case KVM_CREATE_IRQCHIP:
	case KVM_CREATE_PIT2:
		return 0;
	case KVM_SET_GSI_ROUTING:
		ck_assert(routing->nr <= 64);
		f->n_routes = routing->nr;
		memcpy(f->routes, routing->entries, routing->nr * sizeof(f->routes[0]));
		return 0;
	case KVM_ENABLE_CAP:
		return enable_cap(f, arg);
	default:
		return refuse(ENOTTY);
	}
}

/* Without scaling KVM takes what is faster than the host, and only makes the TSC catch up now and
 * then. */
static int set_khz(struct fake_kvm *f, uintptr_t khz)
{
	if (!f->scales && khz < f->khz)
		return refuse(EINVAL);
	f->vcpu_khz = (uint32_t)khz;
	return 0;
}

static int tsc_attr(struct fake_kvm *f, unsigned long request, const struct kvm_device_attr *attr)
{
	uint64_t *value = (uint64_t *)(uintptr_t)attr->addr;

	if (!f->has_tsc_offset || attr->group != KVM_VCPU_TSC_CTRL)
		return refuse(ENXIO);
	if (request == KVM_GET_DEVICE_ATTR)
		*value = f->tsc_offset;
	else if (request == KVM_SET_DEVICE_ATTR)
		f->tsc_offset = *value;
	return 0;
}

static int get_events(struct fake_kvm *f, struct kvm_vcpu_events *out)
{
	*out = f->events;
	if (f->triple_fault_enabled)
		out->flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	else
		out->triple_fault.pending = 0;
	return 0;
}

static int set_events(struct fake_kvm *f, const struct kvm_vcpu_events *from)
{
	if (from->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT && !f->triple_fault_enabled)
		return refuse(EINVAL);
	f->events = *from;
	return 0;
}

static int sregs2(struct fake_kvm *f, unsigned long request, struct kvm_sregs2 *s)
{
	struct kvm_sregs *r = &f->sregs;
	const size_t common = offsetof(struct kvm_sregs, interrupt_bitmap);

	_Static_assert(offsetof(struct kvm_sregs2, flags) ==
			       offsetof(struct kvm_sregs, interrupt_bitmap),
		       "they begin alike");
	if (!f->has_sregs2)
		return refuse(ENOTTY);
	if (request == KVM_SET_SREGS2) {
		memcpy(r, s, common);
		f->pdptrs_set = s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
		if (f->pdptrs_set)
			memcpy(f->pdptrs, s->pdptrs, sizeof(f->pdptrs));
		return 0;
	}
	memset(s, 0, sizeof(*s));
	memcpy(s, r, common);
	if ((r->cr0 & 1u << 31) && (r->cr4 & 1u << 5) && !(r->efer & 1u << 10)) {
		s->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
		memcpy(s->pdptrs, f->pdptrs, sizeof(f->pdptrs));
	}
	return 0;
}

static size_t xsave_bytes(const struct fake_kvm *f)
{
	return f->xsave2 > 4096 ? (size_t)f->xsave2 : 4096;
}

static int set_xsave(struct fake_kvm *f, const uint8_t *area)
{
	uint64_t features;

	memcpy(&features, area + 512, sizeof(features));
	if (features & ~f->xfeatures)
		return refuse(EINVAL);
	memcpy(f->xsave, area, xsave_bytes(f));
	return 0;
}

#define GET(request, member)                            \
	case request:                                   \
		memcpy(arg, &(member), sizeof(member)); \
		return 0
#define SET(request, member)                            \
	case request:                                   \
		memcpy(&(member), arg, sizeof(member)); \
		return 0

static int vcpu_ioctl(struct fake_kvm *f, unsigned long request, void *arg)
{
	switch (request) {
		GET(KVM_GET_REGS, f->regs);
		SET(KVM_SET_REGS, f->regs);
		GET(KVM_GET_SREGS, f->sregs);
		SET(KVM_SET_SREGS, f->sregs);
		GET(KVM_GET_LAPIC, f->lapic);
		SET(KVM_SET_LAPIC, f->lapic);
		GET(KVM_GET_XCRS, f->xcrs);
		SET(KVM_SET_XCRS, f->xcrs);
		GET(KVM_GET_DEBUGREGS, f->debug);
		SET(KVM_SET_DEBUGREGS, f->debug);
		GET(KVM_GET_MP_STATE, f->mp);
		SET(KVM_SET_MP_STATE, f->mp);
	case KVM_GET_SREGS2:
	case KVM_SET_SREGS2:
		return sregs2(f, request, arg);
	case KVM_GET_VCPU_EVENTS:
		return get_events(f, arg);
	case KVM_SET_VCPU_EVENTS:
		return set_events(f, arg);
	case KVM_GET_XSAVE:
		memcpy(arg, f->xsave, 4096);
		return 0;
	case KVM_GET_XSAVE2:
		memcpy(arg, f->xsave, xsave_bytes(f));
		return f->xsave2 ? 0 : refuse(ENOTTY);
	case KVM_SET_XSAVE:
		return set_xsave(f, arg);
	case KVM_GET_MSRS:
		return get_msrs(f, &f->values, arg);
	case KVM_SET_MSRS:
		return set_msrs(f, arg);
	case KVM_GET_TSC_KHZ:
		return (int)f->vcpu_khz;
	case KVM_SET_TSC_KHZ:
		return set_khz(f, (uintptr_t)arg);
	case KVM_HAS_DEVICE_ATTR:
	case KVM_GET_DEVICE_ATTR:
	case KVM_SET_DEVICE_ATTR:
		return tsc_attr(f, request, arg);
	case KVM_SET_CPUID2:
		return 0;
	default:
		return refuse(ENOTTY);
	}
}

static int fake_ioctl(const struct kvm *k, int fd, unsigned long request, void *arg)
{
	struct fake_kvm *f = (struct fake_kvm *)k;

	ck_assert(fd >= 0 && fd < FAKE_FDS_MAX);
	switch (f->kinds[fd]) {
	case DEVICE:
		return device_ioctl(f, request, arg);
	case VM:
		return vm_ioctl(f, request, arg);
	case VCPU:
		return vcpu_ioctl(f, request, arg);
	default:
		return refuse(EBADF);
	}
}

static const struct kvm_ops fake_ops = { .ioctl = fake_ioctl };

/* -- the hosts -- */

static void add(struct fake_kvm *f, uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx,
		uint32_t ecx, uint32_t edx)
{
	bool indexed = function == 7 || function == 0xd;

	f->cpuid.entries[f->cpuid.n++] = (struct kvm_cpuid_entry2){
		.function = function,
		.index = index,
		.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
		.eax = eax,
		.ebx = ebx,
		.ecx = ecx,
		.edx = edx,
	};
}

struct kvm_cpuid_entry2 *fake_cpuid(struct fake_kvm *f, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < f->cpuid.n; i++)
		if (f->cpuid.entries[i].function == function && f->cpuid.entries[i].index == index)
			return &f->cpuid.entries[i];
	ck_abort_msg("the host has no CPUID leaf 0x%x.%u", function, index);
}

static void intel(struct fake_kvm *f)
{
	add(f, 0, 0, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69);
	add(f, 1, 0, 0x50657, 0x10800, 0xfffaf387, 0x0fabfbff);
	add(f, 7, 0, 0, 0xd19f47ab, 0x808, 0xac000400);
	add(f, 0xd, 0, 0x2e7, 0xa88, 0xa88, 0);
	add(f, 0xd, 1, 0xf, 0, 0, 0);
	add(f, 0xd, 2, 0x100, 0x240, 0, 0);
	add(f, 0xd, 5, 0x40, 0x440, 0, 0);
	add(f, 0xd, 6, 0x200, 0x480, 0, 0);
	add(f, 0xd, 7, 0x400, 0x680, 0, 0);
	add(f, 0xd, 9, 8, 0xa80, 0, 0);
	add(f, 0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	add(f, 0x40000001, 0, 0x01007efb, 0, 0, 0);
	add(f, 0x80000000, 0, 0x80000008, 0, 0, 0);
	add(f, 0x80000001, 0, 0, 0, 0x121, 0x2c100800);
	add(f, 0x80000007, 0, 0, 0, 0, 0x100);
	add(f, 0x80000008, 0, 0x302e, 0x1000, 0, 0);
}

void fake_kvm_init(struct fake_kvm *f)
{
	memset(f, 0, sizeof(*f));
	f->kvm.ops = &fake_ops;
	f->kvm.dev_fd = new_fd(f, DEVICE);
	f->kvm.vm_fd = new_fd(f, VM);
	f->kvm.max_vcpus = 1024;
	f->env.kvm = &f->kvm;
	f->khz = 2000000;
	f->vm_tells_khz = f->has_tsc_offset = f->has_sregs2 = f->has_triple_fault = true;
	f->xsave2 = 4096;
	f->xfeatures = 0x2e7;
	f->xcrs = (struct kvm_xcrs){ .nr_xcrs = 1, .xcrs[0].value = 7 };
	intel(f);
	fake_msr_set(&f->features, 0x8b, 0x100000000);
	fake_msr_set(&f->features, 0x10a, 0x2b); /* RDCL_NO IBRS_ALL SKIP_L1DFL MDS_NO */
	fake_msr_set(&f->features, 0x345, 0x2000);
	fake_msr_set(&f->features, 0x480, 0x1234);
	fake_msr_set(&f->msrs, 0x10, 0);
	fake_msr_set(&f->msrs, 0x174, 0);
	fake_msr_set(&f->msrs, 0x10a, 0x2b);
	fake_msr_set(&f->msrs, 0x345, 0x2000);
	fake_msr_set(&f->msrs, 0x480, 0x1234);
	fake_msr_set(&f->msrs, 0x6e0, 0);
	fake_msr_set(&f->unlisted, 0x277, 0x0007040600070406);
	fake_msr_set(&f->unlisted, 0x2ff, 0);
}

void fake_kvm_init_5_10(struct fake_kvm *f)
{
	fake_kvm_init(f);
	f->vm_tells_khz = f->has_tsc_offset = f->has_sregs2 = f->has_triple_fault = false;
	f->xsave2 = 0;
}

void fake_kvm_free(struct fake_kvm *f)
{
	for (int fd = 0; fd < FAKE_FDS_MAX; fd++)
		if (f->kinds[fd] == DEVICE || (f->kinds[fd] != NOTHING && fd == f->kvm.vm_fd))
			close(fd);
}

void fake_kvm_vcpu(struct fake_kvm *f, struct vcpu *v)
{
	*v = (struct vcpu){ .env = &f->env, .fd = new_fd(f, VCPU) };
	f->vcpu_khz = f->khz;
	f->values = f->msrs;
	for (uint32_t i = 0; i < f->unlisted.n; i++)
		fake_msr_set(&f->values, f->unlisted.entries[i].index, f->unlisted.entries[i].data);
}
