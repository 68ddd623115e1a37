/*
 * Loading a kernel into guest memory (x86-64), before the first instruction:
 *   - bzImage by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst, version >= 2.12
 *     with XLF_KERNEL_64);
 *   - ELF with a PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY; Xen docs/misc/pvh.pandoc,
 *     hvm_start_info version 1).
 * Images come from the user but are parsed as if from an enemy: every offset is checked. No KVM.
 */
#ifndef GODWIT_X86_64_BOOT_H
#define GODWIT_X86_64_BOOT_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct memory;

enum boot_protocol { BOOT_LINUX64, BOOT_PVH32 };

/* What to load; fds are seekable files open for reading, owned by the caller. */
struct boot_source {
	int kernel_fd;
	const char *kernel_name; /* for messages */
	int initrd_fd;		 /* -1: none */
	const char *initrd_name;
	const char *cmdline;
	uint64_t rsdp_gpa; /* where acpi_build put the tables */

	/*
	 * The memory was mapped and never written since (the first start of a machine): what must
	 * be zero is zero, so a large .bss is not touched. False at a reset.
	 */
	bool memory_is_fresh;
};

/* Where the boot processor starts. */
struct boot_entry {
	enum boot_protocol protocol;
	uint64_t rip;
	uint64_t info_gpa;	  /* boot_params (rsi) or hvm_start_info (ebx) */
	uint64_t page_tables_gpa; /* cr3 for BOOT_LINUX64: the first 4 GiB mapped one to one */
	uint64_t gdt_gpa;	  /* GDT with __BOOT_CS 0x10, __BOOT_DS 0x18 */
	uint16_t gdt_bytes;
};

/*
 * Puts kernel, initrd, command line, memory map and tables where layout.h says. -1 with a sentence
 * that names the file and what is wrong with it ("vm.img: not a kernel: expected a bzImage or an
 * ELF with a PVH note", "is an arm64 kernel", ...).
 */
int boot_load(struct memory *m, const struct boot_source *s, struct boot_entry *out, struct err *e);

#endif
