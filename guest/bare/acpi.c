/*
 * Just enough ACPI to end: the sleep and reset registers from the FADT, and the value of \_S5.
 *
 * Tables that are damaged or missing mean that it does not end, never that it runs wild: lengths
 * are checked as far as they are used.
 */
#include "bare.h"

struct address {  /* ACPI's generic address */
	u8 space; /* 0 memory, 1 ports */
	u8 width, offset, access;
	u64 address;
} __attribute__((packed));

#define FADT_DSDT	 40
#define FADT_FLAGS	 112
#define FADT_RESET	 116
#define FADT_RESET_VALUE 128
#define FADT_X_DSDT	 140
#define FADT_SLEEP	 244
#define FLAG_RESET	 (1u << 10)
#define FLAG_REDUCED	 (1u << 20)

static u32 read32(const u8 *at)
{
	u32 value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static u64 read64(const u8 *at)
{
	return read32(at) | (u64)read32(at + 4) << 32;
}

static const u8 *table(u64 address, const char *signature)
{
	const u8 *t = (const u8 *)address;

	if (!address || !memory_map(address))
		return NULL;
	for (u32 i = 0; signature[i]; i++)
		if (t[i] != (u8)signature[i])
			return NULL;
	return t;
}

static const u8 *find_fadt(u64 rsdp)
{
	const u8 *root = table(rsdp, "RSD PTR ");
	u32 step = 8;

	if (!root)
		return NULL;
	if (root[15] >= 2 && read64(root + 24)) {
		root = table(read64(root + 24), "XSDT");
	} else {
		root = table(read32(root + 16), "RSDT");
		step = 4;
	}
	if (!root)
		return NULL;
	for (u32 at = 36; at + step <= read32(root + 4); at += step) {
		const u8 *t = table(step == 8 ? read64(root + at) : read32(root + at), "FACP");

		if (t)
			return t;
	}
	return NULL;
}

/* The first element of \_S5's package, found by its name */
static u8 sleep_type(const u8 *fadt)
{
	u64 address = read32(fadt + 4) >= FADT_X_DSDT + 8 ? read64(fadt + FADT_X_DSDT) : 0;
	const u8 *t = table(address ? address : read32(fadt + FADT_DSDT), "DSDT");
	u32 length = t ? read32(t + 4) : 0;

	if (length > 0x100000)
		length = 0x100000;
	for (u32 i = 36; i + 9 < length; i++) {
		if (read32(t + i) != 0x5f35535f || t[i + 4] != 0x12) /* "_S5_", package */
			continue;
		return t[i + 7] == 0x0a ? t[i + 8] : t[i + 7]; /* a byte constant, or zero or one */
	}
	return 5;
}

static bool write_register(const struct address *a, u8 value)
{
	if (a->space == 1 && a->address < PORTS_ALLOWED) {
		out8((u16)a->address, value);
		return true;
	}
	if (a->space != 0 || !a->address || !memory_map(a->address))
		return false;
	*(volatile u8 *)a->address = value;
	return true;
}

bool acpi_power_off(u64 rsdp)
{
	const u8 *fadt = find_fadt(rsdp);
	struct address sleep;

	if (!fadt || read32(fadt + 4) < FADT_SLEEP + sizeof(sleep) ||
	    !(read32(fadt + FADT_FLAGS) & FLAG_REDUCED))
		return false;
	memcpy(&sleep, fadt + FADT_SLEEP, sizeof(sleep));
	return write_register(&sleep, (u8)(sleep_type(fadt) << 2 | 0x20));
}

/* As Linux does it with reboot=k: wait for the controller, 65536 times at most, then command. */
void keyboard_reset(void)
{
	unsigned int polls = 0;

	while (in8(0x64) & 2 && ++polls < 0x10000)
		;
	say_number("keyboard polls=", polls);
	say_end();
	out8(0x64, 0xfe);
}

void acpi_reset(u64 rsdp)
{
	const u8 *fadt = find_fadt(rsdp);
	struct address reset;

	if (fadt && read32(fadt + 4) > FADT_RESET_VALUE && read32(fadt + FADT_FLAGS) & FLAG_RESET) {
		memcpy(&reset, fadt + FADT_RESET, sizeof(reset));
		write_register(&reset, fadt[FADT_RESET_VALUE]);
	}
	memset(idt, 0, (size_t)((u8 *)idt_end - (u8 *)idt)); /* no register: a triple fault */
	for (;;)
		__asm__ volatile("ud2");
}
