/*
 * The kernel loader on images made here, byte by byte: what a good one puts into guest memory, and
 * that each kind of bad one is refused with a sentence. One thread, no KVM.
 */
#include <check.h>
#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <asm/bootparam.h>

#include "vmm/base/err.h"
#include "vmm/memory.h"
#include "vmm/tree.h"
#include "vmm/x86_64/boot.h"
#include "vmm/x86_64/layout.h"

#define MIB	  (1ull << 20)
#define IMAGE_MAX (64u << 10)
#define SETUP	  1024u /* one setup sector */
#define PM_BYTES  4096u /* protected-mode part */
#define RSDP	  0xe0000ull
#define PREFERRED (16 * MIB)
#define NOTE_AT	  0x400u
#define ELF_ENTRY 0x200010u
#define ELF_LOAD  0x200000u
#define ELF_TEXT  0x800u

struct image {
	uint8_t bytes[IMAGE_MAX];
	size_t len;
};

struct bench {
	struct memory memory;
	struct boot_source source;
	struct boot_entry entry;
	struct err e;
};

static int file_of(const void *bytes, size_t len)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
	return fd;
}

static void bench_open(struct bench *b, uint64_t low_bytes, uint64_t high_bytes)
{
	struct tree t;

	memset(b, 0, sizeof(*b));
	ck_assert_int_eq(tree_init(&t, &b->e), 0);
	ck_assert_int_eq(tree_set_u64_pair(&t, "/memory@0", "reg", 0, low_bytes, &b->e), 0);
	if (high_bytes)
		ck_assert_int_eq(tree_set_u64_pair(&t, "/memory@100000000", "reg", X86_ABOVE_4G_GPA,
						   high_bytes, &b->e),
				 0);
	ck_assert_msg(memory_init(&b->memory, &t, &b->e) == 0, "%s", b->e.text);
	tree_free(&t);
	b->source = (struct boot_source){ .kernel_fd = -1,
					  .kernel_name = "vm.img",
					  .initrd_fd = -1,
					  .initrd_name = "rd.img",
					  .cmdline = "console=ttyS0",
					  .rsdp_gpa = RSDP };
}

static void bench_close(struct bench *b)
{
	if (b->source.kernel_fd >= 0)
		close(b->source.kernel_fd);
	if (b->source.initrd_fd >= 0)
		close(b->source.initrd_fd);
	memory_free(&b->memory);
}

static void *at(struct bench *b, uint64_t gpa, uint64_t len)
{
	void *host = memory_host(&b->memory, gpa, len);

	ck_assert_ptr_nonnull(host);
	return host;
}

static int load(struct bench *b, const struct image *k)
{
	if (b->source.kernel_fd >= 0)
		close(b->source.kernel_fd);
	b->source.kernel_fd = file_of(k->bytes, k->len);
	b->e.text[0] = 0;
	return boot_load(&b->memory, &b->source, &b->entry, &b->e);
}

static void set_initrd(struct bench *b, size_t len)
{
	uint8_t *bytes = malloc(len ? len : 1);

	memset(bytes, 0x5a, len);
	if (b->source.initrd_fd >= 0)
		close(b->source.initrd_fd);
	b->source.initrd_fd = file_of(bytes, len);
	free(bytes);
}

static void assert_refused(struct bench *b, const struct image *k, const char *part)
{
	ck_assert_msg(load(b, k) == -1, "taken, expected '%s'", part);
	ck_assert_msg(strstr(b->e.text, part) != NULL, "'%s' lacks '%s'", b->e.text, part);
}

/* A good bzImage: the smallest that has all parts. */
static struct setup_header *bzimage(struct image *k)
{
	struct setup_header *h = (void *)(k->bytes + 0x1f1);

	memset(k, 0, sizeof(*k));
	k->len = SETUP + PM_BYTES;
	h->setup_sects = 1;
	h->boot_flag = 0xaa55;
	h->jump = (uint16_t)(0xeb | (0x1f1 + sizeof(*h) - 0x202) << 8);
	memcpy(&h->header, "HdrS", 4);
	h->version = 0x020f;
	h->loadflags = LOADED_HIGH | CAN_USE_HEAP;
	h->xloadflags = XLF_KERNEL_64;
	h->syssize = PM_BYTES / 16;
	h->initrd_addr_max = 0x7fffffff;
	h->kernel_alignment = 2 * MIB;
	h->relocatable_kernel = 1;
	h->cmdline_size = 2047;
	h->payload_offset = 0x300;
	h->payload_length = 0x100;
	h->pref_address = PREFERRED;
	h->init_size = 8 * MIB;
	for (unsigned int i = 0; i < PM_BYTES; i++)
		k->bytes[SETUP + i] = (uint8_t)(i * 7 + 1);
	return h;
}

struct elf_parts {
	Elf64_Ehdr *eh;
	Elf64_Phdr *load, *note;
	Elf64_Nhdr *nh;
};

/* A good PVH ELF: a segment with a .bss, a note. */
static struct elf_parts elf(struct image *k)
{
	struct elf_parts p = { (void *)k->bytes, (void *)(k->bytes + 64),
			       (void *)(k->bytes + 64 + sizeof(Elf64_Phdr)),
			       (void *)(k->bytes + NOTE_AT + 16) };
	const uint64_t entry = ELF_ENTRY;
	Elf64_Nhdr *other = (void *)(k->bytes + NOTE_AT);

	memset(k, 0, sizeof(*k));
	k->len = 0x1000 + ELF_TEXT;
	memcpy(p.eh->e_ident, ELFMAG, 4);
	p.eh->e_ident[EI_CLASS] = ELFCLASS64;
	p.eh->e_ident[EI_DATA] = ELFDATA2LSB;
	p.eh->e_type = ET_EXEC;
	p.eh->e_machine = EM_X86_64;
	p.eh->e_phoff = 64;
	p.eh->e_phentsize = sizeof(Elf64_Phdr);
	p.eh->e_phnum = 2;
	*p.load = (Elf64_Phdr){ .p_type = PT_LOAD,
				.p_offset = 0x1000,
				.p_vaddr = 0xffffffff80200000,
				.p_paddr = ELF_LOAD,
				.p_filesz = ELF_TEXT,
				.p_memsz = 0x3000 };
	*p.note = (Elf64_Phdr){
		.p_type = PT_NOTE, .p_offset = NOTE_AT, .p_filesz = 16 + 12 + 4 + 8, .p_align = 4
	};
	*other = (Elf64_Nhdr){ .n_namesz = 4, .n_type = 18 }; /* right type, other name */
	memcpy(other + 1, "GNU", 4);
	*p.nh = (Elf64_Nhdr){ .n_namesz = 4, .n_descsz = 8, .n_type = 18 };
	memcpy(p.nh + 1, "Xen", 4);
	memcpy((uint8_t *)(p.nh + 1) + 4, &entry, 8);
	for (unsigned int i = 0; i < ELF_TEXT; i++)
		k->bytes[0x1000 + i] = (uint8_t)(i * 5 + 3);
	return p;
}

START_TEST(bzimage_is_put_where_it_will_run)
{
	const struct boot_params *p;
	const uint64_t *pml4, *gdt;
	struct image k;
	struct bench b;

	bench_open(&b, 64 * MIB, 32 * MIB);
	bzimage(&k);
	set_initrd(&b, 5000);
	/* As after a reset: nothing may rest on memory being zero. */
	memset(at(&b, 0, MIB), 0xff, MIB);
	ck_assert_msg(load(&b, &k) == 0, "%s", b.e.text);
	ck_assert_int_eq(b.entry.protocol, BOOT_LINUX64);
	ck_assert_uint_eq(b.entry.rip, PREFERRED + 0x200);
	ck_assert_int_eq(memcmp(at(&b, PREFERRED, PM_BYTES), k.bytes + SETUP, PM_BYTES), 0);

	ck_assert_uint_eq(b.entry.info_gpa, X86_BOOT_PARAMS_GPA);
	p = at(&b, b.entry.info_gpa, sizeof(*p));
	ck_assert_uint_eq(p->hdr.type_of_loader, 0xff);
	ck_assert_uint_eq(p->hdr.loadflags & CAN_USE_HEAP, 0);
	ck_assert_uint_eq(p->hdr.cmd_line_ptr, X86_CMDLINE_GPA);
	ck_assert_uint_eq(p->hdr.init_size, 8 * MIB);
	ck_assert_uint_eq(p->acpi_rsdp_addr, RSDP);
	ck_assert_uint_eq(p->sentinel, 0);
	ck_assert_uint_eq(p->ext_ramdisk_image, 0);
	ck_assert_str_eq(at(&b, X86_CMDLINE_GPA, 14), "console=ttyS0");
	ck_assert_uint_eq(p->hdr.ramdisk_image, 64 * MIB - 8192);
	ck_assert_uint_eq(p->hdr.ramdisk_size, 5000);
	ck_assert_uint_eq(*(uint8_t *)at(&b, 64 * MIB - 8192 + 4999, 1), 0x5a);

	/* The map: RAM without the ACPI tables and KVM's own pages. */
	ck_assert_uint_eq(p->e820_entries, 6);
	ck_assert_uint_eq(p->e820_table[0].size, X86_LOW_RAM_END);
	ck_assert_uint_eq(p->e820_table[2].addr, X86_ACPI_GPA);
	ck_assert_uint_eq(p->e820_table[2].type, 2);
	ck_assert_uint_eq(p->e820_table[3].addr, X86_HIGH_RAM_GPA);
	ck_assert_uint_eq(p->e820_table[3].size, 63 * MIB);
	ck_assert_uint_eq(p->e820_table[4].addr, X86_KVM_IDENTITY_GPA);
	ck_assert_uint_eq(p->e820_table[4].size, 0x4000);
	ck_assert_uint_eq(p->e820_table[4].type, 2);
	ck_assert_uint_eq(p->e820_table[5].addr, X86_ABOVE_4G_GPA);
	ck_assert_uint_eq(p->e820_table[5].size, 32 * MIB);

	/* The page tables map each of the first 2048 large pages to itself, and nothing else. */
	pml4 = at(&b, b.entry.page_tables_gpa, 6 * 4096);
	ck_assert_uint_eq(pml4[0] & ~0xfffull, b.entry.page_tables_gpa + 4096);
	ck_assert_uint_eq(pml4[1], 0);
	ck_assert_uint_eq(pml4[512 + 3] & 3, 3);
	ck_assert_uint_eq(pml4[512 + 4], 0);
	for (uint64_t i = 0; i < 2048; i++)
		ck_assert_uint_eq(pml4[1024 + i], i << 21 | 0x83);
	gdt = at(&b, b.entry.gdt_gpa, b.entry.gdt_bytes);
	ck_assert_uint_eq(gdt[2] >> 53 & 3, 1); /* 0x10: L set, D clear */
	ck_assert_uint_eq(gdt[3] >> 40 & 0xff, 0x93);
	bench_close(&b);
}
END_TEST

START_TEST(older_bzimage_gets_no_rsdp_field)
{
	const struct boot_params *p;
	struct image k;
	struct bench b;

	bench_open(&b, 64 * MIB, 0);
	bzimage(&k)->version = 0x020c;
	ck_assert_msg(load(&b, &k) == 0, "%s", b.e.text);
	p = at(&b, b.entry.info_gpa, sizeof(*p));
	ck_assert_uint_eq(p->acpi_rsdp_addr, 0);
	ck_assert_uint_eq(p->hdr.ramdisk_image, 0);
	bench_close(&b);
}
END_TEST

START_TEST(damaged_bzimage_is_refused)
{
	struct setup_header *h;
	struct image k;
	struct bench b;

	bench_open(&b, 64 * MIB, 0);
	bzimage(&k)->version = 0x0209;
	assert_refused(&b, &k, "boot protocol 2.09, expected 2.12");
	bzimage(&k)->xloadflags = 0;
	assert_refused(&b, &k, "32-bit kernel");
	bzimage(&k)->loadflags = 0;
	assert_refused(&b, &k, "zImage");
	bzimage(&k);
	k.len--; /* one missing byte is a last paragraph that is not full */
	ck_assert_int_eq(load(&b, &k), 0);
	k.len -= 15;
	assert_refused(&b, &k, "truncated");
	k.len = SETUP - 1;
	assert_refused(&b, &k, "truncated");
	k.len = 0x206;
	assert_refused(&b, &k, "truncated");
	bzimage(&k)->jump = 0x10eb;
	assert_refused(&b, &k, "setup header ends");
	bzimage(&k)->syssize = 0;
	assert_refused(&b, &k, "behind the setup code");
	bzimage(&k)->setup_sects = 0xff;
	assert_refused(&b, &k, "truncated");
	bzimage(&k)->payload_length = 0xffffffff;
	assert_refused(&b, &k, "payload");
	bzimage(&k)->payload_offset = PM_BYTES;
	assert_refused(&b, &k, "payload");
	bzimage(&k)->kernel_alignment = 0;
	assert_refused(&b, &k, "kernel_alignment");
	bzimage(&k)->kernel_alignment = 0x300000;
	assert_refused(&b, &k, "kernel_alignment");
	bzimage(&k)->pref_address = UINT64_MAX;
	assert_refused(&b, &k, "pref_address");
	h = bzimage(&k);
	h->relocatable_kernel = 0;
	h->pref_address = 0x10000;
	assert_refused(&b, &k, "pref_address");
	bzimage(&k)->init_size = 49 * MIB;
	assert_refused(&b, &k, "the machine has 65536 KiB");
	bzimage(&k)->init_size = 0xffffffff;
	assert_refused(&b, &k, "the machine has 65536 KiB");
	bench_close(&b);
}
END_TEST

START_TEST(what_is_no_kernel_is_named)
{
	static const struct {
		const char *bytes;
		size_t len, at;
		const char *part;
	} files[] = {
		{ "#!/bin/sh\necho\n", 15, 0, "text file" },
		{ "\x1f\x8b\x08", 3, 0, "compressed with gzip" },
		{ "\xfd"
		  "7zXZ\0",
		  6, 0, "compressed with xz" },
		{ "\x28\xb5\x2f\xfd", 4, 0, "compressed with zstd" },
		{ "ARM\x64", 4, 56, "arm64 kernel" },
		{ "\x55\xaa", 2, 510, "boot sector" },
		{ "\x7f"
		  "ELF",
		  4, 0, "truncated" },
		{ "\x01", 1, 0, "not a kernel" },
	};
	struct image k;
	struct bench b;

	bench_open(&b, 64 * MIB, 0);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		memset(&k, 0, sizeof(k));
		memcpy(k.bytes + files[i].at, files[i].bytes, files[i].len);
		k.len = files[i].at + files[i].len;
		assert_refused(&b, &k, files[i].part);
		ck_assert_int_eq(strncmp(b.e.text, "vm.img: ", 8), 0);
	}
	k.len = 0;
	assert_refused(&b, &k, "is empty");
	close(b.source.kernel_fd);
	b.source.kernel_fd = open("/", O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(boot_load(&b.memory, &b.source, &b.entry, &b.e), -1);
	ck_assert_ptr_nonnull(strstr(b.e.text, "is a directory"));
	bench_close(&b);
}
END_TEST

START_TEST(initrd_that_does_not_fit_is_refused)
{
	struct setup_header *h;
	struct image k;
	struct bench b;

	bench_open(&b, 25 * MIB, 0);
	h = bzimage(&k);
	set_initrd(&b, 0);
	assert_refused(&b, &k, "rd.img: is empty");
	/* Kernel 16-24 MiB: 1 MiB above it, 15 below. */
	set_initrd(&b, MIB);
	ck_assert_msg(load(&b, &k) == 0, "%s", b.e.text);
	ck_assert_uint_eq(
		((struct boot_params *)at(&b, X86_BOOT_PARAMS_GPA, 4096))->hdr.ramdisk_image,
		24 * MIB);
	set_initrd(&b, MIB + 1);
	ck_assert_msg(load(&b, &k) == 0, "%s", b.e.text);
	ck_assert_uint_eq(
		((struct boot_params *)at(&b, X86_BOOT_PARAMS_GPA, 4096))->hdr.ramdisk_image,
		15 * MIB - 4096);
	set_initrd(&b, 15 * MIB + 1);
	assert_refused(&b, &k, "rd.img: the initrd of 15361 KiB does not fit");
	/* Its last byte may lie at initrd_addr_max. */
	set_initrd(&b, 4096);
	h->initrd_addr_max = 8 * MIB - 1;
	ck_assert_msg(load(&b, &k) == 0, "%s", b.e.text);
	ck_assert_uint_eq(
		((struct boot_params *)at(&b, X86_BOOT_PARAMS_GPA, 4096))->hdr.ramdisk_image,
		8 * MIB - 4096);
	h->initrd_addr_max = 0;
	assert_refused(&b, &k, "does not fit");
	bench_close(&b);
}
END_TEST

START_TEST(command_line_is_bounded_by_the_kernel)
{
	static char text[X86_CMDLINE_MAX + 1];
	struct image k;
	struct bench b;

	bench_open(&b, 64 * MIB, 0);
	memset(text, 'a', sizeof(text) - 1);
	b.source.cmdline = text;
	text[2047] = 0;
	bzimage(&k);
	ck_assert_msg(load(&b, &k) == 0, "%s", b.e.text);
	text[2047] = 'a';
	text[2048] = 0;
	assert_refused(&b, &k, "has 2048 bytes, this kernel takes at most 2047");
	/* A kernel that takes more than our room, and PVH, which has no limit of its own. */
	text[2048] = 'a';
	text[X86_CMDLINE_MAX] = 0;
	bzimage(&k)->cmdline_size = 0xffffffff;
	assert_refused(&b, &k, "has 65536 bytes, this kernel takes at most 65535");
	elf(&k);
	assert_refused(&b, &k, "has 65536 bytes, this kernel takes at most 65535");
	text[X86_CMDLINE_MAX - 1] = 0;
	ck_assert_msg(load(&b, &k) == 0, "%s", b.e.text);
	ck_assert_uint_eq(*(uint8_t *)at(&b, X86_CMDLINE_GPA + X86_CMDLINE_MAX - 1, 1), 0);
	bench_close(&b);
}
END_TEST

START_TEST(machine_without_high_memory_is_refused)
{
	struct image k;
	struct bench b;

	bench_open(&b, MIB, 0);
	bzimage(&k);
	assert_refused(&b, &k, "the machine has 1024 KiB");
	elf(&k);
	assert_refused(&b, &k, "the machine has 1024 KiB");
	bench_close(&b);
}
END_TEST

static void assert_start_info(struct bench *b, uint64_t initrd_bytes)
{
	const uint32_t *w = at(b, b->entry.info_gpa, 56);
	const uint64_t *q = (const uint64_t *)w;
	const uint64_t *module, *map;

	ck_assert_uint_eq(w[0], 0x336ec578);
	ck_assert_uint_eq(w[1], 1);
	ck_assert_uint_eq(w[2], 0);
	ck_assert_uint_eq(w[3], initrd_bytes ? 1 : 0);
	ck_assert_uint_eq(q[3], X86_CMDLINE_GPA);
	ck_assert_uint_eq(q[4], RSDP);
	ck_assert_uint_eq(w[12], 5);
	map = at(b, q[5], 5 * 24);
	ck_assert_uint_eq(map[0], 0);
	ck_assert_uint_eq(map[1], X86_LOW_RAM_END);
	ck_assert_uint_eq(map[2], 1);
	ck_assert_uint_eq(map[9], X86_HIGH_RAM_GPA);
	ck_assert_uint_eq(map[10], 63 * MIB);
	if (!initrd_bytes)
		return;
	module = at(b, q[2], 32);
	ck_assert_uint_eq(module[0], 64 * MIB - ((initrd_bytes + 4095) & ~4095ull));
	ck_assert_uint_eq(module[1], initrd_bytes);
}

START_TEST(pvh_elf_is_loaded_with_its_bss_cleared)
{
	const uint8_t *bss;
	struct image k;
	struct bench b;

	bench_open(&b, 64 * MIB, 0);
	elf(&k);
	set_initrd(&b, 4097);
	memset(at(&b, 0, 4 * MIB), 0xff, 4 * MIB);
	ck_assert_msg(load(&b, &k) == 0, "%s", b.e.text);
	ck_assert_int_eq(b.entry.protocol, BOOT_PVH32);
	ck_assert_uint_eq(b.entry.rip, ELF_ENTRY);
	ck_assert_int_eq(memcmp(at(&b, ELF_LOAD, ELF_TEXT), k.bytes + 0x1000, ELF_TEXT), 0);
	bss = at(&b, ELF_LOAD, 0x3001);
	for (unsigned int i = ELF_TEXT; i < 0x3000; i++)
		ck_assert_uint_eq(bss[i], 0);
	ck_assert_uint_eq(bss[0x3000], 0xff);
	assert_start_info(&b, 4097);
	bench_close(&b);
}
END_TEST

START_TEST(fresh_bss_is_not_touched)
{
	const uint64_t far = 32 * MIB;
	unsigned char resident;
	struct elf_parts p;
	struct image k;
	struct bench b;

	bench_open(&b, 64 * MIB, 0);
	/* Huge pages would bring neighbours in. */
	madvise(b.memory.blocks[0].host, 64 * MIB, MADV_NOHUGEPAGE);
	p = elf(&k);
	p.load->p_memsz = 40 * MIB;
	b.source.memory_is_fresh = true;
	ck_assert_msg(load(&b, &k) == 0, "%s", b.e.text);
	assert_start_info(&b, 0);
	ck_assert_int_eq(mincore(at(&b, far, 4096), 4096, &resident), 0);
	ck_assert_int_eq(resident & 1, 0);
	bench_close(&b);
}
END_TEST

START_TEST(elf32_guest_is_loaded)
{
	const uint32_t entry = ELF_ENTRY;
	Elf32_Phdr *ph;
	struct image k;
	Elf32_Ehdr *eh;
	Elf64_Nhdr *nh;
	struct bench b;

	bench_open(&b, 64 * MIB, 0);
	elf(&k);
	memset(k.bytes, 0, NOTE_AT);
	eh = (void *)k.bytes;
	memcpy(eh->e_ident, ELFMAG, 4);
	eh->e_ident[EI_CLASS] = ELFCLASS32;
	eh->e_ident[EI_DATA] = ELFDATA2LSB;
	eh->e_type = ET_EXEC;
	eh->e_machine = EM_386;
	eh->e_phoff = 52;
	eh->e_phentsize = sizeof(*ph);
	eh->e_phnum = 2;
	ph = (void *)(k.bytes + 52);
	ph[0] = (Elf32_Phdr){ .p_type = PT_LOAD,
			      .p_offset = 0x1000,
			      .p_paddr = ELF_LOAD,
			      .p_filesz = ELF_TEXT,
			      .p_memsz = ELF_TEXT };
	ph[1] = (Elf32_Phdr){
		.p_type = PT_NOTE, .p_offset = NOTE_AT + 16, .p_filesz = 20, .p_align = 4
	};
	nh = (void *)(k.bytes + NOTE_AT + 16);
	nh->n_descsz = 4;
	memcpy((uint8_t *)(nh + 1) + 4, &entry, 4);
	ck_assert_msg(load(&b, &k) == 0, "%s", b.e.text);
	ck_assert_uint_eq(b.entry.rip, ELF_ENTRY);
	ck_assert_int_eq(memcmp(at(&b, ELF_LOAD, ELF_TEXT), k.bytes + 0x1000, ELF_TEXT), 0);
	bench_close(&b);
}
END_TEST

START_TEST(damaged_elf_is_refused)
{
	const uint64_t entry = 0x100000;
	struct elf_parts p;
	struct image k;
	struct bench b;

	bench_open(&b, 64 * MIB, 0);
	elf(&k).eh->e_machine = EM_AARCH64;
	assert_refused(&b, &k, "for arm64");
	elf(&k).eh->e_type = ET_REL;
	assert_refused(&b, &k, "relocatable object");
	elf(&k).eh->e_type = ET_CORE;
	assert_refused(&b, &k, "type 4");
	elf(&k).eh->e_ident[EI_DATA] = ELFDATA2MSB;
	assert_refused(&b, &k, "big-endian");
	elf(&k).eh->e_ident[EI_CLASS] = 7;
	assert_refused(&b, &k, "ELF class 7");
	elf(&k).eh->e_phnum = 0;
	assert_refused(&b, &k, "0 program headers");
	elf(&k).eh->e_phnum = 0xffff;
	assert_refused(&b, &k, "65535 program headers");
	elf(&k).eh->e_phentsize = 32;
	assert_refused(&b, &k, "program headers of 32 bytes");
	elf(&k).eh->e_phoff = UINT64_MAX - 8;
	assert_refused(&b, &k, "truncated");
	elf(&k).note->p_type = PT_NULL;
	assert_refused(&b, &k, "without a PVH entry note");
	elf(&k).nh->n_type = 17;
	assert_refused(&b, &k, "without a PVH entry note");
	elf(&k).nh->n_descsz = 2;
	assert_refused(&b, &k, "PVH note of 2 bytes");
	elf(&k).nh->n_descsz = 0xfffffff0;
	assert_refused(&b, &k, "reaches beyond");
	elf(&k).nh->n_namesz = 0xffffffff;
	assert_refused(&b, &k, "reaches beyond");
	elf(&k).note->p_offset = UINT64_MAX;
	assert_refused(&b, &k, "truncated");
	elf(&k).note->p_filesz = UINT64_MAX;
	assert_refused(&b, &k, "truncated");
	/* More notes than anybody has: twelve zero bytes are one. */
	p = elf(&k);
	p.note->p_offset = 0x2000;
	p.note->p_filesz = 0x4000;
	k.len = 0x6000;
	assert_refused(&b, &k, "more than 256 ELF notes");
	p = elf(&k);
	memcpy((uint8_t *)(p.nh + 1) + 4, &entry, 8);
	assert_refused(&b, &k, "lies in none of its segments");
	p = elf(&k);
	p.load->p_filesz = p.load->p_memsz + 1;
	k.len = 0x5000;
	assert_refused(&b, &k, "segment 0");
	elf(&k);
	k.len--;
	assert_refused(&b, &k, "truncated");
	bench_close(&b);
}
END_TEST

START_TEST(elf_that_lies_where_it_cannot_is_refused)
{
	struct elf_parts p;
	struct image k;
	struct bench b;

	bench_open(&b, 64 * MIB, 0);
	elf(&k).load->p_paddr = 64 * MIB - 0x2000;
	assert_refused(&b, &k, "needs memory from 0x3ffe000");
	elf(&k).load->p_paddr = UINT64_MAX - 0xfff;
	assert_refused(&b, &k, "needs memory");
	elf(&k).load->p_memsz = UINT64_MAX;
	assert_refused(&b, &k, "needs memory");
	elf(&k).load->p_paddr = X86_PVH_INFO_GPA - 0x1000;
	assert_refused(&b, &k, "lies over the start info");
	elf(&k).load->p_paddr = X86_ACPI_GPA + X86_ACPI_MAX - 0x1000;
	assert_refused(&b, &k, "lies over the ACPI tables");
	elf(&k).load->p_paddr = X86_CMDLINE_GPA;
	assert_refused(&b, &k, "lies over the command line");
	elf(&k).load->p_paddr = 0;
	assert_refused(&b, &k, "lies over the GDT");
	/* Twice the same segment. */
	p = elf(&k);
	p.eh->e_phnum = 3;
	p.note[1] = *p.load;
	assert_refused(&b, &k, "lies over a segment of the kernel");
	bench_close(&b);
}
END_TEST

START_TEST(every_truncation_is_refused)
{
	struct image k, whole;
	struct bench b;

	bench_open(&b, 64 * MIB, 0);
	elf(&whole);
	for (size_t len = 0; len < whole.len; len += len < 0x500 ? 1 : 61) {
		k = whole;
		k.len = len;
		ck_assert_msg(load(&b, &k) == -1 && b.e.text[0], "ELF of %zu bytes taken", len);
	}
	bzimage(&whole);
	for (size_t len = 0; len < whole.len - 15; len += len < 0x300 ? 1 : 61) {
		k = whole;
		k.len = len;
		ck_assert_msg(load(&b, &k) == -1 && b.e.text[0], "bzImage of %zu bytes taken", len);
	}
	bench_close(&b);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("boot");
	Suite *s = suite_create("boot");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, bzimage_is_put_where_it_will_run);
	tcase_add_test(tc, older_bzimage_gets_no_rsdp_field);
	tcase_add_test(tc, damaged_bzimage_is_refused);
	tcase_add_test(tc, what_is_no_kernel_is_named);
	tcase_add_test(tc, initrd_that_does_not_fit_is_refused);
	tcase_add_test(tc, command_line_is_bounded_by_the_kernel);
	tcase_add_test(tc, machine_without_high_memory_is_refused);
	tcase_add_test(tc, pvh_elf_is_loaded_with_its_bss_cleared);
	tcase_add_test(tc, fresh_bss_is_not_touched);
	tcase_add_test(tc, elf32_guest_is_loaded);
	tcase_add_test(tc, damaged_elf_is_refused);
	tcase_add_test(tc, elf_that_lies_where_it_cannot_is_refused);
	tcase_add_test(tc, every_truncation_is_refused);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
