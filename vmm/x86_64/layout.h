/*
 * Where things are in the guest's physical address space and port space (x86-64). The one place
 * with these numbers.
 *
 *   0x0000_0500  GDT                            0x0000_6000  PVH start info, module list, map
 *   0x0000_7000  boot_params ("zero page")      0x0000_9000  page tables for the 64-bit entry
 *   0x0002_0000  command line (64 KiB)          0x000e_0000  ACPI tables (128 KiB, reserved)
 *   0x000f_fff0  reset vector, in the last 16 of these
 *   0x0010_0000  kernel                         initrd: as high as it may be below 3 GiB
 *   0xc000_0000  end of low RAM                 0xd000_0000  virtio-mmio windows, 4 KiB each
 *   0xfec0_0000  IOAPIC    0xfee0_0000  LAPIC    0xfffb_c000  KVM's own pages (4)
 *   0x1_0000_0000  the rest of RAM
 */
#ifndef GODWIT_X86_64_LAYOUT_H
#define GODWIT_X86_64_LAYOUT_H

#define X86_GDT_GPA	     0x500ull
#define X86_PVH_INFO_GPA     0x6000ull
#define X86_BOOT_PARAMS_GPA  0x7000ull
#define X86_PAGE_TABLES_GPA  0x9000ull
#define X86_CMDLINE_GPA	     0x20000ull
#define X86_CMDLINE_MAX	     0x10000ull
#define X86_LOW_RAM_END	     0x9fc00ull
#define X86_ACPI_GPA	     0xe0000ull
#define X86_ACPI_MAX	     0x20000ull
#define X86_RESET_VECTOR     0xffff0ull
#define X86_HIGH_RAM_GPA     0x100000ull
#define X86_HOLE_GPA	     0xc0000000ull
#define X86_VIRTIO_GPA	     0xd0000000ull
#define X86_IOAPIC_GPA	     0xfec00000ull
#define X86_LAPIC_GPA	     0xfee00000ull
#define X86_KVM_IDENTITY_GPA 0xfffbc000ull
#define X86_KVM_TSS_GPA	     0xfffbd000ull
#define X86_ABOVE_4G_GPA     0x100000000ull

#define X86_SERIAL_PORT 0x3f8u
#define X86_SERIAL_GSI	4u

/* The power device: see devices/power.c for its registers. */
#define X86_POWER_PORT 0x600u
#define X86_POWER_GSI  9u

/* The keyboard controller's place on every PC: see devices/i8042.c. */
#define X86_I8042_PORT 0x60u

/* IOAPIC pins that virtio devices get, in this order: edge triggered, one each. */
#define X86_VIRTIO_GSIS                                                            \
	{                                                                          \
		5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23 \
	}

#endif
