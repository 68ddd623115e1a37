/*
 * Checks and their probe of the link: what is measured, that the guest is as it was however it
 * ends, and that a destination goes on waiting whatever a probe does. The destination is a real
 * one, on loopback, and waits on a thread of its own; the guest is fake.
 */
#include <check.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/destination/callers.h"
#include "migrate/channel/channel.h"
#include "migrate/channel/listeners.h"
#include "migrate/channel/uri.h"
#include "migrate/check/check.h"
#include "migrate/destination/destination.h"
#include "migrate/destination/door.h"
#include "migrate/check/probe.h"
#include "migrate/destination/refusals.h"
#include "tests/unit/lib/engine_rig.h"
#include "vmm/base/clock.h"
#include "vmm/memory.h"

static struct {
	struct uri there;
	struct listeners listeners;
	struct refusals refusals;
	struct door door;
	pthread_t thread;
	struct destination destination;
	struct tree machine;
	int rc;
	struct err e;
	bool over; /* atomic */
} waiting;

static void *wait_for_source(void *arg)
{
	(void)arg;
	waiting.rc = destination_accept(&waiting.destination, &waiting.door, -1, &waiting.machine,
					&waiting.e);
	door_shut(&waiting.door);
	__atomic_store_n(&waiting.over, true, __ATOMIC_RELEASE);
	return NULL;
}

static void set_up(void)
{
	const struct door_shared shared = { &waiting.listeners, &waiting.refusals, { -1, -1 } };
	struct uri any;
	char name[300];

	uri_parse("tcp:127.0.0.1:0", &any, NULL);
	ck_assert_int_eq(listeners_open(&waiting.listeners, &any, name, sizeof(name), NULL), 0);
	ck_assert_int_eq(uri_parse(name, &waiting.there, NULL), 0);
	door_init(&waiting.door, &shared, DOOR_SILENCE_MS);
	ck_assert_int_eq(door_open(&waiting.door, NULL), 0);
	pthread_create(&waiting.thread, NULL, wait_for_source, NULL);
}

static struct channel *connect_there(int stop_fd)
{
	struct channel *ch;

	ck_assert_int_eq(socket_channel(&ch, uri_connect(&waiting.there, NULL, -1, NULL),
					"destination", stop_fd, NULL),
			 0);
	return ch;
}

/* HELLO, and MACHINE for a migration. */
static struct writer say_hello(enum hello_role role)
{
	struct hello h = { .role = role, .lanes = 1 };
	struct writer w = { .channel = connect_there(-1) };
	struct tree t;

	ck_assert_int_eq(hello_send(&w, &h, NULL), 0);
	if (role != ROLE_MAIN)
		return w;
	ck_assert_int_eq(tree_init(&t, NULL), 0);
	ck_assert_int_eq(
		writer_record(&w, RECORD_MACHINE, t.fdt, tree_bytes_used(&t), NULL, 0, NULL), 0);
	tree_free(&t);
	return w;
}

/* It still takes a migration in. */
static void tear_down(void)
{
	struct writer w;

	ck_assert(!__atomic_load_n(&waiting.over, __ATOMIC_ACQUIRE));
	w = say_hello(ROLE_MAIN);
	pthread_join(waiting.thread, NULL);
	ck_assert_msg(waiting.rc == 0, "%s", waiting.e.text);
	tree_free(&waiting.machine);
	destination_free(&waiting.destination);
	channel_close(w.channel);
	listeners_close(&waiting.listeners);
}

static int measure(uint64_t bandwidth, struct probe *out, struct err *e)
{
	struct channel *ch = connect_there(-1);
	int rc = probe_measure(ch, bandwidth, -1, out, e);

	channel_close(ch);
	return rc;
}

START_TEST(link_is_measured_again_and_again)
{
	struct probe p;
	struct err e;

	for (unsigned int i = 0; i < 2 * CALLERS_MAX; i++) {
		ck_assert_msg(measure(0, &p, &e) == 0, "%s", e.text);
		ck_assert_uint_gt(p.rate_bytes, 10 << 20);
		ck_assert_uint_gt(p.round_trip_us, 0);
	}
}
END_TEST

START_TEST(bandwidth_is_kept_and_measured)
{
	const uint64_t rate = _i ? 20 << 20 : 256 << 10;
	uint64_t start = clock_us();
	struct probe p;
	struct err e;

	ck_assert_msg(measure(rate, &p, &e) == 0, "%s", e.text);
	ck_assert_uint_le(p.rate_bytes, rate);
	ck_assert_uint_ge(p.rate_bytes, rate / 2);
	ck_assert_uint_lt(clock_us() - start, 3000000);
}
END_TEST

/* What is wrong with each: the destination ends it, without a word that could be taken for more. */
static void misbehave(struct writer *w, int which)
{
	static uint8_t bytes[PROBE_DATA_MAX + 1];
	uint8_t number[4];
	struct iovec data;
	unsigned int i;

	switch (which) {
	case 0: /* half a record */
		data = (struct iovec){ bytes, 20 };
		channel_write(w->channel, &data, 1, NULL);
		channel_shutdown(w->channel);
		break;
	case 1: /* a record that is too long */
		data = (struct iovec){ bytes, PROBE_DATA_MAX + 1 };
		writer_record(w, RECORD_PROBE, NULL, 0, &data, 1, NULL);
		break;
	case 2: /* too many */
		for (i = 0; i <= PROBE_BYTES_MAX / PROBE_DATA_MAX; i++) {
			data = (struct iovec){ bytes, PROBE_DATA_MAX };
			writer_record(w, RECORD_PROBE, NULL, 0, &data, 1, NULL);
		}
		break;
	case 3: /* too many rounds */
		for (i = 1; i <= PROBE_ROUNDS_MAX + 1; i++) {
			put_u32(number, i);
			writer_record(w, RECORD_ROUND, number, sizeof(number), NULL, 0, NULL);
		}
		break;
	case 4: /* a round that is not its turn */
		put_u32(number, 2);
		writer_record(w, RECORD_ROUND, number, sizeof(number), NULL, 0, NULL);
		break;
	case 5: /* a machine after all */
		writer_record(w, RECORD_MACHINE, bytes, 100, NULL, 0, NULL);
		break;
	case 6: /* GO */
		writer_record(w, RECORD_GO, NULL, 0, NULL, 0, NULL);
		break;
	default: /* nothing: one record without data, for ever */
		while (writer_record(w, RECORD_PROBE, NULL, 0, NULL, 0, NULL) == 0)
			;
	}
}

START_TEST(probe_that_goes_too_far_is_cut_off)
{
	struct writer w = say_hello(ROLE_PROBE);
	struct reader r = { .channel = w.channel, .answers = true };
	struct record rec;
	unsigned int rounds = 0;

	ck_assert_int_eq(reader_record(&r, &rec, NULL), 0);
	ck_assert(rec.type == RECORD_CHECKED && !rec.body_bytes);
	misbehave(&w, _i);
	while (reader_record(&r, &rec, NULL) == 0) {
		ck_assert_int_eq(rec.type, RECORD_ROUND);
		ck_assert_uint_le(++rounds, PROBE_ROUNDS_MAX);
	}
	reader_free(&r);
	channel_close(w.channel);
}
END_TEST

/* tear_down's migration comes in while they are under way. */
static struct channel *silent[2 * CALLERS_MAX];

START_TEST(probes_that_never_end_keep_no_migration_waiting)
{
	for (unsigned int i = 0; i < 2 * CALLERS_MAX; i++)
		silent[i] = say_hello(ROLE_PROBE).channel;
}
END_TEST

START_TEST(probe_is_cancelled_at_once)
{
	int stop_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	struct channel *ch = connect_there(-1);
	struct probe p;
	struct err e;

	/* In a nap: by the bandwidth it would take a day. */
	ck_assert_int_eq(probe_measure(ch, 1, stop_fd, &p, &e), -1);
	ck_assert_msg(strstr(e.text, "cancelled") != NULL, "%s", e.text);
	channel_close(ch);
	/* In a wait for the destination. */
	ch = connect_there(stop_fd);
	ck_assert_int_eq(probe_measure(ch, 0, -1, &p, &e), -1);
	ck_assert_msg(strstr(e.text, "cancelled") != NULL, "%s", e.text);
	channel_close(ch);
	close(stop_fd);
}
END_TEST

/* -- the whole -- */

static const uint64_t pages[] = { 1100, 70 };

static struct fake *make_guest(void)
{
	struct fake *f = fake_new(NULL, 2, pages);

	fake_fill(f, 7);
	return f;
}

static int check_guest(struct fake *f, uint64_t bandwidth, int stop_fd, struct check *c,
		       struct err *e)
{
	bool ran = f->runs;
	int rc;

	*c = (struct check){ .guest = &f->guest,
			     .channel = connect_there(stop_fd),
			     .stop_fd = stop_fd,
			     .bandwidth = bandwidth,
			     .in = { .limit_us = 50000, .fixed_us = 5000 } };
	rc = check_run(c, e);
	channel_close(c->channel);
	ck_assert(!f->logging && !f->shared && !f->parks && !f->saves && !f->releases);
	ck_assert_uint_eq(f->highest_permille, 0);
	ck_assert_int_eq(f->runs, ran);
	return rc;
}

START_TEST(idle_guest_converges_and_is_as_it_was)
{
	struct fake *f = make_guest();
	uint64_t sum = fake_sum(f), touched = 0;
	struct check c;
	struct err e;

	f->log_is_taken = _i;
	for (unsigned int b = 0; b < 2; b++)
		for (uint64_t i = 0; i < pages[b]; i++)
			touched += i % 3 != 0;
	ck_assert_msg(check_guest(f, 20 << 20, -1, &c, &e) == 0, "%s", e.text);
	ck_assert_int_eq(c.prediction.answer, PREDICT_CONVERGES);
	ck_assert_uint_eq(c.touched_bytes, touched * PAGE_SIZE);
	/* A fifth of them is zero. */
	ck_assert_uint_gt(c.zero_bytes, c.touched_bytes / 6);
	ck_assert_uint_lt(c.zero_bytes, c.touched_bytes / 4);
	ck_assert_uint_eq(c.in.send_bytes, c.touched_bytes - c.zero_bytes);
	for (unsigned int i = 0; i < c.in.n_looks; i++)
		ck_assert_uint_eq(c.in.look[i].bytes, 0);
	ck_assert_uint_eq(fake_sum(f), sum);
	fake_free(f);
}
END_TEST

static const struct guest_ops *usual;
static unsigned int fetches;

/* Something is written between the two times that the log is cleared, far behind the first step. */
static int write_and_fetch(struct guest *g, unsigned int block, uint64_t *bits, struct err *e)
{
	if (!fetches++)
		fake_write((struct fake *)g, 0, 70001, 3, 1);
	return usual->log_fetch(g, block, bits, e);
}

START_TEST(all_of_a_large_guest_is_clear_before_it_is_looked_at)
{
	static const uint64_t large[] = { 70100, 70 };
	struct fake *f = fake_new(NULL, 2, large);
	struct guest_ops ops = *f->guest.ops;
	struct check c;
	struct err e;

	fetches = 0;
	usual = f->guest.ops;
	ops.log_fetch = write_and_fetch;
	f->guest.ops = &ops;
	fake_write(f, 0, 0, 0, 1);
	ck_assert_msg(check_guest(f, 20 << 20, -1, &c, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(c.touched_bytes, 2 * PAGE_SIZE);
	for (unsigned int i = 0; i < c.in.n_looks; i++)
		ck_assert_uint_eq(c.in.look[i].bytes, 0);
	f->guest.ops = usual;
	fake_free(f);
}
END_TEST

START_TEST(working_set_is_seen)
{
	struct fake *f = make_guest();
	const struct predict_look *last;
	struct check c;
	struct err e;

	f->log_is_taken = _i;
	f->writers = 1;
	f->writer_pages = 300;
	f->writer_rest_us = 20;
	fake_run(f);
	ck_assert_msg(check_guest(f, 1 << 20, -1, &c, &e) == 0, "%s", e.text);
	last = &c.in.look[c.in.n_looks - 1];
	/* 300 pages of the one block, 70 of the other. */
	ck_assert_uint_eq(last->bytes, 370 * PAGE_SIZE);
	for (unsigned int i = 1; i < c.in.n_looks; i++) {
		ck_assert_uint_ge(c.in.look[i].bytes, c.in.look[i - 1].bytes);
		ck_assert_uint_gt(c.in.look[i].us, c.in.look[i - 1].us);
	}
	ck_assert_msg(c.prediction.answer == PREDICT_NEVER, "%s", c.prediction.sentence);
	ck_assert_uint_gt(__atomic_load_n(&f->writes, __ATOMIC_RELAXED), 0);
	fake_free(f);
}
END_TEST

static struct {
	int fd;
	unsigned int after_us;
} cancel;

static void *cancel_soon(void *arg)
{
	(void)arg;
	usleep(cancel.after_us);
	rig_stop(cancel.fd);
	return NULL;
}

/* At any moment of it, the probe and the sample. */
START_TEST(cancelled_check_leaves_the_guest_as_it_was)
{
	static const unsigned int after_us[] = { 0, 200000, 700000, 1200000 };
	struct fake *f = make_guest();
	uint64_t start = clock_us();
	pthread_t thread;
	struct check c;
	struct err e;

	cancel.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	cancel.after_us = after_us[_i];
	f->writers = 1;
	f->writer_pages = 50;
	f->writer_rest_us = 100;
	fake_run(f);
	pthread_create(&thread, NULL, cancel_soon, NULL);
	ck_assert_int_eq(check_guest(f, 1 << 20, cancel.fd, &c, &e), -1);
	ck_assert_msg(strstr(e.text, "cancelled") != NULL, "%s", e.text);
	ck_assert_uint_lt(clock_us() - start, cancel.after_us + 500000u);
	pthread_join(thread, NULL);
	fake_free(f);
	close(cancel.fd);
}
END_TEST

START_TEST(log_that_cannot_be_had_is_said)
{
	struct fake *f = make_guest();
	struct check c;
	struct err e;

	f->fail_log = "no dirty log today";
	ck_assert_int_eq(check_guest(f, 0, -1, &c, &e), -1);
	ck_assert_str_eq(e.text, "no dirty log today");
	fake_free(f);
}
END_TEST

/* -- a destination that lies -- */

static int measure_against(const uint8_t *answers, size_t len, struct err *e)
{
	struct channel *ch;
	struct probe p;
	int rc;

	ck_assert_int_eq(memory_channel(&ch, answers, len, NULL), 0);
	rc = probe_measure(ch, 0, -1, &p, e);
	channel_close(ch);
	return rc;
}

START_TEST(destination_that_lies_is_found_out)
{
	static const char *const expected[] = { "refuses: no room", "another round than 1",
						"where ROUND was expected", "measuring the link" };
	struct writer w = { 0 };
	uint8_t number[4];
	struct err e;

	ck_assert_int_eq(memory_channel(&w.channel, NULL, 0, NULL), 0);
	writer_record(&w, RECORD_CHECKED, "no room", _i ? 0 : 7, NULL, 0, NULL);
	put_u32(number, 7);
	if (_i == 1)
		writer_record(&w, RECORD_ROUND, number, sizeof(number), NULL, 0, NULL);
	else if (_i == 2)
		writer_record(&w, RECORD_READY, NULL, 0, NULL, 0, NULL);
	ck_assert_int_eq(measure_against(memory_channel_written(w.channel), w.channel->bytes, &e),
			 -1);
	ck_assert_msg(strstr(e.text, expected[_i]) != NULL, "%s", e.text);
	channel_close(w.channel);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("check");
	TCase *whole = tcase_create("the whole");
	TCase *live = tcase_create("a destination that waits"), *lies = tcase_create("lies");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(live, 60);
	tcase_add_checked_fixture(live, set_up, tear_down);
	tcase_set_timeout(whole, 60);
	tcase_add_checked_fixture(whole, set_up, tear_down);
	tcase_add_test(live, link_is_measured_again_and_again);
	tcase_add_loop_test(live, bandwidth_is_kept_and_measured, 0, 2);
	tcase_add_loop_test(live, probe_that_goes_too_far_is_cut_off, 0, 8);
	tcase_add_test(live, probes_that_never_end_keep_no_migration_waiting);
	tcase_add_test(live, probe_is_cancelled_at_once);
	tcase_add_loop_test(whole, idle_guest_converges_and_is_as_it_was, 0, 2);
	tcase_add_test(whole, all_of_a_large_guest_is_clear_before_it_is_looked_at);
	tcase_add_loop_test(whole, working_set_is_seen, 0, 2);
	tcase_add_loop_test(whole, cancelled_check_leaves_the_guest_as_it_was, 0, 4);
	tcase_add_test(whole, log_that_cannot_be_had_is_said);
	tcase_add_loop_test(lies, destination_that_lies_is_found_out, 0, 4);
	suite_add_tcase(s, live);
	suite_add_tcase(s, whole);
	suite_add_tcase(s, lies);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
