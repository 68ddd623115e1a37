/*
 * What the files of the boot loader share: boot.c (what kind of image, command line, initrd, memory
 * map), bzimage.c and pvh.c (one protocol each). Nobody else includes this. Before the first
 * instruction of the guest, on the thread that builds or resets the machine.
 * The rule here: nothing is written to guest memory outside a span that was claimed before.
 */
#ifndef GODWIT_X86_64_BOOT_INTERNAL_H
#define GODWIT_X86_64_BOOT_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "vmm/memory.h"
#include "vmm/x86_64/boot.h"

struct err;

#define BOOT_HEAD_BYTES 4096
#define BOOT_SPANS_MAX	80
#define BOOT_MAP_MAX	(MEMORY_BLOCKS_MAX + 5)

/* Types of memory map entries, the same numbers in e820 and in PVH's map. */
#define BOOT_MAP_RAM	  1
#define BOOT_MAP_RESERVED 2

struct boot_file {
	int fd;
	const char *name;
	uint64_t bytes;
};

/* Guest memory that something lies in: [start, end). */
struct boot_span {
	uint64_t start, end;
	const char *what;
};

struct boot_map_entry {
	uint64_t gpa, size;
	uint32_t type;
};

/* One load under way. */
struct boot_job {
	struct memory *memory;
	const struct boot_source *source;
	struct boot_file kernel, initrd; /* initrd.fd is -1 when there is none */
	uint8_t head[BOOT_HEAD_BYTES];	 /* the kernel file's beginning */
	size_t head_bytes;
	uint64_t low_end; /* end of the RAM that begins at 0; at most 3 GiB */
	uint64_t initrd_gpa;
	struct boot_span spans[BOOT_SPANS_MAX];
	unsigned int n_spans;
};

/* Claims [start, start + bytes) of low RAM; -1 when it leaves the RAM or meets another span. */
int boot_claim(struct boot_job *j, uint64_t start, uint64_t bytes, const char *what, struct err *e);

/* Reads a part of the file straight into guest memory. */
int boot_read(struct boot_job *j, const struct boot_file *f, uint64_t offset, uint64_t gpa,
	      uint64_t bytes, struct err *e);

/* Refuses a command line of more than `max` bytes; else puts it at X86_CMDLINE_GPA. */
int boot_put_cmdline(struct boot_job *j, uint64_t max, struct err *e);

/* Puts the initrd, if there is one, as high as it can lie below `limit`; sets initrd_gpa. */
int boot_put_initrd(struct boot_job *j, uint64_t limit, struct err *e);

/* The flat GDT; its code segment is for 64-bit mode or for 32-bit protected mode. */
int boot_put_gdt(struct boot_job *j, struct boot_entry *out, struct err *e);

/* RAM and reserved ranges, in order of address; how many. */
unsigned int boot_map(const struct memory *m, struct boot_map_entry map[BOOT_MAP_MAX]);

/* The two protocols. Both are told that `head` looks like theirs, and no more. */
int bzimage_load(struct boot_job *j, struct boot_entry *out, struct err *e);
int pvh_load(struct boot_job *j, struct boot_entry *out, struct err *e);

#endif
