/*
 * Migrations of one machine one after the other: start, time limit, cancel, start again. The
 * destination is a socket that accepts and says nothing, or a port where nobody is; the machine is
 * only a status.
 */
#include <arpa/inet.h>
#include <check.h>
#include <dlfcn.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/guest.h"
#include "migrate/migration.h"
#include "migrate/policy/policy_json.h"
#include "migrate/slots.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/loop.h"
#include "vmm/memory.h"

/* -- in place of the machine -- */

static struct tree tree;
static uint8_t page[PAGE_SIZE];

static int yes(struct guest *g, struct err *e)
{
	(void)g;
	(void)e;
	return 0;
}

/* Nothing else is asked of a guest before the destination has answered. */
static int no_rehearsal(struct guest *g, struct guest_costs *out, struct err *e)
{
	(void)g;
	(void)out;
	return err_set(e, "nothing is known");
}

static void do_not_share(struct guest *g, bool on)
{
	(void)g;
	(void)on;
}

static const struct guest_ops no_ops = {
	.may_leave = yes, .check_host = yes, .rehearse = no_rehearsal, .share = do_not_share
};

void guest_machine_init(struct guest_machine *g, struct machine *m, struct loop *owner_loop)
{
	*g = (struct guest_machine){ .guest = { .ops = &no_ops, .tree = &tree, .n_blocks = 1 },
				     .machine = m,
				     .owner_loop = owner_loop };
	g->guest.blocks[0] = (struct guest_block){ page, 1 };
}

/* -- in place of the resolver: one name is never answered until it is allowed -- */

static sem_t answer;
static unsigned int answers; /* atomic */

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
		struct addrinfo **found)
{
	int (*real)(const char *, const char *, const struct addrinfo *,
		    struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
	int rc;

	if (!host || strcmp(host, "slow.test") || hints->ai_flags & AI_NUMERICHOST)
		return real(host, port, hints, found);
	while (sem_wait(&answer))
		;
	rc = real("127.0.0.1", port, hints, found);
	__atomic_add_fetch(&answers, 1, __ATOMIC_RELEASE);
	return rc;
}

/* -- the owner -- */

static struct {
	struct loop loop;
	struct migration *migration;
	int silent; /* listens */
	char uri[64];
	unsigned int waits; /* atomic: decisions of that kind */
	char wait[400];	    /* what the first said */
} owner;

struct call {
	const char *uri, *why;
	struct migration_parameters parameters;
	struct err e;
	int rc;
};

static void on_status(void *arg, enum phase s)
{
	(void)arg;
	(void)s;
}

static void on_decision(void *arg, enum decision d, const char *reason)
{
	(void)arg;
	if (d != DECISION_WAIT)
		return;
	if (!owner.waits)
		snprintf(owner.wait, sizeof(owner.wait), "%s", reason);
	__atomic_add_fetch(&owner.waits, 1, __ATOMIC_RELEASE);
}

static void on_moved(void *arg, const char *where)
{
	(void)arg;
	(void)where;
	ck_abort_msg("nobody took the guest");
}

static void do_start(void *arg)
{
	struct call *c = arg;

	c->rc = migration_start(owner.migration, c->uri, &c->e);
}

static void do_cancel(void *arg)
{
	migration_cancel(owner.migration, ((struct call *)arg)->why);
}

static void do_set(void *arg)
{
	struct call *c = arg;

	c->rc = migration_set_parameters(owner.migration, &c->parameters, &c->e);
}

static void do_query(void *arg)
{
	migration_query(owner.migration, arg);
}

static int start(const char *uri, struct err *e)
{
	struct call c = { .uri = uri };

	loop_call(&owner.loop, do_start, &c);
	*e = c.e;
	return c.rc;
}

static void cancel(void)
{
	struct call c = { .why = "" };

	loop_call(&owner.loop, do_cancel, &c);
}

static void set_timeout(uint64_t s)
{
	struct call c = {
		.parameters = { .downtime_ms = 300, .timeout = { .total_s = s }, .channels = 2 }
	};

	loop_call(&owner.loop, do_set, &c);
}

/* With a policy, and whatever else is in `more`. */
static void set_policy(const char *name, struct migration_parameters more)
{
	struct call c = { .parameters = more };

	c.parameters.channels = 2;
	c.parameters.has_policy = true;
	ck_assert_int_eq(policy_from_text(name, &c.parameters.policy, NULL), 0);
	loop_call(&owner.loop, do_set, &c);
}

START_TEST(dirty_limit_without_dirty_rings_is_refused_when_it_is_set)
{
	struct call c = { .parameters = { .downtime_ms = 9, .dirty_limit = true } };

	loop_call(&owner.loop, do_set, &c);
	ck_assert_int_eq(c.rc, -1);
	ck_assert_ptr_nonnull(strstr(c.e.text, "run the VM with --dirty-ring"));
}
END_TEST

static struct migration_report query(void)
{
	struct migration_report r;

	loop_call(&owner.loop, do_query, &r);
	return r;
}

/* Until it is over; at most `ms`. */
static struct migration_report await_end(unsigned int ms)
{
	uint64_t deadline = clock_us() + ms * 1000ull;
	struct migration_report r;

	do {
		r = query();
		if (r.status != PHASE_SETUP && r.status != PHASE_CANCELLING)
			return r;
		usleep(1000);
	} while (clock_us() < deadline);
	ck_abort_msg("not over after %u ms: %s", ms, phase_name(r.status));
	return r;
}

static void set_up(void)
{
	const struct migration_events events = { .status = on_status,
						 .decision = on_decision,
						 .moved = on_moved };
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sa);
	struct err e;

	owner.silent = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(owner.silent, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(listen(owner.silent, 8), 0);
	getsockname(owner.silent, (struct sockaddr *)&sa, &len);
	snprintf(owner.uri, sizeof(owner.uri), "tcp:127.0.0.1:%u", ntohs(sa.sin_port));
	ck_assert_int_eq(tree_init(&tree, &e), 0);
	ck_assert_int_eq(loop_init(&owner.loop, &e), 0);
	ck_assert_int_eq(
		migration_new(&owner.migration, (struct machine *)page, &owner.loop, &events, &e),
		0);
	ck_assert_int_eq(loop_start(&owner.loop, "owner", &e), 0);
}

static void tear_down(void)
{
	loop_join(&owner.loop);
	migration_free(owner.migration);
	loop_free(&owner.loop);
	tree_free(&tree);
	close(owner.silent);
}

/* -- promises -- */

START_TEST(timeout_fails_the_migration_with_a_sentence)
{
	struct migration_report r;
	uint64_t began;
	struct err e;

	set_timeout(1);
	began = clock_us();
	ck_assert_msg(start(owner.uri, &e) == 0, "%s", e.text);
	r = await_end(5000);
	ck_assert_int_eq(r.status, PHASE_FAILED);
	ck_assert_msg(strstr(r.error, "the timeout of 1 s has passed"), "%s", r.error);
	ck_assert_uint_ge(clock_us() - began, 1000000);
	ck_assert_uint_lt(clock_us() - began, 1500000);
}
END_TEST

START_TEST(timeout_may_be_set_while_it_runs)
{
	struct err e;

	ck_assert_int_eq(start(owner.uri, &e), 0);
	usleep(300000);
	set_timeout(1);
	ck_assert_int_eq(await_end(900).status, PHASE_FAILED);
}
END_TEST

START_TEST(timeout_that_was_taken_back_does_nothing)
{
	struct err e;

	set_timeout(1);
	ck_assert_int_eq(start(owner.uri, &e), 0);
	set_timeout(0);
	usleep(1200000);
	ck_assert_int_eq(query().status, PHASE_SETUP);
}
END_TEST

START_TEST(timeout_of_one_does_not_hit_the_next)
{
	struct err e;

	set_timeout(1);
	ck_assert_int_eq(start("unix:/nonexistent/socket", &e), 0);
	ck_assert_int_eq(await_end(900).status, PHASE_FAILED);
	usleep(500000);
	ck_assert_int_eq(start(owner.uri, &e), 0);
	usleep(700000);
	ck_assert_int_eq(query().status, PHASE_SETUP);
}
END_TEST

START_TEST(cancel_of_a_silent_destination_takes_effect_at_once)
{
	struct migration_report r;
	struct err e;

	ck_assert_int_eq(start(owner.uri, &e), 0);
	usleep(50000);
	cancel();
	cancel(); /* again: nothing worse */
	r = await_end(200);
	ck_assert_int_eq(r.status, PHASE_CANCELLED);
	ck_assert_str_eq(r.error, "");
}
END_TEST

/* The answer comes only when all is over; then the thread that waited for it frees everything. */
START_TEST(cancel_does_not_wait_for_a_name_server)
{
	char uri[64];
	struct err e;

	sem_init(&answer, 0, 0);
	snprintf(uri, sizeof(uri), "tcp:slow.test%s", strrchr(owner.uri, ':'));
	for (unsigned int i = 0; i < 3; i++) {
		ck_assert_int_eq(start(uri, &e), 0);
		usleep(20000);
		cancel();
		ck_assert_int_eq(await_end(10000).status, PHASE_CANCELLED);
	}
	ck_assert_uint_eq(__atomic_load_n(&answers, __ATOMIC_ACQUIRE), 0);
	for (unsigned int i = 0; i < 3; i++)
		sem_post(&answer);
	while (__atomic_load_n(&answers, __ATOMIC_ACQUIRE) < 3)
		usleep(1000);
	/* One that answers is gone to. */
	sem_post(&answer);
	ck_assert_int_eq(start(uri, &e), 0);
	close(accept(owner.silent, NULL, NULL));
	ck_assert_int_eq(await_end(10000).status, PHASE_FAILED);
	usleep(50000); /* for the last thread to end, or a leak would be seen that is none */
}
END_TEST

START_TEST(timeout_by_memory_counts_a_begun_gib)
{
	struct call c = { .parameters = { .timeout = { .per_gib_s = 1 }, .channels = 2 } };
	struct migration_report r;
	struct err e;

	loop_call(&owner.loop, do_set, &c);
	ck_assert_int_eq(start(owner.uri, &e), 0);
	r = await_end(5000);
	ck_assert_int_eq(r.status, PHASE_FAILED);
	ck_assert_msg(strstr(r.error, "the timeout of 1 s (1 s for each GiB of ") != NULL, "%s",
		      r.error);
}
END_TEST

/* Nothing was sent that could be finished. */
START_TEST(force_before_the_first_round_is_an_end)
{
	struct call c = { .parameters = { .timeout = { .total_s = 1 },
					  .timeout_action = TIMEOUT_FORCE,
					  .channels = 2 } };
	struct err e;

	loop_call(&owner.loop, do_set, &c);
	ck_assert_int_eq(start(owner.uri, &e), 0);
	ck_assert_int_eq(await_end(5000).status, PHASE_FAILED);
}
END_TEST

/* -- its turn among those of the host -- */

static char dir[32];
static struct slots other;

static void do_open_slots(void *arg)
{
	migration_open_slots(owner.migration, arg, "web");
}

static void begin_waiting(struct migration_parameters more)
{
	char names[64];
	struct err e;

	snprintf(dir, sizeof(dir), "/tmp/godwit-unit-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	loop_call(&owner.loop, do_open_slots, dir);
	ck_assert_int_eq(slots_open(&other, dir, "db", &e), 0);
	ck_assert_int_eq(slots_take(&other, 0, names, sizeof(names), &e), 1);
	set_policy("suspend-workload-if-needed", more);
	ck_assert_msg(start(owner.uri, &e) == 0, "%s", e.text);
	while (!__atomic_load_n(&owner.waits, __ATOMIC_ACQUIRE))
		usleep(1000);
	ck_assert_str_eq(owner.wait, "the policy 'Suspend workload if needed' allows 1 migration "
				     "from this host at once; under way: db");
	ck_assert_int_eq(query().status, PHASE_SETUP);
}

static void end_waiting(void)
{
	slots_close(&other);
	ck_assert_int_eq(rmdir(dir), -1); /* the migration still uses it */
	loop_join(&owner.loop);
	migration_free(owner.migration);
	owner.migration = NULL;
	ck_assert_int_eq(rmdir(dir), 0);
}

START_TEST(one_that_waits_for_its_turn_is_cancelled_at_once)
{
	begin_waiting((struct migration_parameters){ 0 });
	cancel();
	ck_assert_int_eq(await_end(200).status, PHASE_CANCELLED);
	end_waiting();
}
END_TEST

START_TEST(time_that_it_waits_counts)
{
	struct migration_report r;

	begin_waiting((struct migration_parameters){ .timeout = { .total_s = 1 } });
	r = await_end(3000);
	ck_assert_int_eq(r.status, PHASE_FAILED);
	ck_assert_msg(strstr(r.error, "the timeout of 1 s has passed") != NULL, "%s", r.error);
	end_waiting();
}
END_TEST

START_TEST(one_that_waits_goes_on_when_its_turn_comes)
{
	int fd;

	begin_waiting((struct migration_parameters){ .downtime_ms = 300 });
	/* The policy's, and it does not become another when something else is set. */
	ck_assert_uint_eq(query().limit_ms, 100);
	set_policy("suspend-workload-if-needed",
		   (struct migration_parameters){ .downtime_ms = 300, .bandwidth = 5 });
	ck_assert_uint_eq(query().limit_ms, 100);
	set_policy("suspend-workload-if-needed",
		   (struct migration_parameters){ .downtime_ms = 300, .downtime_sets = 1 });
	ck_assert_uint_eq(query().limit_ms, 300);
	slots_release(&other);
	fd = accept(owner.silent, NULL, NULL);
	ck_assert_int_ge(fd, 0);
	ck_assert_uint_eq(__atomic_load_n(&owner.waits, __ATOMIC_ACQUIRE), 2);
	close(fd);
	ck_assert_int_eq(await_end(2000).status, PHASE_FAILED);
	end_waiting();
}
END_TEST

START_TEST(policy_needs_a_runtime_directory)
{
	struct err e;

	set_policy("minimal-downtime", (struct migration_parameters){ 0 });
	ck_assert_int_eq(start(owner.uri, &e), -1);
	ck_assert_str_eq(e.text, "the policy's maxMigrations cannot be kept to: there is no "
				 "runtime directory");
	loop_call(&owner.loop, do_open_slots, (void *)(uintptr_t) "/nonexistent");
	ck_assert_int_eq(start(owner.uri, &e), -1);
	ck_assert_msg(strstr(e.text, "cannot use the file /nonexistent/migrations") != NULL, "%s",
		      e.text);
}
END_TEST

START_TEST(second_migration_is_refused_while_one_is_under_way)
{
	struct err e;

	ck_assert_int_eq(start(owner.uri, &e), 0);
	ck_assert_int_eq(start(owner.uri, &e), -1);
	ck_assert_msg(strstr(e.text, "under way already"), "%s", e.text);
	ck_assert_int_eq(query().status, PHASE_SETUP);
}
END_TEST

/* Asked for in the very moment in which the one before is over: neither waits for the other. */
static void do_start_anew(void *arg)
{
	struct call *c = arg;
	uint64_t deadline = clock_us() + 50000;

	/* On the owner's thread, which therefore hears of nothing. */
	do {
		c->rc = migration_start(owner.migration, c->uri, &c->e);
	} while (c->rc && clock_us() < deadline);
}

START_TEST(migration_may_begin_as_soon_as_the_last_is_over)
{
	unsigned int started = 0;

	for (int i = 0; i < 20; i++) {
		struct call c = { .uri = "unix:/nonexistent/socket" };

		loop_call(&owner.loop, do_start_anew, &c);
		started += c.rc == 0;
		ck_assert(c.rc == 0 || strstr(c.e.text, "under way already"));
	}
	ck_assert_uint_ge(started, 1);
	ck_assert_int_eq(await_end(2000).status, PHASE_FAILED);
}
END_TEST

/* -- checks -- */

static void do_check(void *arg)
{
	struct call *c = arg;

	c->rc = migration_check(owner.migration, c->uri, &c->e);
}

static void do_query_check(void *arg)
{
	migration_query_check(owner.migration, arg);
}

static int begin_check(const char *uri, struct err *e)
{
	struct call c = { .uri = uri };

	loop_call(&owner.loop, do_check, &c);
	*e = c.e;
	return c.rc;
}

static struct check_report await_check(unsigned int ms)
{
	uint64_t deadline = clock_us() + ms * 1000ull;
	struct check_report r;

	do {
		loop_call(&owner.loop, do_query_check, &r);
		if (r.status != CHECK_ACTIVE)
			return r;
		usleep(1000);
	} while (clock_us() < deadline);
	ck_abort_msg("the check is not over after %u ms", ms);
	return r;
}

START_TEST(check_keeps_a_migration_out_until_it_is_cancelled)
{
	struct check_report r;
	struct err e;

	ck_assert_int_eq(await_check(0).status, CHECK_NONE);
	ck_assert_msg(begin_check(owner.uri, &e) == 0, "%s", e.text);
	ck_assert_int_eq(start(owner.uri, &e), -1);
	ck_assert_msg(strstr(e.text, "a check of this VM is under way") != NULL, "%s", e.text);
	ck_assert_int_eq(begin_check(owner.uri, &e), -1);
	ck_assert_msg(strstr(e.text, "a check of this VM is under way") != NULL, "%s", e.text);
	usleep(20000);
	cancel();
	cancel();
	r = await_check(200);
	ck_assert_int_eq(r.status, CHECK_CANCELLED);
	ck_assert_str_eq(r.error, "");
	ck_assert_str_eq(r.uri, owner.uri);
	/* No migration was seen; now there may be one. */
	ck_assert_int_eq(query().status, PHASE_NONE);
	ck_assert_int_eq(start(owner.uri, &e), 0);
	usleep(20000);
	ck_assert_int_eq(query().status, PHASE_SETUP);
}
END_TEST

START_TEST(check_is_refused_while_a_migration_is_under_way)
{
	struct err e;

	ck_assert_int_eq(start(owner.uri, &e), 0);
	ck_assert_int_eq(begin_check(owner.uri, &e), -1);
	ck_assert_msg(strstr(e.text, "a migration of this VM is under way already") != NULL, "%s",
		      e.text);
}
END_TEST

START_TEST(check_of_what_cannot_answer_is_refused)
{
	struct err e;

	ck_assert_int_eq(begin_check("file:/tmp/x", &e), -1);
	ck_assert_msg(strstr(e.text, "file:/tmp/x cannot be checked") != NULL, "%s", e.text);
	ck_assert_int_eq(begin_check("fd:7", &e), -1);
	ck_assert_msg(strstr(e.text, "fd:7 cannot be checked") != NULL, "%s", e.text);
	ck_assert_int_eq(begin_check("nonsense", &e), -1);
	ck_assert_int_eq(await_check(0).status, CHECK_NONE);
}
END_TEST

START_TEST(check_of_a_destination_that_is_not_there_says_so)
{
	struct check_report r;
	struct err e;

	ck_assert_int_eq(begin_check("unix:/nonexistent/socket", &e), 0);
	r = await_check(2000);
	ck_assert_int_eq(r.status, CHECK_FAILED);
	ck_assert_msg(strstr(r.error, "/nonexistent/socket") != NULL, "%s", r.error);
}
END_TEST

/* tear_down() hangs if it does not. */
START_TEST(end_of_the_vm_ends_its_check)
{
	struct err e;

	ck_assert_int_eq(begin_check(owner.uri, &e), 0);
}
END_TEST

START_TEST(end_of_the_vm_ends_its_migration)
{
	struct err e;

	ck_assert_int_eq(start(owner.uri, &e), 0);
	/* tear_down() hangs, or the time limit of the test passes, if it does not. */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("migration");
	TCase *all = tcase_create("one after the other");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(all, 30);
	tcase_add_checked_fixture(all, set_up, tear_down);
	tcase_add_test(all, dirty_limit_without_dirty_rings_is_refused_when_it_is_set);
	tcase_add_test(all, timeout_fails_the_migration_with_a_sentence);
	tcase_add_test(all, timeout_may_be_set_while_it_runs);
	tcase_add_test(all, timeout_that_was_taken_back_does_nothing);
	tcase_add_test(all, timeout_of_one_does_not_hit_the_next);
	tcase_add_test(all, cancel_of_a_silent_destination_takes_effect_at_once);
	tcase_add_test(all, cancel_does_not_wait_for_a_name_server);
	tcase_add_test(all, timeout_by_memory_counts_a_begun_gib);
	tcase_add_test(all, force_before_the_first_round_is_an_end);
	tcase_add_test(all, one_that_waits_for_its_turn_is_cancelled_at_once);
	tcase_add_test(all, time_that_it_waits_counts);
	tcase_add_test(all, one_that_waits_goes_on_when_its_turn_comes);
	tcase_add_test(all, policy_needs_a_runtime_directory);
	tcase_add_test(all, second_migration_is_refused_while_one_is_under_way);
	tcase_add_test(all, migration_may_begin_as_soon_as_the_last_is_over);
	tcase_add_test(all, check_keeps_a_migration_out_until_it_is_cancelled);
	tcase_add_test(all, check_is_refused_while_a_migration_is_under_way);
	tcase_add_test(all, check_of_what_cannot_answer_is_refused);
	tcase_add_test(all, check_of_a_destination_that_is_not_there_says_so);
	tcase_add_test(all, end_of_the_vm_ends_its_check);
	tcase_add_test(all, end_of_the_vm_ends_its_migration);
	suite_add_tcase(s, all);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
