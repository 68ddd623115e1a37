/*
 * An ELF image entered by PVH (Xen docs/misc/pvh.pandoc): 32-bit protected mode without paging, at
 * the address in the note XEN_ELFNOTE_PHYS32_ENTRY, ebx = hvm_start_info. A 64-bit vmlinux and
 * freestanding guests of either class come this way. Runs on the thread that builds the machine.
 * Invariant: offsets and addresses of the file are added only after they were bounded.
 *
 *   X86_PVH_INFO_GPA: | hvm_start_info, version 1 | module entry (initrd) | memory map |
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/x86_64/boot_internal.h"
#include "vmm/x86_64/layout.h"

#define START_INFO_MAGIC  0x336ec578u
#define NOTE_PHYS32_ENTRY 18u
#define NOTE_NAME	  "Xen" /* four bytes with its zero */
#define SEGMENTS_MAX	  64u
#define NOTES_MAX	  256u /* in one segment; Linux has about twenty */

struct start_info {
	uint32_t magic, version, flags, n_modules;
	uint64_t modules_gpa, cmdline_gpa, rsdp_gpa, map_gpa;
	uint32_t n_map, reserved;
};

struct start_module {
	uint64_t gpa, size, cmdline_gpa, reserved;
};

struct start_map_entry {
	uint64_t gpa, size;
	uint32_t type, reserved;
};

/* The page at X86_PVH_INFO_GPA. */
struct start_page {
	struct start_info info;
	struct start_module module;
	struct start_map_entry map[BOOT_MAP_MAX];
};

_Static_assert(sizeof(struct start_info) == 56, "hvm_start_info is 56 bytes");
_Static_assert(sizeof(struct start_map_entry) == 24, "hvm_memmap_table_entry is 24 bytes");
_Static_assert(sizeof(struct start_page) <= X86_BOOT_PARAMS_GPA - X86_PVH_INFO_GPA,
	       "the start info overruns its page");

/* What both classes of ELF header say that matters here. */
struct elf {
	uint16_t type, machine;
	uint64_t table; /* offset of the program headers */
	uint16_t n, entry_bytes;
	bool is_64;
	Elf64_Phdr segments[SEGMENTS_MAX]; /* `n`, widened, read once: the file may change */
};

static const char *machine_name(uint16_t machine)
{
	switch (machine) {
	case EM_AARCH64:
		return "arm64";
	case EM_ARM:
		return "32-bit ARM";
	case EM_RISCV:
		return "RISC-V";
	case EM_PPC64:
		return "64-bit PowerPC";
	case EM_S390:
		return "s390";
	case EM_MIPS:
		return "MIPS";
	case EM_LOONGARCH:
		return "LoongArch";
	}
	return "another machine";
}

static int header_read(const struct boot_job *j, struct elf *f, struct err *e)
{
	const char *name = j->kernel.name;
	const uint8_t class = j->head_bytes > EI_DATA ? j->head[EI_CLASS] : 0;

	f->is_64 = class == ELFCLASS64;
	if (j->head_bytes < (f->is_64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
		return err_set(e, "%s: is truncated: an ELF file of %zu bytes", name,
			       j->head_bytes);
	if (class != ELFCLASS64 && class != ELFCLASS32)
		return err_set(e, "%s: is damaged: ELF class %u", name, class);
	if (j->head[EI_DATA] != ELFDATA2LSB)
		return err_set(e, "%s: is a big-endian ELF file, expected one for x86", name);
	if (f->is_64) {
		Elf64_Ehdr h;

		memcpy(&h, j->head, sizeof(h));
		f->type = h.e_type;
		f->machine = h.e_machine;
		f->table = h.e_phoff;
		f->n = h.e_phnum;
		f->entry_bytes = h.e_phentsize;
	} else {
		Elf32_Ehdr h;

		memcpy(&h, j->head, sizeof(h));
		f->type = h.e_type;
		f->machine = h.e_machine;
		f->table = h.e_phoff;
		f->n = h.e_phnum;
		f->entry_bytes = h.e_phentsize;
	}
	if (f->machine != EM_X86_64 && f->machine != EM_386)
		return err_set(e,
			       "%s: is an ELF file for %s (e_machine %u), this machine is x86-64",
			       name, machine_name(f->machine), f->machine);
	if (f->type == ET_REL)
		return err_set(e, "%s: is a relocatable object, expected a linked kernel", name);
	if (f->type != ET_EXEC && f->type != ET_DYN)
		return err_set(e, "%s: is an ELF file of type %u, expected an executable", name,
			       f->type);
	if (f->n == 0 || f->n > SEGMENTS_MAX)
		return err_set(e, "%s: has %u program headers, expected 1 to %u", name, f->n,
			       SEGMENTS_MAX);
	if (f->entry_bytes != (f->is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
		return err_set(e, "%s: is damaged: program headers of %u bytes", name,
			       f->entry_bytes);
	if (f->table > j->kernel.bytes ||
	    (uint64_t)f->n * f->entry_bytes > j->kernel.bytes - f->table)
		return err_set(e,
			       "%s: is truncated: it has %" PRIu64
			       " bytes, its program headers lie at %" PRIu64,
			       name, j->kernel.bytes, f->table);
	return 0;
}

static int read_exact(const struct boot_job *j, uint64_t offset, void *to, size_t len,
		      struct err *e)
{
	ssize_t n = io_pread_full(j->kernel.fd, to, len, offset);

	if (n < 0)
		return err_errno(e, errno, "%s: cannot be read", j->kernel.name);
	if ((size_t)n < len)
		return err_set(e,
			       "%s: is truncated: it ends at %" PRIu64 " bytes, expected %" PRIu64,
			       j->kernel.name, offset + (uint64_t)n, offset + len);
	return 0;
}

/* Reads the program headers; of those that matter the part of the file is checked to be there. */
static int segments_read(const struct boot_job *j, struct elf *f, struct err *e)
{
	for (unsigned int i = 0; i < f->n; i++) {
		uint64_t at = f->table + (uint64_t)i * f->entry_bytes;
		Elf64_Phdr *p = &f->segments[i];

		if (f->is_64) {
			if (read_exact(j, at, p, sizeof(*p), e))
				return -1;
		} else {
			Elf32_Phdr q;

			if (read_exact(j, at, &q, sizeof(q), e))
				return -1;
			*p = (Elf64_Phdr){ .p_type = q.p_type,
					   .p_offset = q.p_offset,
					   .p_paddr = q.p_paddr,
					   .p_filesz = q.p_filesz,
					   .p_memsz = q.p_memsz,
					   .p_align = q.p_align };
		}
		if (p->p_type != PT_LOAD && p->p_type != PT_NOTE)
			continue;
		if (p->p_offset > j->kernel.bytes || p->p_filesz > j->kernel.bytes - p->p_offset)
			return err_set(e,
				       "%s: is truncated: it has %" PRIu64
				       " bytes, segment %u is %" PRIu64 " bytes at %" PRIu64,
				       j->kernel.name, j->kernel.bytes, i, p->p_filesz,
				       p->p_offset);
		if (p->p_type == PT_LOAD && p->p_filesz > p->p_memsz)
			return err_set(e,
				       "%s: is damaged: segment %u has %" PRIu64
				       " bytes in the file and %" PRIu64 " in memory",
				       j->kernel.name, i, p->p_filesz, p->p_memsz);
	}
	return 0;
}

/* Looks for the entry note in one PT_NOTE; *entry stays 0 when it is not there. */
static int notes_search(const struct boot_job *j, const Elf64_Phdr *p, uint64_t *entry,
			struct err *e)
{
	const uint64_t align = p->p_align == 8 ? 8 : 4;
	uint64_t at = 0;

	for (unsigned int i = 0; i < NOTES_MAX; i++) {
		struct {
			Elf32_Nhdr h;
			char name[4];
		} note;
		uint64_t name_end, end;

		if (p->p_filesz < sizeof(note) || at > p->p_filesz - sizeof(note))
			return 0;
		if (read_exact(j, p->p_offset + at, &note, sizeof(note), e))
			return -1;
		/* All terms are below 2^33 or inside the file: no sum can overflow. */
		name_end = (at + sizeof(note.h) + note.h.n_namesz + align - 1) & ~(align - 1);
		end = (name_end + note.h.n_descsz + align - 1) & ~(align - 1);
		if (name_end + note.h.n_descsz > p->p_filesz)
			return err_set(e,
				       "%s: is damaged: the ELF note at byte %" PRIu64
				       " reaches beyond its segment",
				       j->kernel.name, p->p_offset + at);
		if (note.h.n_type == NOTE_PHYS32_ENTRY && note.h.n_namesz == sizeof(NOTE_NAME) &&
		    !memcmp(note.name, NOTE_NAME, sizeof(NOTE_NAME))) {
			if (note.h.n_descsz != 4 && note.h.n_descsz != 8)
				return err_set(e, "%s: is damaged: a PVH note of %u bytes",
					       j->kernel.name, note.h.n_descsz);
			return read_exact(j, p->p_offset + name_end, entry, note.h.n_descsz, e);
		}
		at = end;
	}
	return err_set(e, "%s: has more than %u ELF notes in a segment", j->kernel.name, NOTES_MAX);
}

static bool is_loaded(const Elf64_Phdr *p)
{
	return p->p_type == PT_LOAD && p->p_memsz;
}

/* Finds the entry and claims memory for every segment; loads nothing yet. */
static int plan(struct boot_job *j, const struct elf *f, uint64_t *entry, struct err *e)
{
	bool inside = false;

	*entry = 0;
	for (unsigned int i = 0; i < f->n && !*entry; i++) {
		if (f->segments[i].p_type == PT_NOTE && notes_search(j, &f->segments[i], entry, e))
			return -1;
	}
	if (!*entry)
		return err_set(e,
			       "%s: is an ELF file without a PVH entry note (a Linux kernel needs "
			       "CONFIG_PVH); expected one, or a bzImage",
			       j->kernel.name);
	for (unsigned int i = 0; i < f->n; i++) {
		const Elf64_Phdr *p = &f->segments[i];

		if (!is_loaded(p))
			continue;
		if (boot_claim(j, p->p_paddr, p->p_memsz, "a segment of the kernel", e))
			return -1;
		inside |= *entry >= p->p_paddr && *entry - p->p_paddr < p->p_memsz;
	}
	if (!inside)
		return err_set(e,
			       "%s: is damaged: its PVH entry 0x%" PRIx64
			       " lies in none of its segments",
			       j->kernel.name, *entry);
	return 0;
}

static int load_segments(struct boot_job *j, const struct elf *f, struct err *e)
{
	for (unsigned int i = 0; i < f->n; i++) {
		const Elf64_Phdr *p = &f->segments[i];
		uint64_t bss_gpa = p->p_paddr + p->p_filesz, bss_bytes = p->p_memsz - p->p_filesz;
		void *bss;

		if (!is_loaded(p))
			continue;
		if (p->p_filesz &&
		    boot_read(j, &j->kernel, p->p_offset, p->p_paddr, p->p_filesz, e))
			return -1;
		if (bss_bytes == 0 || j->source->memory_is_fresh)
			continue;
		bss = memory_host(j->memory, bss_gpa, bss_bytes);
		if (!bss)
			return err_set(e, "%s: there is no memory for its .bss", j->kernel.name);
		memset(bss, 0, bss_bytes);
		memory_mark(j->memory, bss_gpa, bss_bytes);
	}
	return 0;
}

static int put_start_info(struct boot_job *j, struct err *e)
{
	struct boot_map_entry map[BOOT_MAP_MAX];
	struct start_page s;

	memset(&s, 0, sizeof(s));
	s.info.magic = START_INFO_MAGIC;
	s.info.version = 1;
	s.info.cmdline_gpa = X86_CMDLINE_GPA;
	s.info.rsdp_gpa = j->source->rsdp_gpa;
	if (j->initrd_gpa) {
		s.info.n_modules = 1;
		s.info.modules_gpa = X86_PVH_INFO_GPA + offsetof(struct start_page, module);
		s.module.gpa = j->initrd_gpa;
		s.module.size = j->initrd.bytes;
	}
	s.info.map_gpa = X86_PVH_INFO_GPA + offsetof(struct start_page, map);
	s.info.n_map = boot_map(j->memory, map);
	for (unsigned int i = 0; i < s.info.n_map; i++)
		s.map[i] = (struct start_map_entry){ map[i].gpa, map[i].size, map[i].type, 0 };
	if (memory_write(j->memory, X86_PVH_INFO_GPA, &s, sizeof(s)))
		return err_set(e, "%s: there is no memory for the start info", j->kernel.name);
	return 0;
}

int pvh_load(struct boot_job *j, struct boot_entry *out, struct err *e)
{
	uint64_t entry;
	struct elf f;

	memset(&f, 0, sizeof(f));
	if (header_read(j, &f, e) || segments_read(j, &f, e))
		return -1;
	/* Ours first, so that a segment that lies over them is what gets refused. */
	out->protocol = BOOT_PVH32;
	if (boot_claim(j, X86_PVH_INFO_GPA, sizeof(struct start_page), "the start info", e) ||
	    boot_put_gdt(j, out, e) || boot_put_cmdline(j, X86_CMDLINE_MAX - 1, e))
		return -1;
	if (plan(j, &f, &entry, e))
		return -1;
	/* Highest address first: what the kernel finds free behind itself stays free. */
	if (boot_put_initrd(j, j->low_end, e) || put_start_info(j, e) || load_segments(j, &f, e))
		return -1;
	out->rip = entry;
	out->info_gpa = X86_PVH_INFO_GPA;
	return 0;
}
