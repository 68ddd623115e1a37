/*
 * A guest comes in whatever its owner does meanwhile, and whoever waits for its pages. The main
 * loop is a thread of the test, which stands still when it is told to. The machine is a fake guest,
 * whose pages may be missing until they are placed; the source is a stream by hand.
 *
 * The linker gives this program its own pthread_mutex_lock and unlock (Makefile), which count the
 * locks that each thread holds.
 */
#include <check.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/destination/destination.h"
#include "migrate/guest.h"
#include "migrate/migration.h"
#include "tests/unit/lib/fake_guest.h"
#include "tests/unit/lib/missing.h"
#include "tests/unit/lib/stream_maker.h"
#include "vmm/base/err.h"
#include "vmm/loop.h"
#include "vmm/memory.h"

/* -- locks -- */

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
	int rc = __real_pthread_mutex_lock(m);

	missing_locks_held += rc == 0;
	return rc;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
	missing_locks_held--;
	return __real_pthread_mutex_unlock(m);
}

/* -- in place of the machine -- */

static struct {
	struct loop loop;
	struct migration *migration;
	struct fake *fake;
	struct destination destination;
	struct maker source;
	size_t sent;	    /* of what it has made */
	int fd;		    /* the source's end */
	struct reader said; /* what the destination says there */
	struct tree tree;
	bool is_missing; /* its pages, until they are placed */
	struct missing missing;
	bool touches;	    /* whatever is asked of it touches a page that does not come */
	unsigned int asked; /* so often */
	bool load_stands;   /* loading the states waits for: */
	sem_t loads;
	sem_t goes_on;	       /* the owner stands still until then */
	unsigned int n_events; /* atomic */
	enum phase events[8];
} vm;

static void set_announce(struct guest *g, const struct guest_announce *a)
{
	(void)g;
	(void)a;
}

/* A page of the second block's end, a new one each time: the stream brings none of them. */
static void touch_one(void)
{
	volatile const uint8_t *at = vm.fake->guest.blocks[1].host;
	unsigned int n;

	if (!vm.touches)
		return;
	n = __atomic_fetch_add(&vm.asked, 1, __ATOMIC_SEQ_CST);
	ck_assert_uint_lt(n, MAKER_PAGES_1);
	ck_assert_int_eq(at[n * PAGE_SIZE], 0);
}

static int load(struct guest *g, const struct tree *states, uint64_t advance_ns, struct err *e)
{
	(void)g;
	touch_one();
	while (vm.load_stands && sem_wait(&vm.loads))
		;
	return vm.fake->guest.ops->states_load(&vm.fake->guest, states, advance_ns, e);
}

struct start {
	bool run;
	const struct guest_last *last;
	struct err *e;
	int rc;
};

static void do_start(void *arg)
{
	struct start *s = arg;

	touch_one();
	s->rc = vm.fake->guest.ops->start(&vm.fake->guest, s->run, s->last, s->e);
}

/* As a machine does: on its owner's thread. */
static int start(struct guest *g, bool run, const struct guest_last *last, struct err *e)
{
	struct start s = { run, last, e, -1 };

	(void)g;
	loop_call(&vm.loop, do_start, &s);
	return s.rc;
}

static const struct guest_ops ops = { .set_announce = set_announce,
				      .states_load = load,
				      .start = start };

void guest_machine_init(struct guest_machine *g, struct machine *m, struct loop *owner_loop)
{
	*g = (struct guest_machine){ .guest = vm.fake->guest,
				     .machine = m,
				     .owner_loop = owner_loop };
	g->guest.ops = &ops;
}

/* -- the owner -- */

static void on_status(void *arg, enum phase s)
{
	unsigned int n = __atomic_load_n(&vm.n_events, __ATOMIC_RELAXED);

	(void)arg;
	if (n > 0)
		touch_one();
	ck_assert_uint_lt(n, sizeof(vm.events) / sizeof(vm.events[0]));
	vm.events[n] = s;
	__atomic_store_n(&vm.n_events, n + 1, __ATOMIC_RELEASE);
}

static int on_arrived(void *arg, struct err *e)
{
	(void)arg;
	(void)e;
	touch_one();
	return 0;
}

static void receive(void *arg)
{
	struct err e;

	(void)arg;
	ck_assert_msg(!migration_receive(vm.migration, &vm.destination, false, &e), "%s", e.text);
}

/* Begins to receive, and stands still at once. */
static void receive_and_stand(void *arg)
{
	receive(arg);
	while (sem_wait(&vm.goes_on))
		;
}

/* The same, but what it waits for is the guest's last page. */
static void receive_and_touch(void *arg)
{
	volatile const uint8_t *host = vm.fake->guest.blocks[1].host;

	receive(arg);
	ck_assert_int_eq(host[MAKER_PAGES_1 * PAGE_SIZE - 1], 0x5a);
}

/* -- the source -- */

static void send_made(void)
{
	const uint8_t *bytes = memory_channel_written(vm.source.ch);

	while (vm.sent < vm.source.ch->bytes) {
		ssize_t n = write(vm.fd, bytes + vm.sent, vm.source.ch->bytes - vm.sent);

		ck_assert_int_gt(n, 0);
		vm.sent += (size_t)n;
	}
}

/* A round with 0x5a in both blocks, or in the first one only; and the states. */
static void send_guest(bool second_block)
{
	struct maker *m = &vm.source;

	maker_run(m, 0, CODEC_PLAIN, 0, MAKER_PAGES_0);
	if (second_block)
		maker_run(m, 1, CODEC_PLAIN, 0, MAKER_PAGES_1);
	maker_round_end(m, 1);
	maker_states(m, 1000);
	send_made();
}

static void send_go(void)
{
	maker_record(&vm.source, RECORD_GO, NULL, 0);
	send_made();
}

static void hear(enum record_type type)
{
	struct record rec;
	struct err e;

	ck_assert_msg(!reader_expect(&vm.said, type, &rec, &e), "%s", e.text);
}

static bool is_full(void)
{
	for (unsigned int b = 0; b < 2; b++)
		for (uint64_t i = 0; i < vm.fake->guest.blocks[b].pages * PAGE_SIZE; i++)
			if (vm.fake->guest.blocks[b].host[i] != 0x5a)
				return false;
	return true;
}

static void setup(bool is_missing)
{
	const struct migration_events events = { .status = on_status, .arrived = on_arrived };
	struct channel *ch, *back;
	struct err e;
	int pair[2];

	memset(&vm, 0, sizeof(vm));
	vm.fake = maker_guest();
	vm.is_missing = is_missing;
	if (is_missing)
		missing_init(&vm.missing, &vm.fake->guest);
	ck_assert_int_eq(sem_init(&vm.goes_on, 0, 0) | sem_init(&vm.loads, 0, 0), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	vm.fd = pair[0];
	ck_assert_int_eq(socket_channel(&ch, pair[1], "source", -1, &e), 0);
	ck_assert_int_eq(socket_channel(&back, dup(pair[0]), "destination", -1, &e), 0);
	vm.said = (struct reader){ .channel = back, .answers = true };
	ck_assert_int_eq(loop_init(&vm.loop, &e), 0);
	ck_assert_int_eq(migration_new(&vm.migration, (struct machine *)&vm, &vm.loop, &events, &e),
			 0);
	maker_make(&vm.source);
	maker_begin(&vm.source);
	send_made();
	ck_assert_msg(!destination_open(&vm.destination, ch, false, -1, &vm.tree, &e), "%s",
		      e.text);
	if (is_missing)
		vm.destination.place = &vm.missing.place;
	ck_assert_int_eq(destination_answer(&vm.destination, NULL, &e), 0);
	hear(RECORD_CHECKED);
	ck_assert_int_eq(loop_start(&vm.loop, "owner", &e), 0);
}

static void await_events(unsigned int n)
{
	while (__atomic_load_n(&vm.n_events, __ATOMIC_ACQUIRE) < n)
		usleep(1000);
}

static void teardown(void)
{
	loop_join(&vm.loop);
	migration_free(vm.migration);
	loop_free(&vm.loop);
	channel_close(vm.said.channel);
	reader_free(&vm.said);
	close(vm.fd);
	tree_free(&vm.tree);
	maker_unmake(&vm.source);
	if (vm.is_missing)
		missing_free(&vm.missing);
	fake_free(vm.fake);
	sem_destroy(&vm.goes_on);
	sem_destroy(&vm.loads);
}

START_TEST(pages_arrive_while_the_owner_stands_still)
{
	setup(false);
	ck_assert_int_eq(loop_post(&vm.loop, receive_and_stand, NULL), 0);
	send_guest(true);
	hear(RECORD_ROUND);
	ck_assert(is_full());
	/* The states are loaded, too. */
	hear(RECORD_READY);
	ck_assert_uint_eq(vm.fake->loads, 1);
	/* What is for its thread waits, and comes in order. */
	send_go();
	ck_assert_uint_eq(__atomic_load_n(&vm.n_events, __ATOMIC_ACQUIRE), 1);
	ck_assert_uint_eq(vm.fake->starts, 0);
	sem_post(&vm.goes_on);
	hear(RECORD_RUNNING);
	await_events(3);
	ck_assert_int_eq(vm.events[0], PHASE_SETUP);
	ck_assert_int_eq(vm.events[1], PHASE_PRECOPY);
	ck_assert_int_eq(vm.events[2], PHASE_COMPLETED);
	ck_assert_uint_eq(vm.fake->starts, 1);
	teardown();
}
END_TEST

START_TEST(end_is_told_to_an_owner_whose_loop_has_ended)
{
	setup(false);
	ck_assert_int_eq(loop_post(&vm.loop, receive_and_stand, NULL), 0);
	send_guest(true);
	hear(RECORD_ROUND);
	hear(RECORD_READY);
	shutdown(vm.fd, SHUT_RDWR);
	loop_stop(&vm.loop);
	sem_post(&vm.goes_on);
	teardown();
	ck_assert_uint_ge(vm.n_events, 2);
	ck_assert_int_eq(vm.events[vm.n_events - 1], PHASE_FAILED);
}
END_TEST

static bool main_is_over(void)
{
	struct receive *in = &vm.destination.in;
	bool over;

	pthread_mutex_lock(&in->lock);
	over = in->over;
	pthread_mutex_unlock(&in->lock);
	return over;
}

START_TEST(source_is_heard_while_the_states_are_loaded)
{
	static const char why[] = "the disk has gone";
	struct migration_report r;

	setup(false);
	vm.load_stands = true;
	ck_assert_int_eq(loop_post(&vm.loop, receive, NULL), 0);
	send_guest(true);
	hear(RECORD_ROUND);
	maker_record(&vm.source, RECORD_FAILED, why, strlen(why));
	send_made();
	while (!main_is_over())
		usleep(1000);
	ck_assert_uint_eq(vm.fake->loads, 0);
	sem_post(&vm.loads);
	await_events(3);
	ck_assert_int_eq(vm.events[2], PHASE_FAILED);
	migration_query(vm.migration, &r);
	ck_assert_msg(strstr(r.error, why), "%s", r.error);
	ck_assert_uint_eq(vm.fake->starts, 0);
	teardown();
}
END_TEST

START_TEST(owner_that_waits_for_a_page_gets_it)
{
	setup(true);
	ck_assert_int_eq(loop_post(&vm.loop, receive_and_touch, NULL), 0);
	/* It stands there before the page is even sent. */
	while (!__atomic_load_n(&vm.missing.touches, __ATOMIC_SEQ_CST))
		usleep(1000);
	send_guest(true);
	hear(RECORD_ROUND);
	hear(RECORD_READY);
	send_go();
	hear(RECORD_RUNNING);
	await_events(3);
	ck_assert(is_full());
	/* Nobody else has touched the guest's memory before its pages were there. */
	ck_assert_uint_eq(vm.missing.touches, 1);
	ck_assert_uint_eq(vm.missing.locked, 0);
	teardown();
}
END_TEST

START_TEST(no_lock_is_held_while_a_missing_page_is_touched)
{
	setup(true);
	vm.touches = vm.missing.rest_is_zero = true;
	ck_assert_int_eq(loop_post(&vm.loop, receive, NULL), 0);
	send_guest(false);
	hear(RECORD_ROUND);
	hear(RECORD_READY);
	send_go();
	hear(RECORD_RUNNING);
	await_events(3);
	/* Two events, the states, the start, and the question whether it may. */
	ck_assert_uint_eq(vm.asked, 5);
	ck_assert_uint_eq(vm.missing.touches, 5);
	ck_assert_uint_eq(vm.missing.locked, 0);
	teardown();
}
END_TEST

/* That the test above would see one. */
START_TEST(lock_is_noticed_while_a_missing_page_is_touched)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	setup(true);
	vm.touches = vm.missing.rest_is_zero = true;
	pthread_mutex_lock(&lock);
	touch_one();
	pthread_mutex_unlock(&lock);
	touch_one();
	ck_assert_uint_eq(vm.missing.touches, 2);
	ck_assert_uint_eq(vm.missing.locked, 1);
	destination_free(&vm.destination);
	teardown();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("receive");
	TCase *c = tcase_create("receive");
	SRunner *r;
	int failed;

	tcase_add_test(c, pages_arrive_while_the_owner_stands_still);
	tcase_add_test(c, end_is_told_to_an_owner_whose_loop_has_ended);
	tcase_add_test(c, source_is_heard_while_the_states_are_loaded);
	tcase_add_test(c, owner_that_waits_for_a_page_gets_it);
	tcase_add_test(c, no_lock_is_held_while_a_missing_page_is_touched);
	tcase_add_test(c, lock_is_noticed_while_a_missing_page_is_touched);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
