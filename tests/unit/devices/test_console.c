/*
 * The console device with two named ports: the conversation of section 5.3 of virtio 1.2, bytes
 * both ways with back pressure, and what survives a move and a rude driver.
 */
#include <check.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/backend/chardev.h"
#include "devices/models.h"
#include "tests/unit/lib/vring.h"
#include "tests/unit/lib/one_state.h"

#define F_MULTIPORT (1ull << 1)
#define F_EVENT	    (1ull << 29)
#define F_V1	    (1ull << 32)

enum { READY, ADD, REMOVE, PORT_READY, IS_CONSOLE, RESIZE, OPEN, NAME };

/* Queues of ports 0, control, 1 and 2; rings and buffers of each in the guest's 2 MiB. */
#define QUEUES	     8
#define CTL_IN	     2
#define CTL_OUT	     3
#define IN(port)     (2 * ((port) + 1))
#define OUT(port)    (2 * ((port) + 1) + 1)
#define RING(q)	     (0x2000ull + 0x2000 * (q))
#define BUFFER(q, n) (0x80000ull + 0x10000 * (q) + 0x1000 * ((n) % 16))
#define BUFFER_BYTES 4096

static struct bench b;
static struct vring ring[QUEUES];
static unsigned int next_buffer[QUEUES];
static struct err e;
static char dir[] = "/tmp/console-XXXXXX", sock[3][64];

static void make(void)
{
	ck_assert_msg(!bench_init(&b, "virtio-console", "channels", &e), "%s", e.text);
	tree_set_str(&b.tree, BENCH_PATH "/port@1", "label", "org.qemu.guest_agent.0", &e);
	tree_set_str(&b.tree, BENCH_PATH "/port@2", "label", "two", &e);
	tree_set_str(&b.tree, "/host/channels", "socket-1", sock[1], &e);
	tree_set_str(&b.tree, "/host/channels", "socket-2", sock[2], &e);
}

static void setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(sock[1], sizeof(sock[1]), "%s/1", dir);
	snprintf(sock[2], sizeof(sock[2]), "%s/2", dir);
	make();
	ck_assert_msg(!bench_create(&b, &virtio_console_model, &e), "%s", e.text);
}

static void teardown(void)
{
	bench_free(&b);
	ck_assert_int_eq(access(sock[1], F_OK), -1);
	rmdir(dir);
}

static void drive(void)
{
	unsigned int q, i;

	ck_assert_uint_ne(
		bench_negotiate(&b, F_MULTIPORT | F_EVENT | F_V1) & VIRTIO_STATUS_FEATURES_OK, 0);
	for (q = 0; q < QUEUES; q++) {
		vring_init(&ring[q], &b.memory, RING(q), 16);
		bench_queue(&b, q, &ring[q]);
	}
	bench_driver_ok(&b);
	for (i = 0; i < 8; i++) {
		struct vring_buffer in = { BUFFER(CTL_IN, i), 64, true };

		vring_add(&ring[CTL_IN], &in, 1);
	}
	bench_ring(&b, CTL_IN);
}

static void start(void)
{
	ck_assert_msg(!bench_run(&b, &e), "%s", e.text);
	drive();
}

static void guest_puts(unsigned int q, const void *bytes, uint32_t len)
{
	uint64_t gpa = BUFFER(q, next_buffer[q]++);
	struct vring_buffer out = { gpa, len, false };

	memory_write(&b.memory, gpa, bytes, len);
	vring_add(&ring[q], &out, 1);
	bench_ring(&b, q);
}

static void guest_says(uint32_t id, uint16_t event, uint16_t value)
{
	uint8_t m[8];
	uint32_t head, written;

	memcpy(m, &id, 4);
	memcpy(m + 4, &event, 2);
	memcpy(m + 6, &value, 2);
	guest_puts(CTL_OUT, m, sizeof(m));
	ck_assert(bench_wait_used(&b, &ring[CTL_OUT], &head, &written));
}

/* The next control message is this one; its buffer goes back to the device. */
static void guest_hears(uint32_t id, uint16_t event, uint16_t value, const char *name)
{
	uint32_t head, written, got_id;
	uint16_t got_event, got_value;
	uint8_t m[64];
	uint64_t gpa;
	struct vring_buffer in;

	ck_assert_msg(bench_wait_used(&b, &ring[CTL_IN], &head, &written),
		      "heard nothing, expected %u %u %u", id, event, value);
	memory_read(&b.memory, ring[CTL_IN].desc + 16ull * head, &gpa, 8);
	memory_read(&b.memory, gpa, m, written);
	memcpy(&got_id, m, 4);
	memcpy(&got_event, m + 4, 2);
	memcpy(&got_value, m + 6, 2);
	ck_assert_uint_eq(got_id, id);
	ck_assert_uint_eq(got_event, event);
	ck_assert_uint_eq(got_value, value);
	ck_assert_uint_eq(written, 8 + strlen(name));
	ck_assert_int_eq(memcmp(m + 8, name, strlen(name)), 0);
	in = (struct vring_buffer){ gpa, 64, true };
	vring_add(&ring[CTL_IN], &in, 1);
	bench_ring(&b, CTL_IN);
}

/* As Linux' driver does it, up to port 1 being there; nobody has opened it. */
static void introduce(void)
{
	guest_says(0, READY, 1);
	guest_hears(1, ADD, 1, "");
	guest_hears(2, ADD, 1, "");
	guest_says(1, PORT_READY, 1);
	guest_hears(1, NAME, 1, "org.qemu.guest_agent.0");
}

static void guest_offers(unsigned int port, unsigned int n)
{
	unsigned int q = IN(port);

	while (n--) {
		struct vring_buffer in = { BUFFER(q, next_buffer[q]++), BUFFER_BYTES, true };

		vring_add(&ring[q], &in, 1);
	}
	bench_ring(&b, q);
}

static size_t guest_gets(unsigned int port, uint8_t *to)
{
	struct vring *r = &ring[IN(port)];
	uint32_t head, written;
	uint64_t gpa;

	ck_assert_msg(bench_wait_used(&b, r, &head, &written), "no input came");
	memory_read(&b.memory, r->desc + 16ull * head, &gpa, 8);
	memory_read(&b.memory, gpa, to, written);
	return written;
}

static int client(unsigned int port)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(addr.sun_path, sock[port]);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void host_gets(int fd, const char *text)
{
	char got[64] = { 0 };
	struct timeval limit = { .tv_sec = 5 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	ck_assert_int_eq(recv(fd, got, strlen(text), MSG_WAITALL), (ssize_t)strlen(text));
	ck_assert_str_eq(got, text);
}

/* From a socket on which reads do not wait. */
static void host_gets_soon(int fd, const char *text)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	ck_assert_int_eq(poll(&p, 1, 5000), 1);
	host_gets(fd, text);
}

START_TEST(ports_are_named_and_opened_as_both_sides_come_and_go)
{
	uint8_t got[BUFFER_BYTES];
	int fd;

	start();
	ck_assert_uint_eq(bench_read(&b, 0x104), 3); /* ports, the unnamed one too */
	introduce();
	fd = client(1);
	guest_hears(1, OPEN, 1, "");
	guest_offers(1, 4);
	ck_assert_int_eq(write(fd, "early", 5), 5);
	usleep(20000);
	ck_assert_uint_eq(vring_used_idx(&ring[IN(1)]), 0); /* nobody in the guest has it open */
	guest_says(1, OPEN, 1);
	ck_assert_uint_eq(guest_gets(1, got), 5);
	ck_assert_int_eq(memcmp(got, "early", 5), 0);
	guest_puts(OUT(1), "hello", 5);
	host_gets(fd, "hello");
	close(fd);
	guest_hears(1, OPEN, 0, "");
	guest_puts(OUT(1), "lost", 4);
	fd = client(1);
	guest_hears(1, OPEN, 1, "");
	usleep(10000);
	guest_puts(OUT(1), "kept", 4);
	host_gets(fd, "kept");
	close(fd);
	bench_park(&b);
}
END_TEST

START_TEST(a_port_taken_while_a_client_waits_is_told_of_it)
{
	int fd = client(2);

	start();
	usleep(20000);
	introduce();
	guest_says(2, PORT_READY, 1);
	guest_hears(2, NAME, 1, "two");
	guest_hears(2, OPEN, 1, "");
	close(fd);
	bench_park(&b);
}
END_TEST

START_TEST(a_slow_host_holds_the_guest_up_and_no_byte_is_lost)
{
	enum { CHAINS = 300 };
	static uint8_t chain[BUFFER_BYTES], got[BUFFER_BYTES];
	unsigned int sent = 0, returned = 0, i;
	size_t seen = 0, wrong = 0;
	uint32_t head, written;
	int fd;

	start();
	introduce();
	fd = client(1);
	guest_hears(1, OPEN, 1, "");
	while (seen < (size_t)CHAINS * BUFFER_BYTES) {
		ssize_t r;

		while (vring_used(&ring[OUT(1)], &head, &written))
			returned++;
		for (; sent < CHAINS && sent < returned + 16; sent++) {
			for (i = 0; i < BUFFER_BYTES; i++)
				chain[i] = (uint8_t)(sent * 3 + i * 7 + (i >> 8));
			guest_puts(OUT(1), chain, BUFFER_BYTES);
		}
		/* Let the ring and the socket fill up first. */
		if (seen == 0)
			usleep(100000);
		r = recv(fd, got, sizeof(got), MSG_DONTWAIT);
		if (r < 0)
			usleep(200);
		for (i = 0; r > 0 && i < (unsigned int)r; i++, seen++) {
			size_t at = seen % BUFFER_BYTES;

			wrong += got[i] != (uint8_t)(seen / BUFFER_BYTES * 3 + at * 7 + (at >> 8));
		}
	}
	ck_assert_uint_eq(wrong, 0);
	close(fd);
	bench_park(&b);
}
END_TEST

START_TEST(input_waits_for_buffers)
{
	static uint8_t sent[20000], got[BUFFER_BYTES];
	size_t i, seen = 0;
	int fd;

	for (i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 11 + (i >> 8));
	start();
	introduce();
	guest_says(1, OPEN, 1);
	fd = client(1);
	guest_hears(1, OPEN, 1, "");
	ck_assert_int_eq(write(fd, sent, sizeof(sent)), sizeof(sent));
	while (seen < sizeof(sent)) {
		size_t n;

		guest_offers(1, 1);
		n = guest_gets(1, got);
		ck_assert_int_eq(memcmp(got, sent + seen, n), 0);
		seen += n;
	}
	close(fd);
	bench_park(&b);
}
END_TEST

START_TEST(clients_that_change_while_the_guest_cannot_hear_are_told_in_order)
{
	uint32_t head, written;
	unsigned int i;
	int fd;

	start();
	introduce();
	fd = client(1);
	guest_hears(1, OPEN, 1, "");
	/* Use up the control buffers: the device has 8, the guest gives none back. */
	for (i = 0; i < 4; i++) {
		close(fd);
		fd = client(1);
		usleep(5000);
	}
	for (i = 0; i < 8; i++)
		ck_assert(bench_wait_used(&b, &ring[CTL_IN], &head, &written));
	close(fd);
	fd = client(1);
	usleep(10000);
	close(fd);
	fd = client(1);
	usleep(10000);
	drive(); /* a reset forgets all that was to be told */
	introduce();
	guest_hears(1, OPEN, 1, "");
	close(fd);
	guest_hears(1, OPEN, 0, "");
	bench_park(&b);
}
END_TEST

START_TEST(nonsense_from_the_guest_is_ignored_or_fails_its_device_only)
{
	struct vring_buffer readable_in = { BUFFER(IN(1), 0), 100, false };
	struct vring_buffer tiny = { BUFFER(CTL_IN, 0), 4, true };
	unsigned int i;
	int fd;

	start();
	introduce();
	for (i = 0; i < 40; i++)
		guest_says(i % 2 ? 0xffffffffu - i : 3 + i, (uint16_t)i, 1);
	guest_puts(CTL_OUT, "x", 1); /* too short to be a message */
	guest_puts(1, "to port 0", 9);
	usleep(5000);
	ck_assert_uint_eq(bench_read(&b, 0x70) & VIRTIO_STATUS_NEEDS_RESET, 0);
	ck_assert_uint_eq(vring_used_idx(&ring[1]), 1);
	/* A control buffer too small for any message. */
	drive();
	vring_init(&ring[CTL_IN], &b.memory, RING(CTL_IN), 16);
	bench_write(&b, 0x30, CTL_IN);
	bench_write(&b, 0x44, 0);
	bench_queue(&b, CTL_IN, &ring[CTL_IN]);
	vring_add(&ring[CTL_IN], &tiny, 1);
	guest_says(0, READY, 1);
	ck_assert(bench_wait_needs_reset(&b));
	/* An input buffer that cannot be written. */
	drive();
	introduce();
	guest_says(1, OPEN, 1);
	vring_add(&ring[IN(1)], &readable_in, 1);
	fd = client(1);
	guest_hears(1, OPEN, 1, "");
	ck_assert_int_eq(write(fd, "x", 1), 1);
	ck_assert(bench_wait_needs_reset(&b));
	close(fd);
	drive();
	introduce();
	bench_park(&b);
}
END_TEST

START_TEST(a_moved_guest_hears_that_its_client_stayed_behind)
{
	const struct device_model *m = &virtio_console_model;
	void *st = calloc(1, m->state->size);
	struct tree states;
	int fd;

	start();
	introduce();
	guest_says(1, OPEN, 1);
	fd = client(1);
	guest_hears(1, OPEN, 1, "");
	bench_park(&b);
	m->save(b.device, st);
	ck_assert_int_eq(save_one(&states, BENCH_PATH, m->state, st, &e), 0);
	m->destroy(b.device);
	close(fd);
	ck_assert_msg(!bench_create(&b, m, &e), "%s", e.text);
	ck_assert_msg(!state_load(&states, BENCH_PATH, m->state, st, &e), "%s", e.text);
	ck_assert_msg(!m->fits(b.device, st, &e), "%s", e.text);
	m->load(b.device, st);
	ck_assert_int_eq(bench_run(&b, &e), 0);
	guest_hears(1, OPEN, 0, "");
	fd = client(1);
	guest_hears(1, OPEN, 1, "");
	guest_puts(OUT(1), "here", 4);
	host_gets(fd, "here");
	close(fd);
	bench_park(&b);
	tree_free(&states);
	free(st);
}
END_TEST

struct attach {
	const char *name;
	int fd, rc;
};

static void attach_on_io(void *arg)
{
	struct attach *a = arg;

	a->rc = virtio_console_model.channel_attach(b.device, a->name, a->fd, &e);
}

/* As the machine does it: the other end of the socket; what was said in place of one. */
static int attach(const char *name, int rc, const char *why)
{
	struct attach a = { .name = name };
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
			 0);
	a.fd = fds[1];
	loop_call(&b.io, attach_on_io, &a);
	ck_assert_int_eq(a.rc, rc);
	if (rc == 0)
		return fds[0];
	ck_assert_msg(rc > 0 || strstr(e.text, why), "%s", e.text);
	close(fds[0]);
	close(fds[1]);
	return -1;
}

#define AGENT "org.qemu.guest_agent.0"

START_TEST(godwit_itself_may_have_a_channel_that_nobody_else_has)
{
	uint8_t got[BUFFER_BYTES];
	int fd, other;

	start();
	introduce();
	attach("three", 1, NULL);
	attach(AGENT, -1, "no program in the guest has opened the channel " AGENT);
	guest_offers(1, 4);
	guest_says(1, OPEN, 1);
	fd = attach(AGENT, 0, NULL);
	guest_hears(1, OPEN, 1, "");
	ck_assert_int_eq(write(fd, "hello", 5), 5);
	ck_assert_uint_eq(guest_gets(1, got), 5);
	guest_puts(OUT(1), "world", 5);
	host_gets_soon(fd, "world");
	attach(AGENT, -1, "a program of this host is connected to the channel " AGENT);
	other = client(1); /* waits, and is next */
	ck_assert_int_eq(write(other, "later", 5), 5);
	close(fd);
	guest_hears(1, OPEN, 0, "");
	guest_hears(1, OPEN, 1, "");
	ck_assert_uint_eq(guest_gets(1, got), 5);
	ck_assert_int_eq(memcmp(got, "later", 5), 0);
	attach(AGENT, -1, "a program of this host is connected to the channel " AGENT);
	close(other);
	guest_hears(1, OPEN, 0, "");
	bench_park(&b);
	attach(AGENT, -1, "the guest is paused");
}
END_TEST

struct two_clients {
	struct attach first, second;
	int peer; /* of the first */
};

static void attach_both_on_io(void *arg)
{
	struct two_clients *w = arg;

	w->first.rc = virtio_console_model.channel_attach(b.device, AGENT, w->first.fd, &e);
	close(w->peer);
	w->second.rc = virtio_console_model.channel_attach(b.device, AGENT, w->second.fd, &e);
}

/* The loop has not seen yet that the first one has gone. */
START_TEST(client_that_has_gone_is_in_nobodys_way)
{
	struct two_clients w = { 0 };
	int one[2], other[2];

	start();
	introduce();
	guest_offers(1, 4);
	guest_says(1, OPEN, 1);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, one),
			 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, other),
			 0);
	w.first.fd = one[1];
	w.peer = one[0];
	w.second.fd = other[1];
	loop_call(&b.io, attach_both_on_io, &w);
	ck_assert_int_eq(w.first.rc, 0);
	ck_assert_msg(w.second.rc == 0, "%s", e.text);
	bench_park(&b);
	close(other[0]);
}
END_TEST

START_TEST(nodes_that_cannot_be_are_refused)
{
	struct device *none;
	char longer[200];
	struct bench second = b;

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	memset(&second.mmio, 0, sizeof(second.mmio));
	second.env.mmio_bus = &second.mmio;
	ck_assert_int_eq(virtio_console_model.create(&second.env, &b.tree, BENCH_PATH, &none, &e),
			 -1);
	ck_assert_msg(strstr(e.text, "in use by another process"), "%s", e.text);
	memset(&second.mmio, 0, sizeof(second.mmio));
	tree_set_str(&b.tree, BENCH_PATH "/port@1", "label", longer, &e);
	ck_assert_int_eq(virtio_console_model.create(&second.env, &b.tree, BENCH_PATH, &none, &e),
			 -1);
	ck_assert_msg(strstr(e.text, "199 characters, expected 1 to 63"), "%s", e.text);
	memset(&second.mmio, 0, sizeof(second.mmio));
	tree_set_str(&b.tree, BENCH_PATH "/port@1", "label", "one", &e);
	tree_set_str(&b.tree, "/host/channels", "socket-1", longer, &e);
	ck_assert_int_eq(virtio_console_model.create(&second.env, &b.tree, BENCH_PATH, &none, &e),
			 -1);
	ck_assert_msg(strstr(e.text, "may have 107"), "%s", e.text);
	memset(&second.mmio, 0, sizeof(second.mmio));
	tree_set_str(&b.tree, BENCH_PATH "/port@7", "label", "seven", &e); /* a gap */
	tree_set_str(&b.tree, "/host/channels", "socket-1", "/nowhere/x", &e);
	ck_assert_int_eq(virtio_console_model.create(&second.env, &b.tree, BENCH_PATH, &none, &e),
			 -1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("console");
	TCase *t = tcase_create("console");
	SRunner *r = srunner_create(s);
	int failed;

	signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_test(t, ports_are_named_and_opened_as_both_sides_come_and_go);
	tcase_add_test(t, a_port_taken_while_a_client_waits_is_told_of_it);
	tcase_add_test(t, a_slow_host_holds_the_guest_up_and_no_byte_is_lost);
	tcase_add_test(t, input_waits_for_buffers);
	tcase_add_test(t, clients_that_change_while_the_guest_cannot_hear_are_told_in_order);
	tcase_add_test(t, nonsense_from_the_guest_is_ignored_or_fails_its_device_only);
	tcase_add_test(t, a_moved_guest_hears_that_its_client_stayed_behind);
	tcase_add_test(t, godwit_itself_may_have_a_channel_that_nobody_else_has);
	tcase_add_test(t, client_that_has_gone_is_in_nobodys_way);
	tcase_add_test(t, nodes_that_cannot_be_are_refused);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
