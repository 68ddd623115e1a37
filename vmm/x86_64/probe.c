/*
 * The two-ring probe on x86-64. A page of code, page tables that map it for both rings, no
 * interrupts. The vCPU is put straight into 64-bit mode, at CPL 0 and then at CPL 3 with IOPL 3,
 * where the same code may do its port write too.
 */
#include "vmm/probe.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/arch.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/kvm.h"
#include "vmm/memory.h"

#define REPEATS	    5
#define OUTWEIGHS   8	       /* a long run takes so many times as long as its exit, if it may */
#define LONG_ENOUGH 10000000u  /* ns: no longer runs than about this, */
#define TURNS_MAX   (1u << 26) /* nor more turns, */
#define BUDGET_NS   200000000u /* and after this no more repetitions */
#define GUEST_SIZE  (8 * PAGE_SIZE)
#define PML4_GPA    0x1000u
#define PDPT_GPA    0x2000u
#define PD_GPA	    0x3000u
#define CODE_GPA    0x4000u
#define TSS_GPA	    0x5000u
#define DATA_GPA    0x6000u
#define WIDE_GPA    (CODE_GPA + 16)
#define PORT	    0x80u

/* What is mapped and open while a probe runs. */
struct probe {
	struct kvm kvm;
	uint8_t *memory;
	int vcpu_fd;
	struct kvm_run *run;
};

/*
 *   1: dec %ecx            as many turns as the register says
 *      jnz 1b
 *      out %al, $PORT      the exit that ends a run
 *      jmp .
 */
static const uint8_t code[] = { 0xff, 0xc9, 0x75, 0xfc, 0xe6, PORT, 0xeb, 0xfe };

/*
 *      lock cmpxchg16b (%rdi)     what memory allocators of kernels do, and interpreters leave out
 *      out %al, $PORT
 *      jmp .
 */
static const uint8_t wide[] = { 0xf0, 0x48, 0x0f, 0xc7, 0x0f, 0xe6, PORT, 0xeb, 0xfe };

static void put_entry(uint8_t *memory, uint32_t at, uint64_t entry)
{
	memcpy(memory + at, &entry, sizeof(entry));
}

static void fill_memory(uint8_t *memory)
{
	const uint64_t present_write_user = 7, large = 0x80;

	put_entry(memory, PML4_GPA, PDPT_GPA | present_write_user);
	put_entry(memory, PDPT_GPA, PD_GPA | present_write_user);
	put_entry(memory, PD_GPA, 0 | large | present_write_user);
	memcpy(memory + CODE_GPA, code, sizeof(code));
	memcpy(memory + WIDE_GPA, wide, sizeof(wide));
}

static int set_mode(struct probe *p, unsigned int cpl, uint64_t rip, uint64_t turns, struct err *e)
{
	struct kvm_regs regs = {
		.rip = rip, .rcx = turns, .rdi = DATA_GPA, .rflags = 0x2 | 3 << 12
	};
	struct kvm_segment data = {
		.limit = 0xffffffff,
		.selector = (uint16_t)(0x18 | cpl),
		.type = 3,
		.present = 1,
		.dpl = (uint8_t)cpl,
		.db = 1,
		.s = 1,
		.g = 1,
	};
	struct kvm_segment cs = data;
	struct kvm_sregs s;

	if (ioctl(p->vcpu_fd, KVM_GET_SREGS, &s))
		return err_errno(e, errno, "KVM_GET_SREGS");
	cs.selector = (uint16_t)(0x10 | cpl);
	cs.type = 11;
	cs.db = 0;
	cs.l = 1;
	s.cs = cs;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.tr = (struct kvm_segment){ .base = TSS_GPA, .limit = 0x67, .type = 11, .present = 1 };
	s.cr0 = 0x80000011;
	s.cr3 = PML4_GPA;
	s.cr4 = 0x20;
	s.efer = 0x500;
	if (ioctl(p->vcpu_fd, KVM_SET_SREGS, &s) || ioctl(p->vcpu_fd, KVM_SET_REGS, &regs))
		return err_errno(e, errno, "KVM_SET_SREGS");
	return 0;
}

/* Until the guest leaves KVM; -1 with a sentence when that failed. */
static int run_once(struct probe *p, unsigned int cpl, uint64_t rip, uint64_t turns,
		    uint64_t *took_ns, struct err *e)
{
	uint64_t start;
	int rc;

	if (set_mode(p, cpl, rip, turns, e))
		return -1;
	start = clock_ns();
	do {
		rc = ioctl(p->vcpu_fd, KVM_RUN, 0);
	} while (rc && errno == EINTR);
	*took_ns = clock_ns() - start;
	return rc ? err_errno(e, errno, "KVM_RUN at CPL %u", cpl) : 0;
}

/* The shortest counts: the first run also pays for its page faults, and any for a busy host. */
static int time_run(struct probe *p, unsigned int cpl, uint64_t turns, uint64_t *best_ns,
		    struct err *e)
{
	uint64_t took;

	if (run_once(p, cpl, CODE_GPA, turns, &took, e))
		return -1;
	if (p->run->exit_reason != KVM_EXIT_IO || p->run->io.port != PORT)
		return err_set(e, "the probe ended with exit %u at CPL %u", p->run->exit_reason,
			       cpl);
	*best_ns = took < *best_ns ? took : *best_ns;
	return 0;
}

/* What an exit costs, and how many turns outweigh it. */
static int choose_turns(struct probe *p, unsigned int cpl, struct probe_ring *ring, struct err *e)
{
	*ring = (struct probe_ring){ .exit_ns = UINT64_MAX, .turns = 16 };
	for (unsigned int i = 0; i < REPEATS; i++)
		if (time_run(p, cpl, 1, &ring->exit_ns, e))
			return -1;
	do {
		ring->turns *= 4;
		ring->run_ns = UINT64_MAX;
		if (time_run(p, cpl, ring->turns, &ring->run_ns, e))
			return -1;
	} while (ring->run_ns < OUTWEIGHS * ring->exit_ns && ring->run_ns < LONG_ENOUGH &&
		 ring->turns < TURNS_MAX);
	return 0;
}

/* By turns in each ring, so that a host that is busy for a while is so for both. */
static int time_rings(struct probe *p, struct probe_result *out, struct err *e)
{
	uint64_t start = clock_ns();

	if (choose_turns(p, 3, &out->user, e) || choose_turns(p, 0, &out->kernel, e))
		return -1;
	for (unsigned int i = 1; i < REPEATS && clock_ns() - start < BUDGET_NS; i++)
		if (time_run(p, 3, 1, &out->user.exit_ns, e) ||
		    time_run(p, 0, 1, &out->kernel.exit_ns, e) ||
		    time_run(p, 3, out->user.turns, &out->user.run_ns, e) ||
		    time_run(p, 0, out->kernel.turns, &out->kernel.run_ns, e))
			return -1;
	return 0;
}

static int try_wide(struct probe *p, bool *refused, struct err *e)
{
	uint64_t took;

	if (run_once(p, 0, WIDE_GPA, 0, &took, e))
		return -1;
	*refused = p->run->exit_reason == KVM_EXIT_INTERNAL_ERROR;
	return 0;
}

static int set_up(struct probe *p, struct err *e)
{
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_SIZE };

	p->memory = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	if (p->memory == MAP_FAILED) {
		p->memory = NULL;
		return err_errno(e, errno, "cannot map memory");
	}
	fill_memory(p->memory);
	region.userspace_addr = (uintptr_t)p->memory;
	if (kvm_vm_ioctl(&p->kvm, KVM_SET_TSS_ADDR, (void *)0xfffbd000ul, "KVM_SET_TSS_ADDR", e) <
		    0 ||
	    kvm_vm_ioctl(&p->kvm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION",
			 e) < 0)
		return -1;
	p->vcpu_fd = ioctl(p->kvm.vm_fd, KVM_CREATE_VCPU, 0);
	if (p->vcpu_fd < 0)
		return err_errno(e, errno, "KVM_CREATE_VCPU");
	p->run = mmap(NULL, p->kvm.vcpu_map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu_fd,
		      0);
	if (p->run == MAP_FAILED) {
		p->run = NULL;
		return err_errno(e, errno, "cannot map a vCPU");
	}
	return 0;
}

int arch_probe_modes(struct probe_result *out, struct err *e)
{
	struct probe p = { .vcpu_fd = -1 };
	int rc;

	*out = (struct probe_result){ 0 };
	if (kvm_init(&p.kvm, 0, e))
		return -1;
	rc = set_up(&p, e) || time_rings(&p, out, e) || try_wide(&p, &out->refused, e);
	if (p.run)
		munmap(p.run, p.kvm.vcpu_map_bytes);
	if (p.vcpu_fd >= 0)
		close(p.vcpu_fd);
	kvm_free(&p.kvm);
	if (p.memory)
		munmap(p.memory, GUEST_SIZE);
	return rc ? -1 : 0;
}
