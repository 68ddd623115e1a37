/*
 * Migrations that cannot succeed: something goes wrong at one side, the destination refuses, or it
 * lies. Each time the guest goes on at the source, undisturbed, and both sides say why.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/destination/callers.h"
#include "migrate/channel/channel.h"
#include "migrate/stream/body.h"
#include "migrate/stream/hello.h"
#include "tests/unit/lib/engine_rig.h"

#define N(a) ((int)(sizeof(a) / sizeof((a)[0])))

/* -- what goes wrong at one side is heard at the other -- */

START_TEST(failure_at_either_side_is_told_at_both_and_harms_nobody)
{
	static const char why[] = "no luck today";
	unsigned int fds, threads;
	struct rig r;

	rig_count(&fds, &threads);
	rig_init(&r, RIG_TCP);
	r.source.n_lanes = _i % 2 ? 3 : 1;
	*(const char **[]){ &r.src->fail_log,  &r.src->fail_park, &r.src->fail_save,
			    &r.src->fail_sync, &r.dst->fail_load, &r.dst->fail_start,
			    &r.refusal }[_i / 2] = why;
	rig_run(&r);
	ck_assert_int_eq(r.source_rc, -1);
	ck_assert_int_eq(source_owner(r.engine), OWNER_SOURCE);
	ck_assert_msg(strstr(r.source_error.text, why), "source: %s", r.source_error.text);
	if (!r.refusal) /* who refuses has said it himself */
		ck_assert_msg(strstr(r.destination_error.text, why), "destination: %s",
			      r.destination_error.text);
	ck_assert_uint_eq(r.src->unparks, r.src->parks);
	rig_check(&r);
	rig_free(&r);
	rig_check_count(fds, threads);
}
END_TEST

START_TEST(guest_that_cannot_be_resumed_is_paused_and_both_reasons_are_told)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.dst->fail_load = "first reason";
	r.src->fail_unpark = "second reason";
	rig_run(&r);
	ck_assert_msg(strstr(r.source_error.text, "first reason") &&
			      strstr(r.source_error.text, "second reason"),
		      "%s", r.source_error.text);
	ck_assert(source_is_stuck(r.engine) && !r.src->runs && !r.dst->runs && !r.world.doubled);
	ck_assert_int_eq(source_owner(r.engine), OWNER_SOURCE);
	rig_free(&r);
}
END_TEST

/* -- lanes that do not come, and others that do -- */

static struct channel *no_more(void *arg, struct err *e)
{
	(void)arg;
	err_set(e, "no route");
	return NULL;
}

START_TEST(lanes_that_cannot_connect_end_it_on_both_sides)
{
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.source.n_lanes = 2;
	r.source.events.connect = no_more;
	/* The first connection is not made by it. */
	r.lanes_ms = 50;
	r.link = RIG_PROXY;
	rig_start(&r);
	rig_finish(&r);
	ck_assert_msg(strstr(r.source_error.text, "no route"), "%s", r.source_error.text);
	ck_assert_msg(strstr(r.destination_error.text, "further connections"), "%s",
		      r.destination_error.text);
	rig_check(&r);
	rig_free(&r);
}
END_TEST

static struct channel *(*connect_real)(void *arg, struct err *e);

/* They connect and say nothing, or half a word, until the test is over. */
static int silent[2 * CALLERS_MAX];
static unsigned int n_silent;

static void connect_silent(const struct uri *u, unsigned int n)
{
	while (n--) {
		int fd = uri_connect(u, NULL, -1, NULL);

		ck_assert_int_ge(fd, 0);
		if (n % 2)
			ck_assert_int_eq(write(fd, "\1", 1), 1);
		silent[n_silent++] = fd;
	}
}

static void end_silent(void)
{
	while (n_silent)
		close(silent[--n_silent]);
}

struct sayer {
	const struct uri *uri;
	struct channel *channel;
};

/* HELLO and MACHINE, as a source says them. */
static void *say_machine(void *arg)
{
	struct hello h = { .version = STREAM_VERSION,
			   .page_bytes = 4096,
			   .role = ROLE_MAIN,
			   .lanes = 1,
			   .arch = "x86_64" };
	struct sayer *s = arg;
	struct writer w = { 0 };
	uint8_t body[HELLO_BYTES];
	struct tree t;

	ck_assert_int_eq(tree_init(&t, NULL), 0);
	socket_channel(&s->channel, uri_connect(s->uri, NULL, -1, NULL), "destination", -1, NULL);
	w.channel = s->channel;
	hello_encode(&h, body);
	writer_record(&w, RECORD_HELLO, body, sizeof(body), NULL, 0, NULL);
	writer_record(&w, RECORD_MACHINE, t.fdt, tree_bytes_used(&t), NULL, 0, NULL);
	tree_free(&t);
	return NULL;
}

/* Another source, which is told only when it is known that the one before it is at work. */
static struct sayer others[LANES_MAX];
static unsigned int n_others;

/* Before each further lane: somebody else, who says what the index means. */
static struct channel *connect_after_strangers(void *arg, struct err *e)
{
	struct hello h = { .version = STREAM_VERSION, .page_bytes = 4096, .role = ROLE_PAGES };
	struct rig *r = arg;
	uint8_t body[HELLO_BYTES];
	unsigned int i;

	memcpy(h.arch, "x86_64", 7);
	for (i = 0; i < 5; i++) {
		struct writer w = { 0 };
		int fd = uri_connect(&r->uri, NULL, -1, NULL);

		ck_assert_int_eq(socket_channel(&w.channel, fd, "stranger", -1, NULL), 0);
		if (i == 0)
			ck_assert_int_eq(write(fd, "GET / HTTP/1.0\r\n\r\n and a bit more", 32),
					 32);
		if (i == 1) {
			h.role = ROLE_PAGES;
			h.lanes = 1;
			hello_encode(&h, body);
			writer_record(&w, RECORD_HELLO, body, sizeof(body), NULL, 0, NULL);
		}
		if (i == 2) {
			others[n_others].uri = &r->uri;
			say_machine(&others[n_others++]);
		}
		if (i == 3) /* too early, so not even a HELLO */
			writer_record(&w, RECORD_PAGES, NULL, 0, NULL, 0, NULL);
		channel_close(w.channel);
	}
	connect_silent(&r->uri, 4);
	return connect_real(arg, e);
}

START_TEST(strangers_at_the_door_are_sent_away_and_the_lanes_come_in)
{
	unsigned int i;
	struct rig r;

	rig_init(&r, RIG_TCP);
	r.source.n_lanes = 3;
	connect_real = r.source.events.connect;
	r.source.events.connect = connect_after_strangers;
	r.lanes_ms = 10000;
	rig_run(&r);
	ck_assert_msg(r.source_rc == 0, "%s, %s", r.source_error.text, r.destination_error.text);
	end_silent();
	rig_check(&r);
	door_close(&r.door);
	for (i = 0; i < n_others; i++) {
		struct reader reader = { .channel = others[i].channel, .answers = true };
		struct record rec;

		ck_assert_int_eq(reader_record(&reader, &rec, NULL), 0);
		ck_assert_int_eq(rec.type, RECORD_CHECKED);
		ck_assert_uint_gt(rec.body_bytes, 0);
		reader_free(&reader);
		channel_close(others[i].channel);
	}
	rig_free(&r);
}
END_TEST

/* If it waited for each of them, the time limit of the test would pass. */
START_TEST(silent_strangers_keep_no_source_waiting)
{
	struct uri any, there;
	struct sayer s = { .uri = &there };
	struct refusals refusals = { 0 };
	struct listeners listeners;
	const struct door_shared shared = { &listeners, &refusals, { -1, -1 } };
	struct door door;
	struct destination d;
	unsigned int fds, threads;
	struct tree machine;
	pthread_t thread;
	char name[300];
	struct err e;

	rig_count(&fds, &threads);
	uri_parse("tcp:127.0.0.1:0", &any, NULL);
	ck_assert_int_eq(listeners_open(&listeners, &any, name, sizeof(name), &e), 0);
	door_init(&door, &shared, DOOR_SILENCE_MS);
	ck_assert_int_eq(door_open(&door, &e), 0);
	ck_assert_int_eq(uri_parse(name, &there, NULL), 0);
	connect_silent(&there, CALLERS_MAX + 5);
	pthread_create(&thread, NULL, say_machine, &s);
	ck_assert_msg(destination_accept(&d, &door, -1, &machine, &e) == 0, "%s", e.text);
	pthread_join(thread, NULL);
	tree_free(&machine);
	destination_free(&d);
	channel_close(s.channel);
	end_silent();
	door_close(&door);
	listeners_close(&listeners);
	rig_check_count(fds, threads);
}
END_TEST

START_TEST(several_migrations_run_at_the_same_time_in_one_process)
{
	static struct rig r[3];
	int i;

	for (i = 0; i < 3; i++) {
		rig_init(&r[i], i == 2 ? RIG_UNIX : RIG_TCP);
		r[i].source.n_lanes = (unsigned int)i + 1;
		r[i].src->writers = 1;
		r[i].src->writer_pages = 50;
		r[i].src->writer_rest_us = 100;
		rig_start(&r[i]);
	}
	for (i = 0; i < 3; i++) {
		rig_finish(&r[i]);
		ck_assert_msg(r[i].source_rc == 0, "%s", r[i].source_error.text);
		rig_check(&r[i]);
		rig_free(&r[i]);
	}
}
END_TEST

/* -- a destination that lies -- */

enum say {
	SAY_CHECKED,
	SAY_READY,
	SAY_RUNNING,
	SAY_FAILED, /* with what no terminal should get */
	SAY_REFUSED,
	SAY_GO,
	SAY_STATES,
	SAY_UNKNOWN, /* a type that nobody knows */
	SAY_GARBAGE,
	SAY_HUGE,    /* a body of 4 GiB */
	SAY_DATA,    /* bulk data where there is none */
	SAY_HALF,    /* half a head, then silence */
	SAY_DAMAGED, /* a wrong checksum */
	SAY_AGAIN,   /* a record a second time: its number is wrong */
	SAY_OTHER_ROUND,
	SAY_CLOSE,
	SAY_NOTHING,
	SAY_END /* of the list */
};

struct lie {
	enum say before_machine, after_states, after_go;
	enum owner owner;
	const char *expected;
	enum say after_round; /* SAY_CHECKED: the truth */
};

static const struct lie lies[] = {
	{ SAY_GARBAGE, SAY_END, SAY_END, OWNER_SOURCE, "not a godwit stream", SAY_CHECKED },
	{ SAY_READY, SAY_END, SAY_END, OWNER_SOURCE, "not a godwit stream", SAY_CHECKED },
	{ SAY_RUNNING, SAY_END, SAY_END, OWNER_SOURCE, "not a godwit stream", SAY_CHECKED },
	{ SAY_FAILED, SAY_END, SAY_END, OWNER_SOURCE, "not a godwit stream", SAY_CHECKED },
	{ SAY_HUGE, SAY_END, SAY_END, OWNER_SOURCE, "not a godwit stream", SAY_CHECKED },
	{ SAY_REFUSED, SAY_END, SAY_END, OWNER_SOURCE, "refuses: go ?[31maway", SAY_CHECKED },
	{ SAY_HALF, SAY_END, SAY_END, OWNER_SOURCE, "waiting for CHECKED", SAY_CHECKED },
	{ SAY_NOTHING, SAY_END, SAY_END, OWNER_SOURCE, "waiting for CHECKED", SAY_CHECKED },
	{ SAY_CLOSE, SAY_END, SAY_END, OWNER_SOURCE, "closed the connection", SAY_CHECKED },
	{ SAY_CHECKED, SAY_END, SAY_END, OWNER_SOURCE, "READY record where ROUND", SAY_READY },
	{ SAY_CHECKED, SAY_END, SAY_END, OWNER_SOURCE, "another round than 1", SAY_OTHER_ROUND },
	{ SAY_CHECKED, SAY_END, SAY_END, OWNER_SOURCE, "waiting for ROUND", SAY_NOTHING },
	{ SAY_CHECKED, SAY_END, SAY_END, OWNER_SOURCE, "gave up: go ?[31maway", SAY_FAILED },
	{ SAY_CHECKED, SAY_RUNNING, SAY_END, OWNER_SOURCE, "RUNNING record where READY",
	  SAY_CHECKED },
	{ SAY_CHECKED, SAY_GO, SAY_END, OWNER_SOURCE, "GO record where READY", SAY_CHECKED },
	{ SAY_CHECKED, SAY_STATES, SAY_END, OWNER_SOURCE, "STATES record where READY",
	  SAY_CHECKED },
	{ SAY_CHECKED, SAY_UNKNOWN, SAY_END, OWNER_SOURCE, "a record of the unknown type 99",
	  SAY_CHECKED },
	{ SAY_CHECKED, SAY_CHECKED, SAY_END, OWNER_SOURCE, "damaged", SAY_CHECKED },
	{ SAY_CHECKED, SAY_FAILED, SAY_END, OWNER_SOURCE, "gave up: go ?[31maway", SAY_CHECKED },
	{ SAY_CHECKED, SAY_HUGE, SAY_END, OWNER_SOURCE, "damaged", SAY_CHECKED },
	{ SAY_CHECKED, SAY_DATA, SAY_END, OWNER_SOURCE, "damaged", SAY_CHECKED },
	{ SAY_CHECKED, SAY_DAMAGED, SAY_END, OWNER_SOURCE, "damaged", SAY_CHECKED },
	{ SAY_CHECKED, SAY_AGAIN, SAY_END, OWNER_SOURCE, "damaged", SAY_CHECKED },
	{ SAY_CHECKED, SAY_GARBAGE, SAY_END, OWNER_SOURCE, "damaged", SAY_CHECKED },
	{ SAY_CHECKED, SAY_HALF, SAY_END, OWNER_SOURCE, "waiting for READY", SAY_CHECKED },
	{ SAY_CHECKED, SAY_NOTHING, SAY_END, OWNER_SOURCE, "waiting for READY", SAY_CHECKED },
	{ SAY_CHECKED, SAY_CLOSE, SAY_END, OWNER_SOURCE, "closed the connection", SAY_CHECKED },
	{ SAY_CHECKED, SAY_READY, SAY_READY, OWNER_NOBODY, "READY record where RUNNING",
	  SAY_CHECKED },
	{ SAY_CHECKED, SAY_READY, SAY_GARBAGE, OWNER_NOBODY, "damaged", SAY_CHECKED },
	{ SAY_CHECKED, SAY_READY, SAY_DAMAGED, OWNER_NOBODY, "damaged", SAY_CHECKED },
	{ SAY_CHECKED, SAY_READY, SAY_HALF, OWNER_NOBODY, "waiting for RUNNING", SAY_CHECKED },
	{ SAY_CHECKED, SAY_READY, SAY_NOTHING, OWNER_NOBODY, "waiting for RUNNING", SAY_CHECKED },
	{ SAY_CHECKED, SAY_READY, SAY_CLOSE, OWNER_NOBODY, "closed the connection", SAY_CHECKED },
	{ SAY_CHECKED, SAY_READY, SAY_REFUSED, OWNER_NOBODY, "damaged", SAY_CHECKED },
	{ SAY_CHECKED, SAY_READY, SAY_FAILED, OWNER_SOURCE, "gave up: go ?[31maway", SAY_CHECKED },
	{ SAY_CHECKED, SAY_READY, SAY_RUNNING, OWNER_DESTINATION, NULL, SAY_CHECKED },
};

struct liar {
	const struct lie *lie;
	int fd;
	struct channel *channel;
	struct writer writer;
	pthread_t thread;
};

static void say_raw(struct liar *l, uint16_t type, uint32_t body_bytes, uint64_t data_bytes,
		    size_t len)
{
	uint8_t head[RECORD_HEAD_BYTES] = { (uint8_t)type };

	put_u64(head + 8, l->writer.sequence);
	put_u32(head + 16, body_bytes);
	put_u64(head + 24, data_bytes);
	ck_assert_int_eq(send(l->fd, head, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void say(struct liar *l, enum say what)
{
	static const char away[] = "go \033[31maway";
	static const enum record_type types[] = {
		[SAY_CHECKED] = RECORD_CHECKED, [SAY_READY] = RECORD_READY,
		[SAY_RUNNING] = RECORD_RUNNING, [SAY_FAILED] = RECORD_FAILED,
		[SAY_REFUSED] = RECORD_CHECKED, [SAY_GO] = RECORD_GO,
		[SAY_STATES] = RECORD_STATES,	[SAY_UNKNOWN] = (enum record_type)99,
		[SAY_AGAIN] = RECORD_READY,
	};

	switch (what) {
	case SAY_GARBAGE:
		send(l->fd, "rubbish that is as long as a record's head", 40, MSG_NOSIGNAL);
		break;
	case SAY_HUGE:
		say_raw(l, l->writer.sequence ? RECORD_READY : RECORD_CHECKED, ~0u, 0,
			RECORD_HEAD_BYTES);
		break;
	case SAY_DATA:
		say_raw(l, RECORD_READY, 0, 1u << 20, RECORD_HEAD_BYTES);
		break;
	case SAY_HALF:
		say_raw(l, RECORD_READY, 0, 0, RECORD_HEAD_BYTES / 2);
		break;
	case SAY_DAMAGED:
		say_raw(l, RECORD_READY, 0, 0, RECORD_HEAD_BYTES);
		break;
	case SAY_OTHER_ROUND:
		writer_record(&l->writer, RECORD_ROUND, "\2\0\0", 4, NULL, 0, NULL);
		break;
	case SAY_CLOSE:
		shutdown(l->fd, SHUT_RDWR);
		break;
	case SAY_NOTHING:
	case SAY_END:
		break;
	default:
		l->writer.sequence -= what == SAY_AGAIN;
		writer_record(&l->writer, types[what], away,
			      what == SAY_FAILED || what == SAY_REFUSED ? sizeof(away) - 1 : 0,
			      NULL, 0, NULL);
	}
}

/* Takes everything that comes, and says at four places what it is told. */
static void *liar_thread(void *arg)
{
	struct liar *l = arg;
	struct reader r = { .channel = l->channel };
	struct record rec;

	while (reader_record(&r, &rec, NULL) == 0 && reader_skip(&r, NULL) == 0) {
		if (rec.type == RECORD_MACHINE)
			say(l, l->lie->before_machine);
		else if (rec.type == RECORD_ROUND && l->lie->after_round == SAY_CHECKED)
			writer_record(&l->writer, RECORD_ROUND, rec.body, rec.body_bytes, NULL, 0,
				      NULL);
		else if (rec.type == RECORD_ROUND)
			say(l, l->lie->after_round);
		else if (rec.type == RECORD_STATES)
			say(l, l->lie->after_states);
		else if (rec.type == RECORD_GO)
			say(l, l->lie->after_go);
	}
	reader_free(&r);
	return NULL;
}

START_TEST(destination_that_lies_never_costs_the_guest)
{
	const struct lie *lie = &lies[_i];
	unsigned int fds, threads;
	struct liar l = { .lie = lie };
	struct channel *ch;
	int pair[2], rc;
	struct err e;
	struct rig r;

	rig_count(&fds, &threads);
	rig_init(&r, RIG_TCP);
	/* Only where nothing right will come is a short wait enough to know that. */
	r.source.checked_ms = lie->before_machine == SAY_CHECKED ? 60000 : 100;
	r.source.round_ms = lie->after_round == SAY_CHECKED ? 60000 : 100;
	r.source.spare_ms = lie->after_states == SAY_READY ? 60000 : 100;
	r.source.running_ms = lie->after_go == SAY_RUNNING ? 60000 : 100;
	r.limits.downtime_us = 10000;
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	l.fd = pair[1];
	socket_channel(&l.channel, pair[1], "source", -1, NULL);
	l.writer.channel = l.channel;
	socket_channel(&ch, pair[0], "destination", r.source_stop, NULL);
	r.engine = source_new(&r.source, NULL);
	pthread_create(&l.thread, NULL, liar_thread, &l);
	r.sum = fake_sum(r.src);
	fake_run(r.src);
	rc = source_run(r.engine, ch, &e);
	channel_close(ch);
	pthread_join(l.thread, NULL);
	channel_close(l.channel);

	ck_assert_int_eq(rc, lie->owner == OWNER_DESTINATION ? 0 : -1);
	ck_assert_int_eq(source_owner(r.engine), lie->owner);
	if (lie->expected)
		ck_assert_msg(strstr(e.text, lie->expected), "%s", e.text);
	ck_assert_int_eq(r.src->runs, lie->owner == OWNER_SOURCE);
	ck_assert_int_eq(r.src->logging, lie->owner == OWNER_NOBODY);
	ck_assert_uint_eq(fake_sum(r.src), r.sum);
	ck_assert_uint_eq(r.src->saves, lie->after_states != SAY_END);
	rig_free(&r);
	rig_check_count(fds, threads);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine, faults");
	TCase *c = tcase_create("engine, faults");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_loop_test(c, failure_at_either_side_is_told_at_both_and_harms_nobody, 0, 14);
	tcase_add_test(c, guest_that_cannot_be_resumed_is_paused_and_both_reasons_are_told);
	tcase_add_test(c, lanes_that_cannot_connect_end_it_on_both_sides);
	tcase_add_test(c, strangers_at_the_door_are_sent_away_and_the_lanes_come_in);
	tcase_add_test(c, silent_strangers_keep_no_source_waiting);
	tcase_add_test(c, several_migrations_run_at_the_same_time_in_one_process);
	tcase_add_loop_test(c, destination_that_lies_never_costs_the_guest, 0, N(lies));
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
