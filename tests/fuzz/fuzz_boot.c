/*
 * libFuzzer entry: any bytes as a kernel image, with and without an initrd. One thread. Whatever
 * the bytes are, boot_load answers with an entry inside RAM or with a sentence.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/memory.h"
#include "vmm/tree.h"
#include "vmm/x86_64/boot.h"
#include "vmm/x86_64/layout.h"

#define RAM_BYTES (32ull << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void load(const struct boot_source *s)
{
	struct boot_entry entry;
	struct err e = { "" };
	struct memory m;
	struct tree t;

	if (tree_init(&t, &e) || tree_set_u64_pair(&t, "/memory@0", "reg", 0, RAM_BYTES, &e) ||
	    memory_init(&m, &t, &e))
		abort();
	tree_free(&t);
	if (boot_load(&m, s, &entry, &e)) {
		if (!e.text[0])
			abort();
	} else if (!memory_host(&m, entry.rip, 1) || !memory_host(&m, entry.info_gpa, 1)) {
		abort();
	}
	memory_free(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC);
	struct boot_source s = { .kernel_fd = fd,
				 .kernel_name = "kernel",
				 .initrd_fd = -1,
				 .initrd_name = "initrd",
				 .cmdline = "console=ttyS0",
				 .rsdp_gpa = X86_ACPI_GPA };

	if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
		abort();
	s.memory_is_fresh = true;
	load(&s);
	/* Again with the image as the initrd too, and with .bss cleared. */
	s.memory_is_fresh = false;
	s.initrd_fd = fd;
	load(&s);
	close(fd);
	return 0;
}
