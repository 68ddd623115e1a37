/*
 * The two-ring probe: see probe.h. A page of code, page tables that map it for both rings, no
 * interrupts. The vCPU is put straight into 64-bit mode, at CPL 0 and then at CPL 3 with IOPL 3,
 * where the same code may do its port write too.
 */
#include "vmm/probe.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/kvm.h"
#include "vmm/memory.h"

#define LOOPS	   2000u
#define GUEST_SIZE (8 * PAGE_SIZE)
#define PML4_GPA   0x1000u
#define PDPT_GPA   0x2000u
#define PD_GPA	   0x3000u
#define CODE_GPA   0x4000u
#define TSS_GPA	   0x5000u
#define PORT	   0x80u

/* What is mapped and open while a probe runs. */
struct probe {
	struct kvm kvm;
	uint8_t *memory;
	int vcpu_fd;
	struct kvm_run *run;
};

/*
 *      mov $LOOPS, %ecx
 *   1: dec %ecx
 *      jnz 1b
 *      out %al, $PORT      the exit that ends a run
 *      jmp .
 */
static const uint8_t code[] = { 0xb9, LOOPS & 0xff, LOOPS >> 8, 0,    0,    0xff, 0xc9,
				0x75, 0xfc,	    0xe6,	PORT, 0xeb, 0xfe };

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
}

static int set_mode(struct probe *p, unsigned int cpl, struct err *e)
{
	struct kvm_regs regs = { .rip = CODE_GPA, .rflags = 0x2 | 3 << 12 };
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

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* One run in one ring; the first run in a ring also pays for its page faults, so take the best. */
static int time_mode(struct probe *p, unsigned int cpl, uint64_t *best_ns, struct err *e)
{
	unsigned int i;

	*best_ns = UINT64_MAX;
	for (i = 0; i < 3; i++) {
		uint64_t start, took;
		int rc;

		if (set_mode(p, cpl, e))
			return -1;
		start = now_ns();
		do {
			rc = ioctl(p->vcpu_fd, KVM_RUN, 0);
		} while (rc && errno == EINTR);
		took = now_ns() - start;
		if (rc)
			return err_errno(e, errno, "KVM_RUN at CPL %u", cpl);
		if (p->run->exit_reason != KVM_EXIT_IO || p->run->io.port != PORT)
			return err_set(e, "the probe ended with exit %u at CPL %u",
				       p->run->exit_reason, cpl);
		*best_ns = took < *best_ns ? took : *best_ns;
	}
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

int probe_modes(struct probe_result *out, struct err *e)
{
	struct probe p = { .vcpu_fd = -1 };
	int rc;

	out->loops = LOOPS;
	if (kvm_init(&p.kvm, 0, e))
		return -1;
	rc = set_up(&p, e) || time_mode(&p, 3, &out->user_ns, e) ||
	     time_mode(&p, 0, &out->kernel_ns, e);
	if (p.run)
		munmap(p.run, p.kvm.vcpu_map_bytes);
	if (p.vcpu_fd >= 0)
		close(p.vcpu_fd);
	kvm_free(&p.kvm);
	if (p.memory)
		munmap(p.memory, GUEST_SIZE);
	return rc ? -1 : 0;
}
