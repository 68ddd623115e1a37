/*
 * A disk that grows while its machine lives: the driver is told, and all that is handed to another
 * host says the new size. An image that has changed without a word is said before it is too late.
 */
#include "tests/unit/lib/blk_bench.h"

#define model virtio_blk_model

#define CONFIG_CHANGED 2u

static int rc;
static uint64_t wanted;

static void resize(void *arg)
{
	rc = model.resize(arg, &bench.tree, wanted, &e);
}

static int resize_to(uint64_t bytes)
{
	wanted = bytes;
	on_io(resize);
	return rc;
}

static void refuses(uint64_t bytes, const char *words)
{
	ck_assert_int_eq(resize_to(bytes), -1);
	ck_assert_msg(strstr(e.text, words) != NULL, "'%s' does not say '%s'", e.text, words);
}

/* What the driver reads, in sectors. */
static uint64_t capacity(void)
{
	uint64_t sectors;

	bus_access(&bench.mmio, BENCH_GPA + 0x100, &sectors, 8, false);
	return sectors;
}

static uint64_t in_tree(void)
{
	uint64_t sectors = 0;

	ck_assert_int_eq(tree_u64(&bench.tree, BENCH_PATH, "capacity", &sectors, &e), 0);
	return sectors;
}

static off_t image_bytes(void)
{
	return lseek(image, 0, SEEK_END);
}

START_TEST(driver_is_told_of_an_image_that_has_grown)
{
	uint32_t written, generation;

	run(false, PLAIN);
	generation = bench_read(&bench, 0xfc);
	ck_assert_int_eq(ftruncate(image, 2 * SECTORS * 512), 0);
	/* Not before it is said. */
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, SECTORS, AREA, 512, &written),
			  VIRTIO_BLK_S_IOERR);
	bench_write(&bench, 0x64, 3);
	ck_assert_msg(resize_to(0) == 0, "%s", e.text);
	ck_assert_uint_eq(capacity(), 2 * SECTORS);
	ck_assert_uint_eq(in_tree(), 2 * SECTORS);
	ck_assert_uint_ne(bench_read(&bench, 0xfc), generation);
	ck_assert_uint_eq(bench_read(&bench, 0x60), CONFIG_CHANGED);
	memset(memory_host(&bench.memory, AREA, 512), 0x5a, 512);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 2 * SECTORS - 1, AREA, 512, &written),
			  VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 2 * SECTORS, AREA, 512, &written),
			  VIRTIO_BLK_S_IOERR);
	ck_assert(image_has(2 * SECTORS - 1, 1, 0x5a));
}
END_TEST

START_TEST(image_file_is_grown_to_what_is_said)
{
	run(false, PLAIN);
	ck_assert_msg(resize_to(3 * SECTORS * 512) == 0, "%s", e.text);
	ck_assert_uint_eq(capacity(), 3 * SECTORS);
	ck_assert_int_eq(image_bytes(), 3 * SECTORS * 512);
	ck_assert(image_has(10, 1, 10));
	/* Said again, it is no news. */
	bench_write(&bench, 0x64, 3);
	ck_assert_int_eq(resize_to(3 * SECTORS * 512), 0);
	ck_assert_int_eq(resize_to(0), 0);
	ck_assert_uint_eq(bench_read(&bench, 0x60), 0);
}
END_TEST

START_TEST(nothing_ever_shrinks)
{
	run(false, PLAIN);
	bench_write(&bench, 0x64, 3);
	refuses(SECTORS * 512 - 512, "the guest knows of 4194304 bytes; a disk never shrinks");
	refuses(SECTORS * 512 + 1, "expected a multiple of 512");
	refuses(UINT64_MAX - 511, "below 2^63");
	ck_assert_int_eq(ftruncate(image, 3 * SECTORS * 512), 0);
	refuses(2 * SECTORS * 512, "has 12582912 bytes already");
	ck_assert_int_eq(image_bytes(), 3 * SECTORS * 512);
	ck_assert_int_eq(ftruncate(image, SECTORS * 512 - 512), 0);
	refuses(0, "a disk never shrinks");
	ck_assert_int_eq(ftruncate(image, SECTORS * 512), 0);
	ck_assert_uint_eq(capacity(), SECTORS);
	ck_assert_uint_eq(in_tree(), SECTORS);
	ck_assert_uint_eq(bench_read(&bench, 0x60), 0);
}
END_TEST

START_TEST(image_that_is_only_read_is_grown_by_others)
{
	run(true, PLAIN | VIRTIO_BIT(VIRTIO_BLK_F_RO));
	refuses(2 * SECTORS * 512, "is open for reading only");
	ck_assert_int_eq(ftruncate(image, 2 * SECTORS * 512), 0);
	ck_assert_int_eq(resize_to(0), 0);
	ck_assert_uint_eq(capacity(), 2 * SECTORS);
}
END_TEST

START_TEST(changed_image_is_said_before_the_machine_is_handed_over)
{
	run(false, PLAIN);
	ck_assert_int_eq(model.handover->check_host(bench.device, &e), 0);
	ck_assert_int_eq(ftruncate(image, 2 * SECTORS * 512), 0);
	ck_assert_int_eq(model.handover->check_host(bench.device, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "has grown from 4194304 to 8388608 bytes"));
	ck_assert_ptr_nonnull(strstr(e.text, "godwit resize VM disk0"));
	ck_assert_int_eq(resize_to(0), 0);
	ck_assert_int_eq(model.handover->check_host(bench.device, &e), 0);
	ck_assert_int_eq(ftruncate(image, SECTORS * 512), 0);
	ck_assert_int_eq(model.handover->check_host(bench.device, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "has shrunk from 8388608 to 4194304 bytes"));
	ck_assert_ptr_nonnull(strstr(e.text, "truncate -s 8388608"));
}
END_TEST

START_TEST(machine_that_has_grown_is_handed_over_and_reset_as_it_is)
{
	void *st = calloc(1, model.state->size), *pristine = calloc(1, model.state->size);
	uint32_t written;

	run(false, PLAIN);
	bench_park(&bench);
	model.save(bench.device, pristine);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	ck_assert_int_eq(resize_to(2 * SECTORS * 512), 0);
	bench_park(&bench);
	/* A restore: from the tree and the state. */
	model.save(bench.device, st);
	model.destroy(bench.device);
	bench.device = NULL;
	memset(&bench.mmio, 0, sizeof(bench.mmio));
	ck_assert_msg(!bench_create(&bench, &model, &e), "%s", e.text);
	model.load(bench.device, st);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	ck_assert_uint_eq(capacity(), 2 * SECTORS);
	ck_assert_uint_eq(bench_read(&bench, 0x60) & CONFIG_CHANGED, CONFIG_CHANGED);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, SECTORS, AREA, 512, &written), VIRTIO_BLK_S_OK);
	/* A reset: to the state of its birth. */
	bench_park(&bench);
	model.load(bench.device, pristine);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	ck_assert_uint_eq(capacity(), 2 * SECTORS);
	free(st);
	free(pristine);
}
END_TEST

START_TEST(paused_guest_is_told_when_it_goes_on)
{
	run(false, PLAIN);
	bench_write(&bench, 0x64, 3);
	bench_park(&bench);
	wanted = 2 * SECTORS * 512;
	resize(bench.device);
	ck_assert_msg(rc == 0, "%s", e.text);
	ck_assert_int_eq(bench_run(&bench, &e), 0);
	ck_assert_uint_eq(bench_read(&bench, 0x60), CONFIG_CHANGED);
	ck_assert_uint_eq(capacity(), 2 * SECTORS);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blk resize");
	TCase *t = tcase_create("blk resize");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, driver_is_told_of_an_image_that_has_grown);
	tcase_add_test(t, image_file_is_grown_to_what_is_said);
	tcase_add_test(t, nothing_ever_shrinks);
	tcase_add_test(t, image_that_is_only_read_is_grown_by_others);
	tcase_add_test(t, changed_image_is_said_before_the_machine_is_handed_over);
	tcase_add_test(t, machine_that_has_grown_is_handed_over_and_reset_as_it_is);
	tcase_add_test(t, paused_guest_is_told_when_it_goes_on);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
