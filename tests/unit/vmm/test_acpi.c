/*
 * The ACPI tables: structure and checksums read back here byte by byte, the names and values in
 * them read by ACPICA's own disassembler and compiler (iasl), and trees that must be refused.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/power.h"
#include "vmm/base/err.h"
#include "vmm/tree.h"
#include "vmm/x86_64/acpi.h"
#include "vmm/x86_64/layout.h"

#define GPA X86_ACPI_GPA

static uint8_t tables[X86_ACPI_MAX];

static uint64_t get(const uint8_t *p, unsigned int len)
{
	uint64_t v = 0;

	memcpy(&v, p, len);
	return v;
}

static void set(struct tree *t, const char *path, const char *prop, uint32_t v)
{
	ck_assert_int_eq(tree_set_u32(t, path, prop, v, NULL), 0);
}

static void add_device(struct tree *t, const char *path, const char *model, uint32_t gsi)
{
	ck_assert_int_eq(tree_set_str(t, path, "model", model, NULL), 0);
	set(t, path, "interrupts", gsi);
}

static void set_ports(struct tree *t, const char *path, uint32_t base, uint32_t size)
{
	ck_assert_int_eq(tree_set_u32_pair(t, path, "port", base, size, NULL), 0);
}

static void set_window(struct tree *t, const char *path, uint64_t base, uint64_t size)
{
	ck_assert_int_eq(tree_set_u64_pair(t, path, "reg", base, size, NULL), 0);
}

/* A machine with `n_cpus`, a serial port, the power device and two virtio windows. */
static void machine(struct tree *t, uint32_t n_cpus)
{
	ck_assert_int_eq(tree_init(t, NULL), 0);
	set(t, "/cpus", "count", n_cpus);
	add_device(t, "/devices/serial", "serial-8250", X86_SERIAL_GSI);
	set_ports(t, "/devices/serial", X86_SERIAL_PORT, 8);
	add_device(t, "/devices/power", "power", X86_POWER_GSI);
	set_ports(t, "/devices/power", X86_POWER_PORT, 8);
	add_device(t, "/devices/disk0", "virtio-blk", 5);
	set_window(t, "/devices/disk0", X86_VIRTIO_GPA, 0x1000);
	add_device(t, "/devices/net0", "virtio-net", 23);
	set_window(t, "/devices/net0", X86_VIRTIO_GPA + 0x1000, 0x1000);
}

static long build(const struct tree *t)
{
	struct err e = { "" };
	long n = acpi_build(t, GPA, tables, sizeof(tables), &e);

	ck_assert_msg(n > 0, "%s", e.text);
	return n;
}

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s = (uint8_t)(s + *p++);
	return s;
}

/* The table of that signature, found as a guest does: RSDP, XSDT, and the DSDT through the FADT. */
static const uint8_t *table(const char *signature)
{
	const uint8_t *xsdt = tables + (get(tables + 24, 8) - GPA), *found = NULL;
	uint64_t n = (get(xsdt + 4, 4) - 36) / 8;

	if (!strcmp(signature, "XSDT"))
		found = xsdt;
	for (uint64_t i = 0; i < n; i++) {
		const uint8_t *p = tables + (get(xsdt + 36 + 8 * i, 8) - GPA);

		if (!memcmp(p, signature, 4))
			found = p;
		if (!memcmp(p, "FACP", 4) && !strcmp(signature, "DSDT"))
			found = tables + (get(p + 140, 8) - GPA);
	}
	ck_assert_msg(found != NULL, "no table %s", signature);
	return found;
}

START_TEST(tables_are_found_whole_and_sum_to_zero)
{
	static const char *const signatures[] = { "XSDT", "FACP", "APIC", "DSDT" };
	struct tree t;
	long n;

	machine(&t, 4);
	memset(tables, 0xff, sizeof(tables)); /* as after a reset */
	n = build(&t);
	ck_assert_int_eq(memcmp(tables, "RSD PTR ", 8), 0);
	ck_assert_uint_eq(tables[15], 2);
	ck_assert_uint_eq(get(tables + 20, 4), 36);
	ck_assert_uint_eq(sum(tables, 20), 0);
	ck_assert_uint_eq(sum(tables, 36), 0);
	for (size_t i = 0; i < 4; i++) {
		const uint8_t *p = table(signatures[i]);
		uint64_t len = get(p + 4, 4);

		ck_assert_int_eq(memcmp(p, signatures[i], 4), 0);
		ck_assert_uint_eq((uint64_t)(p - tables) % 16, 0);
		ck_assert_uint_le((uint64_t)(p - tables) + len, (uint64_t)n);
		ck_assert_msg(sum(p, len) == 0, "%s does not sum to zero", signatures[i]);
	}
	ck_assert_uint_eq(tables[n], 0xff);
	tree_free(&t);
}
END_TEST

START_TEST(fadt_tells_the_power_registers)
{
	const uint8_t *p;
	struct tree t;

	machine(&t, 1);
	set_ports(&t, "/devices/power", 0x700, 8);
	build(&t);
	p = table("FACP");
	ck_assert_uint_eq(get(p + 4, 4), 276);
	ck_assert_uint_eq(p[8], 6);
	ck_assert_uint_eq(get(p + 40, 4), get(p + 140, 8));
	ck_assert_uint_eq(get(p + 112, 4) >> 20 & 1, 1);	 /* hardware-reduced */
	ck_assert_uint_eq(get(p + 112, 4) >> 10 & 1, 1);	 /* reset register */
	ck_assert_uint_eq(get(p + 109, 2), 1 | 1 << 2 | 1 << 5); /* no 8042, VGA, CMOS clock */
	ck_assert_uint_eq(get(p + 116, 4), 0x01000801);
	ck_assert_uint_eq(get(p + 120, 8), 0x700 + POWER_RESET);
	ck_assert_uint_eq(p[128], POWER_RESET_VALUE);
	ck_assert_uint_eq(get(p + 248, 8), 0x700 + POWER_SLEEP_CONTROL);
	ck_assert_uint_eq(get(p + 260, 8), 0x700 + POWER_SLEEP_STATUS);
	tree_free(&t);
}
END_TEST

START_TEST(madt_lists_each_processor)
{
	static const uint32_t counts[] = { 1, 2, 254 };

	for (size_t k = 0; k < 3; k++) {
		unsigned int n_cpus = 0, n_ioapics = 0;
		const uint8_t *p;
		struct tree t;

		machine(&t, counts[k]);
		build(&t);
		p = table("APIC");
		ck_assert_uint_eq(get(p + 36, 4), X86_LAPIC_GPA);
		for (uint64_t at = 44; at < get(p + 4, 4); at += p[at + 1]) {
			ck_assert_uint_ge(p[at + 1], 2);
			if (p[at] == 0) {
				ck_assert_uint_eq(p[at + 2], n_cpus);
				ck_assert_uint_eq(p[at + 3], n_cpus);
				ck_assert_uint_eq(get(p + at + 4, 4), 1);
				n_cpus++;
			} else if (p[at] == 1) {
				ck_assert_uint_eq(get(p + at + 4, 4), X86_IOAPIC_GPA);
				ck_assert_uint_eq(get(p + at + 8, 4), 0);
				n_ioapics++;
			} else if (p[at] == 2) {
				ck_assert_uint_eq(p[at + 3], 0);
				ck_assert_uint_eq(get(p + at + 4, 4), 2);
			}
		}
		ck_assert_uint_eq(n_cpus, counts[k]);
		ck_assert_uint_eq(n_ioapics, 1);
		tree_free(&t);
	}
}
END_TEST

START_TEST(same_tree_gives_same_tables)
{
	static uint8_t first[X86_ACPI_MAX];
	struct tree t, copy;
	long n;

	machine(&t, 3);
	tree_pack(&t);
	ck_assert_int_eq(tree_copy(&copy, t.fdt, tree_bytes_used(&t), NULL), 0);
	n = build(&t);
	memcpy(first, tables, (size_t)n);
	ck_assert_int_eq(build(&copy), n);
	ck_assert_int_eq(memcmp(first, tables, (size_t)n), 0);
	tree_free(&copy);
	tree_free(&t);
}
END_TEST

static void write_table(const char *dir, const char *signature)
{
	const uint8_t *p = table(signature);
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.aml", dir, signature);
	f = fopen(path, "wb");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(p, 1, get(p + 4, 4), f), get(p + 4, 4));
	fclose(f);
}

/* Runs iasl in `dir`; it must succeed and complain of nothing. */
static void iasl(const char *dir, const char *args)
{
	static char log[1 << 16];
	char line[512];
	size_t n;
	FILE *f;
	int rc;

	snprintf(line, sizeof(line), "cd '%s' && iasl %s >log 2>&1", dir, args);
	rc = system(line);
	snprintf(line, sizeof(line), "%s/log", dir);
	f = fopen(line, "r");
	n = f ? fread(log, 1, sizeof(log) - 1, f) : 0;
	log[n] = 0;
	if (f)
		fclose(f);
	ck_assert_msg(rc == 0, "iasl %s: %s", args, log);
	if (strstr(args, "-d"))
		ck_assert_msg(!strcasestr(log, "error") && !strcasestr(log, "warning"),
			      "iasl %s: %s", args, log);
	else
		ck_assert_msg(strstr(log, "0 Errors, 0 Warnings") || !strstr(log, "Errors"),
			      "iasl %s: %s", args, log);
}

static void remove_dir(const char *dir)
{
	char command[256];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	ck_assert_int_eq(system(command), 0);
}

static void assert_in_file(const char *dir, const char *name, const char *const *texts, size_t n)
{
	static char text[1 << 20];
	char path[256];
	size_t len;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	len = fread(text, 1, sizeof(text) - 1, f);
	text[len] = 0;
	fclose(f);
	for (size_t i = 0; i < n; i++)
		ck_assert_msg(strstr(text, texts[i]) != NULL, "%s lacks '%s'", name, texts[i]);
}

START_TEST(iasl_accepts_the_tables)
{
	static const char *const signatures[] = { "XSDT", "FACP", "APIC", "DSDT" };
	static const char *const dsdt[] = {
		"Name (_HID, \"ACPI0007\"",
		"Device (C003)",
		"Device (COM1)",
		"EisaId (\"PNP0501\")",
		"0x03F8,",
		"Device (V001)",
		"\"LNRO0005\"",
		"0xD0001000,",
		"Device (PWRB)",
		"EisaId (\"PNP0C0C\")",
		"\"ACPI0013\"",
		"Method (_EVT, 1, Serialized)",
		"Notify (",
		"OperationRegion (EVTR, SystemIO, 0x0603",
		"ResourceConsumer, Edge, ActiveHigh, Exclusive",
		"0x00000017,",
	};
	static const char *const fadt[] = { "Hardware Reduced (V5) : 1",
					    "Value to cause reset : 01", "0000000000000602" };
	char dir[] = "/tmp/godwit-acpi-XXXXXX", args[64];
	struct tree t;

	ck_assert_msg(system("command -v iasl >/dev/null 2>&1") == 0,
		      "iasl is missing: install acpica-tools (scripts/setup does)");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	machine(&t, 4);
	build(&t);
	for (size_t i = 0; i < 4; i++) {
		write_table(dir, signatures[i]);
		snprintf(args, sizeof(args), "-d %s.aml", signatures[i]);
		iasl(dir, args);
	}
	assert_in_file(dir, "DSDT.dsl", dsdt, sizeof(dsdt) / sizeof(dsdt[0]));
	assert_in_file(dir, "FACP.dsl", fadt, sizeof(fadt) / sizeof(fadt[0]));
	/* The compiler checks what the disassembler takes on trust: scopes, types, required names.
	 */
	iasl(dir, "-tc -p again DSDT.dsl");
	iasl(dir, "-p FACP2 FACP.dsl");
	iasl(dir, "-p APIC2 APIC.dsl");
	remove_dir(dir);
	tree_free(&t);
}
END_TEST

START_TEST(iasl_accepts_the_largest_machine)
{
	static const char *const last = "Device (C0FD)";
	char dir[] = "/tmp/godwit-acpi-XXXXXX";
	struct tree t;

	ck_assert_msg(system("command -v iasl >/dev/null 2>&1") == 0,
		      "iasl is missing: install acpica-tools (scripts/setup does)");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	machine(&t, 254);
	build(&t);
	write_table(dir, "DSDT");
	iasl(dir, "-d DSDT.aml");
	assert_in_file(dir, "DSDT.dsl", &last, 1);
	iasl(dir, "-tc -p again DSDT.dsl");
	remove_dir(dir);
	tree_free(&t);
}
END_TEST

/* Changes a window of a good machine. */
static void spoil_window(struct tree *t, int how)
{
	switch (how) {
	case 8:
		set_window(t, "/devices/disk0", X86_VIRTIO_GPA, 0x100);
		return;
	case 9:
		set_window(t, "/devices/disk0", 0x1000, 0x1000);
		return;
	case 10:
		set_window(t, "/devices/disk0", X86_VIRTIO_GPA, UINT64_MAX);
		return;
	case 11:
		set_window(t, "/devices/disk0", UINT64_MAX - 0xfff, 0x1000);
		return;
	case 12:
		set_window(t, "/devices/disk0", X86_VIRTIO_GPA + 0x800, 0x1000);
		return;
	case 13:
		set_ports(t, "/devices/serial", 0x10000, 8);
		return;
	case 14:
		set_ports(t, "/devices/serial", 0x3f8, 0);
		return;
	case 15:
		set_ports(t, "/devices/power", 0xffffffff, 8);
		return;
	case 16:
		add_device(t, "/devices/power2", "power", 10);
		set_ports(t, "/devices/power2", 0x700, 8);
		return;
	case 17:
		ck_assert_int_eq(tree_set_str(t, "/devices/power", "model", "virtio-rng", NULL), 0);
		set_window(t, "/devices/power", X86_VIRTIO_GPA + 0x2000, 0x1000);
		return;
	case 18:
		ck_assert_int_eq(tree_set_bytes(t, "/devices/disk0", "reg", "1234", 4, NULL), 0);
		return;
	}
	ck_abort_msg("no such case");
}

/* Changes a good machine in one place. */
static void spoil(struct tree *t, int how)
{
	switch (how) {
	case 0:
		set(t, "/cpus", "count", 0);
		return;
	case 1:
		set(t, "/cpus", "count", 255);
		return;
	case 2:
		ck_assert_int_eq(tree_set_bytes(t, "/cpus", "count", "x", 1, NULL), 0);
		return;
	case 3:
		add_device(t, "/devices/x", "floppy", 3);
		return;
	case 4:
		ck_assert_int_eq(tree_set_u32(t, "/devices/x", "interrupts", 3, NULL), 0);
		return;
	case 5:
		set(t, "/devices/disk0", "interrupts", 24);
		return;
	case 6:
		set(t, "/devices/disk0", "interrupts", 0);
		return;
	case 7:
		set(t, "/devices/disk0", "interrupts", 23);
		return;
	default:
		spoil_window(t, how);
	}
}

START_TEST(odd_tree_is_refused)
{
	static const char *const parts[] = {
		"/cpus: count is 0",
		"/cpus: count is 255",
		"/cpus",
		"/devices/x: ACPI has no description of the model 'floppy'",
		"/devices/x",
		"/devices/disk0: interrupts is 24",
		"/devices/disk0: interrupts is 0",
		"interrupt 23 belongs to another device",
		"/devices/disk0: reg is",
		"/devices/disk0: reg is",
		"/devices/disk0: reg is",
		"/devices/disk0: reg is",
		"overlaps the window",
		"/devices/serial: port is",
		"/devices/serial: port is",
		"/devices/power: port is",
		"/devices/power2: a second power device",
		"there is no power device",
		"/devices/disk0",
	};

	for (int i = 0; i < (int)(sizeof(parts) / sizeof(parts[0])); i++) {
		struct err e = { "" };
		struct tree t;

		machine(&t, 2);
		spoil(&t, i);
		ck_assert_msg(acpi_build(&t, GPA, tables, sizeof(tables), &e) == -1,
			      "taken, expected '%s'", parts[i]);
		ck_assert_msg(strstr(e.text, parts[i]) != NULL, "'%s' lacks '%s'", e.text,
			      parts[i]);
		tree_free(&t);
	}
}
END_TEST

START_TEST(too_little_room_is_refused_and_kept_to)
{
	struct err e = { "" };
	struct tree t;
	long n;

	machine(&t, 2);
	n = build(&t);
	for (long max = 0; max < n; max++) {
		/* A heap block of just that size: the sanitizer sees a byte too many. */
		uint8_t *buf = malloc((size_t)max + 1);

		buf[max] = 0xa5;
		ck_assert_int_eq(acpi_build(&t, GPA, buf, (size_t)max, &e), -1);
		ck_assert_uint_eq(buf[max], 0xa5);
		free(buf);
	}
	ck_assert_ptr_nonnull(strstr(e.text, "need more than"));
	ck_assert_int_eq(acpi_build(&t, GPA, tables, (size_t)n, &e), n);
	tree_free(&t);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("acpi");
	Suite *s = suite_create("acpi");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, tables_are_found_whole_and_sum_to_zero);
	tcase_add_test(tc, fadt_tells_the_power_registers);
	tcase_add_test(tc, madt_lists_each_processor);
	tcase_add_test(tc, same_tree_gives_same_tables);
	tcase_add_test(tc, iasl_accepts_the_tables);
	tcase_add_test(tc, iasl_accepts_the_largest_machine);
	tcase_add_test(tc, odd_tree_is_refused);
	tcase_add_test(tc, too_little_room_is_refused_and_kept_to);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
