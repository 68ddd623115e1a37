/*
 * The console: a 16550 at SERIAL_PORT, polled. CPU 0 only.
 *
 * A port access costs tens of microseconds, so a line is put together in memory and the status
 * is read once for as many bytes as the transmitter takes. Every access is a turn of CPU 0, so that
 * a pause of the machine in the middle of a line is measured like any other.
 */
#include "bare.h"

#define DATA	   SERIAL_PORT
#define INT_ENABLE (SERIAL_PORT + 1)
#define FIFO	   (SERIAL_PORT + 2)
#define LINE_CTL   (SERIAL_PORT + 3)
#define MODEM_CTL  (SERIAL_PORT + 4)
#define LINE_STAT  (SERIAL_PORT + 5)

static char line[4096];
static u32 line_length;
static u32 burst; /* bytes to send for one look at the status */

static u8 read_register(u16 port)
{
	u8 value = in8(port);

	if (cpu_count)
		work_turn(cpus[0]);
	return value;
}

static void write_register(u16 port, u8 value)
{
	out8(port, value);
	if (cpu_count)
		work_turn(cpus[0]);
}

/* The line's speed and format are left as they are: nothing depends on them here */
void serial_init(void)
{
	out8(INT_ENABLE, 0);
	out8(FIFO, 0x01);
	burst = (in8(FIFO) & 0xc0) == 0xc0 ? 16 : 1;
	out8(LINE_CTL, 0x03);
	out8(MODEM_CTL, 0x0b); /* OUT2 lets the interrupt through */
}

int serial_read(void)
{
	if (!(read_register(LINE_STAT) & 0x01))
		return -1;
	return read_register(DATA);
}

void serial_interrupt(bool on)
{
	out8(INT_ENABLE, on ? 0x01 : 0);
}

static void say_char(char c)
{
	if (line_length < sizeof(line))
		line[line_length++] = c;
}

void say(const char *text)
{
	while (*text)
		say_char(*text++);
}

static void say_digits(u64 value, u32 base)
{
	char digits[20];
	u32 n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	while (n)
		say_char(digits[--n]);
}

void say_number(const char *label, u64 value)
{
	say(label);
	say_digits(value, 10);
}

void say_hex(const char *label, u64 value)
{
	say(label);
	say("0x");
	say_digits(value, 16);
}

void say_end(void)
{
	say_char('\n');
	for (u32 i = 0; i < line_length; i++) {
		while (i % burst == 0 && !(read_register(LINE_STAT) & 0x20))
			;
		write_register(DATA, (u8)line[i]);
	}
	line_length = 0;
}
