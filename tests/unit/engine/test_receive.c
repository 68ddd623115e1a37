/*
 * A guest comes in whatever its owner does meanwhile: the main loop is a thread of the test, which
 * stands still when it is told to. The machine is a fake guest; the source is a stream by hand.
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
#include "tests/unit/lib/stream_maker.h"
#include "vmm/base/err.h"
#include "vmm/loop.h"
#include "vmm/memory.h"

/* -- in place of the machine -- */

static struct {
	struct loop loop;
	struct migration *migration;
	struct fake *fake;
	struct destination destination;
	struct maker source;
	int fd;		    /* the source's end */
	struct reader said; /* what the destination says there */
	struct tree tree;
	sem_t goes_on;	       /* the owner stands still until then */
	unsigned int n_events; /* atomic */
	enum phase events[8];
} vm;

static void set_announce(struct guest *g, const struct guest_announce *a)
{
	(void)g;
	(void)a;
}

static int load(struct guest *g, const struct tree *states, uint64_t advance_ns, struct err *e)
{
	(void)g;
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
	ck_assert_uint_lt(n, sizeof(vm.events) / sizeof(vm.events[0]));
	vm.events[n] = s;
	__atomic_store_n(&vm.n_events, n + 1, __ATOMIC_RELEASE);
}

/* Begins to receive, and stands still at once. */
static void receive_and_stand(void *arg)
{
	struct err e;

	(void)arg;
	ck_assert_msg(!migration_receive(vm.migration, &vm.destination, false, &e), "%s", e.text);
	while (sem_wait(&vm.goes_on))
		;
}

/* -- the source -- */

/* Both blocks are filled with 0x5a, in a round. */
static void send_stream(bool with_go)
{
	struct maker *m = &vm.source;
	const uint8_t *bytes;
	size_t sent = 0;

	maker_make(m);
	maker_begin(m);
	maker_run(m, 0, CODEC_PLAIN, 0, MAKER_PAGES_0);
	maker_run(m, 1, CODEC_PLAIN, 0, MAKER_PAGES_1);
	maker_round_end(m, 1);
	maker_states(m, 1000);
	if (with_go)
		maker_record(m, RECORD_GO, NULL, 0);
	bytes = memory_channel_written(m->ch);
	while (sent < m->ch->bytes) {
		ssize_t n = write(vm.fd, bytes + sent, m->ch->bytes - sent);

		ck_assert_int_gt(n, 0);
		sent += (size_t)n;
	}
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

static void setup(bool with_go)
{
	const struct migration_events events = { .status = on_status };
	const int room = 1 << 20;
	struct channel *ch, *back;
	struct err e;
	int pair[2];

	memset(&vm, 0, sizeof(vm));
	vm.fake = maker_guest();
	ck_assert_int_eq(sem_init(&vm.goes_on, 0, 0), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	vm.fd = pair[0];
	setsockopt(vm.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	ck_assert_int_eq(socket_channel(&ch, pair[1], "source", -1, &e), 0);
	ck_assert_int_eq(socket_channel(&back, dup(pair[0]), "destination", -1, &e), 0);
	vm.said = (struct reader){ .channel = back, .answers = true };
	ck_assert_int_eq(loop_init(&vm.loop, &e), 0);
	ck_assert_int_eq(migration_new(&vm.migration, (struct machine *)&vm, &vm.loop, &events, &e),
			 0);
	send_stream(with_go);
	ck_assert_msg(!destination_open(&vm.destination, ch, false, -1, &vm.tree, &e), "%s",
		      e.text);
	ck_assert_int_eq(destination_answer(&vm.destination, NULL, &e), 0);
	ck_assert_int_eq(loop_start(&vm.loop, "owner", &e), 0);
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
	fake_free(vm.fake);
	sem_destroy(&vm.goes_on);
}

START_TEST(pages_arrive_while_the_owner_stands_still)
{
	setup(true);
	ck_assert_int_eq(loop_post(&vm.loop, receive_and_stand, NULL), 0);
	hear(RECORD_CHECKED);
	hear(RECORD_ROUND);
	ck_assert(is_full());
	/* The states are loaded, too. */
	hear(RECORD_READY);
	ck_assert_uint_eq(vm.fake->loads, 1);
	ck_assert_uint_eq(vm.fake->starts, 0);
	/* What belongs to its thread waits, and comes in order. */
	ck_assert_uint_eq(__atomic_load_n(&vm.n_events, __ATOMIC_ACQUIRE), 1);
	sem_post(&vm.goes_on);
	hear(RECORD_RUNNING);
	while (__atomic_load_n(&vm.n_events, __ATOMIC_ACQUIRE) < 3)
		usleep(1000);
	ck_assert_int_eq(vm.events[0], PHASE_SETUP);
	ck_assert_int_eq(vm.events[1], PHASE_PRECOPY);
	ck_assert_int_eq(vm.events[2], PHASE_COMPLETED);
	ck_assert_uint_eq(vm.fake->starts, 1);
	teardown();
}
END_TEST

START_TEST(end_is_told_by_the_owner_who_never_went_on)
{
	setup(false);
	ck_assert_int_eq(loop_post(&vm.loop, receive_and_stand, NULL), 0);
	hear(RECORD_CHECKED);
	hear(RECORD_ROUND);
	hear(RECORD_READY);
	/* The source goes; the owner's loop ends before it has heard of that. */
	shutdown(vm.fd, SHUT_RDWR);
	loop_stop(&vm.loop);
	sem_post(&vm.goes_on);
	teardown();
	ck_assert_uint_ge(vm.n_events, 2);
	ck_assert_int_eq(vm.events[vm.n_events - 1], PHASE_FAILED);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("receive");
	TCase *c = tcase_create("receive");
	SRunner *r;
	int failed;

	tcase_add_test(c, pages_arrive_while_the_owner_stands_still);
	tcase_add_test(c, end_is_told_by_the_owner_who_never_went_on);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
