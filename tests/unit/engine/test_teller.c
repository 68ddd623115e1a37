/*
 * The teller and an agent at the other end of a socket: what the guest hears and in which order,
 * what is said of it, and that nothing waits for ever.
 */
#include <check.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "migrate/guest.h"
#include "migrate/agent/teller.h"
#include "tests/unit/lib/engine_rig.h"

static struct fake_agent agent;
static struct teller t;

static int open_agent(struct guest *g, struct err *e)
{
	(void)g;
	return fake_agent_open(&agent, e);
}

static int open_nothing(struct guest *g, struct err *e)
{
	(void)g;
	return err_set(e, "the VM has no channel " AGENT_CHANNEL);
}

static const struct guest_ops ops = { .agent_open = open_agent };
static const struct guest_ops none = { .agent_open = open_nothing };
static struct guest guest;

static void begin(enum fake_agent_kind kind)
{
	guest.ops = &ops;
	fake_agent_init(&agent, kind);
	ck_assert_int_eq(teller_init(&t, NULL), 0);
	t.guest = &guest;
	t.decisions = (struct decisions){ fake_agent_decision, &agent };
}

static void await_idle(void)
{
	RIG_AWAIT(!teller_busy(&t));
}

static void end(const char *story, const char *decisions)
{
	teller_free(&t);
	fake_agent_free(&agent);
	ck_assert_str_eq(agent.story, story);
	ck_assert_str_eq(agent.decisions, decisions);
}

#define HAS_RUN ": " AGENT_HOOK " has run in the guest, and ended with 0\n"

START_TEST(guest_hears_of_the_beginning_and_of_the_end)
{
	begin(FAKE_AGENT_WORKS);
	for (int i = 0; i < 2; i++) {
		teller_want(&t, GUEST_AFTER_MIGRATION); /* it knows that */
		ck_assert(!teller_busy(&t) && !teller_told(&t));
		teller_want(&t, GUEST_BEFORE_MIGRATION);
		await_idle();
		ck_assert(teller_told(&t));
		teller_want(&t, GUEST_AFTER_MIGRATION);
		await_idle();
		ck_assert(!teller_told(&t));
	}
	end("before_migration ended after_migration ended before_migration ended after_migration "
	    "ended ",
	    "before_migration" HAS_RUN "after_migration" HAS_RUN "before_migration" HAS_RUN
	    "after_migration" HAS_RUN);
}
END_TEST

START_TEST(guest_that_did_not_hear_of_the_beginning_does_not_hear_of_the_end)
{
	static const struct {
		enum fake_agent_kind kind;
		const char *decision;
	} cases[] = {
		{ FAKE_AGENT_SILENT, "the guest's agent has not answered within 0.05 s\n" },
		{ FAKE_AGENT_NO_HOOK,
		  "the guest's agent does not run " AGENT_HOOK
		  ": Failed to execute child process (No such file? or \xc3\xbc)\n" },
		{ FAKE_AGENT_LEAVES, "the channel " AGENT_CHANNEL " was closed\n" },
		{ FAKE_AGENT_FLOODS,
		  "the guest's agent says more than 64 KiB, and is not listened to\n" },
		{ FAKE_AGENT_IS_ELSEWHERE, "somebody else has it\n" },
	};
	char expected[200] = "before_migration: ";

	begin(cases[_i].kind);
	if (cases[_i].kind == FAKE_AGENT_SILENT)
		t.answer_ms = 50;
	teller_want(&t, GUEST_BEFORE_MIGRATION);
	await_idle();
	ck_assert(!teller_told(&t));
	teller_want(&t, GUEST_AFTER_MIGRATION);
	await_idle();
	end("", strcat(expected, cases[_i].decision));
}
END_TEST

START_TEST(guest_without_a_channel_is_told_nothing)
{
	begin(FAKE_AGENT_WORKS);
	guest.ops = &none;
	teller_want(&t, GUEST_BEFORE_MIGRATION);
	await_idle();
	end("", "before_migration: the VM has no channel " AGENT_CHANNEL "\n");
}
END_TEST

/* The hook does not end, or its end is not told: it is left alone, and hears of the end. */
START_TEST(hook_that_does_not_end_is_left_alone)
{
	begin(_i ? FAKE_AGENT_NO_WORD : FAKE_AGENT_WORKS);
	agent.hook_waits = true;
	t.hook_ms = _i ? 5000 : 150;
	t.answer_ms = _i ? 1000 : 10000; /* its other answers come in time also on a busy host */
	teller_want(&t, GUEST_BEFORE_MIGRATION);
	await_idle();
	ck_assert(teller_told(&t));
	ck_assert_str_eq(agent.decisions,
			 _i ? "before_migration: the guest's agent has not answered within 1 s\n"
			    : "before_migration: " AGENT_HOOK
			      " has not ended within 0.15 s, and is left alone\n");
	teller_want(&t, GUEST_AFTER_MIGRATION);
	await_idle();
	ck_assert_str_eq(agent.story, "before_migration after_migration ");
	end(agent.story, agent.decisions);
}
END_TEST

/* A migration that is cancelled at once: the hook runs to its end before it runs again. */
START_TEST(events_come_one_after_the_other)
{
	begin(FAKE_AGENT_WORKS);
	agent.hook_waits = true;
	teller_want(&t, GUEST_BEFORE_MIGRATION);
	RIG_AWAIT(fake_agent_noted(&agent, "before_migration"));
	teller_want(&t, GUEST_AFTER_MIGRATION);
	teller_want(&t, GUEST_BEFORE_MIGRATION); /* and begun anew */
	teller_want(&t, GUEST_AFTER_MIGRATION);
	fake_agent_end_hook(&agent);
	await_idle();
	end("before_migration ended after_migration ended ",
	    "before_migration" HAS_RUN "after_migration" HAS_RUN);
}
END_TEST

START_TEST(halt_ends_the_conversation_and_what_was_begun_counts)
{
	begin(FAKE_AGENT_WORKS);
	agent.hook_waits = true;
	teller_want(&t, GUEST_BEFORE_MIGRATION);
	RIG_AWAIT(fake_agent_noted(&agent, "before_migration"));
	teller_halt(&t, "so");
	ck_assert(!teller_busy(&t) && teller_told(&t));
	fake_agent_end_hook(&agent);
	teller_want(&t, GUEST_AFTER_MIGRATION);
	await_idle();
	end("before_migration after_migration ended ",
	    "before_migration: given up: so\nafter_migration" HAS_RUN);
}
END_TEST

START_TEST(halt_before_the_hook_was_started_leaves_nothing_behind)
{
	begin(FAKE_AGENT_SILENT);
	teller_want(&t, GUEST_BEFORE_MIGRATION);
	RIG_AWAIT(__atomic_load_n(&agent.opened, __ATOMIC_ACQUIRE));
	teller_halt(&t, "so");
	ck_assert(!teller_busy(&t) && !teller_told(&t));
	teller_want(&t, GUEST_AFTER_MIGRATION); /* nothing to tell */
	ck_assert(!teller_busy(&t));
	end("", "before_migration: given up: so\n");
}
END_TEST

/* At a destination. */
START_TEST(guest_that_has_come_hears_of_the_end_only)
{
	begin(FAKE_AGENT_WORKS);
	teller_set_told(&t);
	teller_want(&t, GUEST_AFTER_MIGRATION);
	await_idle();
	end("after_migration ended ", "after_migration" HAS_RUN);
}
END_TEST

static int refusals_left;

static int open_late(struct guest *g, struct err *e)
{
	(void)g;
	if (refusals_left-- > 0)
		return err_set(e, "the guest is paused");
	return fake_agent_open(&agent, e);
}

static const struct guest_ops *late_ops(int refusals)
{
	static const struct guest_ops late = { .agent_open = open_late };

	refusals_left = refusals;
	return &late;
}

/* At a destination with receive --paused, or while somebody has the channel for a moment. */
START_TEST(end_is_told_when_it_can_be)
{
	begin(FAKE_AGENT_WORKS);
	guest.ops = late_ops(3);
	t.retry_ms = 1;
	teller_set_told(&t);
	teller_want(&t, GUEST_AFTER_MIGRATION);
	await_idle();
	ck_assert(!teller_told(&t));
	end("after_migration ended ",
	    "after_migration: the guest is paused\nafter_migration" HAS_RUN);
}
END_TEST

START_TEST(end_that_cannot_be_told_is_not_forgotten)
{
	begin(FAKE_AGENT_WORKS);
	guest.ops = late_ops(TELLER_TRIES);
	t.retry_ms = 1;
	teller_set_told(&t);
	teller_want(&t, GUEST_AFTER_MIGRATION);
	await_idle();
	ck_assert(teller_told(&t));
	/* A halt ends the waiting. */
	guest.ops = late_ops(1);
	t.retry_ms = 1000000;
	teller_want(&t, GUEST_AFTER_MIGRATION);
	teller_halt(&t, "so");
	ck_assert(teller_told(&t) && !teller_busy(&t));
	/* The next one to end a migration. */
	guest.ops = late_ops(0);
	teller_want(&t, GUEST_AFTER_MIGRATION);
	await_idle();
	ck_assert(!teller_told(&t));
	ck_assert_str_eq(agent.story, "after_migration ended ");
	end(agent.story, agent.decisions);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("teller");
	TCase *c = tcase_create("teller");
	SRunner *r = srunner_create(s);
	int failed;

	signal(SIGPIPE, SIG_IGN);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, guest_hears_of_the_beginning_and_of_the_end);
	tcase_add_loop_test(c, guest_that_did_not_hear_of_the_beginning_does_not_hear_of_the_end, 0,
			    5);
	tcase_add_test(c, guest_without_a_channel_is_told_nothing);
	tcase_add_loop_test(c, hook_that_does_not_end_is_left_alone, 0, 2);
	tcase_add_test(c, events_come_one_after_the_other);
	tcase_add_test(c, halt_ends_the_conversation_and_what_was_begun_counts);
	tcase_add_test(c, halt_before_the_hook_was_started_leaves_nothing_behind);
	tcase_add_test(c, guest_that_has_come_hears_of_the_end_only);
	tcase_add_test(c, end_is_told_when_it_can_be);
	tcase_add_test(c, end_that_cannot_be_told_is_not_forgotten);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
