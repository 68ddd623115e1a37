/*
 * ACPI tables made from the machine tree: RSDP, XSDT, FADT (hardware-reduced), MADT, DSDT with the
 * processors, the serial port, virtio-mmio windows (LNRO0005), the power button behind a generic
 * event device and the \_S5 sleep state. Source: ACPI specification 6.4. Pure: bytes out of a tree.
 */
#ifndef GODWIT_X86_64_ACPI_H
#define GODWIT_X86_64_ACPI_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct tree;

/*
 * Builds all tables into `buf` of `max` bytes, as they will lie at guest address `gpa` (16-aligned;
 * the RSDP comes first). Returns the bytes used, or -1.
 */
long acpi_build(const struct tree *t, uint64_t gpa, void *buf, size_t max, struct err *e);

#endif
