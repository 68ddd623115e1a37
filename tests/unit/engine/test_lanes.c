/*
 * Lanes with a part that only remembers what it was given: in which order chunks go, that urgent
 * ones overtake, and that a page goes once whatever is hurried.
 */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "migrate/source/lanes.h"
#include "migrate/source/limiter.h"
#include "vmm/base/bitmap.h"

#define PLACES	 256u
#define SENT_MAX 32768u

struct sent {
	uint64_t place, pages;
};

/* A part whose chunks take until they are let go. */
struct holder {
	struct part part; /* first */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* Under lock. */
	bool held[PLACES], under_way[PLACES];
	unsigned int times[PLACES][CHUNK_PAGES]; /* how often each page was sent */
	struct sent sent[SENT_MAX];		 /* begun, in order */
	unsigned int n_sent, n_under_way;
	pthread_t thread; /* of the last one */
};

struct rig {
	struct holder holder;
	struct stats stats;
	struct limiter limiter;
	struct lanes lanes;
	uint64_t bandwidth;
	bool force;
};

static int holder_send(struct part *part, unsigned int lane, struct writer *w, struct chunk *c,
		       struct err *e)
{
	struct holder *h = (struct holder *)part;
	uint64_t place = c->first / CHUNK_PAGES;
	unsigned int i;

	(void)lane, (void)w, (void)e;
	pthread_mutex_lock(&h->lock);
	ck_assert(!h->under_way[place]);
	h->under_way[place] = true;
	h->thread = pthread_self();
	h->sent[h->n_sent++] = (struct sent){ place, bitmap_count(c->pages, CHUNK_PAGES) };
	h->n_under_way++;
	pthread_cond_broadcast(&h->changed);
	for (i = 0; i < CHUNK_PAGES; i++)
		h->times[place][i] += bitmap_test(c->pages, i);
	while (h->held[place])
		pthread_cond_wait(&h->changed, &h->lock);
	h->under_way[place] = false;
	h->n_under_way--;
	pthread_mutex_unlock(&h->lock);
	return 0;
}

static const struct part_ops holder_ops = { .send = holder_send };

static void set_up(struct rig *r, unsigned int n)
{
	struct writer writers[LANES_MAX] = { 0 };
	struct err e;

	*r = (struct rig){ .holder = { .part = { .ops = &holder_ops } } };
	pthread_mutex_init(&r->holder.lock, NULL);
	pthread_cond_init(&r->holder.changed, NULL);
	limiter_init(&r->limiter, &r->bandwidth, &r->force, -1);
	ck_assert_int_eq(lanes_init(&r->lanes, writers, n, &r->stats, &r->limiter, &e), 0);
}

static void tear_down(struct rig *r)
{
	lanes_free(&r->lanes);
	limiter_free(&r->limiter);
	pthread_cond_destroy(&r->holder.changed);
	pthread_mutex_destroy(&r->holder.lock);
}

static void hold(struct rig *r, uint64_t place, bool on)
{
	pthread_mutex_lock(&r->holder.lock);
	r->holder.held[place] = on;
	pthread_cond_broadcast(&r->holder.changed);
	pthread_mutex_unlock(&r->holder.lock);
}

/* Until that many chunks were begun. */
static void await_sent(struct rig *r, unsigned int n)
{
	pthread_mutex_lock(&r->holder.lock);
	while (r->holder.n_sent < n)
		pthread_cond_wait(&r->holder.changed, &r->holder.lock);
	ck_assert_uint_eq(r->holder.n_sent, n);
	pthread_mutex_unlock(&r->holder.lock);
}

static void check_sent(struct rig *r, unsigned int i, uint64_t place, uint64_t pages)
{
	ck_assert_uint_eq(r->holder.sent[i].place, place);
	ck_assert_uint_eq(r->holder.sent[i].pages, pages);
}

static struct chunk chunk_of(struct rig *r, uint64_t place, enum chunk_priority priority)
{
	return (struct chunk){ .part = &r->holder.part,
			       .priority = priority,
			       .first = place * CHUNK_PAGES };
}

static void send_all_of(struct rig *r, uint64_t place, enum chunk_priority priority)
{
	struct chunk c = chunk_of(r, place, priority);
	unsigned int i;

	for (i = 0; i < CHUNK_WORDS; i++)
		c.pages[i] = UINT64_MAX;
	ck_assert_int_eq(lanes_send(&r->lanes, &c, NULL), 0);
}

static unsigned int hurry(struct rig *r, uint64_t place, unsigned int first, unsigned int n)
{
	struct chunk c = chunk_of(r, place, CHUNK_URGENT);

	for (; n; n--)
		bitmap_set(c.pages, first++);
	return lanes_hurry(&r->lanes, &c);
}

static void check_each_page_went_once(struct rig *r, uint64_t places)
{
	uint64_t place;
	unsigned int i;

	ck_assert_int_eq(lanes_drain(&r->lanes, NULL), 0);
	for (place = 0; place < PLACES; place++)
		for (i = 0; i < CHUNK_PAGES; i++)
			ck_assert_uint_eq(r->holder.times[place][i], place < places);
}

/* Both lanes send, 0 and 1, and do not come to an end. */
static void set_up_held(struct rig *r)
{
	set_up(r, 2);
	hold(r, 0, true);
	hold(r, 1, true);
	send_all_of(r, 0, CHUNK_IN_TURN);
	send_all_of(r, 1, CHUNK_IN_TURN);
	await_sent(r, 2);
}

START_TEST(one_lane_sends_on_the_callers_thread)
{
	struct rig r;

	set_up(&r, 1);
	send_all_of(&r, 0, CHUNK_IN_TURN);
	ck_assert(pthread_equal(r.holder.thread, pthread_self()));
	ck_assert_uint_eq(hurry(&r, 0, 0, 1), 0);
	check_each_page_went_once(&r, 1);
	tear_down(&r);
}
END_TEST

START_TEST(urgent_chunks_go_before_those_in_turn_and_among_them_in_order)
{
	struct rig r;

	set_up_held(&r);
	send_all_of(&r, 2, CHUNK_IN_TURN);
	send_all_of(&r, 3, CHUNK_IN_TURN);
	send_all_of(&r, 4, CHUNK_URGENT);
	send_all_of(&r, 5, CHUNK_URGENT);
	hold(&r, 0, false);
	await_sent(&r, 6);
	check_sent(&r, 2, 4, CHUNK_PAGES);
	check_sent(&r, 3, 5, CHUNK_PAGES);
	check_sent(&r, 4, 2, CHUNK_PAGES);
	check_sent(&r, 5, 3, CHUNK_PAGES);
	hold(&r, 1, false);
	check_each_page_went_once(&r, 6);
	tear_down(&r);
}
END_TEST

START_TEST(urgent_chunks_need_no_room_in_a_full_queue)
{
	struct rig r;
	uint64_t place;

	set_up_held(&r);
	for (place = 2; place < 2 + 2 * LANES_QUEUE_EACH; place++)
		send_all_of(&r, place, CHUNK_IN_TURN);
	for (; place < 2 + 2 * LANES_QUEUE_EACH + LANES_URGENT_MAX; place++)
		send_all_of(&r, place, CHUNK_URGENT);
	hold(&r, 0, false);
	hold(&r, 1, false);
	check_each_page_went_once(&r, place);
	tear_down(&r);
}
END_TEST

START_TEST(hurried_pages_leave_their_turn_and_go_once)
{
	struct rig r;

	set_up_held(&r);
	send_all_of(&r, 2, CHUNK_IN_TURN);
	send_all_of(&r, 3, CHUNK_IN_TURN);
	ck_assert_uint_eq(hurry(&r, 3, 7, 2), 2);
	ck_assert_uint_eq(hurry(&r, 3, 7, 3), 1); /* two of them are urgent already */
	ck_assert_uint_eq(hurry(&r, 0, 7, 2), 0); /* on their way */
	ck_assert_uint_eq(hurry(&r, 9, 7, 2), 0); /* never handed over */
	hold(&r, 0, false);
	await_sent(&r, 6);
	check_sent(&r, 2, 3, 2);
	check_sent(&r, 3, 3, 1);
	check_sent(&r, 4, 2, CHUNK_PAGES);
	check_sent(&r, 5, 3, CHUNK_PAGES - 3);
	ck_assert_uint_eq(hurry(&r, 3, 7, 2), 0); /* sent */
	hold(&r, 1, false);
	check_each_page_went_once(&r, 4);
	tear_down(&r);
}
END_TEST

START_TEST(whole_chunks_can_be_hurried)
{
	struct rig r;

	set_up_held(&r);
	send_all_of(&r, 2, CHUNK_IN_TURN);
	send_all_of(&r, 3, CHUNK_IN_TURN);
	ck_assert_uint_eq(hurry(&r, 3, 0, CHUNK_PAGES), CHUNK_PAGES);
	hold(&r, 0, false);
	await_sent(&r, 4);
	check_sent(&r, 2, 3, CHUNK_PAGES);
	check_sent(&r, 3, 2, CHUNK_PAGES);
	hold(&r, 1, false);
	check_each_page_went_once(&r, 4);
	tear_down(&r);
}
END_TEST

START_TEST(rest_of_a_hurried_chunk_waits_until_its_urgent_pages_have_gone)
{
	struct rig r;

	set_up_held(&r);
	hold(&r, 2, true);
	send_all_of(&r, 2, CHUNK_IN_TURN);
	send_all_of(&r, 3, CHUNK_IN_TURN);
	ck_assert_uint_eq(hurry(&r, 2, 100, 1), 1);
	hold(&r, 0, false);
	await_sent(&r, 3);
	check_sent(&r, 2, 2, 1);
	hold(&r, 1, false); /* the other lane passes over the rest */
	await_sent(&r, 4);
	check_sent(&r, 3, 3, CHUNK_PAGES);
	hold(&r, 2, false);
	check_each_page_went_once(&r, 4);
	check_sent(&r, 4, 2, CHUNK_PAGES - 1);
	tear_down(&r);
}
END_TEST

static void *hurrier(void *arg)
{
	struct rig *r = arg;
	unsigned int seed = 3, i;

	for (i = 0; i < 20000; i++)
		hurry(r, (unsigned int)rand_r(&seed) % PLACES,
		      (unsigned int)rand_r(&seed) % (CHUNK_PAGES - 4), 4);
	return NULL;
}

START_TEST(pages_hurried_at_random_go_once)
{
	pthread_t thread;
	struct rig r;
	uint64_t place;

	set_up(&r, 4);
	pthread_create(&thread, NULL, hurrier, &r);
	for (place = 0; place < PLACES; place++)
		send_all_of(&r, place, place % 7 == 6 ? CHUNK_URGENT : CHUNK_IN_TURN);
	pthread_join(thread, NULL);
	check_each_page_went_once(&r, PLACES);
	tear_down(&r);
}
END_TEST

START_TEST(lanes_that_are_given_up_take_nothing_more)
{
	struct chunk c;
	struct rig r;
	struct err e;

	set_up(&r, 2);
	lanes_abort(&r.lanes);
	c = chunk_of(&r, 0, CHUNK_IN_TURN);
	ck_assert_int_eq(lanes_send(&r.lanes, &c, &e), -1);
	ck_assert_str_eq(e.text, "given up");
	ck_assert_uint_eq(hurry(&r, 0, 0, 1), 0);
	ck_assert_int_eq(lanes_drain(&r.lanes, &e), -1);
	r.bandwidth = 1;
	ck_assert_int_eq(limiter_wait(&r.limiter, 1 << 20, &e), 0); /* the first ones are free */
	ck_assert_int_eq(limiter_wait(&r.limiter, 1 << 20, &e), -1);
	tear_down(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lanes");
	TCase *c = tcase_create("lanes");
	SRunner *run;
	int failed;

	tcase_set_timeout(c, 60);
	tcase_add_test(c, one_lane_sends_on_the_callers_thread);
	tcase_add_test(c, urgent_chunks_go_before_those_in_turn_and_among_them_in_order);
	tcase_add_test(c, urgent_chunks_need_no_room_in_a_full_queue);
	tcase_add_test(c, hurried_pages_leave_their_turn_and_go_once);
	tcase_add_test(c, whole_chunks_can_be_hurried);
	tcase_add_test(c, rest_of_a_hurried_chunk_waits_until_its_urgent_pages_have_gone);
	tcase_add_test(c, pages_hurried_at_random_go_once);
	tcase_add_test(c, lanes_that_are_given_up_take_nothing_more);
	suite_add_tcase(s, c);
	run = srunner_create(s);
	srunner_run_all(run, CK_ENV);
	failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
