/*
 * CPUs: their pages, starting them by INIT and SIPI, sleeping. The local APIC is plain MMIO, so all
 * of it is done at CPL 3. CPU n has APIC id n.
 *
 * One CPU is started at a time: the boot_* variables of start.S are its alone until it says
 * that it is alive.
 */
#include "bare.h"

struct cpu *cpus[MAX_CPUS];
u32 cpu_count;

_Static_assert(sizeof(struct cpu) == PAGE_SIZE, "one page each");
_Static_assert(offsetof(struct task_state, ports) == 104, "as the processor wants it");

/* No line of the machine may interrupt anything here; IDLE_VECTOR waits for cpu_idle() */
static void mask_interrupts(void)
{
	mmio_write(LAPIC_BASE + LAPIC_TPR, 0xff);
	mmio_write(LAPIC_BASE + LAPIC_LINT0, 0x10000);
	mmio_write(LAPIC_BASE + LAPIC_LINT1, 0x10000);
}

bool cpus_create(u32 count)
{
	mask_interrupts();
	for (u32 i = 0; i < count; i++) {
		struct cpu *c = memory_page();

		if (!c)
			return false;
		c->index = i;
		c->last = rdtsc();
		cpus[i] = c;
		cpu_count = i + 1;
	}
	return true;
}

static void wait_us(u64 us, u64 tsc_khz)
{
	u64 end = rdtsc() + us * tsc_khz / 1000;

	while (rdtsc() < end)
		__builtin_ia32_pause();
}

static void send_ipi(u32 apic_id, u32 command)
{
	mmio_write(LAPIC_BASE + LAPIC_ICR2, apic_id << 24);
	mmio_write(LAPIC_BASE + LAPIC_ICR, command);
	while (mmio_read(LAPIC_BASE + LAPIC_ICR) & 0x1000)
		;
}

bool cpu_start(struct cpu *c, u64 tsc_khz, void (*function)(struct cpu *c))
{
	u64 base = (u64)&c->task;
	volatile u32 *alive = &c->alive;

	c->task.kernel_stack = (u64)(c->kernel_stack + sizeof(c->kernel_stack));
	c->task.port_bitmap = offsetof(struct task_state, ports);
	c->task.ports_end = 0xff;
	boot_task = (u16)(FIRST_TASK + 16 * c->index);
	gdt[boot_task / 8] = (sizeof(c->task) - 1) | (base & 0xffffff) << 16 | 0x89ul << 40 |
			     (base >> 24 & 0xff) << 56;
	gdt[boot_task / 8 + 1] = base >> 32;
	boot_kernel_stack = c->task.kernel_stack;
	boot_stack = (u64)(c->stack + sizeof(c->stack)) - 8;
	boot_argument = (u64)c;
	boot_function = (u64)function;
	memcpy((void *)TRAMPOLINE, trampoline, (size_t)(trampoline_end - trampoline));

	send_ipi(c->index, 0x4500); /* INIT */
	wait_us(100, tsc_khz);
	for (u32 attempt = 0; attempt < 2; attempt++) {
		u64 end = rdtsc() + 1000 * tsc_khz;

		send_ipi(c->index, 0x4600 | TRAMPOLINE >> 12); /* SIPI */
		while (!*alive && rdtsc() < end)
			__builtin_ia32_pause();
		if (*alive)
			return true;
	}
	return false;
}

void cpu_idle_setup(void)
{
	mmio_write(LAPIC_BASE + LAPIC_SVR, 0x1ff);
	mmio_write(IOAPIC_BASE, 0x10 + 2 * SERIAL_GSI + 1);
	mmio_write(IOAPIC_BASE + 0x10, 0); /* to CPU 0 */
	mmio_write(IOAPIC_BASE, 0x10 + 2 * SERIAL_GSI);
	mmio_write(IOAPIC_BASE + 0x10, IDLE_VECTOR); /* edge, high, not masked */
}

void cpu_idle(void)
{
	/* start.S turns this into a real one; the fault gives it all registers but these back */
	__asm__ volatile("hlt" : : : "rax", "rcx", "rdx", "memory", "cc");
}
