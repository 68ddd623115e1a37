/*
 * ACPI tables of a hardware-reduced machine, made from the machine tree: see acpi.h. Pure; the
 * thread that builds or resets the machine.
 * Invariant: what the tree says is checked as a whole first (struct shape), then written; the same
 * tree gives the same bytes on every host, so a migrated guest finds its tables unchanged.
 *
 *   gpa: | RSDP | XSDT | FADT | MADT | DSDT |        each 16-aligned; XSDT -> FADT, MADT;
 *                                                      FADT -> DSDT
 */
#include "vmm/x86_64/acpi.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/power_ports.h"
#include "vmm/tree.h"
#include "vmm/x86_64/aml.h"
#include "vmm/x86_64/layout.h"

#define CPUS_MAX      254u /* APIC ids of 8 bits without the broadcast id */
#define DEVICES_MAX   32u
#define PINS	      24u /* of KVM's IOAPIC */
#define PIN_OF_TIMER  2u  /* where KVM wires ISA IRQ 0 */
#define WINDOW_MIN    0x200u
#define SERIAL_PORTS  8u
#define POWER_PORTS   8u
#define HEADER_BYTES  36u
#define BUTTON_NOTIFY 0x80u

/* FADT offsets, ACPI 6.4 table 5.9. */
#define FADT_DSDT	    40
#define FADT_BOOT_ARCH	    109
#define FADT_FLAGS	    112
#define FADT_RESET_REG	    116
#define FADT_RESET_VALUE    128
#define FADT_MINOR	    131
#define FADT_X_DSDT	    140
#define FADT_SLEEP_CONTROL  244
#define FADT_SLEEP_STATUS   256
#define FADT_VENDOR	    268
#define FADT_BYTES	    276
#define FADT_REVISION	    6
#define FADT_MINOR_REVISION 4

/* FADT flags: WBINVD; C1; no fixed power and sleep buttons; reset register; hardware-reduced. */
#define FADT_FLAG_BITS (1u << 0 | 1u << 2 | 1u << 4 | 1u << 5 | 1u << 10 | 1u << 20)
/* There is a legacy device (the serial port); no VGA, no CMOS clock; and bit 1: no 8042. */
#define FADT_BOOT_ARCH_BITS (1u << 0 | 1u << 2 | 1u << 5)

/* A device as the guest sees it. */
struct part {
	uint64_t base, size;
	uint32_t gsi;
};

/* What the tables tell, read from the tree and checked. */
struct shape {
	uint32_t n_cpus;
	struct part power;
	struct part serials[DEVICES_MAX], windows[DEVICES_MAX];
	unsigned int n_powers, n_serials, n_windows;
	uint32_t pins_used;
};

static int read_interrupt(const struct tree *t, const char *path, struct shape *s, struct part *p,
			  struct err *e)
{
	if (tree_u32(t, path, "interrupts", &p->gsi, e))
		return -1;
	if (p->gsi == 0 || p->gsi >= PINS || p->gsi == PIN_OF_TIMER)
		return err_set(e, "%s: interrupts is %u, expected 1 or 3 to %u", path, p->gsi,
			       PINS - 1);
	if (s->pins_used >> p->gsi & 1)
		return err_set(e, "%s: interrupt %u belongs to another device already", path,
			       p->gsi);
	s->pins_used |= 1u << p->gsi;
	return 0;
}

static int read_ports(const struct tree *t, const char *path, uint32_t ports, struct shape *s,
		      struct part *p, struct err *e)
{
	uint32_t base, size;

	if (tree_u32_pair(t, path, "port", &base, &size, e))
		return -1;
	if (size != ports || base > 0x10000 - ports)
		return err_set(e, "%s: port is <0x%x %u>, expected %u ports below 0x10000", path,
			       base, size, ports);
	p->base = base;
	p->size = size;
	return read_interrupt(t, path, s, p, e);
}

static int read_window(const struct tree *t, const char *path, struct shape *s, struct part *p,
		       struct err *e)
{
	if (tree_u64_pair(t, path, "reg", &p->base, &p->size, e))
		return -1;
	if (p->size < WINDOW_MIN || p->base < X86_HOLE_GPA || p->base >= X86_IOAPIC_GPA ||
	    p->size > X86_IOAPIC_GPA - p->base)
		return err_set(e,
			       "%s: reg is <0x%" PRIx64 " 0x%" PRIx64
			       ">, expected a window of at least 0x%x bytes between 0x%llx and "
			       "0x%llx",
			       path, p->base, p->size, WINDOW_MIN, X86_HOLE_GPA, X86_IOAPIC_GPA);
	for (unsigned int i = 0; i < s->n_windows; i++) {
		const struct part *q = &s->windows[i];

		if (p->base < q->base + q->size && q->base < p->base + p->size)
			return err_set(
				e, "%s: reg 0x%" PRIx64 " overlaps the window of another device",
				path, p->base);
	}
	return read_interrupt(t, path, s, p, e);
}

static int read_device(const struct tree *t, const char *path, struct shape *s, struct err *e)
{
	const char *model;

	if (tree_str(t, path, "model", &model, e))
		return -1;
	if (s->n_serials == DEVICES_MAX || s->n_windows == DEVICES_MAX)
		return err_set(e, "%s: more than %u devices of a kind", path, DEVICES_MAX);
	if (!strcmp(model, "serial-8250")) {
		if (read_ports(t, path, SERIAL_PORTS, s, &s->serials[s->n_serials], e))
			return -1;
		s->n_serials++;
		return 0;
	}
	if (!strcmp(model, "power")) {
		if (s->n_powers++)
			return err_set(e, "%s: a second power device", path);
		return read_ports(t, path, POWER_PORTS, s, &s->power, e);
	}
	if (!strncmp(model, "virtio-", strlen("virtio-"))) {
		if (read_window(t, path, s, &s->windows[s->n_windows], e))
			return -1;
		s->n_windows++;
		return 0;
	}
	/* Not told of, so that the guest looks for no keyboard. */
	if (!strcmp(model, "i8042"))
		return 0;
	return err_set(e, "%s: ACPI has no description of the model '%s'", path, model);
}

static int read_shape(const struct tree *t, struct shape *s, struct err *e)
{
	char path[TREE_PATH_MAX];
	unsigned int it = 0;

	memset(s, 0, sizeof(*s));
	if (tree_u32(t, "/cpus", "count", &s->n_cpus, e))
		return -1;
	if (s->n_cpus < 1 || s->n_cpus > CPUS_MAX)
		return err_set(e, "/cpus: count is %u, expected 1 to %u", s->n_cpus, CPUS_MAX);
	while (tree_next_child(t, "/devices", &it, path)) {
		if (read_device(t, path, s, e))
			return -1;
	}
	if (!s->n_powers)
		return err_set(e, "/devices: there is no power device");
	return 0;
}

/* Makes `bytes` bytes from `from` on sum up to zero, by the byte at `at`. */
static void set_checksum(struct aml *a, size_t from, size_t bytes, size_t at)
{
	uint8_t sum = 0;

	if (a->full)
		return;
	a->buf[at] = 0;
	for (size_t i = 0; i < bytes; i++)
		sum = (uint8_t)(sum + a->buf[from + i]);
	a->buf[at] = (uint8_t)-sum;
}

static void set_bytes(struct aml *a, size_t at, const void *v, size_t len)
{
	if (!a->full)
		memcpy(a->buf + at, v, len);
}

static void align(struct aml *a, size_t to)
{
	while (a->len % to && !a->full)
		aml_u8(a, 0);
}

/* Writes a table's header, its length and checksum left open; returns where the table begins. */
static size_t table_begin(struct aml *a, const char *signature, uint8_t revision)
{
	size_t start;

	align(a, 16);
	start = a->len;
	aml_bytes(a, signature, 4);
	aml_u32(a, 0); /* length */
	aml_u8(a, revision);
	aml_u8(a, 0); /* checksum */
	aml_bytes(a, "GODWIT", 6);
	aml_bytes(a, "GODWITVM", 8);
	aml_u32(a, 1);
	aml_bytes(a, "GDWT", 4);
	aml_u32(a, 1);
	return start;
}

static void table_end(struct aml *a, size_t start, size_t bytes)
{
	uint32_t length = (uint32_t)bytes;

	set_bytes(a, start + 4, &length, sizeof(length));
	set_checksum(a, start, bytes, start + 9);
}

/* A generic address structure for one port of eight bits, over what is there at `at`. */
static void set_port_register(struct aml *a, size_t at, uint64_t port)
{
	const uint8_t head[4] = { 1, 8, 0, 1 }; /* system I/O, bits, offset, byte access */

	set_bytes(a, at, head, sizeof(head));
	set_bytes(a, at + sizeof(head), &port, sizeof(port));
}

static size_t put_fadt(struct aml *a, const struct shape *s)
{
	const uint16_t boot_arch = FADT_BOOT_ARCH_BITS;
	const uint32_t flags = FADT_FLAG_BITS;
	const uint8_t reset_value = POWER_RESET_VALUE, minor = FADT_MINOR_REVISION;
	size_t start = table_begin(a, "FACP", FADT_REVISION);

	/* All else is hardware that a hardware-reduced machine does not have: zero. */
	for (size_t i = HEADER_BYTES; i < FADT_BYTES; i++)
		aml_u8(a, 0);
	set_bytes(a, start + FADT_BOOT_ARCH, &boot_arch, sizeof(boot_arch));
	set_bytes(a, start + FADT_FLAGS, &flags, sizeof(flags));
	set_port_register(a, start + FADT_RESET_REG, s->power.base + POWER_RESET);
	set_bytes(a, start + FADT_RESET_VALUE, &reset_value, 1);
	set_bytes(a, start + FADT_MINOR, &minor, 1);
	set_port_register(a, start + FADT_SLEEP_CONTROL, s->power.base + POWER_SLEEP_CONTROL);
	set_port_register(a, start + FADT_SLEEP_STATUS, s->power.base + POWER_SLEEP_STATUS);
	set_bytes(a, start + FADT_VENDOR, "GODWITVM", 8);
	return start;
}

static size_t put_madt(struct aml *a, const struct shape *s)
{
	size_t start = table_begin(a, "APIC", 5);

	aml_u32(a, X86_LAPIC_GPA);
	/* KVM has a pair of 8259s, but nothing announced here is wired to them. */
	aml_u32(a, 0);
	for (uint32_t i = 0; i < s->n_cpus; i++) {
		aml_u8(a, 0); /* local APIC */
		aml_u8(a, 8);
		aml_u8(a, (uint8_t)i); /* the _UID of its device */
		aml_u8(a, (uint8_t)i); /* APIC id */
		aml_u32(a, 1);	       /* enabled */
	}
	aml_u8(a, 1); /* IOAPIC */
	aml_u8(a, 12);
	aml_u8(a, 0); /* the id that KVM's register has after reset */
	aml_u8(a, 0);
	aml_u32(a, X86_IOAPIC_GPA);
	aml_u32(a, 0); /* first GSI */

	/* A guest that programs the PIT gets ISA IRQ 0 on pin 2, as KVM routes it. */
	aml_u8(a, 2); /* interrupt source override */
	aml_u8(a, 10);
	aml_u8(a, 0); /* ISA */
	aml_u8(a, 0); /* IRQ 0 */
	aml_u32(a, PIN_OF_TIMER);
	aml_u16(a, 0); /* as ISA does: edge, active high */

	aml_u8(a, 4); /* local APIC NMI */
	aml_u8(a, 6);
	aml_u8(a, 0xff); /* all processors */
	aml_u16(a, 0);
	aml_u8(a, 1); /* LINT1 */
	table_end(a, start, a->len - start);
	return start;
}

/* "V" and 0x12 -> "V012". */
static void number_name(char name[5], char kind, unsigned int i)
{
	static const char digits[] = "0123456789ABCDEF";

	name[0] = kind;
	name[1] = digits[i >> 8 & 15];
	name[2] = digits[i >> 4 & 15];
	name[3] = digits[i & 15];
	name[4] = 0;
}

static void put_cpu(struct aml *a, uint32_t i)
{
	char name[5];
	size_t device;

	number_name(name, 'C', i);
	device = aml_open_device(a, name);
	aml_name(a, "_HID");
	aml_string(a, "ACPI0007");
	aml_name_integer(a, "_UID", i);
	aml_close(a, device);
}

static void put_serial(struct aml *a, unsigned int i, const struct part *p)
{
	uint8_t bytes[32];
	struct aml r = { .buf = bytes, .max = sizeof(bytes) };
	char name[5] = { 'C', 'O', 'M', (char)(i < 9 ? '1' + i : 'A' + (i - 9)), 0 };
	size_t device = aml_open_device(a, name);

	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0501");
	aml_name_integer(a, "_UID", i);
	aml_resource_ports(&r, (uint16_t)p->base, (uint8_t)p->size);
	aml_resource_interrupt(&r, p->gsi);
	aml_resources(a, &r);
	aml_close(a, device);
}

static void put_window(struct aml *a, unsigned int i, const struct part *p)
{
	uint8_t bytes[32];
	struct aml r = { .buf = bytes, .max = sizeof(bytes) };
	char name[5];
	size_t device;

	number_name(name, 'V', i);
	device = aml_open_device(a, name);
	aml_name(a, "_HID");
	aml_string(a, "LNRO0005");
	aml_name_integer(a, "_UID", i);
	aml_resource_memory(&r, (uint32_t)p->base, (uint32_t)p->size);
	aml_resource_interrupt(&r, p->gsi);
	aml_resources(a, &r);
	aml_close(a, device);
}

/*
 * The power button, and the generic event device through which it is heard:
 *
 *   Method (_EVT, 1, Serialized) { Local0 = EVTS; If (Local0 & BUTTON) { Notify (PWRB, 0x80) } }
 *
 * One read takes and clears all events, so EVTS is read once.
 */
static void put_power(struct aml *a, const struct shape *s)
{
	uint8_t bytes[32];
	struct aml r = { .buf = bytes, .max = sizeof(bytes) };
	size_t device, method, branch;

	device = aml_open_device(a, "PWRB");
	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0C0C");
	aml_name_integer(a, "_UID", 0);
	aml_close(a, device);

	device = aml_open_device(a, "GED_");
	aml_name(a, "_HID");
	aml_string(a, "ACPI0013");
	aml_name_integer(a, "_UID", 0);
	aml_resource_interrupt(&r, s->power.gsi);
	aml_resources(a, &r);
	aml_port_byte(a, "EVTR", "EVTS", (uint16_t)(s->power.base + POWER_EVENTS));
	method = aml_open_method(a, "_EVT", 1, true);
	aml_u8(a, AML_STORE);
	aml_path(a, "EVTS");
	aml_u8(a, AML_LOCAL0);
	aml_u8(a, AML_IF);
	branch = aml_open(a);
	aml_u8(a, AML_AND);
	aml_u8(a, AML_LOCAL0);
	aml_integer(a, POWER_EVENT_BUTTON);
	aml_u8(a, AML_NULL);
	aml_u8(a, AML_NOTIFY);
	aml_path(a, "\\_SB_.PWRB");
	aml_integer(a, BUTTON_NOTIFY);
	aml_close(a, branch);
	aml_close(a, method);
	aml_close(a, device);
}

static size_t put_dsdt(struct aml *a, const struct shape *s)
{
	size_t start = table_begin(a, "DSDT", 2), scope, package;

	aml_name(a, "\\_S5_");
	package = aml_open_package(a, 4);
	aml_integer(a, POWER_S5);
	for (unsigned int i = 1; i < 4; i++)
		aml_integer(a, 0);
	aml_close(a, package);

	scope = aml_open_scope(a, "\\_SB_");
	for (uint32_t i = 0; i < s->n_cpus; i++)
		put_cpu(a, i);
	for (unsigned int i = 0; i < s->n_serials; i++)
		put_serial(a, i, &s->serials[i]);
	put_power(a, s);
	for (unsigned int i = 0; i < s->n_windows; i++)
		put_window(a, i, &s->windows[i]);
	aml_close(a, scope);
	table_end(a, start, a->len - start);
	return start;
}

static void put_rsdp(struct aml *a, uint64_t xsdt_gpa)
{
	aml_bytes(a, "RSD PTR ", 8);
	aml_u8(a, 0); /* checksum of the first 20 bytes */
	aml_bytes(a, "GODWIT", 6);
	aml_u8(a, 2);  /* revision */
	aml_u32(a, 0); /* no RSDT */
	aml_u32(a, 36);
	aml_u64(a, xsdt_gpa);
	aml_u8(a, 0); /* checksum of all */
	aml_u8(a, 0);
	aml_u16(a, 0);
	set_checksum(a, 0, 20, 8);
	set_checksum(a, 0, 36, 32);
}

long acpi_build(const struct tree *t, uint64_t gpa, void *buf, size_t max, struct err *e)
{
	struct aml a = { .buf = buf, .max = max };
	uint64_t entries[2] = { 0, 0 }, dsdt_gpa;
	size_t xsdt, fadt;
	uint32_t dsdt_low;
	struct shape s;

	if (read_shape(t, &s, e))
		return -1;
	/* The RSDP is 36 bytes: the table behind it begins at the next multiple of 16. */
	put_rsdp(&a, gpa + 48);
	xsdt = table_begin(&a, "XSDT", 1);
	aml_bytes(&a, entries, sizeof(entries)); /* known below */

	fadt = put_fadt(&a, &s);
	entries[0] = gpa + fadt;
	entries[1] = gpa + put_madt(&a, &s);
	dsdt_gpa = gpa + put_dsdt(&a, &s);

	dsdt_low = (uint32_t)dsdt_gpa;
	set_bytes(&a, fadt + FADT_DSDT, &dsdt_low, sizeof(dsdt_low));
	set_bytes(&a, fadt + FADT_X_DSDT, &dsdt_gpa, sizeof(dsdt_gpa));
	table_end(&a, fadt, FADT_BYTES);
	set_bytes(&a, xsdt + HEADER_BYTES, entries, sizeof(entries));
	table_end(&a, xsdt, HEADER_BYTES + sizeof(entries));
	if (a.full)
		return err_set(e, "/devices: the ACPI tables need more than %zu bytes", max);
	return (long)a.len;
}
