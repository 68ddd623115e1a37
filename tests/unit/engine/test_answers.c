/*
 * What the destination says, as the engine hears it: each record once and whole, a refusal as its
 * text, and the end of the connection, also while nothing is expected. The test is the destination.
 */
#include <check.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "migrate/source/answers.h"
#include "tests/unit/lib/engine_rig.h"
#include "vmm/base/clock.h"

#define LONG_MS 10000

struct line {
	struct answers a;
	struct channel *here, *there;
	struct writer w; /* the destination's */
	int stop_fd, there_fd;
	struct err e;
	struct record r;
	unsigned int fds, threads;
};

static void line_up(struct line *l)
{
	int fds[2];

	memset(l, 0, sizeof(*l));
	rig_count(&l->fds, &l->threads);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	l->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->there_fd = fds[1];
	ck_assert_int_eq(socket_channel(&l->here, fds[0], "destination", l->stop_fd, NULL), 0);
	ck_assert_int_eq(socket_channel(&l->there, fds[1], "source", -1, NULL), 0);
	l->w.channel = l->there;
	ck_assert_int_eq(answers_begin(&l->a, l->here, l->stop_fd, &l->e), 0);
}

/* Nothing is left of it: no thread, no descriptor. */
static void line_down(struct line *l)
{
	answers_end(&l->a);
	channel_close(l->here);
	channel_close(l->there);
	close(l->stop_fd);
	rig_check_count(l->fds, l->threads);
}

static void say(struct line *l, enum record_type type, const char *text)
{
	ck_assert_int_eq(writer_record(&l->w, type, text, strlen(text), NULL, 0, NULL), 0);
}

static void expect(struct line *l, enum record_type type)
{
	ck_assert_msg(answers_expect(&l->a, type, LONG_MS, &l->r, &l->e) == 1, "%s", l->e.text);
}

static void expect_error(struct line *l, enum record_type type, const char *text)
{
	ck_assert_int_eq(answers_expect(&l->a, type, LONG_MS, &l->r, &l->e), -1);
	ck_assert_msg(strstr(l->e.text, text), "%s", l->e.text);
}

/* The engine sends: it looks from time to time, and never waits. */
static void sees_while_it_sends(struct line *l, const char *text)
{
	RIG_AWAIT(answers_poll(&l->a, -1, 0, &l->e));
	ck_assert_msg(strstr(l->e.text, text), "%s", l->e.text);
}

START_TEST(records_come_one_by_one_in_their_order_with_what_they_hold)
{
	struct line l;

	line_up(&l);
	say(&l, RECORD_CHECKED, "");
	expect(&l, RECORD_CHECKED);
	ck_assert_uint_eq(l.r.body_bytes, 0);
	ck_assert_int_eq(answers_poll(&l.a, -1, 0, &l.e), 0);
	/* The last round's, before anybody has asked for it. */
	say(&l, RECORD_ROUND, "1234");
	say(&l, RECORD_READY, "");
	RIG_AWAIT(answers_waiting(&l.a));
	expect(&l, RECORD_ROUND);
	ck_assert_uint_eq(l.r.body_bytes, 4);
	ck_assert_mem_eq(l.r.body, "1234", 4);
	expect(&l, RECORD_READY);
	ck_assert(!l.a.refused);
	line_down(&l);
}
END_TEST

START_TEST(refusal_and_failure_become_the_error_with_their_text)
{
	struct line l;

	line_up(&l);
	say(&l, RECORD_CHECKED, "no such CPU");
	expect_error(&l, RECORD_CHECKED, "the destination refuses: no such CPU");
	ck_assert(l.a.refused);
	line_down(&l);

	line_up(&l);
	say(&l, RECORD_CHECKED, "");
	say(&l, RECORD_FAILED, "the disk is full");
	expect(&l, RECORD_CHECKED);
	if (_i)
		sees_while_it_sends(&l, "the destination gave up: the disk is full");
	else
		expect_error(&l, RECORD_ROUND, "the destination gave up: the disk is full");
	ck_assert(l.a.refused);
	line_down(&l);
}
END_TEST

START_TEST(longest_text_that_fits_a_record_is_cut_and_does_no_harm)
{
	static char text[1 << 20];
	struct line l;

	memset(text, 'x', sizeof(text) - 1);
	line_up(&l);
	say(&l, RECORD_CHECKED, text);
	expect_error(&l, RECORD_CHECKED, "the destination refuses: xxx");
	line_down(&l);
}
END_TEST

START_TEST(record_that_nobody_asked_for_is_an_error)
{
	struct line l;

	line_up(&l);
	say(&l, RECORD_CHECKED, "");
	expect(&l, RECORD_CHECKED);
	say(&l, RECORD_READY, "");
	if (_i)
		sees_while_it_sends(&l, "a READY record that was not asked for");
	else
		expect_error(&l, RECORD_ROUND, "a READY record where ROUND was expected");
	ck_assert(!l.a.refused);
	line_down(&l);
}
END_TEST

START_TEST(flood_of_records_is_not_kept)
{
	struct line l;
	unsigned int i;

	line_up(&l);
	say(&l, RECORD_CHECKED, "");
	for (i = 0; i < ANSWERS_MAX; i++)
		say(&l, RECORD_ROUND, "1234");
	RIG_AWAIT(
		(pthread_mutex_lock(&l.a.lock), i = l.a.over, pthread_mutex_unlock(&l.a.lock), i));
	expect(&l, RECORD_CHECKED);
	for (i = 1; i < ANSWERS_MAX; i++)
		expect(&l, RECORD_ROUND);
	expect_error(&l, RECORD_ROUND, "more records than were asked for");
	line_down(&l);
}
END_TEST

START_TEST(data_behind_a_record_is_not_read_as_the_next_one)
{
	uint8_t data[256] = { RECORD_FAILED };
	struct iovec iov = { data, sizeof(data) };
	struct line l;

	line_up(&l);
	say(&l, RECORD_CHECKED, "");
	expect(&l, RECORD_CHECKED);
	ck_assert_int_eq(writer_record(&l.w, RECORD_PROBE, NULL, 0, &iov, 1, NULL), 0);
	expect_error(&l, RECORD_ROUND, "a PROBE record where ROUND was expected");
	expect_error(&l, RECORD_ROUND, "a PROBE record with data");
	line_down(&l);
}
END_TEST

START_TEST(half_a_record_is_no_answer_until_the_rest_has_come)
{
	uint8_t bytes[RECORD_HEAD_BYTES];
	struct channel *memory;
	struct writer w = { 0 };
	struct line l;

	line_up(&l);
	ck_assert_int_eq(memory_channel(&memory, NULL, 0, NULL), 0);
	w.channel = memory;
	ck_assert_int_eq(writer_record(&w, RECORD_CHECKED, NULL, 0, NULL, 0, NULL), 0);
	memcpy(bytes, memory_channel_written(memory), sizeof(bytes));
	channel_close(memory);

	ck_assert_int_eq(write(l.there_fd, bytes, 20), 20);
	ck_assert_int_eq(answers_expect(&l.a, RECORD_CHECKED, 50, &l.r, &l.e), 0);
	ck_assert_int_eq(write(l.there_fd, bytes + 20, 12), 12);
	expect(&l, RECORD_CHECKED);
	line_down(&l);
}
END_TEST

START_TEST(closed_connection_is_seen_whatever_the_engine_does)
{
	struct line l;

	line_up(&l);
	say(&l, RECORD_CHECKED, "");
	shutdown(l.there_fd, SHUT_RDWR);
	/* What was said before the end is heard. */
	expect(&l, RECORD_CHECKED);
	if (_i)
		sees_while_it_sends(&l, "closed the connection");
	else
		expect_error(&l, RECORD_ROUND, "waiting for ROUND: destination: the other side");
	ck_assert(answers_waiting(&l.a));
	line_down(&l);
}
END_TEST

START_TEST(damaged_record_is_the_last_one_that_is_read)
{
	uint8_t junk[RECORD_HEAD_BYTES] = { RECORD_ROUND };
	struct line l;

	line_up(&l);
	say(&l, RECORD_CHECKED, "");
	ck_assert_int_eq(write(l.there_fd, junk, sizeof(junk)), sizeof(junk));
	say(&l, RECORD_READY, "");
	expect(&l, RECORD_CHECKED);
	expect_error(&l, RECORD_READY, "is damaged");
	expect_error(&l, RECORD_READY, "is damaged");
	line_down(&l);
}
END_TEST

static void *stop_soon(void *arg)
{
	usleep(20000);
	rig_stop(((struct line *)arg)->stop_fd);
	return NULL;
}

START_TEST(cancel_ends_a_wait_and_goes_before_what_has_come)
{
	pthread_t thread;
	struct line l;

	line_up(&l);
	ck_assert_int_eq(pthread_create(&thread, NULL, stop_soon, &l), 0);
	if (_i)
		ck_assert_int_eq(answers_poll(&l.a, -1, LONG_MS, &l.e), -1);
	else
		expect_error(&l, RECORD_CHECKED, "cancelled");
	ck_assert_msg(strstr(l.e.text, "cancelled"), "%s", l.e.text);
	pthread_join(thread, NULL);
	say(&l, RECORD_CHECKED, "");
	RIG_AWAIT(answers_waiting(&l.a));
	expect_error(&l, RECORD_CHECKED, "cancelled");
	/* From GO on nothing is cancelled. */
	l.a.stop_fd = -1;
	expect(&l, RECORD_CHECKED);
	line_down(&l);
}
END_TEST

START_TEST(deadline_of_what_is_sent_ends_no_read)
{
	struct line l;

	line_up(&l);
	channel_set_deadline(l.here, 0);
	rig_stop(l.stop_fd);
	l.a.stop_fd = -1;
	ck_assert_int_eq(answers_poll(&l.a, -1, 50, &l.e), 0);
	say(&l, RECORD_CHECKED, "");
	expect(&l, RECORD_CHECKED);
	line_down(&l);
}
END_TEST

START_TEST(another_descriptor_ends_the_wait_without_an_error)
{
	struct line l;
	int other = eventfd(1, EFD_CLOEXEC);
	uint64_t start = clock_us();

	line_up(&l);
	ck_assert_int_eq(answers_poll(&l.a, other, LONG_MS, &l.e), 0);
	ck_assert_uint_lt(clock_us() - start, LONG_MS * 1000u);
	line_down(&l);
	close(other);
}
END_TEST

START_TEST(last_words_are_found_behind_answers_that_were_not_awaited)
{
	struct line l;

	line_up(&l);
	err_set(&l.e, "the link broke");
	say(&l, RECORD_CHECKED, "");
	say(&l, RECORD_ROUND, "1234");
	if (_i)
		say(&l, RECORD_FAILED, "out of memory");
	ck_assert_int_eq(answers_await_refusal(&l.a, _i ? LONG_MS : 50, &l.e), _i);
	ck_assert_str_eq(l.e.text,
			 _i ? "the destination gave up: out of memory" : "the link broke");
	line_down(&l);
}
END_TEST

START_TEST(file_answers_nothing)
{
	struct answers a;
	struct err e;

	ck_assert_int_eq(answers_begin(&a, NULL, -1, &e), 0);
	ck_assert(!answers_waiting(&a));
	ck_assert_int_eq(answers_poll(&a, -1, 0, &e), 0);
	answers_end(&a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("answers");
	TCase *c = tcase_create("answers");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 60);
	tcase_add_test(c, records_come_one_by_one_in_their_order_with_what_they_hold);
	tcase_add_loop_test(c, refusal_and_failure_become_the_error_with_their_text, 0, 2);
	tcase_add_test(c, longest_text_that_fits_a_record_is_cut_and_does_no_harm);
	tcase_add_loop_test(c, record_that_nobody_asked_for_is_an_error, 0, 2);
	tcase_add_test(c, flood_of_records_is_not_kept);
	tcase_add_test(c, data_behind_a_record_is_not_read_as_the_next_one);
	tcase_add_test(c, half_a_record_is_no_answer_until_the_rest_has_come);
	tcase_add_loop_test(c, closed_connection_is_seen_whatever_the_engine_does, 0, 2);
	tcase_add_test(c, damaged_record_is_the_last_one_that_is_read);
	tcase_add_loop_test(c, cancel_ends_a_wait_and_goes_before_what_has_come, 0, 2);
	tcase_add_test(c, deadline_of_what_is_sent_ends_no_read);
	tcase_add_test(c, another_descriptor_ends_the_wait_without_an_error);
	tcase_add_loop_test(c, last_words_are_found_behind_answers_that_were_not_awaited, 0, 2);
	tcase_add_test(c, file_answers_nothing);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
