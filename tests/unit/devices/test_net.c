/*
 * The network device on a true tap interface, in a network namespace of the test's own: frames go
 * through whole and in order, wait where nobody takes them, and a driver that breaks the rules
 * breaks its device only. Without the right to make namespaces and taps only what needs none runs.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <libfdt.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "devices/backend/tap.h"
#include "devices/models.h"
#include "tests/unit/lib/vring.h"
#include "tests/unit/lib/one_state.h"

#define TAP	  "tap0"
#define ETHERTYPE 0x88b5 /* for experiments */
#define HEADER	  12

#define F_CSUM	   (1ull << 0)
#define F_MRG	   (1ull << 15)
#define F_STATUS   (1ull << 16)
#define F_CTRL	   (1ull << 17)
#define F_ANNOUNCE (1ull << 21)
#define F_EVENT	   (1ull << 29)
#define F_V1	   (1ull << 32)

/* Where things are in the guest's 2 MiB. */
#define RX_RING	 0x2000
#define TX_RING	 0x6000
#define CTL_RING 0xa000
#define BUFFERS	 0x40000

static struct bench b;
static struct vring rx, tx, ctl;
static struct err e;
static int wire = -1; /* a packet socket on the host's side of the tap */

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd >= 0) {
		ck_assert_int_gt(write(fd, text, strlen(text)), 0);
		close(fd);
	}
}

static int make_tap(const char *name, int flags)
{
	struct ifreq ifr = { .ifr_flags = (short)flags };
	int fd = open("/dev/net/tun", O_RDWR);

	strcpy(ifr.ifr_name, name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) || ioctl(fd, TUNSETPERSIST, 1)) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	close(fd);
	return 0;
}

/* A namespace without anybody who speaks on its own. */
static int own_network(void)
{
	if (unshare(CLONE_NEWNET))
		return -1;
	write_text("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
	return make_tap(TAP, IFF_TAP | IFF_NO_PI);
}

static void setup(void)
{
	struct ifreq ifr = { .ifr_name = TAP };
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE) };
	static const uint8_t mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };

	ck_assert_int_eq(own_network(), 0);
	wire = socket(AF_PACKET, SOCK_RAW, htons(ETHERTYPE));
	ck_assert_int_ge(wire, 0);
	ifr.ifr_mtu = 9000;
	ck_assert_int_eq(ioctl(wire, SIOCSIFMTU, &ifr), 0);

	ck_assert_msg(!bench_init(&b, "virtio-net", "net0", &e), "%s", e.text);
	ck_assert_int_eq(tree_set_bytes(&b.tree, BENCH_PATH, "mac", mac, 6, &e), 0);
	ck_assert_int_eq(tree_set_str(&b.tree, "/host/net0", "tap", TAP, &e), 0);
	ck_assert_msg(!bench_create(&b, &virtio_net_model, &e), "%s", e.text);
	/* Up only now: an interface that gets its carrier later drops frames for up to a second. */
	ifr.ifr_flags = IFF_UP;
	ck_assert_int_eq(ioctl(wire, SIOCSIFFLAGS, &ifr), 0);
	ll.sll_ifindex = (int)if_nametoindex(TAP);
	ck_assert_int_eq(bind(wire, (struct sockaddr *)&ll, sizeof(ll)), 0);
}

static void teardown(void)
{
	bench_free(&b);
	close(wire);
}

static void drive(uint64_t features)
{
	ck_assert_uint_eq(bench_negotiate(&b, features | F_V1) & VIRTIO_STATUS_FEATURES_OK,
			  VIRTIO_STATUS_FEATURES_OK);
	vring_init(&rx, &b.memory, RX_RING, 64);
	vring_init(&tx, &b.memory, TX_RING, 64);
	vring_init(&ctl, &b.memory, CTL_RING, 64);
	bench_queue(&b, 0, &rx);
	bench_queue(&b, 1, &tx);
	if (features & F_CTRL)
		bench_queue(&b, 2, &ctl);
	bench_driver_ok(&b);
}

static void start(uint64_t features)
{
	ck_assert_msg(!bench_run(&b, &e), "%s", e.text);
	drive(features);
}

/* An Ethernet frame of `len` bytes that `n` can be told from. */
static void make_frame(uint8_t *f, size_t len, unsigned int n)
{
	static const uint8_t head[14] = { 0x52, 0x54, 0, 1, 2, 3, 2, 0, 0, 0, 0, 9, 0x88, 0xb5 };
	size_t i;

	memcpy(f, head, sizeof(head));
	for (i = 14; i < len; i++)
		f[i] = (uint8_t)(n * 31 + i * 7 + (i >> 8));
}

static void guest_sends(uint64_t gpa, const uint8_t *frame, uint32_t len)
{
	static const uint8_t zero[HEADER];
	struct vring_buffer out[2] = { { gpa, HEADER, false }, { gpa + HEADER, len, false } };

	memory_write(&b.memory, gpa, zero, HEADER);
	memory_write(&b.memory, gpa + HEADER, frame, len);
	vring_add(&tx, out, 2);
}

static void host_gets(const uint8_t *frame, size_t len)
{
	struct timeval limit = { .tv_sec = 5 };
	uint8_t got[10000];

	setsockopt(wire, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	ck_assert_int_eq(recv(wire, got, sizeof(got), 0), (ssize_t)len);
	ck_assert_int_eq(memcmp(got, frame, len), 0);
}

static void host_sends(const uint8_t *frame, size_t len)
{
	ck_assert_int_eq(send(wire, frame, len, 0), (ssize_t)len);
}

static void guest_offers(unsigned int n, uint32_t bytes)
{
	static unsigned int next;

	while (n--) {
		struct vring_buffer in = { BUFFERS + 4096 * (next++ % 64), bytes, true };

		vring_add(&rx, &in, 1);
	}
	bench_ring(&b, 0);
}

/* The next frame that the guest gets, put together from its buffers. */
static size_t guest_gets(uint8_t *to, size_t max, unsigned int *n_buffers)
{
	uint32_t head, written;
	uint16_t count = 1, i;
	size_t len = 0;
	uint8_t first[HEADER];

	for (i = 0; i < count; i++) {
		uint64_t gpa;

		ck_assert_msg(bench_wait_used(&b, &rx, &head, &written), "no frame came");
		memory_read(&b.memory, rx.desc + 16ull * head, &gpa, 8);
		ck_assert_uint_le(len + written, max);
		memory_read(&b.memory, gpa, to + len, written);
		len += written;
		if (i == 0) {
			memcpy(first, to, HEADER);
			memcpy(&count, first + 10, 2);
			ck_assert_uint_ge(count, 1);
		}
	}
	*n_buffers = count;
	memmove(to, to + HEADER, len - HEADER);
	return len - HEADER;
}

START_TEST(frames_go_out_whole_and_in_order)
{
	static uint8_t frame[1500];
	uint32_t head, written;
	unsigned int i, taken = 0;

	start(F_CSUM | F_MRG | F_EVENT);
	/* Many more than one turn of the device. */
	for (i = 0; i < 1000; i++) {
		make_frame(frame, 60 + i % 1000, i);
		guest_sends(BUFFERS + 4096 * (i % 32), frame, 60 + i % 1000);
		bench_ring(&b, 1);
		host_gets(frame, 60 + i % 1000);
		ck_assert(bench_wait_used(&b, &tx, &head, &written));
		ck_assert_uint_eq(written, 0);
	}
	/* A ring full, with one doorbell. */
	for (i = 0; i < 32; i++) {
		make_frame(frame, 1500, i);
		guest_sends(BUFFERS + 4096 * i, frame, 1500);
	}
	bench_ring(&b, 1);
	for (i = 0; i < 32; i++) {
		make_frame(frame, 1500, i);
		host_gets(frame, 1500);
	}
	while (taken < 32 && bench_wait_used(&b, &tx, &head, &written))
		taken++;
	ck_assert_uint_eq(taken, 32);
	bench_park(&b);
}
END_TEST

START_TEST(frames_come_in_spread_over_mergeable_buffers)
{
	static uint8_t frame[8000], got[10000];
	unsigned int n;

	start(F_MRG | F_EVENT);
	guest_offers(64, 1000);
	make_frame(frame, 60, 1);
	host_sends(frame, 60);
	ck_assert_uint_eq(guest_gets(got, sizeof(got), &n), 60);
	ck_assert_uint_eq(n, 1);
	make_frame(frame, 8000, 2);
	host_sends(frame, 8000);
	ck_assert_uint_eq(guest_gets(got, sizeof(got), &n), 8000);
	ck_assert_uint_eq(n, 9);
	ck_assert_int_eq(memcmp(got, frame, 8000), 0);
	bench_park(&b);
}
END_TEST

static double thread_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

START_TEST(frames_wait_in_the_tap_while_the_guest_has_no_buffers)
{
	static uint8_t frame[1000], got[2000];
	unsigned int i, n;
	double before;

	start(F_MRG | F_EVENT);
	for (i = 0; i < 200; i++) {
		make_frame(frame, 1000, i);
		host_sends(frame, 1000);
	}
	usleep(20000);
	before = thread_seconds();
	usleep(300000);
	ck_assert_msg(thread_seconds() - before < 0.1, "it turns in a circle");
	for (i = 0; i < 200; i++) {
		if (i % 32 == 0)
			guest_offers(32, 2000);
		make_frame(frame, 1000, i);
		ck_assert_uint_eq(guest_gets(got, sizeof(got), &n), 1000);
		ck_assert_int_eq(memcmp(got, frame, 1000), 0);
	}
	bench_park(&b);
}
END_TEST

START_TEST(a_frame_waits_for_its_last_buffer_and_asks_for_that_ring)
{
	static uint8_t frame[2500], got[3000];
	unsigned int n;

	start(F_MRG | F_EVENT);
	guest_offers(2, 1000);
	make_frame(frame, 2500, 3);
	host_sends(frame, 2500);
	usleep(30000);
	ck_assert_uint_eq(vring_used_idx(&rx), 0);
	ck_assert_uint_eq(vring_avail_event(&rx), 2); /* ring when there is a third */
	guest_offers(1, 1000);
	ck_assert_uint_eq(guest_gets(got, sizeof(got), &n), 2500);
	ck_assert_uint_eq(n, 3);
	ck_assert_int_eq(memcmp(got, frame, 2500), 0);
	bench_park(&b);
}
END_TEST

START_TEST(without_mergeable_buffers_what_does_not_fit_is_dropped)
{
	static uint8_t frame[2000], got[3000];
	unsigned int n;

	start(0);
	guest_offers(4, 1000);
	make_frame(frame, 2000, 4);
	host_sends(frame, 2000);
	make_frame(frame, 900, 5);
	host_sends(frame, 900);
	ck_assert_uint_eq(guest_gets(got, sizeof(got), &n), 900);
	ck_assert_uint_eq(n, 1);
	ck_assert_int_eq(memcmp(got, frame, 900), 0);
	bench_park(&b);
}
END_TEST

START_TEST(broken_chains_ask_for_a_reset_and_the_device_works_after_it)
{
	static uint8_t frame[60];
	struct vring_buffer bad_rx = { BUFFERS, 100, false }, short_rx = { BUFFERS, 4, true };
	struct vring_buffer bad_tx = { BUFFERS, 11, false };
	struct vring_buffer in_tx[2] = { { BUFFERS, 100, false }, { BUFFERS + 100, 9, true } };
	unsigned int i;

	make_frame(frame, 60, 1);
	start(F_MRG);
	for (i = 0; i < 5; i++) {
		switch (i) {
		case 0:
			vring_add(&rx, &bad_rx, 1);
			break;
		case 1:
			vring_add(&rx, &short_rx, 1);
			break;
		case 2:
			vring_add(&tx, &bad_tx, 1);
			break;
		case 3:
			vring_add(&tx, in_tx, 2);
			break;
		case 4:
			vring_set_avail_idx(&tx, 1000);
			break;
		}
		host_sends(frame, 60);
		bench_ring(&b, i < 2 ? 0 : 1);
		ck_assert_msg(bench_wait_needs_reset(&b), "case %u", i);
		drive(F_MRG);
	}
	guest_sends(BUFFERS, frame, 60);
	bench_ring(&b, 1);
	host_gets(frame, 60);
	bench_park(&b);
}
END_TEST

START_TEST(a_header_that_makes_no_sense_costs_only_its_frame)
{
	static uint8_t frame[100];
	uint8_t header[HEADER];
	uint32_t head, written;
	struct vring_buffer out = { BUFFERS, HEADER + 100, false };

	start(F_CSUM);
	make_frame(frame, 100, 1);
	memset(header, 0xff, sizeof(header));
	memory_write(&b.memory, BUFFERS, header, HEADER);
	memory_write(&b.memory, BUFFERS + HEADER, frame, 100);
	vring_add(&tx, &out, 1);
	bench_ring(&b, 1);
	ck_assert(bench_wait_used(&b, &tx, &head, &written));
	guest_sends(BUFFERS, frame, 100);
	bench_ring(&b, 1);
	host_gets(frame, 100);
	ck_assert_uint_eq(bench_read(&b, 0x70) & VIRTIO_STATUS_NEEDS_RESET, 0);
	bench_park(&b);
}
END_TEST

START_TEST(parking_loses_no_frame)
{
	static uint8_t frame[500], got[2000];
	unsigned int i, n;

	start(F_MRG);
	make_frame(frame, 500, 1);
	host_sends(frame, 500); /* read and held: the guest has no buffer */
	usleep(10000);
	bench_park(&b);
	make_frame(frame, 500, 2);
	host_sends(frame, 500);
	ck_assert_int_eq(bench_run(&b, &e), 0);
	guest_offers(4, 1000);
	for (i = 1; i <= 2; i++) {
		make_frame(frame, 500, i);
		ck_assert_uint_eq(guest_gets(got, sizeof(got), &n), 500);
		ck_assert_int_eq(memcmp(got, frame, 500), 0);
	}
	bench_park(&b);
}
END_TEST

static uint8_t command(uint8_t class, uint8_t cmd)
{
	struct vring_buffer c[2] = { { BUFFERS, 2, false }, { BUFFERS + 16, 1, true } };
	uint8_t bytes[2] = { class, cmd }, ack = 0xee;
	uint32_t head, written;

	memory_write(&b.memory, BUFFERS, bytes, 2);
	vring_add(&ctl, c, 2);
	bench_ring(&b, 2);
	ck_assert(bench_wait_used(&b, &ctl, &head, &written));
	ck_assert_uint_eq(written, 1);
	memory_read(&b.memory, BUFFERS + 16, &ack, 1);
	return ack;
}

static void announce(void *arg)
{
	virtio_net_model.announce(arg);
}

static void on_io(void (*fn)(void *arg))
{
	loop_call(&b.io, fn, b.device);
}

static unsigned int now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (unsigned int)(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

/* Hears RARP frames on the host's side of the tap from here on. */
static int listen_for_rarp(void)
{
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_RARP) };
	struct timeval limit = { .tv_sec = 1 };
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_RARP));

	ck_assert_int_ge(fd, 0);
	ll.sll_ifindex = (int)if_nametoindex(TAP);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&ll, sizeof(ll)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

START_TEST(guest_that_arrives_is_announced_five_times)
{
	static const uint8_t expected[60] = {
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 1,	 2,    3, 0x80,
		0x35, 0,    1,	  8,	0,    6,    4,	  0,	3, 0x52, 0x54, 0, 1,
		2,    3,    0,	  0,	0,    0,    0x52, 0x54, 0, 1,	 2,    3,
	};
	static const unsigned int at_ms[] = { 0, 50, 200, 450, 800 };
	unsigned int i, began, took;
	uint8_t got[100];
	int rarp;

	start(F_STATUS); /* a driver that cannot announce itself */
	rarp = listen_for_rarp();
	began = now_ms();
	on_io(announce);
	for (i = 0; i < 5; i++) {
		ck_assert_int_eq(recv(rarp, got, sizeof(got), 0), sizeof(expected));
		ck_assert_mem_eq(got, expected, sizeof(expected));
		took = now_ms() - began;
		ck_assert_msg(took + 1 >= at_ms[i] && took < at_ms[i] + 400, "%u: after %u ms", i,
			      took);
	}
	ck_assert_int_eq(recv(rarp, got, sizeof(got), 0), -1);
	ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 1);
	/* Parked in between, the rest is left out; and asked for again, it begins anew. */
	on_io(announce);
	on_io(announce);
	bench_park(&b);
	for (i = 0; i < 2; i++)
		ck_assert_int_eq(recv(rarp, got, sizeof(got), 0), sizeof(expected));
	ck_assert_int_eq(recv(rarp, got, sizeof(got), 0), -1);
	/* A device that is destroyed while it announces leaves nothing behind. */
	ck_assert_int_eq(bench_run(&b, &e), 0);
	on_io(announce);
	loop_join(&b.io);
	close(rarp);
}
END_TEST

static struct announce plan;

/* As a machine is told before its guest comes: nothing is announced meanwhile. */
static void announce_by_plan(void *arg)
{
	b.env.announce = plan;
	announce(arg);
}

START_TEST(announcements_keep_to_their_plan)
{
	uint8_t got[100];
	int rarp;

	start(F_STATUS);
	rarp = listen_for_rarp();
	plan = (struct announce){ .rounds = 7, .max_ms = 1 };
	on_io(announce_by_plan);
	for (unsigned int i = 0; i < 7; i++)
		ck_assert_int_eq(recv(rarp, got, sizeof(got), 0), 60);
	ck_assert_int_eq(recv(rarp, got, sizeof(got), 0), -1);
	plan.rounds = 0;
	on_io(announce_by_plan);
	ck_assert_int_eq(recv(rarp, got, sizeof(got), 0), -1);
	bench_park(&b);
	close(rarp);
}
END_TEST

START_TEST(guest_is_asked_to_announce_itself_until_it_has)
{
	struct vring_buffer no_answer = { BUFFERS, 2, false };
	uint8_t mac[6];
	unsigned int i;

	start(F_CTRL | F_ANNOUNCE | F_STATUS);
	for (i = 0; i < 6; i++)
		bus_access(&b.mmio, BENCH_GPA + 0x100 + i, &mac[i], 1, false);
	ck_assert_int_eq(memcmp(mac, "\x52\x54\0\1\2\3", 6), 0);
	ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 1);
	on_io(announce);
	ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 3);
	ck_assert_uint_eq(bench_read(&b, 0x60) & 2, 2);
	ck_assert_uint_eq(command(3, 0), 0);
	ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 1);
	/* It is asked again with each round. */
	for (i = 0; i < 4; i++) {
		unsigned int until = now_ms() + 2000;

		while (bench_read(&b, 0x104) >> 16 == 1 && now_ms() < until)
			usleep(1000);
		ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 3);
		ck_assert_uint_eq(command(3, 0), 0);
	}
	usleep(700000);
	ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 1);
	ck_assert_uint_eq(command(3, 7), 1);
	ck_assert_uint_eq(command(0, 0), 1); /* not offered */
	vring_add(&ctl, &no_answer, 1);
	bench_ring(&b, 2);
	ck_assert(bench_wait_needs_reset(&b));
	bench_park(&b);
}
END_TEST

/* Takes the tap away, and waits until the guest sees that; false: no iproute2. */
static bool pull_the_cable(void)
{
	usleep(10000);
	if (system("ip link del " TAP))
		return false;
	while ((bench_read(&b, 0x104) >> 16) & 1)
		usleep(1000);
	return true;
}

START_TEST(a_removed_interface_is_a_pulled_cable)
{
	static uint8_t frame[60];
	uint32_t head, written;

	start(F_STATUS);
	if (!pull_the_cable())
		return;
	ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 0);
	make_frame(frame, 60, 1);
	guest_sends(BUFFERS, frame, 60);
	bench_ring(&b, 1);
	ck_assert(bench_wait_used(&b, &tx, &head, &written));
	bench_park(&b);
}
END_TEST

START_TEST(an_interface_removed_while_the_guest_stands_is_a_pulled_cable_too)
{
	start(F_STATUS);
	bench_park(&b);
	if (system("ip link del " TAP))
		return; /* no iproute2 */
	ck_assert_int_eq(bench_run(&b, &e), 0);
	ck_assert_uint_eq(bench_read(&b, 0x70) & VIRTIO_STATUS_NEEDS_RESET, 0);
	ck_assert_uint_eq(bench_read(&b, 0x60) & 2, 2);
	ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 0);
	bench_park(&b);
}
END_TEST

/* The parked device's state, as another host would get it, with another word about the link. */
static void load_again(struct tree *states, const char *link_up)
{
	const struct state_desc *d = virtio_net_model.state;
	void *st = calloc(1, d->size);

	if (!link_up) {
		fdt_delprop(states->fdt, fdt_path_offset(states->fdt, BENCH_PATH), "link-up");
	} else {
		ck_assert_int_eq(tree_set_bytes(states, BENCH_PATH, "link-up", link_up, 1, &e), 0);
	}
	ck_assert_msg(!state_load(states, BENCH_PATH, d, st, &e), "%s", e.text);
	virtio_net_model.load(b.device, st);
	free(st);
}

START_TEST(a_guest_learns_that_its_link_is_another_at_the_new_host)
{
	const struct state_desc *d = virtio_net_model.state;
	void *st = calloc(1, d->size);
	struct tree states;
	uint32_t generation;

	start(F_STATUS);
	bench_park(&b);
	virtio_net_model.save(b.device, st);
	ck_assert_int_eq(save_one(&states, BENCH_PATH, d, st, &e), 0);
	free(st);
	generation = bench_read(&b, 0xfc);

	load_again(&states, "\1");
	ck_assert_uint_eq(bench_read(&b, 0x60), 0);
	ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 1);
	load_again(&states, "\0");
	ck_assert_uint_eq(bench_read(&b, 0x60), 2);
	ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 1);
	ck_assert_uint_ne(bench_read(&b, 0xfc), generation);
	load_again(&states, NULL);
	ck_assert_uint_eq(bench_read(&b, 0x60), 0);

	ck_assert_int_eq(bench_run(&b, &e), 0);
	if (pull_the_cable()) {
		bench_park(&b);
		load_again(&states, "\1");
		ck_assert_uint_eq(bench_read(&b, 0x60), 2);
		ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 0);
		load_again(&states, "\0");
		ck_assert_uint_eq(bench_read(&b, 0x60), 0);
		ck_assert_uint_eq(bench_read(&b, 0x104) >> 16, 0);
	} else {
		bench_park(&b);
	}
	tree_free(&states);
}
END_TEST

START_TEST(taps_that_cannot_be_used_are_refused_with_a_sentence)
{
	struct device *none;
	uint8_t multicast[6] = { 1 };

	ck_assert_int_eq(tap_open("missing0", &e), -1);
	ck_assert_str_eq(e.text, "tap 'missing0' does not exist; create it with: ip tuntap add "
				 "missing0 mode tap");
	ck_assert_uint_eq(if_nametoindex("missing0"), 0);
	ck_assert_int_eq(tap_open("a-name-of-16-ch.", &e), -1);
	ck_assert_msg(strstr(e.text, "16 characters, expected 1 to 15"), "%s", e.text);
	ck_assert_int_eq(tap_open("", &e), -1);
	ck_assert_int_eq(tap_open("lo", &e), -1);
	ck_assert_msg(strstr(e.text, "'lo' is not a tap interface"), "%s", e.text);
	ck_assert_int_eq(make_tap("tun0", IFF_TUN | IFF_NO_PI), 0);
	ck_assert_int_eq(tap_open("tun0", &e), -1);
	ck_assert_msg(strstr(e.text, "'tun0' is not a tap interface"), "%s", e.text);
	ck_assert_int_eq(tap_open(TAP, &e), -1); /* the fixture's device has it */
	ck_assert_msg(strstr(e.text, "in use by another process"), "%s", e.text);
	ck_assert_int_eq(tree_set_bytes(&b.tree, BENCH_PATH, "mac", multicast, 6, &e), 0);
	ck_assert_int_eq(virtio_net_model.create(&b.env, &b.tree, BENCH_PATH, &none, &e), -1);
}
END_TEST

START_TEST(names_are_checked_before_the_host_is_asked)
{
	ck_assert_int_eq(tap_open("", &e), -1);
	ck_assert_int_eq(tap_open("a-name-of-16-ch.", &e), -1);
	ck_assert_int_eq(tap_open("missing0", &e), -1);
}
END_TEST

/* Whether taps can be made here; tried in a process of its own. */
static bool can_make_taps(void)
{
	FILE *p;

	fflush(NULL);
	p = popen("unshare -n ip tuntap add tap9 mode tap 2>&1", "r");
	return p && pclose(p) == 0;
}

int main(void)
{
	Suite *s = suite_create("net");
	TCase *t = tcase_create("net"), *always = tcase_create("always");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, always);
	tcase_add_test(always, names_are_checked_before_the_host_is_asked);
	if (can_make_taps())
		suite_add_tcase(s, t);
	else
		printf("skipped: frames through a tap: no right to make one (/dev/net/tun, "
		       "namespaces)\n");
	tcase_add_test(t, frames_go_out_whole_and_in_order);
	tcase_add_test(t, frames_come_in_spread_over_mergeable_buffers);
	tcase_add_test(t, frames_wait_in_the_tap_while_the_guest_has_no_buffers);
	tcase_add_test(t, a_frame_waits_for_its_last_buffer_and_asks_for_that_ring);
	tcase_add_test(t, without_mergeable_buffers_what_does_not_fit_is_dropped);
	tcase_add_test(t, broken_chains_ask_for_a_reset_and_the_device_works_after_it);
	tcase_add_test(t, a_header_that_makes_no_sense_costs_only_its_frame);
	tcase_add_test(t, parking_loses_no_frame);
	tcase_add_test(t, guest_that_arrives_is_announced_five_times);
	tcase_add_test(t, announcements_keep_to_their_plan);
	tcase_add_test(t, guest_is_asked_to_announce_itself_until_it_has);
	tcase_add_test(t, a_removed_interface_is_a_pulled_cable);
	tcase_add_test(t, an_interface_removed_while_the_guest_stands_is_a_pulled_cable_too);
	tcase_add_test(t, a_guest_learns_that_its_link_is_another_at_the_new_host);
	tcase_add_test(t, taps_that_cannot_be_used_are_refused_with_a_sentence);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
