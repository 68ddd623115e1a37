/*
 * The serial port as a driver sees it: what a 16550A answers to the probes that kernels make, when
 * it interrupts, and that no byte is lost either way when one side stops for a while.
 */
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/backend/chardev.h"
#include "devices/models.h"
#include "tests/unit/lib/one_state.h"
#include "vmm/base/err.h"
#include "vmm/device.h"
#include "vmm/irq.h"
#include "vmm/loop.h"

#define PORT 0x3f8u
#define NODE "/devices/serial@3f8"

enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR, THR = RBR };

/* How every device with one line begins. */
struct with_irq {
	struct device dev;
	struct irq irq;
};

static struct loop io;
static struct bus ports;
static struct device_env env;
static struct tree tree;
static struct device *d;
static struct err e;
static char dir[] = "/tmp/serial-XXXXXX", path[64];

static void request(void *machine, enum machine_request r)
{
	(void)machine;
	(void)r;
}

static uint8_t in(unsigned int reg)
{
	uint8_t v = 0xaa;

	bus_access(&ports, PORT + reg, &v, 1, false);
	return v;
}

static void out(unsigned int reg, uint8_t v)
{
	bus_access(&ports, PORT + reg, &v, 1, true);
}

/* Edges since the last call. */
static unsigned int edges(void)
{
	uint64_t n = 0;

	return read(((struct with_irq *)d)->irq.fd, &n, sizeof(n)) < 0 ? 0 : (unsigned int)n;
}

static void make(const char *console)
{
	ck_assert_int_eq(tree_set_str(&tree, "/host/serial0", "console", console, &e), 0);
	ck_assert_msg(!serial_model.create(&env, &tree, NODE, &d, &e), "%s", e.text);
	ck_assert_int_eq(serial_model.activate(d, &e), 0);
}

static void setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	ck_assert_int_eq(loop_init(&io, &e), 0);
	ck_assert_int_eq(tree_init(&tree, &e), 0);
	env = (struct device_env){ .io = &io, .port_bus = &ports, .request = request };
	tree_set_str(&tree, NODE, "model", "serial-8250", &e);
	tree_set_str(&tree, NODE, "id", "serial0", &e);
	tree_set_u32_pair(&tree, NODE, "port", PORT, 8, &e);
	tree_set_u32(&tree, NODE, "interrupts", 4, &e);
}

static void teardown(void)
{
	if (d)
		serial_model.destroy(d);
	loop_free(&io);
	tree_free(&tree);
	unlink(path);
	rmdir(dir);
}

START_TEST(kernels_probe_finds_a_16550a)
{
	make("null");
	out(IER, 0);
	ck_assert_uint_eq(in(IER), 0);
	out(IER, 0xff);
	ck_assert_uint_eq(in(IER), 0x0f);
	out(IER, 0);
	out(MCR, 0x1a); /* loop, OUT2, RTS */
	ck_assert_uint_eq(in(MSR)&0xf0, 0x90);
	out(MCR, 0);
	ck_assert_uint_eq(in(MSR)&0xf0, 0xb0);
	out(SCR, 0x5a);
	ck_assert_uint_eq(in(SCR), 0x5a);
	ck_assert_uint_eq(in(IIR), 0x01); /* no FIFO yet */
	out(FCR, 0x01);
	ck_assert_uint_eq(in(IIR), 0xc1);
	out(FCR, 0x21); /* no 16750 with 64 bytes */
	ck_assert_uint_eq(in(IIR), 0xc1);
	out(LCR, 0x83);
	out(0, 0x34);
	out(1, 0x12);
	ck_assert_uint_eq(in(0), 0x34);
	ck_assert_uint_eq(in(1), 0x12);
	out(LCR, 0x03);
	ck_assert_uint_eq(in(IER), 0);
	ck_assert_uint_eq(in(LSR), 0x60);
}
END_TEST

START_TEST(loopback_receives_what_is_sent_up_to_the_fifos_size)
{
	int i;

	make("null");
	out(FCR, 0x07);
	out(MCR, 0x10);
	for (i = 0; i < 17; i++)
		out(THR, (uint8_t)i);
	ck_assert_uint_eq(in(LSR), 0x63); /* overrun, once */
	ck_assert_uint_eq(in(LSR), 0x61);
	for (i = 0; i < 16; i++)
		ck_assert_uint_eq(in(RBR), i);
	ck_assert_uint_eq(in(LSR), 0x60);
	out(FCR, 0x00);
	out(THR, 'a');
	out(THR, 'b');
	ck_assert_uint_eq(in(LSR), 0x63);
	ck_assert_uint_eq(in(RBR), 'b'); /* without a FIFO the newest stays */
}
END_TEST

START_TEST(modem_lines_tell_of_changes_once)
{
	make("null");
	out(IER, 0x08);
	edges();
	out(MCR, 0x10); /* all lines drop */
	ck_assert_uint_eq(edges(), 1);
	ck_assert_uint_eq(in(IIR), 0x00);
	ck_assert_uint_eq(in(MSR), 0x0b);
	ck_assert_uint_eq(in(MSR), 0x00);
	ck_assert_uint_eq(in(IIR), 0x01);
	out(MCR, 0x14); /* the ring indicator: told when it ends */
	ck_assert_uint_eq(in(MSR), 0x40);
	out(MCR, 0x10);
	ck_assert_uint_eq(in(MSR), 0x04);
}
END_TEST

START_TEST(empty_transmitter_interrupts_as_the_data_sheet_says)
{
	make("null");
	out(FCR, 0x01);
	edges();
	out(THR, 'x');
	ck_assert_uint_eq(edges(), 0); /* not enabled */
	out(IER, 0x02);
	ck_assert_uint_eq(edges(), 1); /* enabling it while empty */
	ck_assert_uint_eq(in(IIR), 0xc2);
	ck_assert_uint_eq(in(IIR), 0xc1); /* reading it was the acknowledgement */
	ck_assert_uint_eq(edges(), 0);
	out(THR, 'y');
	ck_assert_uint_eq(edges(), 1);
	ck_assert_uint_eq(in(IIR), 0xc2);
	/* Linux' test for chips that forget: off and on must show it again. */
	out(IER, 0);
	out(IER, 0x02);
	ck_assert_uint_eq(edges(), 1);
	ck_assert_uint_eq(in(IIR), 0xc2);
}
END_TEST

START_TEST(causes_come_in_order_of_priority)
{
	int i;

	make("null");
	out(FCR, 0xc1); /* trigger at 14 */
	out(MCR, 0x10);
	in(MSR);
	out(MCR, 0x12);
	out(IER, 0x0f);
	for (i = 0; i < 17; i++)
		out(THR, 'x');
	ck_assert_uint_eq(in(IIR), 0xc6); /* overrun */
	in(LSR);
	ck_assert_uint_eq(in(IIR), 0xc4); /* received */
	for (i = 0; i < 3; i++)
		in(RBR);
	ck_assert_uint_eq(in(IIR), 0xcc); /* received, fewer than the trigger */
	while (in(LSR)&1)
		in(RBR);
	ck_assert_uint_eq(in(IIR), 0xc2);
	ck_assert_uint_eq(in(IIR), 0xc0);
	in(MSR);
	ck_assert_uint_eq(in(IIR), 0xc1);
}
END_TEST

static int client(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(addr.sun_path, path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static int make_unix(void)
{
	char spec[80], c;
	int fd;

	snprintf(spec, sizeof(spec), "unix:%s", path);
	make(spec);
	ck_assert_int_eq(loop_start(&io, "io", &e), 0);
	fd = client();
	/* What is put before the client was accepted is dropped. */
	do {
		out(THR, '.');
		usleep(1000);
	} while (recv(fd, &c, 1, MSG_DONTWAIT) < 1);
	usleep(5000);
	while (recv(fd, &c, 1, MSG_DONTWAIT) == 1)
		;
	return fd;
}

#define WAIT_FOR(condition)                                                  \
	do {                                                                 \
		int tries_ = 5000;                                           \
		while (!(condition) && tries_--)                             \
			usleep(1000);                                        \
		ck_assert_msg(tries_ > 0, "did not happen: %s", #condition); \
	} while (0)

START_TEST(received_bytes_interrupt_and_none_is_lost)
{
	uint8_t sent[500];
	size_t i, n = 0;
	int fd = make_unix();

	out(FCR, 0xc7);
	out(IER, 0x01);
	edges();
	for (i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 5);
	ck_assert_int_eq(write(fd, sent, sizeof(sent)), sizeof(sent));
	while (n < sizeof(sent)) {
		WAIT_FOR(edges() > 0);
		while (in(IIR) != 0xc1)
			ck_assert_uint_eq(in(RBR), sent[n++]);
	}
	ck_assert_uint_eq(in(LSR), 0x60); /* no overrun on the way */
	close(fd);
	loop_join(&io);
}
END_TEST

/* Sends as a driver does: a FIFO's worth whenever the transmitter is empty. */
static size_t send_until_busy(size_t from, size_t limit)
{
	size_t n = from, i;

	while (n < limit && in(LSR)&0x20)
		for (i = 0; i < 16 && n < limit; i++, n++)
			out(THR, (uint8_t)(n * 7 + (n >> 8)));
	return n;
}

START_TEST(a_slow_reader_holds_the_guest_up_and_no_byte_is_lost)
{
	enum { TOTAL = 600000 };
	size_t n, seen = 0, wrong = 0;
	unsigned int held = 0;
	uint8_t got[4096];
	int fd = make_unix();

	out(FCR, 0x07);
	out(IER, 0x02);
	n = send_until_busy(0, TOTAL);
	ck_assert_uint_lt(n, TOTAL);
	while (seen < TOTAL) {
		ssize_t i, r;

		if (n < TOTAL && !(in(LSR)&0x20)) {
			held++;
			in(IIR);
			edges();
		}
		r = recv(fd, got, sizeof(got), MSG_DONTWAIT);
		for (i = 0; i < r; i++, seen++)
			wrong += got[i] != (uint8_t)(seen * 7 + (seen >> 8));
		if (r < 0 && n < TOTAL && !(in(LSR)&0x20))
			WAIT_FOR(edges() > 0); /* the interrupt is what says that it goes on */
		n = send_until_busy(n, TOTAL);
	}
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_gt(held, 0);
	close(fd);
	loop_join(&io);
}
END_TEST

START_TEST(bytes_kept_for_a_slow_reader_are_state)
{
	const struct state_desc *desc = serial_model.state;
	void *st = calloc(1, desc->size), *loaded = calloc(1, desc->size);
	struct tree states;
	size_t n = 0;
	int fd = make_unix();

	out(FCR, 0x07);
	/* Until the socket and the ring are full and stay so. */
	do {
		n = send_until_busy(n, 1 << 20);
		usleep(20000);
	} while (in(LSR)&0x20 && n < 1 << 20);
	ck_assert_uint_lt(n, 1 << 20);
	ck_assert_uint_eq(in(LSR)&0x60, 0);
	loop_join(&io);
	serial_model.quiesce(d);
	serial_model.save(d, st);
	ck_assert_int_eq(save_one(&states, NODE, desc, st, &e), 0);
	ck_assert_msg(!state_load(&states, NODE, desc, loaded, &e), "%s", e.text);
	ck_assert_int_eq(memcmp(st, loaded, desc->size), 0);
	serial_model.destroy(d);
	/* Another port, where somebody reads: they go out, and the transmitter is empty. */
	memset(&ports, 0, sizeof(ports));
	make("null");
	serial_model.quiesce(d);
	serial_model.load(d, loaded);
	ck_assert_uint_eq(in(LSR), 0x00);
	ck_assert_int_eq(serial_model.activate(d, &e), 0);
	ck_assert_uint_eq(in(LSR), 0x60);
	tree_free(&states);
	free(st);
	free(loaded);
	close(fd);
}
END_TEST

START_TEST(pending_interrupt_is_repeated_after_a_load)
{
	const struct state_desc *desc = serial_model.state;
	void *st = calloc(1, desc->size);

	make("null");
	out(IER, 0x02);
	ck_assert_uint_eq(edges(), 1);
	serial_model.quiesce(d);
	serial_model.save(d, st);
	serial_model.load(d, st);
	ck_assert_int_eq(serial_model.activate(d, &e), 0);
	ck_assert_uint_eq(edges(), 1);
	free(st);
}
END_TEST

START_TEST(nodes_that_cannot_be_are_refused)
{
	struct device *none = NULL;

	tree_set_str(&tree, "/host/serial0", "console", "null", &e);
	tree_set_u32_pair(&tree, NODE, "port", PORT, 16, &e);
	ck_assert_int_eq(serial_model.create(&env, &tree, NODE, &none, &e), -1);
	ck_assert_msg(strstr(e.text, "expected 8 ports"), "%s", e.text);
	tree_set_u32_pair(&tree, NODE, "port", 0xfffc, 8, &e);
	ck_assert_int_eq(serial_model.create(&env, &tree, NODE, &none, &e), -1);
	tree_set_u32_pair(&tree, NODE, "port", PORT, 8, &e);
	tree_set_str(&tree, "/host/serial0", "console", "nonsense", &e);
	ck_assert_int_eq(serial_model.create(&env, &tree, NODE, &none, &e), -1);
	ck_assert_msg(strstr(e.text, "serial0: 'nonsense' is not a console"), "%s", e.text);
	tree_remove(&tree, NODE, "port", &e);
	tree_set_u64_pair(&tree, NODE, "reg", 0x9000000, 0x1000, &e);
	ck_assert_int_eq(serial_model.create(&env, &tree, NODE, &none, &e), -1);
	ck_assert_msg(strstr(e.text, "'reg' has 4096 bytes, expected 8"), "%s", e.text);
}
END_TEST

/* As on machines that have no ports. */
START_TEST(registers_are_in_memory_if_the_node_says_so)
{
	struct bus memory = { .n_ranges = 0 };
	uint8_t value = 0x5a;

	tree_remove(&tree, NODE, "port", &e);
	tree_set_u64_pair(&tree, NODE, "reg", 0x9000000, 8, &e);
	env.mmio_bus = &memory;
	make("null");
	bus_access(&memory, 0x9000000 + SCR, &value, 1, true);
	value = 0;
	bus_access(&memory, 0x9000000 + SCR, &value, 1, false);
	ck_assert_uint_eq(value, 0x5a);
	ck_assert_uint_eq(in(SCR), 0xff); /* nobody is there */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("serial");
	TCase *t = tcase_create("serial");
	SRunner *r = srunner_create(s);
	int failed;

	signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_test(t, kernels_probe_finds_a_16550a);
	tcase_add_test(t, loopback_receives_what_is_sent_up_to_the_fifos_size);
	tcase_add_test(t, modem_lines_tell_of_changes_once);
	tcase_add_test(t, empty_transmitter_interrupts_as_the_data_sheet_says);
	tcase_add_test(t, causes_come_in_order_of_priority);
	tcase_add_test(t, received_bytes_interrupt_and_none_is_lost);
	tcase_add_test(t, a_slow_reader_holds_the_guest_up_and_no_byte_is_lost);
	tcase_add_test(t, bytes_kept_for_a_slow_reader_are_state);
	tcase_add_test(t, pending_interrupt_is_repeated_after_a_load);
	tcase_add_test(t, nodes_that_cannot_be_are_refused);
	tcase_add_test(t, registers_are_in_memory_if_the_node_says_so);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
