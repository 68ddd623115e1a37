/*
 * Loading a kernel: which kind of image it is, and what both protocols need (command line, initrd,
 * memory map, GDT). Runs on the thread that builds or resets the machine, before any vCPU.
 * Invariant: every range is claimed, and so checked against RAM and against all other ranges,
 * before a byte of it is written; and memory that is not written is not touched.
 */
#include "vmm/x86_64/boot.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/x86_64/boot_internal.h"
#include "vmm/x86_64/layout.h"

#define KIB(bytes) ((bytes) >> 10)

int boot_claim(struct boot_job *j, uint64_t start, uint64_t bytes, const char *what, struct err *e)
{
	uint64_t end = start + bytes;

	if (end < start || end > j->low_end)
		return err_set(e,
			       "%s: %s needs memory from 0x%" PRIx64 " on (%" PRIu64
			       " KiB), the machine has %" PRIu64 " KiB of memory below 3 GiB",
			       j->kernel.name, what, start, KIB(bytes + 1023), KIB(j->low_end));
	for (unsigned int i = 0; i < j->n_spans; i++) {
		const struct boot_span *s = &j->spans[i];

		if (start < s->end && s->start < end)
			return err_set(e,
				       "%s: %s at 0x%" PRIx64 "-0x%" PRIx64
				       " lies over %s at 0x%" PRIx64 "-0x%" PRIx64,
				       j->kernel.name, what, start, end - 1, s->what, s->start,
				       s->end - 1);
	}
	if (j->n_spans == BOOT_SPANS_MAX)
		return err_set(e, "%s: more than %u parts to load", j->kernel.name, BOOT_SPANS_MAX);
	j->spans[j->n_spans++] = (struct boot_span){ start, end, what };
	return 0;
}

int boot_read(struct boot_job *j, const struct boot_file *f, uint64_t offset, uint64_t gpa,
	      uint64_t bytes, struct err *e)
{
	void *host = memory_host(j->memory, gpa, bytes);
	ssize_t n;

	if (!host)
		return err_set(e, "%s: there is no memory at 0x%" PRIx64 " for %" PRIu64 " bytes",
			       f->name, gpa, bytes);
	n = io_pread_full(f->fd, host, bytes, offset);
	memory_mark(j->memory, gpa, bytes);
	if (n < 0)
		return err_errno(e, errno, "%s: cannot be read", f->name);
	if ((uint64_t)n < bytes)
		return err_set(e,
			       "%s: is truncated: it ends at %" PRIu64 " bytes, expected %" PRIu64,
			       f->name, offset + (uint64_t)n, offset + bytes);
	return 0;
}

int boot_put_cmdline(struct boot_job *j, uint64_t max, struct err *e)
{
	uint64_t len = strlen(j->source->cmdline);

	if (max > X86_CMDLINE_MAX - 1)
		max = X86_CMDLINE_MAX - 1;
	if (len > max)
		return err_set(e,
			       "%s: the command line has %" PRIu64
			       " bytes, this kernel takes at most %" PRIu64,
			       j->kernel.name, len, max);
	if (boot_claim(j, X86_CMDLINE_GPA, len + 1, "the command line", e))
		return -1;
	if (memory_write(j->memory, X86_CMDLINE_GPA, j->source->cmdline, len + 1))
		return err_set(e, "%s: there is no memory for the command line", j->kernel.name);
	return 0;
}

int boot_put_initrd(struct boot_job *j, uint64_t limit, struct err *e)
{
	const uint64_t page = PAGE_SIZE;
	uint64_t bytes = j->initrd.bytes, base = 0;
	unsigned int i;

	j->initrd_gpa = 0;
	if (j->initrd.fd < 0)
		return 0;
	if (limit > j->low_end)
		limit = j->low_end;
	/* Down from the top, below each span that is in the way: each pass leaves one behind. */
	do {
		if (bytes > limit || limit - bytes < X86_HIGH_RAM_GPA)
			return err_set(e,
				       "%s: the initrd of %" PRIu64
				       " KiB does not fit beside the kernel into %" PRIu64
				       " KiB of memory below 3 GiB",
				       j->initrd.name, KIB(bytes + 1023), KIB(j->low_end));
		base = (limit - bytes) & ~(page - 1);
		for (i = 0; i < j->n_spans; i++) {
			if (base < j->spans[i].end && j->spans[i].start < base + bytes) {
				limit = j->spans[i].start;
				break;
			}
		}
	} while (i < j->n_spans);
	if (boot_claim(j, base, bytes, "the initrd", e) ||
	    boot_read(j, &j->initrd, 0, base, bytes, e))
		return -1;
	j->initrd_gpa = base;
	return 0;
}

int boot_put_gdt(struct boot_job *j, struct boot_entry *out, struct err *e)
{
	/* Flat 4 GiB segments, accessed already, so that the CPU has no reason to write here. */
	const uint64_t code64 = 0x00af9b000000ffff, code32 = 0x00cf9b000000ffff;
	const uint64_t data32 = 0x00cf93000000ffff;
	const uint64_t gdt[] = { 0, 0, out->protocol == BOOT_LINUX64 ? code64 : code32, data32 };

	if (boot_claim(j, X86_GDT_GPA, sizeof(gdt), "the GDT", e))
		return -1;
	if (memory_write(j->memory, X86_GDT_GPA, gdt, sizeof(gdt)))
		return err_set(e, "%s: there is no memory for the GDT", j->kernel.name);
	out->gdt_gpa = X86_GDT_GPA;
	out->gdt_bytes = sizeof(gdt);
	return 0;
}

static void map_add(struct boot_map_entry *map, unsigned int *n, uint64_t gpa, uint64_t end,
		    uint32_t type)
{
	if (end > gpa)
		map[(*n)++] = (struct boot_map_entry){ gpa, end - gpa, type };
}

unsigned int boot_map(const struct memory *m, struct boot_map_entry map[BOOT_MAP_MAX])
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < m->n_blocks; i++) {
		uint64_t start = m->blocks[i].gpa, end = start + m->blocks[i].size;

		if (start == 0) {
			/* Where a PC has its EBDA, and where the ACPI tables lie: not for use. */
			map_add(map, &n, 0, X86_LOW_RAM_END, BOOT_MAP_RAM);
			map_add(map, &n, X86_LOW_RAM_END, 0xa0000, BOOT_MAP_RESERVED);
			map_add(map, &n, X86_ACPI_GPA, X86_ACPI_GPA + X86_ACPI_MAX,
				BOOT_MAP_RESERVED);
			start = X86_HIGH_RAM_GPA;
		} else if (start >= X86_ABOVE_4G_GPA && n && map[n - 1].gpa < X86_ABOVE_4G_GPA) {
			map_add(map, &n, X86_KVM_IDENTITY_GPA, X86_KVM_TSS_GPA + 3 * PAGE_SIZE,
				BOOT_MAP_RESERVED);
		}
		map_add(map, &n, start, end, BOOT_MAP_RAM);
	}
	if (n && map[n - 1].gpa < X86_ABOVE_4G_GPA)
		map_add(map, &n, X86_KVM_IDENTITY_GPA, X86_KVM_TSS_GPA + 3 * PAGE_SIZE,
			BOOT_MAP_RESERVED);
	return n;
}

/* A file that can be read at any offset, with something in it. */
static int file_check(struct boot_file *f, int fd, const char *name, const char *kind,
		      struct err *e)
{
	struct stat st;

	f->fd = fd;
	f->name = name;
	if (fstat(fd, &st))
		return err_errno(e, errno, "%s: cannot be read", name);
	if (S_ISDIR(st.st_mode))
		return err_set(e, "%s: is a directory, expected %s", name, kind);
	if (!S_ISREG(st.st_mode))
		return err_set(e, "%s: is not a regular file, expected %s", name, kind);
	if (st.st_size <= 0)
		return err_set(e, "%s: is empty, expected %s", name, kind);
	f->bytes = (uint64_t)st.st_size;
	return 0;
}

/* Says what a file is that is no kernel for this machine, so that its owner sees the mistake. */
static int refuse_image(const struct boot_job *j, struct err *e)
{
	static const struct {
		const char *magic;
		unsigned int offset, bytes;
		const char *what;
	} kinds[] = {
		{ "ARM\x64", 56, 4, "an arm64 kernel, this machine is x86-64" },
		{ "RSC\x05", 56, 4, "a RISC-V kernel, this machine is x86-64" },
		{ "\x1f\x8b", 0, 2, "compressed with gzip: unpack it first" },
		{ "\xfd"
		  "7zXZ\0",
		  0, 6, "compressed with xz: unpack it first" },
		{ "\x28\xb5\x2f\xfd", 0, 4, "compressed with zstd: unpack it first" },
		{ "BZh", 0, 3, "compressed with bzip2: unpack it first" },
		{ "\x02\x21\x4c\x18", 0, 4, "compressed with lz4: unpack it first" },
		{ "\x04\x22\x4d\x18", 0, 4, "compressed with lz4: unpack it first" },
		{ "\x89LZO", 0, 4, "compressed with lzop: unpack it first" },
		{ "\x5d\0\0", 0, 3, "compressed with lzma: unpack it first" },
		{ "QFI\xfb", 0, 4, "a qcow2 disk image" },
		{ "070701", 0, 6, "a cpio archive (an initrd?)" },
		{ "!<arch>\n", 0, 8, "an archive (a .deb or .a file?): unpack it first" },
		{ "\x55\xaa", 510, 2, "a boot sector or a disk image" },
		{ "MZ", 0, 2, "an EFI or Windows program" },
	};
	size_t n = 0;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (kinds[i].offset + kinds[i].bytes <= j->head_bytes &&
		    !memcmp(j->head + kinds[i].offset, kinds[i].magic, kinds[i].bytes))
			return err_set(e, "%s: is %s; expected a bzImage or an ELF with a PVH note",
				       j->kernel.name, kinds[i].what);
	}
	while (n < j->head_bytes && n < 512 && (isprint(j->head[n]) || isspace(j->head[n])))
		n++;
	return err_set(e, "%s: %s; expected a bzImage or an ELF with a PVH note", j->kernel.name,
		       n == j->head_bytes || n == 512 ? "is a text file" : "is not a kernel");
}

/* The RAM that begins at 0, where everything is put. */
static uint64_t low_ram_end(const struct memory *m)
{
	for (unsigned int i = 0; i < m->n_blocks; i++) {
		if (m->blocks[i].gpa == 0)
			return m->blocks[i].size < X86_HOLE_GPA ? m->blocks[i].size : X86_HOLE_GPA;
	}
	return 0;
}

int boot_load(struct memory *m, const struct boot_source *s, struct boot_entry *out, struct err *e)
{
	static const uint8_t boot_flag[] = { 0x55, 0xaa };
	struct boot_job j = { .memory = m, .source = s, .initrd.fd = -1 };
	ssize_t n;

	memset(out, 0, sizeof(*out));
	if (file_check(&j.kernel, s->kernel_fd, s->kernel_name, "a kernel", e))
		return -1;
	if (s->initrd_fd >= 0 &&
	    file_check(&j.initrd, s->initrd_fd, s->initrd_name, "an initrd", e))
		return -1;
	j.low_end = low_ram_end(m);
	if (j.low_end <= X86_HIGH_RAM_GPA)
		return err_set(e,
			       "%s: a kernel needs memory above 1 MiB, the machine has %" PRIu64
			       " KiB at 0",
			       s->kernel_name, KIB(j.low_end));
	n = io_pread_full(s->kernel_fd, j.head, sizeof(j.head), 0);
	if (n < 0)
		return err_errno(e, errno, "%s: cannot be read", s->kernel_name);
	j.head_bytes = (size_t)n;

	/* The tables are there already, or will be: whatever is loaded must leave them alone. */
	if (boot_claim(&j, X86_ACPI_GPA, X86_ACPI_MAX, "the ACPI tables", e))
		return -1;
	if (n >= 4 && !memcmp(j.head,
			      "\x7f"
			      "ELF",
			      4))
		return pvh_load(&j, out, e);
	if (n >= 0x206 && !memcmp(j.head + 0x1fe, boot_flag, 2) &&
	    !memcmp(j.head + 0x202, "HdrS", 4))
		return bzimage_load(&j, out, e);
	return refuse_image(&j, e);
}
