/*
 * Numbers that start.S and the C files share: where things lie in memory, selectors, APICs.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#define TRAMPOLINE    0x8000	   /* real-mode code of starting CPUs, copied there */
#define POOL_BASE     0x200000	   /* page directories, a page for each CPU */
#define FILL_BASE     0x400000	   /* RAM from here on belongs to the workload */
#define MEMORY_LIMIT  0x6000000000 /* 384 GiB: the pool has a directory for each of them */
#define MAX_CPUS      64
#define SERIAL_PORT   0x3f8
#define SERIAL_GSI    4
#define PORTS_ALLOWED 0x1000

#define KERNEL_CS   0x08
#define KERNEL_SS   0x10
#define KERNEL_CS32 0x18
#define USER_CS	    0x2b
#define USER_SS	    0x33
#define FIRST_TASK  0x38
#define USER_FLAGS  0x3002 /* IOPL 3, interrupts off */

#define PAGE_USER     0x07 /* present, writable, user */
#define PAGE_LARGE    0x80
#define PAGE_UNCACHED 0x18

#define IOAPIC_BASE 0xfec00000
#define LAPIC_BASE  0xfee00000
#define LAPIC_TPR   0x80
#define LAPIC_EOI   0xb0
#define LAPIC_SVR   0xf0
#define LAPIC_ICR   0x300
#define LAPIC_ICR2  0x310
#define LAPIC_LINT0 0x350
#define LAPIC_LINT1 0x360
#define IDLE_VECTOR 0x20

#endif
