/*
 * The state of an x86-64 vCPU: what is saved, and the order of loading it. Runs on the vCPU's own
 * thread, parked.
 *
 * The order of loading, and why (KVM's setters look at what others have set):
 *   0. MP state is read: KVM carries out an INIT or SIPI that was on its way to a vCPU that has
 *      run here (others are spared the call), which would else hit the state that is loaded.
 *   1. CPUID: done when the vCPU was made; it decides which bits the others may set.
 *   2. special registers, then XCR0: they decide what XSAVE may hold; APIC base before the LAPIC.
 *   3. XSAVE area.
 *   4. MSRs; but not the TSC deadline, which KVM drops while the LAPIC timer is in another mode.
 *   5. LAPIC, then the TSC deadline.
 *   6. general registers.
 *   7. events (pending exceptions, NMI, interrupt shadow), after the LAPIC they refer to.
 *   8. MP state: a vCPU that waits for SIPI must not have been touched afterwards.
 *   9. TSC offset, against one moment for all vCPUs.
 *  10. debug registers.
 * The interrupt controllers, PIT and the clock of the VM follow (vm_state.c).
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/kvm.h"
#include "vmm/state.h"
#include "vmm/vcpu.h"
#include "vmm/x86_64/arch_internal.h"
#include "vmm/x86_64/boot.h"

#define XCR0_ALWAYS 3 /* x87, SSE */

#define N_SEGMENTS 8 /* cs ds es fs gs ss tr ldt */

/* Plain; the areas whose form KVM's or the processor's manual fixes are kept as they are. */
struct vcpu_state {
	uint64_t regs[18]; /* struct kvm_regs in its order */
	struct kvm_segment segments[N_SEGMENTS];
	struct kvm_dtable gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
	uint64_t interrupt_bitmap[4];
	uint8_t pdptrs_valid; /* 0: not a PAE guest, or KVM did not tell */
	uint64_t pdptrs[4];
	uint64_t xcr0;
	uint64_t db[4], dr6, dr7;
	uint32_t mp_state;
	uint64_t tsc; /* at the moment of the snapshot */
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	uint32_t n_msrs, n_values;
	uint32_t msrs[X86_MSRS_MAX];
	uint64_t values[X86_MSRS_MAX];
	uint32_t xsave_bytes;
	uint8_t xsave[X86_XSAVE_MAX];
};

static void segment_fields(struct state *s, void *p)
{
	struct kvm_segment *g = p;

	state_u64(s, "base", (uint64_t *)&g->base);
	state_u32(s, "limit", &g->limit);
	state_u16(s, "selector", &g->selector);
	state_u8(s, "type", &g->type);
	state_u8(s, "present", &g->present);
	state_u8(s, "dpl", &g->dpl);
	state_u8(s, "db", &g->db);
	state_u8(s, "s", &g->s);
	state_u8(s, "l", &g->l);
	state_u8(s, "g", &g->g);
	state_u8(s, "avl", &g->avl);
	state_u8(s, "unusable", &g->unusable);
}

static void vcpu_fields(struct state *s, void *p)
{
	static const char *const regs[] = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi",
					    "rsp", "rbp", "r8",	 "r9",	"r10", "r11",
					    "r12", "r13", "r14", "r15", "rip", "rflags" };
	static const char *const pdptrs[] = { "pdptr0", "pdptr1", "pdptr2", "pdptr3" };
	static const char *const dbs[] = { "db0", "db1", "db2", "db3" };
	struct vcpu_state *st = p;
	uint32_t four = 4;
	unsigned int i;

	for (i = 0; i < sizeof(regs) / sizeof(regs[0]); i++)
		state_u64(s, regs[i], &st->regs[i]);
	state_list(s, "segment", st->segments, sizeof(st->segments[0]), N_SEGMENTS, segment_fields);
	state_u64(s, "gdt-base", (uint64_t *)&st->gdt.base);
	state_u16(s, "gdt-limit", &st->gdt.limit);
	state_u64(s, "idt-base", (uint64_t *)&st->idt.base);
	state_u16(s, "idt-limit", &st->idt.limit);
	state_u64(s, "cr0", &st->cr0);
	state_u64(s, "cr2", &st->cr2);
	state_u64(s, "cr3", &st->cr3);
	state_u64(s, "cr4", &st->cr4);
	state_u64(s, "cr8", &st->cr8);
	state_u64(s, "efer", &st->efer);
	state_u64(s, "apic-base", &st->apic_base);
	state_u64_array(s, "interrupt-bitmap", st->interrupt_bitmap, &four, 4);
	state_u8_optional(s, "pdptrs-valid", &st->pdptrs_valid, 0);
	for (i = 0; i < 4; i++)
		state_u64_optional(s, pdptrs[i], &st->pdptrs[i], 0);
	state_u64(s, "xcr0", &st->xcr0);
	for (i = 0; i < 4; i++)
		state_u64(s, dbs[i], &st->db[i]);
	state_u64(s, "dr6", &st->dr6);
	state_u64(s, "dr7", &st->dr7);
	state_u32(s, "mp-state", &st->mp_state);
	state_u64(s, "tsc", &st->tsc);
	state_bytes(s, "events", &st->events, sizeof(st->events));
	state_bytes(s, "lapic", &st->lapic, sizeof(st->lapic));
	state_u32_array(s, "msr-numbers", st->msrs, &st->n_msrs, X86_MSRS_MAX);
	state_u64_array(s, "msr-values", st->values, &st->n_values, X86_MSRS_MAX);
	state_buffer(s, "xsave", st->xsave, &st->xsave_bytes, X86_XSAVE_MAX);
}

static int vcpu_check(const void *p, struct err *e)
{
	const struct vcpu_state *st = p;

	if (st->n_msrs != st->n_values)
		return err_set(e, "%" PRIu32 " MSR numbers but %" PRIu32 " values", st->n_msrs,
			       st->n_values);
	if (st->xsave_bytes < sizeof(struct kvm_xsave))
		return err_set(e, "field 'xsave' has %" PRIu32 " bytes, expected at least %zu",
			       st->xsave_bytes, sizeof(struct kvm_xsave));
	return 0;
}

const struct state_desc arch_vcpu_state = {
	.size = sizeof(struct vcpu_state),
	.fields = vcpu_fields,
	.check = vcpu_check,
};

int x86_vcpu_ioctl(const struct vcpu *v, unsigned long request, const void *arg)
{
	return kvm_ioctl(v->env->kvm, v->fd, request, arg);
}

int x86_vcpu_ioctl_named(const struct vcpu *v, unsigned long request, const void *arg,
			 const char *name, struct err *e)
{
	int rc = x86_vcpu_ioctl(v, request, arg);

	return rc < 0 ? err_errno(e, errno, "vCPU %u: %s", v->index, name) : rc;
}

static int save_msrs(const struct arch *a, struct vcpu *v, struct vcpu_state *st, struct err *e)
{
	if (x86_msrs_get(a, v, st->values, e))
		return -1;
	memcpy(st->msrs, a->msrs, a->n_msrs * sizeof(a->msrs[0]));
	st->n_msrs = st->n_values = a->n_msrs;
	return 0;
}

/* Those from `from` up to `to`. */
static int load_msrs(const struct arch *a, struct vcpu *v, const struct vcpu_state *st,
		     uint32_t from, uint32_t to, struct err *e)
{
	return x86_msrs_set(a, v, st->msrs + from, st->values + from, to - from, e);
}

static void regs_to_state(const struct kvm_regs *r, uint64_t out[18])
{
	_Static_assert(sizeof(*r) == 18 * sizeof(uint64_t), "kvm_regs is 18 registers");
	memcpy(out, r, sizeof(*r));
}

static void sregs_to_state(const struct kvm_sregs *r, struct vcpu_state *st)
{
	const struct kvm_segment segments[N_SEGMENTS] = { r->cs, r->ds, r->es, r->fs,
							  r->gs, r->ss, r->tr, r->ldt };

	memcpy(st->segments, segments, sizeof(segments));
	st->gdt = r->gdt;
	st->idt = r->idt;
	st->cr0 = r->cr0;
	st->cr2 = r->cr2;
	st->cr3 = r->cr3;
	st->cr4 = r->cr4;
	st->cr8 = r->cr8;
	st->efer = r->efer;
	st->apic_base = r->apic_base;
	memcpy(st->interrupt_bitmap, r->interrupt_bitmap, sizeof(st->interrupt_bitmap));
}

static struct kvm_sregs state_to_sregs(const struct vcpu_state *st)
{
	const struct kvm_segment *g = st->segments;
	struct kvm_sregs r = {
		.cs = g[0],
		.ds = g[1],
		.es = g[2],
		.fs = g[3],
		.gs = g[4],
		.ss = g[5],
		.tr = g[6],
		.ldt = g[7],
		.gdt = st->gdt,
		.idt = st->idt,
		.cr0 = st->cr0,
		.cr2 = st->cr2,
		.cr3 = st->cr3,
		.cr4 = st->cr4,
		.cr8 = st->cr8,
		.efer = st->efer,
		.apic_base = st->apic_base,
	};

	memcpy(r.interrupt_bitmap, st->interrupt_bitmap, sizeof(st->interrupt_bitmap));
	return r;
}

#define XSTATE_BV_AT 512 /* in the area: the components that are not as after a reset */

/* Of the components that this guest can use: a host may keep others for itself. */
static void clear_foreign_components(const struct arch *a, uint8_t *area)
{
	uint64_t mine = cpuid_word(&a->cpuid, 0xd, 0, CPUID_EAX) |
			(uint64_t)cpuid_word(&a->cpuid, 0xd, 0, CPUID_EDX) << 32 | XCR0_ALWAYS;
	uint64_t there;

	memcpy(&there, area + XSTATE_BV_AT, sizeof(there));
	there &= mine;
	memcpy(area + XSTATE_BV_AT, &there, sizeof(there));
}

/* As much as the guest's components need, which is the same on all hosts. */
static int save_xsave(const struct arch *a, struct vcpu *v, struct vcpu_state *st, struct err *e)
{
	uint32_t mine = cpuid_word(&a->cpuid, 0xd, 0, CPUID_ECX);
	int rc;

	if (a->xsave_bytes > sizeof(struct kvm_xsave))
		rc = VCPU_IOCTL(v, KVM_GET_XSAVE2, st->xsave, e);
	else
		rc = VCPU_IOCTL(v, KVM_GET_XSAVE, st->xsave, e);
	st->xsave_bytes = mine > sizeof(struct kvm_xsave) ? mine : sizeof(struct kvm_xsave);
	clear_foreign_components(a, st->xsave);
	return rc;
}

static bool all_zero(const uint8_t *bytes, uint32_t n)
{
	while (n && !*bytes)
		bytes++, n--;
	return !n;
}

static int load_xsave(const struct arch *a, struct vcpu *v, const struct vcpu_state *st,
		      struct err *e)
{
	/* KVM reads as much as this host's area has, whatever the other host's had. */
	uint32_t here = a->xsave_bytes;
	uint8_t *area;
	int rc;

	if (st->xsave_bytes > here && !all_zero(st->xsave + here, st->xsave_bytes - here))
		return err_set(e,
			       "vCPU %u: an extended state of %" PRIu32
			       " bytes, this host's has %" PRIu32,
			       v->index, st->xsave_bytes, here);
	area = calloc(1, here);
	if (!area)
		return err_set(e, "out of memory");
	memcpy(area, st->xsave, st->xsave_bytes < here ? st->xsave_bytes : here);
	clear_foreign_components(a, area);
	rc = VCPU_IOCTL(v, KVM_SET_XSAVE, area, e);
	free(area);
	return rc;
}

/* A 32-bit guest with PAE may have changed its page-directory pointers in memory since it loaded
 * them: the CPU goes on with those it has. */
static int save_pdptrs(const struct arch *a, struct vcpu *v, struct vcpu_state *st, struct err *e)
{
	struct kvm_sregs2 s = { 0 };

	if (!a->sregs2)
		return 0;
	if (VCPU_IOCTL(v, KVM_GET_SREGS2, &s, e) < 0)
		return -1;
	st->pdptrs_valid = s.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID ? 1 : 0;
	if (st->pdptrs_valid)
		memcpy(st->pdptrs, s.pdptrs, sizeof(st->pdptrs));
	return 0;
}

static int load_sregs(const struct arch *a, struct vcpu *v, const struct vcpu_state *st,
		      struct err *e)
{
	const struct kvm_sregs sregs = state_to_sregs(st);
	struct kvm_sregs2 s = { .flags = KVM_SREGS2_FLAGS_PDPTRS_VALID };

	if (!st->pdptrs_valid || !a->sregs2)
		return VCPU_IOCTL(v, KVM_SET_SREGS, &sregs, e);
	_Static_assert(offsetof(struct kvm_sregs2, flags) ==
			       offsetof(struct kvm_sregs, interrupt_bitmap),
		       "both begin with the same registers");
	/* The bitmap says again what the events say. */
	memcpy(&s, &sregs, offsetof(struct kvm_sregs2, flags));
	memcpy(s.pdptrs, st->pdptrs, sizeof(s.pdptrs));
	return VCPU_IOCTL(v, KVM_SET_SREGS2, &s, e);
}

/* Not told unless there is one, so that KVMs and versions that do not know it take the rest. */
static int save_events(struct vcpu *v, struct vcpu_state *st, struct err *e)
{
	if (VCPU_IOCTL(v, KVM_GET_VCPU_EVENTS, &st->events, e) < 0)
		return -1;
	if (!st->events.triple_fault.pending)
		st->events.flags &= ~(uint32_t)KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	return 0;
}

static int load_events(const struct arch *a, struct vcpu *v, const struct vcpu_state *st,
		       struct err *e)
{
	struct kvm_vcpu_events events = st->events;

	if (!(events.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT))
		events.triple_fault.pending = 0;
	if (events.triple_fault.pending && !a->triple_fault)
		return err_set(e,
			       "vCPU %u: a triple fault is pending, which this host's KVM does not "
			       "take (KVM_CAP_X86_TRIPLE_FAULT_EVENT)",
			       v->index);
	events.flags &= ~(uint32_t)KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	if (a->triple_fault)
		events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	return VCPU_IOCTL(v, KVM_SET_VCPU_EVENTS, &events, e);
}

int arch_vcpu_save(const struct arch *a, struct vcpu *v, const struct arch_moment *now, void *p,
		   struct err *e)
{
	struct vcpu_state *st = p;
	struct kvm_mp_state mp = { 0 };
	struct kvm_debugregs debug = { 0 };
	struct kvm_sregs sregs = { 0 };
	struct kvm_xcrs xcrs = { 0 };
	struct kvm_regs regs = { 0 };

	/*
	 * MP state first: KVM turns a pending INIT or SIPI into it while it answers. Then the
	 * events: that of a pending page fault or debug exception puts its address into CR2, or
	 * DR6.
	 */
	if (VCPU_IOCTL(v, KVM_GET_MP_STATE, &mp, e) < 0 || save_events(v, st, e) ||
	    VCPU_IOCTL(v, KVM_GET_REGS, &regs, e) < 0 ||
	    VCPU_IOCTL(v, KVM_GET_SREGS, &sregs, e) < 0 || save_pdptrs(a, v, st, e) ||
	    VCPU_IOCTL(v, KVM_GET_XCRS, &xcrs, e) < 0 || save_xsave(a, v, st, e) < 0 ||
	    save_msrs(a, v, st, e) || x86_tsc_save(a, v, now, &st->tsc, e) ||
	    VCPU_IOCTL(v, KVM_GET_LAPIC, &st->lapic, e) < 0 ||
	    VCPU_IOCTL(v, KVM_GET_DEBUGREGS, &debug, e) < 0)
		return -1;
	regs_to_state(&regs, st->regs);
	sregs_to_state(&sregs, st);
	st->xcr0 = xcrs.nr_xcrs ? xcrs.xcrs[0].value : 0;
	st->mp_state = mp.mp_state;
	memcpy(st->db, debug.db, sizeof(st->db));
	st->dr6 = debug.dr6;
	st->dr7 = debug.dr7;
	return 0;
}

int arch_vcpu_load(const struct arch *a, struct vcpu *v, const struct arch_moment *now,
		   const void *p, struct err *e)
{
	const struct vcpu_state *st = p;
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = st->xcr0 };
	struct kvm_mp_state mp = { .mp_state = st->mp_state }, before = { 0 };
	struct kvm_debugregs debug = { .dr6 = st->dr6, .dr7 = st->dr7 };
	struct kvm_regs regs;
	uint32_t last = st->n_msrs, n = last;
	const bool run_before = v->used;

	memcpy(&regs, st->regs, sizeof(regs));
	memcpy(debug.db, st->db, sizeof(st->db));
	if (last && st->msrs[last - 1] == X86_MSR_TSC_DEADLINE)
		last--;
	/* No deadline is what one that has never run has. */
	if (!v->used && last < n && !st->values[last])
		n = last;
	v->used = v->used || last < n;
	if ((run_before && VCPU_IOCTL(v, KVM_GET_MP_STATE, &before, e) < 0) ||
	    load_sregs(a, v, st, e) < 0 ||
	    (st->xcr0 && VCPU_IOCTL(v, KVM_SET_XCRS, &xcrs, e) < 0) ||
	    load_xsave(a, v, st, e) < 0 || load_msrs(a, v, st, 0, last, e) ||
	    VCPU_IOCTL(v, KVM_SET_LAPIC, &st->lapic, e) < 0 ||
	    x86_tsc_load(a, v, now, st->tsc, e) || load_msrs(a, v, st, last, n, e) ||
	    VCPU_IOCTL(v, KVM_SET_REGS, &regs, e) < 0 || load_events(a, v, st, e) < 0 ||
	    VCPU_IOCTL(v, KVM_SET_MP_STATE, &mp, e) < 0 ||
	    VCPU_IOCTL(v, KVM_SET_DEBUGREGS, &debug, e) < 0)
		return -1;
	return 0;
}

/* Flat segments for both protocols; the GDT in memory holds the same for when they are reloaded. */
static struct kvm_segment flat(bool code, bool long_mode)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = code ? 0x10 : 0x18,
		.type = code ? 11 : 3,
		.present = 1,
		.db = !(code && long_mode),
		.s = 1,
		.l = code && long_mode,
		.g = 1,
	};
}

int x86_set_entry(struct vcpu *v, const struct boot_entry *entry, struct err *e)
{
	bool long_mode = entry->protocol == BOOT_LINUX64;
	struct kvm_regs regs = { .rflags = 2, .rip = entry->rip };
	struct kvm_sregs s = { 0 };

	if (VCPU_IOCTL(v, KVM_GET_SREGS, &s, e) < 0)
		return -1;
	s.cs = flat(true, long_mode);
	s.ds = s.es = s.fs = s.gs = s.ss = flat(false, long_mode);
	s.tr = (struct kvm_segment){ .limit = 0x67, .type = 11, .present = 1 };
	s.gdt.base = entry->gdt_gpa;
	s.gdt.limit = (uint16_t)(entry->gdt_bytes ? entry->gdt_bytes - 1 : 0);
	s.idt.base = 0;
	s.idt.limit = 0;
	s.cr0 = 0x11; /* protected mode, extension type */
	s.cr4 = 0;
	s.efer = 0;
	if (long_mode) {
		s.cr0 |= 0x80000000; /* paging */
		s.cr3 = entry->page_tables_gpa;
		s.cr4 = 0x20;	/* PAE */
		s.efer = 0x500; /* LME, LMA */
		regs.rsi = entry->info_gpa;
	} else {
		regs.rbx = entry->info_gpa;
	}
	if (VCPU_IOCTL(v, KVM_SET_SREGS, &s, e) < 0 || VCPU_IOCTL(v, KVM_SET_REGS, &regs, e) < 0)
		return -1;
	return 0;
}
