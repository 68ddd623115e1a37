/*
 * Migrations that the guest's agent is told of, between two fake guests: when, where, and that no
 * agent keeps its guest from being moved, or a person from taking it back.
 */
#include <check.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/lib/engine_rig.h"

static struct fake_agent agent;

static void init(struct rig *r, enum fake_agent_kind kind)
{
	rig_init(r, RIG_PAIR);
	fake_agent_init(&agent, kind);
	rig_agent(r, &agent);
}

static void end(struct rig *r, const char *story)
{
	RIG_AWAIT(!teller_busy(&r->source_teller) && !teller_busy(&r->destination_teller));
	rig_check(r);
	rig_free(r);
	fake_agent_free(&agent);
	ck_assert_str_eq(agent.story, story);
}

START_TEST(guest_is_told_before_it_is_parked_and_where_it_runs_afterwards)
{
	struct rig r;

	init(&r, FAKE_AGENT_WORKS);
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	end(&r, "before_migration ended park start after_migration ended ");
}
END_TEST

/* What it writes while the hook runs is sent before the pause: one more round at least. */
static bool last_round_was_early;

static void note_round(struct rig *r, uint64_t round)
{
	(void)round;
	last_round_was_early = !r->src->parked && !fake_agent_noted(&agent, "ended");
}

static void write_in_hook(void *arg)
{
	struct rig *r = arg;

	/* The first round is over: it waits. */
	RIG_AWAIT(__atomic_load_n(&r->rounds, __ATOMIC_ACQUIRE) >= 1 || !r->src->runs);
	fake_write(r->src, 0, 5, 3, 12345);
}

START_TEST(park_waits_for_the_hook_and_what_was_written_meanwhile_goes_before)
{
	struct rig r;

	init(&r, FAKE_AGENT_WORKS);
	agent.hook_waits = true;
	agent.on_exec = write_in_hook;
	agent.arg = &r;
	r.on_round = note_round;
	rig_start(&r);
	RIG_AWAIT(fake_agent_noted(&agent, "before_migration"));
	usleep(300000); /* the source has come to its wait, on a busy host too */
	ck_assert_uint_eq(r.src->parks, 0);
	fake_agent_end_hook(&agent);
	rig_finish(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	ck_assert(!last_round_was_early);
	ck_assert_uint_ge(r.rounds, 3);
	end(&r, "before_migration ended park start after_migration ended ");
}
END_TEST

START_TEST(no_agent_keeps_its_guest_from_being_moved)
{
	static const enum fake_agent_kind kinds[] = { FAKE_AGENT_SILENT, FAKE_AGENT_NO_HOOK,
						      FAKE_AGENT_LEAVES, FAKE_AGENT_FLOODS,
						      FAKE_AGENT_IS_ELSEWHERE };
	struct rig r;

	init(&r, kinds[_i]);
	r.source_teller.answer_ms = 100;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	end(&r, "park start ");
}
END_TEST

START_TEST(guest_of_a_failed_migration_hears_of_the_end_where_it_was)
{
	struct rig r;

	init(&r, FAKE_AGENT_WORKS);
	if (_i)
		r.dst->fail_load = "it does not load";
	else
		r.src->fail_park = "it does not park";
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, -1);
	end(&r, _i ? "before_migration ended park unpark after_migration ended "
		   : "before_migration ended after_migration ended ");
}
END_TEST

/* A migration whose hook does not end by itself, and is not given up; it has begun. */
static void start_in_hook(struct rig *r)
{
	init(r, FAKE_AGENT_WORKS);
	agent.hook_waits = true;
	r->source_teller.hook_ms = 600000;
	rig_start(r);
	RIG_AWAIT(fake_agent_noted(&agent, "before_migration"));
}

/* It was not waited for, and the guest goes on at the source. */
static void check_failed_in_hook(struct rig *r)
{
	ck_assert_int_eq(r->source_rc, -1);
	ck_assert(!fake_agent_noted(&agent, "ended"));
	fake_agent_end_hook(&agent);
	end(r, "before_migration ended after_migration ended ");
}

START_TEST(cancel_does_not_wait_for_the_hook)
{
	struct rig r;

	start_in_hook(&r);
	rig_stop(r.source_stop);
	rig_finish(&r);
	ck_assert_msg(strstr(r.source_error.text, "cancelled") != NULL, "%s", r.source_error.text);
	check_failed_in_hook(&r);
}
END_TEST

START_TEST(destination_that_goes_while_the_hook_runs_is_noticed)
{
	struct rig r;

	start_in_hook(&r);
	rig_stop(r.destination_stop);
	rig_finish(&r);
	check_failed_in_hook(&r);
}
END_TEST

static void force(void *arg)
{
	struct rig *r = arg;

	__atomic_store_n(&r->limits.force, true, __ATOMIC_RELAXED);
}

START_TEST(end_by_force_does_not_wait_for_the_hook)
{
	struct rig r;

	init(&r, FAKE_AGENT_WORKS);
	agent.hook_waits = true;
	agent.on_exec = force;
	agent.arg = &r;
	r.source_teller.hook_ms = 600000;
	rig_start(&r);
	RIG_AWAIT(fake_agent_noted(&agent, "start"));
	fake_agent_end_hook(&agent);
	rig_finish(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	end(&r, "before_migration park start after_migration ended ");
}
END_TEST

START_TEST(paused_guest_is_told_nothing)
{
	struct rig r;

	init(&r, FAKE_AGENT_WORKS);
	r.idle = true;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	end(&r, "park start ");
	ck_assert_str_eq(agent.decisions, "before_migration: the fake is paused\n");
}
END_TEST

START_TEST(nobody_is_told_of_a_migration_without_guest_events)
{
	struct rig r;

	init(&r, FAKE_AGENT_WORKS);
	r.source.guest_events = false;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s", r.source_error.text);
	end(&r, "park start ");
	ck_assert_str_eq(agent.decisions, "");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine-agent");
	TCase *c = tcase_create("agent");
	SRunner *r = srunner_create(s);
	int failed;

	signal(SIGPIPE, SIG_IGN);
	tcase_set_timeout(c, 120);
	tcase_add_test(c, guest_is_told_before_it_is_parked_and_where_it_runs_afterwards);
	tcase_add_test(c, park_waits_for_the_hook_and_what_was_written_meanwhile_goes_before);
	tcase_add_loop_test(c, no_agent_keeps_its_guest_from_being_moved, 0, 5);
	tcase_add_loop_test(c, guest_of_a_failed_migration_hears_of_the_end_where_it_was, 0, 2);
	tcase_add_test(c, cancel_does_not_wait_for_the_hook);
	tcase_add_test(c, destination_that_goes_while_the_hook_runs_is_noticed);
	tcase_add_test(c, end_by_force_does_not_wait_for_the_hook);
	tcase_add_test(c, paused_guest_is_told_nothing);
	tcase_add_test(c, nobody_is_told_of_a_migration_without_guest_events);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
