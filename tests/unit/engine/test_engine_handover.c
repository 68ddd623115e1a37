/*
 * The hand-over, moment by moment: who may start the guest, and how long it may stand before that.
 * After each case one side has the guest, or it is undecided and nothing starts by itself.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/handover.h"
#include "tests/unit/lib/engine_rig.h"

/* -- the hand-over: who may start the guest, and when -- */

/* As if the process of the destination, or its host, had stood still since READY. */
static void stand_still(struct fake *f)
{
	struct rig *r = f->arg;

	r->destination.ready_ns -= HANDOVER_GO_MS * 1000000ull;
}

static void stand_until_the_source_has_left(struct fake *f)
{
	struct rig *r = f->arg;

	RIG_AWAIT(__atomic_load_n(&r->left, __ATOMIC_ACQUIRE));
}

START_TEST(go_that_is_old_is_not_obeyed)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.dst->before_start = stand_still;
	r.dst->arg = &r;
	rig_run(&r);
	ck_assert_msg(strstr(r.destination_error.text, "GO was obeyed too late"), "%s",
		      r.destination_error.text);
	/* The source was still there: it is told, and has the guest again. */
	ck_assert_int_eq(source_owner(r.engine), OWNER_SOURCE);
	ck_assert_msg(strstr(r.source_error.text, "gave up: GO was obeyed too late"), "%s",
		      r.source_error.text);
	ck_assert_uint_eq(r.dst->starts, 0);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* The same, and the source has given up meanwhile: a person may have let the guest run there. */
START_TEST(go_behind_which_the_source_has_gone_is_not_obeyed)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.source.running_ms = 50;
	r.dst->before_start = stand_until_the_source_has_left;
	r.dst->arg = &r;
	rig_run(&r);
	ck_assert_int_eq(source_owner(r.engine), OWNER_NOBODY);
	ck_assert_msg(
		strstr(r.destination_error.text, "closed the connection before the guest ran"),
		"%s", r.destination_error.text);
	ck_assert_uint_eq(r.dst->starts, 0);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

static int end_at_the_last_moment(struct rig *r, struct err *e)
{
	(void)r;
	return err_set(e, "the VM that waited for the guest was ended");
}

START_TEST(destination_that_is_ended_at_the_last_moment_gives_the_guest_back)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.on_arrived = end_at_the_last_moment;
	rig_run(&r);
	ck_assert_int_eq(source_owner(r.engine), OWNER_SOURCE);
	ck_assert_msg(strstr(r.source_error.text, "gave up: the VM that waited for the guest was "
						  "ended"),
		      "%s", r.source_error.text);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* What it did there cannot be taken back: neither side goes on by itself. */
START_TEST(guest_that_cannot_go_on_at_the_destination_is_kept_by_the_source)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.dst->fail_entry = "KVM cannot run it";
	rig_run(&r);
	ck_assert_int_eq(source_owner(r.engine), OWNER_NOBODY);
	ck_assert_msg(strstr(r.destination_error.text, "could not go on: KVM cannot run it"), "%s",
		      r.destination_error.text);
	ck_assert(!r.src->runs && r.src->parked && !r.dst->runs);
	rig_free(&r);
}
END_TEST

/* -- how long the guest may stand -- */

START_TEST(disk_that_hangs_in_the_pause_gives_the_guest_back)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.src->sync_hangs = true;
	r.limits.downtime_us = 10000;
	r.source.spare_ms = _i ? 60000 : 100;
	r.limits.switchover_us = _i ? 100000 : 0;
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, -1);
	ck_assert_msg(strstr(r.source_error.text, "the guest has stood for"), "%s",
		      r.source_error.text);
	ck_assert_msg(strstr(r.source_error.text, "(switchover-timeout)"), "%s",
		      r.source_error.text);
	ck_assert_uint_eq(r.src->unparks, 1);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* Meanwhile it is heard if the destination cannot go on: the guest does not stand for nothing. */
START_TEST(destination_that_gives_up_while_a_disk_is_synced_is_heard)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.src->sync_hangs = true;
	r.limits.switchover_us = 100000000;
	rig_start(&r);
	RIG_AWAIT(__atomic_load_n(&r.src->syncs, __ATOMIC_RELAXED) > 0);
	rig_stop(r.destination_stop);
	rig_finish(&r);
	ck_assert_int_eq(source_owner(r.engine), OWNER_SOURCE);
	ck_assert_msg(strstr(r.source_error.text, "the destination gave up"), "%s",
		      r.source_error.text);
	ck_assert_uint_eq(r.src->saves, 0); /* READY is not asked for before the disks are synced */
	rig_check(&r);
	rig_free(&r);
}
END_TEST

/* Also one for which nothing is asked of anybody: the source itself was stopped, or its disk slow.
 */
static int commit_late(struct rig *r, struct err *e)
{
	(void)r;
	(void)e;
	ck_abort_msg("GO must not follow a pause that was too long");
	return 0;
}

static void save_slowly(struct fake *f)
{
	(void)f;
	usleep(250000);
}

START_TEST(pause_that_was_too_long_already_is_not_handed_over)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.limits.switchover_us = 200000;
	r.src->before_save = save_slowly;
	r.on_commit = commit_late;
	rig_run(&r);
	ck_assert_int_eq(source_owner(r.engine), OWNER_SOURCE);
	ck_assert_msg(strstr(r.source_error.text, "the guest has stood for"), "%s",
		      r.source_error.text);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

START_TEST(limit_of_the_pause_follows_from_the_downtime)
{
	ck_assert_uint_eq(handover_limit_us(0, 300000, 0, 2000000), 5000000);
	ck_assert_uint_eq(handover_limit_us(0, 300000, 100000, 2000000), 5400000);
	ck_assert_uint_eq(handover_limit_us(900000, 300000, 100000, 2000000), 900000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine, hand-over");
	TCase *c = tcase_create("engine, hand-over");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_test(c, go_that_is_old_is_not_obeyed);
	tcase_add_test(c, go_behind_which_the_source_has_gone_is_not_obeyed);
	tcase_add_test(c, destination_that_is_ended_at_the_last_moment_gives_the_guest_back);
	tcase_add_test(c, guest_that_cannot_go_on_at_the_destination_is_kept_by_the_source);
	tcase_add_loop_test(c, disk_that_hangs_in_the_pause_gives_the_guest_back, 0, 2);
	tcase_add_test(c, destination_that_gives_up_while_a_disk_is_synced_is_heard);
	tcase_add_test(c, pause_that_was_too_long_already_is_not_handed_over);
	tcase_add_test(c, limit_of_the_pause_follows_from_the_downtime);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
