/*
 * Where a destination listens, and its door: who comes in, who waits, who is sent away. Loopback
 * and unix sockets; callers are plain sockets that say what the test wants.
 */
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "migrate/channel/listeners.h"
#include "migrate/channel/uri.h"
#include "migrate/destination/door.h"
#include "migrate/destination/refusals.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"

static struct uri parsed(const char *text)
{
	struct err e = { "" };
	struct uri u;

	ck_assert_msg(uri_parse(text, &u, &e) == 0, "%s", e.text);
	return u;
}

/* -- where it listens -- */

static bool host_has_ipv6(void)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool has = fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0;

	if (fd >= 0)
		close(fd);
	return has;
}

static unsigned int port_of(int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);

	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	return ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
					      : ((struct sockaddr_in *)&sa)->sin_port);
}

static void can_be_reached(const char *host, unsigned int port)
{
	struct err e = { "" };
	char text[64];
	struct uri u;
	int fd;

	snprintf(text, sizeof(text), "tcp:%s:%u", host, port);
	u = parsed(text);
	fd = uri_connect(&u, NULL, -1, &e);
	ck_assert_msg(fd >= 0, "%s", e.text);
	close(fd);
}

START_TEST(all_addresses_of_a_name_are_listened_on_with_one_port)
{
	static const char *const names[] = { "tcp::0", "tcp:localhost:0" };
	struct uri u = parsed(names[_i]);
	struct err e = { "" };
	struct listeners l;
	char name[300];
	unsigned int port;

	ck_assert_msg(listeners_open(&l, &u, name, sizeof(name), &e) == 0, "%s", e.text);
	port = port_of(l.fd[0]);
	ck_assert_uint_ne(port, 0);
	for (unsigned int i = 1; i < l.n; i++)
		ck_assert_uint_eq(port_of(l.fd[i]), port);
	can_be_reached("127.0.0.1", port);
	/* A name may stand for IPv4 alone; everywhere is everywhere. */
	if (host_has_ipv6() && (_i == 0 || l.n > 1)) {
		can_be_reached("[::1]", port);
		ck_assert_ptr_nonnull(strstr(name, ", "));
	}
	listeners_close(&l);
	ck_assert_uint_eq(l.n, 0);
}
END_TEST

START_TEST(address_that_is_taken_is_refused)
{
	struct uri u = parsed("tcp:127.0.0.1:0"), again;
	struct listeners l, other;
	struct err e = { "" };
	char name[300];

	ck_assert_int_eq(listeners_open(&l, &u, name, sizeof(name), &e), 0);
	again = parsed(name);
	ck_assert_int_eq(listeners_open(&other, &again, name, sizeof(name), &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "Address already in use"));
	ck_assert_uint_eq(other.n, 0);
	/* Who connects to one that has stopped is told at once. */
	listeners_refuse(&l);
	ck_assert_int_eq(uri_connect(&again, NULL, -1, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "Connection refused"));
	listeners_close(&l);
}
END_TEST

START_TEST(unix_socket_is_replaced_only_when_nobody_answers_and_removed_only_when_ours)
{
	char dir[] = "/tmp/godwit-door-XXXXXX", text[64], name[300];
	struct listeners first, second;
	struct err e = { "" };
	struct stat st;
	struct uri u;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(text, sizeof(text), "unix:%s/s", dir);
	u = parsed(text);
	ck_assert_int_eq(listeners_open(&first, &u, name, sizeof(name), &e), 0);
	ck_assert_int_eq(stat(u.path, &st), 0);
	ck_assert_int_eq(st.st_mode & 0777, 0600);
	ck_assert_int_eq(listeners_open(&second, &u, name, sizeof(name), &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "in use by another process"));
	/* As if its process had been killed. */
	listeners_refuse(&first);
	ck_assert_msg(listeners_open(&second, &u, name, sizeof(name), &e) == 0, "%s", e.text);
	listeners_close(&first);
	ck_assert_int_eq(stat(u.path, &st), 0);
	listeners_close(&second);
	ck_assert_int_eq(stat(u.path, &st), -1);
	ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

/* -- the door -- */

struct scene {
	struct listeners listeners;
	struct refusals refusals;
	struct door_shared shared;
	struct door door;
	struct uri there;
	uint64_t received; /* atomic: what the arrival says */
	char why[128];
	bool given_up; /* atomic */
};

static void open_scene(struct scene *s, int silence_ms)
{
	struct uri any = parsed("tcp:127.0.0.1:0");
	char name[300];

	memset(s, 0, sizeof(*s));
	ck_assert_int_eq(listeners_open(&s->listeners, &any, name, sizeof(name), NULL), 0);
	s->there = parsed(name);
	s->shared = (struct door_shared){ .listeners = &s->listeners, .refusals = &s->refusals };
	ck_assert_int_eq(door_make_passage(s->shared.passed_on, NULL), 0);
	door_init(&s->door, &s->shared, silence_ms);
	ck_assert_int_eq(door_open(&s->door, NULL), 0);
}

static void close_scene(struct scene *s)
{
	door_close(&s->door);
	listeners_close(&s->listeners);
	close(s->shared.passed_on[0]);
	close(s->shared.passed_on[1]);
}

/* One that says HELLO, and a machine with that label if it is a source. */
static struct channel *caller(struct scene *s, enum hello_role role, const char *label)
{
	struct hello h = { .role = role, .lanes = 2 };
	int fd = uri_connect(&s->there, NULL, -1, NULL);
	struct writer w = { 0 };
	struct tree t;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(socket_channel(&w.channel, fd, "destination", -1, NULL), 0);
	channel_set_deadline(w.channel, 30000);
	memcpy(h.id, "0123456789abcdef", sizeof(h.id));
	ck_assert_int_eq(hello_send(&w, &h, NULL), 0);
	if (role != ROLE_MAIN)
		return w.channel;
	ck_assert_int_eq(tree_init(&t, NULL), 0);
	ck_assert_int_eq(tree_set_str(&t, "/", "label", label, NULL), 0);
	tree_pack(&t);
	ck_assert_int_eq(
		writer_record(&w, RECORD_MACHINE, t.fdt, tree_bytes_used(&t), NULL, 0, NULL), 0);
	tree_free(&t);
	return w.channel;
}

static void is_called(const struct heard *h, const char *label)
{
	const char *text;

	ck_assert_int_eq(tree_str(&h->machine, "/", "label", &text, NULL), 0);
	ck_assert_str_eq(text, label);
}

/* What it is told before the connection ends. */
static void is_told(struct channel *ch, const char *text)
{
	struct reader r = { .channel = ch, .answers = true };
	struct record rec;
	char said[200];

	ck_assert_int_eq(reader_record(&r, &rec, NULL), 0);
	ck_assert_int_eq(rec.type, RECORD_CHECKED);
	record_text(&rec, said, sizeof(said));
	ck_assert_str_eq(said, text);
	reader_free(&r);
	channel_close(ch);
}

static uint64_t received(void *arg)
{
	return __atomic_load_n(&((struct scene *)arg)->received, __ATOMIC_RELAXED);
}

static void give_up(void *arg, const char *why)
{
	struct scene *s = arg;

	if (__atomic_load_n(&s->given_up, __ATOMIC_ACQUIRE))
		return;
	snprintf(s->why, sizeof(s->why), "%s", why);
	__atomic_store_n(&s->given_up, true, __ATOMIC_RELEASE);
}

/* The first caller comes in, the door is shut for the rights, and its arrival watched. */
static void let_one_in(struct scene *s, struct heard *first)
{
	const struct door_arrival arrival = { received, give_up, s };

	ck_assert_int_eq(door_next(&s->door, first, NULL), 0);
	door_shut(&s->door);
	ck_assert_int_eq(door_enter(&s->door, -1, 5000, NULL), 0);
	ck_assert_int_eq(door_watch(&s->door, &arrival, NULL), 0);
}

static void await(bool *flag)
{
	while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE))
		usleep(1000);
}

START_TEST(silent_arrival_is_given_up)
{
	struct heard first;
	struct channel *a;
	struct scene s;

	open_scene(&s, 200);
	a = caller(&s, ROLE_MAIN, "a");
	let_one_in(&s, &first);
	await(&s.given_up);
	ck_assert_ptr_nonnull(strstr(s.why, "the source has sent nothing for"));
	door_unwatch(&s.door);
	heard_dismiss(&first, NULL);
	channel_close(a);
	close_scene(&s);
}
END_TEST

START_TEST(source_that_comes_while_another_is_silent_gets_in_after_it)
{
	struct heard first, second;
	struct channel *a, *b;
	struct scene s;

	open_scene(&s, 600000);
	s.door.contended_ms = 300;
	a = caller(&s, ROLE_MAIN, "a");
	let_one_in(&s, &first);
	b = caller(&s, ROLE_MAIN, "b");
	await(&s.given_up);
	ck_assert_ptr_nonnull(strstr(s.why, "another one waits"));
	/* This process is over; the next one hears of it. */
	door_pass_on(&s.door);
	heard_dismiss(&first, NULL);
	door_init(&s.door, &s.shared, 1000);
	ck_assert_int_eq(door_open(&s.door, NULL), 0);
	ck_assert_int_eq(door_next(&s.door, &second, NULL), 0);
	is_called(&second, "b");
	ck_assert_uint_eq(second.hello.lanes, 2);
	ck_assert_uint_eq(second.reader.sequence, 2);
	heard_dismiss(&second, "seen");
	is_told(b, "seen");
	channel_close(a);
	close_scene(&s);
}
END_TEST

START_TEST(source_that_comes_while_another_is_at_work_is_told_so)
{
	struct heard first;
	struct channel *a, *b;
	struct scene s;

	open_scene(&s, 600000);
	a = caller(&s, ROLE_MAIN, "a");
	let_one_in(&s, &first);
	is_told(caller(&s, ROLE_PROBE, NULL), CALLERS_BUSY);
	b = caller(&s, ROLE_MAIN, "b");
	for (int i = 0; i < 20; i++) {
		__atomic_add_fetch(&s.received, DOOR_WORK_BYTES, __ATOMIC_RELAXED);
		usleep(100000);
	}
	is_told(b, CALLERS_BUSY);
	ck_assert(!__atomic_load_n(&s.given_up, __ATOMIC_ACQUIRE));
	door_unwatch(&s.door);
	heard_dismiss(&first, NULL);
	channel_close(a);
	close_scene(&s);
}
END_TEST

/* A byte now and then would keep everybody else out for ever. */
START_TEST(source_that_sends_next_to_nothing_gives_way_to_one_that_waits)
{
	struct heard first;
	struct channel *a, *b;
	struct scene s;

	open_scene(&s, 600000);
	s.door.contended_ms = 1000;
	a = caller(&s, ROLE_MAIN, "a");
	let_one_in(&s, &first);
	b = caller(&s, ROLE_MAIN, "b");
	while (!__atomic_load_n(&s.given_up, __ATOMIC_ACQUIRE)) {
		__atomic_add_fetch(&s.received, 1, __ATOMIC_RELAXED);
		usleep(100000);
	}
	door_unwatch(&s.door);
	ck_assert_uint_eq(s.door.n_waiting, 1);
	heard_dismiss(&first, NULL);
	channel_close(a);
	channel_close(b);
	close_scene(&s);
}
END_TEST

START_TEST(further_connections_are_told_from_others)
{
	struct channel *a, *lane, *stray, *other;
	struct heard first, further;
	struct scene s;
	uint8_t id[16];

	open_scene(&s, 1000);
	a = caller(&s, ROLE_MAIN, "a");
	ck_assert_int_eq(door_next(&s.door, &first, NULL), 0);
	memcpy(id, first.hello.id, sizeof(id));
	door_shut(&s.door);
	ck_assert_int_eq(door_enter(&s.door, -1, 5000, NULL), 0);
	other = caller(&s, ROLE_MAIN, "other");
	stray = caller(&s, ROLE_PROBE, NULL);
	lane = caller(&s, ROLE_PAGES, NULL);
	ck_assert_int_eq(door_lane(&s.door, id, clock_us() + 30000000, &further, NULL), 0);
	ck_assert_int_eq(further.hello.role, ROLE_PAGES);
	id[0] ^= 1;
	channel_close(lane);
	lane = caller(&s, ROLE_PAGES, NULL);
	{
		struct heard none;

		ck_assert_int_eq(door_lane(&s.door, id, clock_us() + 300000, &none, NULL), -1);
	}
	is_told(stray, CALLERS_BUSY);
	heard_dismiss(&first, NULL);
	heard_dismiss(&further, NULL);
	door_close(&s.door);
	is_told(other, CALLERS_BUSY);
	channel_close(a);
	channel_close(lane);
	close_scene(&s);
}
END_TEST

/* Whether a caller has said all it must, and waits to be taken. */
static bool is_let_in(struct callers *cs)
{
	bool there = false, spoken = true;

	for (unsigned int i = 0; i < CALLERS_MAX; i++)
		there |= cs->caller[i].there;
	for (unsigned int i = 0; i < CALLERS_MAX && there; i++) {
		pthread_mutex_lock(&cs->lock);
		spoken &= !cs->caller[i].there || cs->caller[i].spoken;
		pthread_mutex_unlock(&cs->lock);
	}
	return there && spoken;
}

/* Whoever waits when a machine is refused, or made, has its turn after it. */
START_TEST(complete_callers_have_their_turn_one_after_the_other)
{
	struct channel *a, *b, *c;
	struct heard h, late;
	struct scene s;

	open_scene(&s, 1000);
	a = caller(&s, ROLE_MAIN, "a");
	ck_assert_int_eq(door_next(&s.door, &h, NULL), 0);
	is_called(&h, "a");
	heard_dismiss(&h, "no");
	is_told(a, "no");
	b = caller(&s, ROLE_MAIN, "b");
	ck_assert_int_eq(door_next(&s.door, &h, NULL), 0);
	is_called(&h, "b");
	c = caller(&s, ROLE_MAIN, "c");
	/* It says all it has to while b's machine is made, and the door is shut for the rights. */
	while (!s.door.n_waiting && !is_let_in(&s.door.callers))
		if (callers_next(&s.door.callers, 1, &late, NULL) == 0)
			s.door.waiting[s.door.n_waiting++] = late;
	door_shut(&s.door);
	ck_assert_uint_eq(s.door.n_waiting, 1);
	ck_assert_int_eq(door_open(&s.door, NULL), 0);
	heard_dismiss(&h, NULL);
	ck_assert_int_eq(door_next(&s.door, &h, NULL), 0);
	is_called(&h, "c");
	heard_dismiss(&h, NULL);
	channel_close(b);
	channel_close(c);
	close_scene(&s);
}
END_TEST

START_TEST(want_of_descriptors_does_not_end_the_waiting)
{
	struct rlimit usual, none;
	struct channel *starved, *a;
	struct scene s;
	struct heard h;
	int top;

	open_scene(&s, 1000);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &usual), 0);
	starved = caller(&s, ROLE_PROBE, NULL);
	/* The next descriptor is one too many. */
	top = dup(0);
	close(top);
	none = (struct rlimit){ (rlim_t)top, usual.rlim_max };
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(callers_next(&s.door.callers, 100, &h, NULL), 1);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &usual), 0);
	a = caller(&s, ROLE_MAIN, "a");
	ck_assert_int_eq(door_next(&s.door, &h, NULL), 0);
	is_called(&h, "a");
	heard_dismiss(&h, NULL);
	channel_close(a);
	channel_close(starved);
	close_scene(&s);
}
END_TEST

START_TEST(refusals_are_told_a_line_a_minute_at_most)
{
	struct refusals r = { 0 };
	uint64_t untold = 9;

	ck_assert(refusals_due(&r, 1000, &untold));
	ck_assert_uint_eq(untold, 0);
	for (int i = 0; i < 1000; i++)
		ck_assert(!refusals_due(&r, 2000 + (uint64_t)i, &untold));
	ck_assert(refusals_due(&r, 1000 + REFUSALS_PAUSE_US, &untold));
	ck_assert_uint_eq(untold, 1000);
	ck_assert(refusals_due(&r, 1000 + 2 * REFUSALS_PAUSE_US, &untold));
	ck_assert_uint_eq(untold, 0);
}
END_TEST

#define TELLERS	    4
#define TOLD_BY_ONE 20000

struct tellers {
	struct refusals refusals;
	pthread_barrier_t begin;
	uint64_t lines, untold; /* atomic */
};

static void *tell(void *arg)
{
	struct tellers *t = arg;
	uint64_t untold;

	pthread_barrier_wait(&t->begin);
	for (uint64_t i = 0; i < TOLD_BY_ONE; i++) {
		/* A line is due at every tenth time. */
		if (!refusals_due(&t->refusals, 1 + i / 10 * REFUSALS_PAUSE_US, &untold))
			continue;
		__atomic_fetch_add(&t->lines, 1, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(&t->untold, untold, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

START_TEST(refusals_of_several_threads_are_told_once_and_all_counted)
{
	struct tellers t = { 0 };
	pthread_t threads[TELLERS];

	pthread_barrier_init(&t.begin, NULL, TELLERS);
	for (int i = 0; i < TELLERS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, tell, &t), 0);
	for (int i = 0; i < TELLERS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&t.begin);
	ck_assert_uint_le(t.lines, TOLD_BY_ONE / 10);
	ck_assert_uint_eq(t.lines + t.untold + t.refusals.untold, TELLERS * TOLD_BY_ONE);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("door");
	TCase *where = tcase_create("where it listens"), *door = tcase_create("door");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_set_timeout(door, 60);
	tcase_add_loop_test(where, all_addresses_of_a_name_are_listened_on_with_one_port, 0, 2);
	tcase_add_test(where, address_that_is_taken_is_refused);
	tcase_add_test(where,
		       unix_socket_is_replaced_only_when_nobody_answers_and_removed_only_when_ours);
	tcase_add_test(door, silent_arrival_is_given_up);
	tcase_add_test(door, source_that_comes_while_another_is_silent_gets_in_after_it);
	tcase_add_test(door, source_that_comes_while_another_is_at_work_is_told_so);
	tcase_add_test(door, source_that_sends_next_to_nothing_gives_way_to_one_that_waits);
	tcase_add_test(door, further_connections_are_told_from_others);
	tcase_add_test(door, complete_callers_have_their_turn_one_after_the_other);
	tcase_add_test(door, want_of_descriptors_does_not_end_the_waiting);
	tcase_add_test(door, refusals_are_told_a_line_a_minute_at_most);
	tcase_add_test(door, refusals_of_several_threads_are_told_once_and_all_counted);
	suite_add_tcase(s, where);
	suite_add_tcase(s, door);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
