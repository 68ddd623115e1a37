/*
 * What a guest can make its devices say: the log is not the guest's to fill, however often it
 * breaks a device and reboots.
 */
#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/models.h"
#include "tests/unit/lib/vring.h"
#include "vmm/base/log.h"

#define LIVES 3

static struct bench bench;
static struct vring vring;
static struct err e;

/* Standard error goes to a file meanwhile. */
static char log_path[64];
static int saved_stderr;

static void begin_log(void)
{
	int fd;

	strcpy(log_path, "/tmp/godwit-log-XXXXXX");
	fd = mkstemp(log_path);
	ck_assert_int_ge(fd, 0);
	saved_stderr = dup(STDERR_FILENO);
	ck_assert_int_ge(dup2(fd, STDERR_FILENO), 0);
	close(fd);
	log_set_verbose(true);
}

/* How many of the lines have `words` in them. */
static unsigned int end_log(const char *words)
{
	FILE *f = fopen(log_path, "r");
	unsigned int n = 0;
	char line[2000];

	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	log_set_verbose(false);
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, words) != NULL;
	fclose(f);
	unlink(log_path);
	return n;
}

/* The driver does what it should not, and then what breaks the device. */
static void misbehave(void)
{
	bench_write(&bench, 0x70, 0);
	vring_init(&vring, &bench.memory, 0x1000, 64);
	bench_write(&bench, 0x000, 1);
	ck_assert_uint_eq(bench_negotiate(&bench, VIRTIO_BIT(VIRTIO_F_VERSION_1)), 0xb);
	bench_queue(&bench, 0, &vring);
	bench_driver_ok(&bench);
	vring_offer(&vring, 64); /* there is no such descriptor */
	bench_ring(&bench, 0);
	ck_assert(bench_wait_needs_reset(&bench));
}

START_TEST(guest_that_reboots_in_a_circle_is_complained_of_once)
{
	const struct device_model *model = &virtio_rng_model;
	void *pristine = calloc(1, model->state->size);

	ck_assert_ptr_nonnull(pristine);
	ck_assert_msg(bench_init(&bench, "virtio-rng", "rng0", &e) == 0, "%s", e.text);
	ck_assert(!tree_set_u64(&bench.tree, BENCH_PATH, "features", VIRTIO_BIT(VIRTIO_F_VERSION_1),
				&e));
	ck_assert_msg(bench_create(&bench, model, &e) == 0, "%s", e.text);
	model->save(bench.device, pristine);
	begin_log();
	for (unsigned int life = 0; life < LIVES; life++) {
		ck_assert_msg(bench_run(&bench, &e) == 0, "%s", e.text);
		misbehave();
		misbehave();
		/* A reset of the machine. */
		bench_park(&bench);
		model->load(bench.device, pristine);
	}
	ck_assert_uint_eq(end_log("rng0"), 2);
	bench_free(&bench);
	free(pristine);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("guest_log");
	TCase *t = tcase_create("guest_log");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(t, guest_that_reboots_in_a_circle_is_complained_of_once);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
