/*
 * The bare guest: what its files offer each other. All of it runs at CPL 3. The boot CPU (CPU 0)
 * alone uses the console and does what is asked for there; other CPUs only do work().
 */
#ifndef BARE_H
#define BARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define PAGE_SIZE  4096ul
#define PAGE_WORDS (PAGE_SIZE / 8)
#define MIB_PAGES  256ul

enum role { ROLE_COMPUTE, ROLE_WRITE, ROLE_IDLE };

struct task_state { /* the processor's */
	u32 reserved0;
	u64 kernel_stack;
	u8 reserved[90];
	u16 port_bitmap;
	u8 ports[PORTS_ALLOWED / 8]; /* all free to CPL 3 */
	u8 ports_end;
} __attribute__((packed));

/*
 * One CPU, in a page of its own. Written by that CPU only, apart from `gap`, which CPU 0 takes
 * (and empties) for a progress line, and what is set before the CPU starts.
 */
struct cpu {
	/* set before it starts */
	u32 index;
	enum role role;
	u64 first_page; /* the writer's slice of the working set */
	u64 pages;
	u64 interval; /* TSC ticks a page may take, 0 = as fast as it can */
	u64 burst;    /* pages after which it rests, 0 = never */
	struct task_state task;

	/* its own */
	u64 work;     /* pages written, or blocks computed */
	u64 position; /* the next page to write, counted from first_page */
	u64 version;  /* what it gets; pages before it have it, those after it the one before */
	u64 due;      /* TSC of the next page, where it is paced or rests */
	u64 last;     /* TSC of its last turn */
	u64 gap;      /* largest distance between two turns since the last progress line */
	u64 back;     /* turns at which the TSC had gone backwards */
	u32 alive;
	u32 held; /* the request to hold that it obeys, see work.c */

	/* CPU 0's notes about it */
	u64 gap_taken, gap_max;

	u8 kernel_stack[512] __attribute__((aligned(16)));
	u8 stack[2048] __attribute__((aligned(16)));
} __attribute__((aligned(4096)));

struct options { /* cmdline.c; every word has its field */
	u64 fill_mib;
	bool fill_all;
	u64 zero_mib;
	u64 from_mib;
	u64 write_mib;
	bool sparse;
	u64 rate_mib;
	u64 burst_mib;
	u64 rest_ms;
	u64 cpus;
	u64 compute;
	u64 progress_ms;
	u64 poll_ms;
	u64 tsc_khz;
	u64 corrupt;
	bool corrupt_given;
	bool idle;
};

struct start_info; /* pvh.h */

/* start.S */
extern u32 boot_start_info;
extern u16 boot_task;
extern u64 boot_kernel_stack, boot_argument, boot_stack, boot_function;
extern u64 gdt[], idt[], idt_end[], page_map[], page_directories[];
extern const u8 trampoline[], trampoline_end[];
extern u8 bss_start[], bss_end[];
void start32(void);

/* main.c */
void main(void) __attribute__((noreturn));
void fault(const u64 *frame) __attribute__((noreturn));

/* cmdline.c: false where a word's value makes no sense, which has been said */
bool cmdline_parse(struct options *o, const char *text);

/* serial.c: a line is put together first and sent by say_end() */
void serial_init(void);
int serial_read(void); /* a byte, or -1 */
void serial_interrupt(bool on);
void say(const char *text);
void say_number(const char *label, u64 value);
void say_hex(const char *label, u64 value);
void say_end(void);

/* memory.c: RAM, its mapping, and the pages of the workload, numbered from 0 */
bool memory_init(const struct start_info *si);
bool memory_map(u64 address); /* the whole GiB around it; false beyond MEMORY_LIMIT */
void *memory_page(void);      /* a zeroed page from the pool; NULL when there are no more */
u64 memory_ram_pages(void);
u64 memory_room_pages(void);	/* how many pages the workload may have */
void memory_begin(u64 address); /* the workload gets nothing below; before its pages are used */
u64 *memory_work_page(u64 page_no);

/* pages.c: what a page must hold */
struct mismatch {
	u64 page_no, word, expected, got;
};
void page_fill(u64 page_no, u64 version);
void page_touch(u64 page_no, u64 version);
void page_zero(u64 page_no);
u64 page_check(u64 page_no, u64 version, bool sparse, struct mismatch *m); /* wrong words */
u64 page_check_zero(u64 page_no, struct mismatch *m);

/* clock.c */
extern struct clock_page clock_page;
bool clock_exists(void);
u64 clock_ns(void);
u64 clock_tsc_khz(void); /* 0 if there is no kvmclock */

/* cpus.c */
extern struct cpu *cpus[MAX_CPUS];
extern u32 cpu_count;
bool cpus_create(u32 count);
bool cpu_start(struct cpu *c, u64 tsc_khz, void (*function)(struct cpu *c));
void cpu_idle_setup(void);
void cpu_idle(void); /* sleep; CPU 0 until the serial port has a byte */

/* work.c */
struct plan {
	const struct options *options;
	u64 tsc_khz;
	u64 fill_pages, zero_pages;
	u64 rsdp;
};
/* Before other CPUs start. They hold in work() until CPU 0 has come there too. */
void work_setup(const struct plan *plan);
void work(struct cpu *c) __attribute__((noreturn));
/* "I am here": measures the gaps */
void work_turn(struct cpu *c);

/* acpi.c */
bool acpi_power_off(u64 rsdp);
/* disk.c: a line with its size; a write, of which disk_look tells when it is done */
void disk_size(void);
void disk_write(void);
void disk_look(void);

void acpi_reset(u64 rsdp) __attribute__((noreturn));
void keyboard_reset(void); /* returns if there is no keyboard controller */

/* small things */
static inline u64 rdtsc(void)
{
	u32 low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (u64)high << 32 | low;
}

static inline void out8(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline u8 in8(u16 port)
{
	u8 value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline u32 mmio_read(u64 address)
{
	return *(volatile u32 *)address;
}

static inline void mmio_write(u64 address, u32 value)
{
	*(volatile u32 *)address = value;
}

void *memset(void *to, int byte, size_t n);
void *memcpy(void *to, const void *from, size_t n);

#endif
