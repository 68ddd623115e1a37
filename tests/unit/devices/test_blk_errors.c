/*
 * What becomes of a request that the host cannot do: nothing of the guest's is lost when the host
 * has no room, and a request that waits for it goes wherever the guest goes. /dev/full in place of
 * the image is a host without room.
 */
#include <errno.h>
#include <fcntl.h>

#include "tests/unit/lib/blk_bench.h"
#include "tests/unit/lib/one_state.h"

#define model virtio_blk_model

static unsigned int n_stops, n_reports; /* atomic */
static struct device_io_error last;

static void on_io_error(void *machine, const struct device *d, const struct device_io_error *x)
{
	(void)machine;
	ck_assert_str_eq(d->id, "disk0");
	last = *x;
	__atomic_fetch_add(x->stop ? &n_stops : &n_reports, 1, __ATOMIC_SEQ_CST);
}

static unsigned int stops(void)
{
	return __atomic_load_n(&n_stops, __ATOMIC_SEQ_CST);
}

static unsigned int reports(void)
{
	return __atomic_load_n(&n_reports, __ATOMIC_SEQ_CST);
}

static void run_with(const char *action)
{
	on_error = action;
	run(false,
	    PLAIN | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES));
	bench.env.io_error = on_io_error;
	n_stops = n_reports = 0;
}

static int disk_fd(void)
{
	return ((struct blk *)bench.device)->disk.fd;
}

/* What the disk is from here on: another file, until the image itself comes back. */
static void becomes(const char *file, int flags)
{
	int fd = open(file, flags | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_ge(dup3(fd, disk_fd(), O_CLOEXEC), 0);
	close(fd);
}

/* Offers a write of one sector of `byte`, the `n`th at a time. */
static void offer_write(unsigned int n, uint64_t sector, int byte)
{
	struct vring_buffer b[] = { { HEADER + 16 * n, 16, false },
				    { AREA + 512 * n, 512, false },
				    { STATUS + n, 1, true } };

	put_header(HEADER + 16 * n, VIRTIO_BLK_T_OUT, sector);
	memset(memory_host(&bench.memory, AREA + 512 * n, 512), byte, 512);
	*(uint8_t *)memory_host(&bench.memory, STATUS + n, 1) = 0xee;
	vring_add(&vring, b, 3);
	bench_ring(&bench, 0);
}

static void wait_for_stops(unsigned int n)
{
	for (unsigned int ms = 0; ms < 10000 && stops() < n; ms++)
		usleep(1000);
	ck_assert_uint_ge(stops(), n);
}

/* Two writes of which the first has failed; the guest is parked. */
static void fail_two_writes(void)
{
	becomes("/dev/full", O_RDWR);
	offer_write(0, 10, 0x61);
	wait_for_stops(1);
	offer_write(1, 20, 0x62);
	bench_park(&bench);
	ck_assert_uint_eq(vring_used_idx(&vring), 0);
}

static void are_written(unsigned int n)
{
	uint32_t head, written;

	for (unsigned int i = 0; i < n; i++) {
		ck_assert(bench_wait_used(&bench, &vring, &head, &written));
		ck_assert_uint_eq(written, 1);
	}
	for (unsigned int i = 0; i < n; i++)
		ck_assert_uint_eq(status_at(STATUS + i), VIRTIO_BLK_S_OK);
	ck_assert(image_has(10, 1, 0x61));
	ck_assert(image_has(20, 1, 0x62));
	ck_assert(image_has(11, 1, 11));
}

START_TEST(write_without_room_is_done_when_the_guest_is_resumed)
{
	run_with(_i ? "enospc" : NULL);
	fail_two_writes();
	ck_assert(last.write && last.no_space && last.stop);
	ck_assert_str_eq(last.reason, strerror(ENOSPC));
	ck_assert_uint_eq(stops(), 1);
	/* Resumed too early: it is stopped again, and still nothing is lost. */
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	wait_for_stops(2);
	bench_park(&bench);
	ck_assert_uint_eq(vring_used_idx(&vring), 0);
	becomes(path, O_RDWR);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	are_written(2);
	ck_assert_uint_eq(reports(), 0);
}
END_TEST

/* As a restore or a destination does it: another device, from the state alone. */
static void move(struct tree *states)
{
	void *st = calloc(1, model.state->size);

	ck_assert_ptr_nonnull(st);
	model.save(bench.device, st);

	ck_assert_msg(!save_one(states, BENCH_PATH, model.state, st, &e), "%s", e.text);
	model.destroy(bench.device);
	bench.device = NULL;
	memset(&bench.mmio, 0, sizeof(bench.mmio));
	ck_assert_msg(!bench_create(&bench, &model, &e), "%s", e.text);
	ck_assert_msg(!state_load(states, BENCH_PATH, model.state, st, &e), "%s", e.text);
	ck_assert_msg(!model.fits(bench.device, st, &e), "%s", e.text);
	model.load(bench.device, st);
	free(st);
}

START_TEST(write_without_room_goes_with_its_guest)
{
	struct tree states;

	run_with(NULL);
	fail_two_writes();
	move(&states);
	tree_free(&states);
	/* There is no room there either, at first. */
	becomes("/dev/full", O_RDWR);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	wait_for_stops(2);
	bench_park(&bench);
	move(&states);
	tree_free(&states);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	are_written(2);
}
END_TEST

START_TEST(state_without_kept_requests_is_as_it_was)
{
	struct tree states;

	run_with(NULL);
	bench_park(&bench);
	move(&states);
	ck_assert(!tree_has(&states, BENCH_PATH, "kept"));
	tree_free(&states);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
}
END_TEST

static void is_refused(struct blk_state *st, const char *words)
{
	ck_assert_int_eq(model.state->check(st, &e), -1);
	ck_assert_msg(strstr(e.text, words) != NULL, "'%s' does not say '%s'", e.text, words);
}

START_TEST(kept_requests_that_cannot_be_are_refused)
{
	struct blk_state *st = calloc(1, sizeof(*st));

	run_with(NULL);
	fail_two_writes();
	model.save(bench.device, st);
	ck_assert_uint_eq(st->n_kept, 1);
	ck_assert_int_eq(model.state->check(st, &e), 0);
	st->kept[1] = 256;
	st->n_kept = 2;
	is_refused(st, "begins at descriptor 256");
	st->kept[1] = st->kept[0];
	is_refused(st, "begins at descriptor 0");
	st->n_kept = 1;
	st->v.queues[0].ready = false;
	is_refused(st, "does not work");
	free(st);
	becomes(path, O_RDWR);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	are_written(2);
}
END_TEST

START_TEST(driver_that_resets_the_device_is_asked_for_nothing_old)
{
	uint32_t head, written;

	run_with(NULL);
	becomes("/dev/full", O_RDWR);
	offer_write(0, 10, 0x61);
	wait_for_stops(1);
	/* Before the guest is stopped: the device, or only the queue. */
	bench_write(&bench, 0x70, 0);
	vring_init(&vring, &bench.memory, 0x1000, 256);
	becomes(path, O_RDWR);
	ck_assert_uint_eq(bench_negotiate(&bench, PLAIN), 0xb);
	bench_queue(&bench, 0, &vring);
	bench_driver_ok(&bench);
	offer_write(1, 20, 0x62);
	ck_assert(bench_wait_used(&bench, &vring, &head, &written));
	ck_assert_uint_eq(status_at(STATUS + 1), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(status_at(STATUS), 0xee);
	ck_assert(image_has(10, 1, 10));
}
END_TEST

START_TEST(descriptors_that_change_while_kept_are_not_believed)
{
	run_with(NULL);
	fail_two_writes();
	becomes(path, O_RDWR);
	vring_desc(&vring, 0, 0xfffffffff000, 16, VRING_NEXT, 1);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	ck_assert(bench_wait_needs_reset(&bench));
	ck_assert(image_has(10, 1, 10));
}
END_TEST

START_TEST(descriptor_that_is_kept_cannot_begin_another_request)
{
	run_with(NULL);
	becomes("/dev/full", O_RDWR);
	offer_write(0, 10, 0x61);
	wait_for_stops(1);
	vring_offer(&vring, 0);
	bench_park(&bench);
	becomes(path, O_RDWR);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	ck_assert(bench_wait_needs_reset(&bench));
}
END_TEST

START_TEST(errors_are_reported_or_stop_the_guest_as_was_said)
{
	static const struct {
		const char *action, *file;
		int flags;
		uint32_t type;
		bool stops;
	} rows[] = {
		/* A file that is not open for it: an error that is no lack of room. */
		{ NULL, "/dev/null", O_RDONLY, VIRTIO_BLK_T_OUT, false },
		{ "stop", "/dev/null", O_RDONLY, VIRTIO_BLK_T_OUT, true },
		{ "report", "/dev/full", O_RDWR, VIRTIO_BLK_T_OUT, false },
		{ "stop", "/dev/full", O_RDWR, VIRTIO_BLK_T_WRITE_ZEROES, true },
		{ "stop", "/dev/null", O_WRONLY, VIRTIO_BLK_T_IN, false },
		/* What a flush could not write is forgotten: a second one would lie. */
		{ "stop", "/proc/self/stat", O_RDONLY, VIRTIO_BLK_T_FLUSH, false },
	};
	struct virtio_blk_discard_write_zeroes seg = { .sector = 1, .num_sectors = 1 };
	uint32_t type = rows[_i].type, written;

	run_with(rows[_i].action);
	becomes(rows[_i].file, rows[_i].flags);
	memcpy(memory_host(&bench.memory, AREA, sizeof(seg)), &seg, sizeof(seg));
	if (!rows[_i].stops) {
		ck_assert_uint_eq(
			request(type, 0, AREA, type == VIRTIO_BLK_T_FLUSH ? 0 : 512, &written),
			VIRTIO_BLK_S_IOERR);
		ck_assert_uint_eq(stops(), 0);
		ck_assert_uint_eq(reports(), 1);
		ck_assert(last.write == (type != VIRTIO_BLK_T_IN));
		return;
	}
	if (type == VIRTIO_BLK_T_OUT) {
		offer_write(0, 10, 0x61);
	} else {
		struct vring_buffer b[] = { { HEADER, 16, false },
					    { AREA, sizeof(seg), false },
					    { STATUS, 1, true } };

		put_header(HEADER, type, 0);
		vring_add(&vring, b, 3);
		bench_ring(&bench, 0);
	}
	wait_for_stops(1);
	ck_assert_uint_eq(reports(), 0);
}
END_TEST

START_TEST(guest_cannot_make_errors_a_flood)
{
	uint32_t written;

	run_with("report");
	becomes("/dev/full", O_RDWR);
	for (unsigned int i = 0; i < 200; i++)
		ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 3, AREA, 512, &written),
				  VIRTIO_BLK_S_IOERR);
	ck_assert_uint_ge(reports(), 1);
	ck_assert_uint_lt(reports(), 100); /* one a second; 200 take a few milliseconds */
}
END_TEST

START_TEST(unknown_action_is_refused)
{
	on_error = "ignore";
	tree_of(false);
	ck_assert_int_eq(bench_create(&bench, &model, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "on-error is 'ignore' (expected enospc, stop or "
					     "report)"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blk errors");
	TCase *t = tcase_create("blk errors");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, write_without_room_is_done_when_the_guest_is_resumed, 0, 2);
	tcase_add_test(t, write_without_room_goes_with_its_guest);
	tcase_add_test(t, state_without_kept_requests_is_as_it_was);
	tcase_add_test(t, kept_requests_that_cannot_be_are_refused);
	tcase_add_test(t, driver_that_resets_the_device_is_asked_for_nothing_old);
	tcase_add_test(t, descriptors_that_change_while_kept_are_not_believed);
	tcase_add_test(t, descriptor_that_is_kept_cannot_begin_another_request);
	tcase_add_loop_test(t, errors_are_reported_or_stop_the_guest_as_was_said, 0, 6);
	tcase_add_test(t, guest_cannot_make_errors_a_flood);
	tcase_add_test(t, unknown_action_is_refused);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
