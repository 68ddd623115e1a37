/*
 * A bzImage by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst): the setup header
 * is checked, completed and handed over in boot_params; the rest of the file is the kernel's own
 * unpacker, put where the unpacked kernel will run. Runs on the thread that builds the machine.
 * Invariant: no number of the header is used before it was compared with the file and the RAM.
 *
 *   file:   | boot sector + setup, (setup_sects + 1) * 512 | protected-mode part, syssize * 16 |
 * ... memory: runtime start | protected-mode part ... | ... init_size |        entry: start + 0x200
 */
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include <asm/bootparam.h>

#include "vmm/base/err.h"
#include "vmm/x86_64/boot_internal.h"
#include "vmm/x86_64/layout.h"

#define HEADER_START	  offsetof(struct boot_params, hdr) /* 0x1f1, in the file as well */
#define HEADER_LENGTH_AT  0x201 /* a byte: the header ends that far behind 0x202 */
#define VERSION_MIN	  0x020c
#define VERSION_WITH_RSDP 0x020e
#define ENTRY_64	  0x200
#define LOADER_UNKNOWN	  0xff
#define VIDEO_NORMAL	  0xffff
#define ALIGNMENT_MAX	  (1u << 30)

#define PTE_PRESENT_WRITE 0x3ull
#define PTE_LARGE	  0x80ull
#define LARGE_PAGE	  (2ull << 20)

/* Where the parts lie that the header speaks of. */
struct bzimage {
	struct setup_header hdr;
	uint64_t file_offset; /* of the protected-mode part */
	uint64_t file_bytes;
	uint64_t start; /* gpa where it is put, and will run */
	uint64_t room;	/* bytes from there that must be RAM and free */
};

static int header_read(const struct boot_job *j, struct bzimage *b, struct err *e)
{
	const char *name = j->kernel.name;
	struct setup_header *h = &b->hdr;
	size_t end = 0x202u + j->head[HEADER_LENGTH_AT];
	size_t needed = HEADER_START + offsetof(struct setup_header, handover_offset);

	if (j->head_bytes < needed)
		return err_set(e, "%s: is truncated: a bzImage of %zu bytes", name, j->head_bytes);
	memcpy(h, j->head + HEADER_START, offsetof(struct setup_header, kernel_version));
	if (h->version < VERSION_MIN)
		return err_set(e,
			       "%s: is a kernel of boot protocol %u.%02u, expected 2.12 or later "
			       "(Linux 3.8)",
			       name, h->version >> 8, h->version & 0xff);
	if (end < needed)
		return err_set(e, "%s: is damaged: its setup header ends at byte %zu, expected %zu",
			       name, end, needed);
	/* What lies behind the header's own end is code, not fields. */
	if (end > HEADER_START + sizeof(*h))
		end = HEADER_START + sizeof(*h);
	if (end > j->head_bytes)
		end = j->head_bytes;
	memcpy(h, j->head + HEADER_START, end - HEADER_START);
	if (!(h->loadflags & LOADED_HIGH))
		return err_set(e, "%s: is a zImage that loads below 1 MiB, expected a bzImage",
			       name);
	if (!(h->xloadflags & XLF_KERNEL_64))
		return err_set(e,
			       "%s: is a 32-bit kernel, expected an x86-64 one (a bzImage with the "
			       "64-bit entry point)",
			       name);
	return 0;
}

static int parts_check(const struct boot_job *j, struct bzimage *b, struct err *e)
{
	const struct setup_header *h = &b->hdr;
	const char *name = j->kernel.name;
	uint64_t setup = ((h->setup_sects ? h->setup_sects : 4u) + 1ull) * 512;
	uint64_t promised = (uint64_t)h->syssize * 16;
	uint64_t align = h->kernel_alignment;

	/* syssize counts paragraphs of 16 bytes; the file need not fill its last one. */
	if (j->kernel.bytes < setup || j->kernel.bytes - setup + 15 < promised)
		return err_set(e,
			       "%s: is truncated: it has %" PRIu64
			       " bytes, its header promises %" PRIu64,
			       name, j->kernel.bytes, setup + promised);
	b->file_offset = setup;
	b->file_bytes = j->kernel.bytes - setup;
	if (b->file_bytes > promised)
		b->file_bytes = promised;
	if (b->file_bytes <= ENTRY_64)
		return err_set(e, "%s: is damaged: %" PRIu64 " bytes behind the setup code", name,
			       b->file_bytes);
	if ((uint64_t)h->payload_offset + h->payload_length > b->file_bytes)
		return err_set(e,
			       "%s: is damaged: its payload of %u bytes at %u lies outside the "
			       "%" PRIu64 " bytes behind the setup code",
			       name, h->payload_length, h->payload_offset, b->file_bytes);
	if (align == 0 || (align & (align - 1)) || align > ALIGNMENT_MAX)
		return err_set(e, "%s: is damaged: kernel_alignment 0x%" PRIx64, name, align);

	/*
	 * A relocatable kernel moves itself up to pref_address, aligned; put there at once, the
	 * unpacked kernel overwrites its packed form and less memory is touched.
	 */
	b->start = h->pref_address;
	if (h->relocatable_kernel && b->start < X86_HIGH_RAM_GPA)
		b->start = X86_HIGH_RAM_GPA;
	if (b->start < X86_HIGH_RAM_GPA || b->start >= X86_HOLE_GPA)
		return err_set(e,
			       "%s: is damaged: pref_address 0x%" PRIx64
			       " is not between 1 MiB and 3 GiB",
			       name, b->start);
	if (h->relocatable_kernel)
		b->start = (b->start + align - 1) & ~(align - 1);
	b->room = h->init_size > b->file_bytes ? h->init_size : b->file_bytes;
	return 0;
}

/* The first 4 GiB one to one, in 2 MiB pages: not every CPU has larger ones. */
static int put_page_tables(struct boot_job *j, struct err *e)
{
	const uint64_t entries = PAGE_SIZE / sizeof(uint64_t);
	const uint64_t bytes = 6 * PAGE_SIZE; /* PML4, PDPT, four page directories */
	uint64_t *table;

	if (boot_claim(j, X86_PAGE_TABLES_GPA, bytes, "the page tables", e))
		return -1;
	table = memory_host(j->memory, X86_PAGE_TABLES_GPA, bytes);
	if (!table)
		return err_set(e, "%s: there is no memory for page tables", j->kernel.name);
	memset(table, 0, 2 * PAGE_SIZE);
	table[0] = (X86_PAGE_TABLES_GPA + PAGE_SIZE) | PTE_PRESENT_WRITE;
	for (uint64_t i = 0; i < 4; i++)
		table[entries + i] = (X86_PAGE_TABLES_GPA + (2 + i) * PAGE_SIZE) |
				     PTE_PRESENT_WRITE;
	for (uint64_t i = 0; i < 4 * entries; i++)
		table[2 * entries + i] = i * LARGE_PAGE | PTE_PRESENT_WRITE | PTE_LARGE;
	memory_mark(j->memory, X86_PAGE_TABLES_GPA, bytes);
	return 0;
}

static int put_boot_params(struct boot_job *j, const struct bzimage *b, struct err *e)
{
	struct boot_map_entry map[BOOT_MAP_MAX];
	struct boot_params p;

	memset(&p, 0, sizeof(p));
	p.hdr = b->hdr;
	p.hdr.type_of_loader = LOADER_UNKNOWN;
	p.hdr.ext_loader_type = 0;
	p.hdr.ext_loader_ver = 0;
	/* No heap for real-mode code, which never runs. */
	p.hdr.loadflags &= (uint8_t)~CAN_USE_HEAP;
	p.hdr.vid_mode = VIDEO_NORMAL;
	p.hdr.code32_start = (uint32_t)b->start;
	p.hdr.cmd_line_ptr = X86_CMDLINE_GPA;
	p.hdr.setup_data = 0;
	p.hdr.ramdisk_image = (uint32_t)j->initrd_gpa;
	p.hdr.ramdisk_size = j->initrd_gpa ? (uint32_t)j->initrd.bytes : 0;
	if (b->hdr.version >= VERSION_WITH_RSDP)
		p.acpi_rsdp_addr = j->source->rsdp_gpa;
	p.e820_entries = (uint8_t)boot_map(j->memory, map);
	for (unsigned int i = 0; i < p.e820_entries; i++) {
		p.e820_table[i].addr = map[i].gpa;
		p.e820_table[i].size = map[i].size;
		p.e820_table[i].type = map[i].type;
	}
	if (boot_claim(j, X86_BOOT_PARAMS_GPA, sizeof(p), "boot_params", e))
		return -1;
	if (memory_write(j->memory, X86_BOOT_PARAMS_GPA, &p, sizeof(p)))
		return err_set(e, "%s: there is no memory for boot_params", j->kernel.name);
	return 0;
}

int bzimage_load(struct boot_job *j, struct boot_entry *out, struct err *e)
{
	struct bzimage b;
	uint64_t initrd_limit;

	memset(&b, 0, sizeof(b));
	if (header_read(j, &b, e) || parts_check(j, &b, e))
		return -1;
	if (boot_claim(j, b.start, b.room, "the kernel", e))
		return -1;
	out->protocol = BOOT_LINUX64;
	if (put_page_tables(j, e) || boot_put_gdt(j, out, e) ||
	    boot_put_cmdline(j, b.hdr.cmdline_size, e))
		return -1;
	/* initrd_addr_max is the last byte's address. */
	initrd_limit = (uint64_t)b.hdr.initrd_addr_max + 1;
	if (boot_put_initrd(j, initrd_limit, e) || put_boot_params(j, &b, e) ||
	    boot_read(j, &j->kernel, b.file_offset, b.start, b.file_bytes, e))
		return -1;
	out->rip = b.start + ENTRY_64;
	out->info_gpa = X86_BOOT_PARAMS_GPA;
	out->page_tables_gpa = X86_PAGE_TABLES_GPA;
	return 0;
}
