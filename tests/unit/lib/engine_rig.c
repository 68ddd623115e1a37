/*
 * The rig: see engine_rig.h. Two threads beside the test's own.
 */
#include "tests/unit/lib/engine_rig.h"

#include <check.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/channel/channel.h"

static const uint64_t pages[] = { 1100, 70 };

/* -- the source's side -- */

static void on_phase(void *arg, enum phase p)
{
	struct rig *r = arg;

	__atomic_store_n(&r->phase, p, __ATOMIC_RELEASE);
}

static void on_round(void *arg, uint64_t round)
{
	struct rig *r = arg;

	__atomic_store_n(&r->rounds, round, __ATOMIC_RELEASE);
	if (r->on_round)
		r->on_round(r, round);
}

static void on_decision(void *arg, enum decision d, const char *reason)
{
	struct rig *r = arg;

	if (d == DECISION_DOWNTIME_LIMIT) {
		snprintf(r->limit_reason, sizeof(r->limit_reason), "%s", reason);
		r->limit_in_time = !r->src->parks;
		return;
	}
	snprintf(r->reason, sizeof(r->reason), "%s", reason);
}

static int on_commit(void *arg, struct err *e)
{
	struct rig *r = arg;

	if (r->on_commit && r->on_commit(r, e))
		return -1;
	__atomic_store_n(&r->committed, true, __ATOMIC_RELEASE);
	return 0;
}

static struct channel *connect_one(void *arg, struct err *e)
{
	struct rig *r = arg;
	const struct uri *u = r->link == RIG_PROXY ? &r->proxy.uri : &r->uri;
	const int buffer = 1 << 16;
	struct channel *ch;
	int fd = r->link == RIG_PAIR ? r->pair[0] : uri_connect(u, NULL, r->source_stop, e);

	if (fd < 0)
		return NULL;
	/* Small, so that a stall is felt before everything is on its way. */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	if (socket_channel(&ch, fd, "destination", r->source_stop, e)) {
		close(fd);
		return NULL;
	}
	ch->same_host = ch->same_host && !r->far;
	return ch;
}

static void *source_thread(void *arg)
{
	struct rig *r = arg;
	struct channel *ch = connect_one(r, &r->source_error);

	if (!ch) {
		r->source_rc = -1;
		return NULL;
	}
	r->source_rc = source_run(r->engine, ch, &r->source_error);
	r->sent_bytes = ch->bytes;
	channel_close(ch);
	__atomic_store_n(&r->left, true, __ATOMIC_RELEASE);
	return NULL;
}

/* -- the destination's -- */

static int on_arrived(void *arg, struct err *e)
{
	struct rig *r = arg;

	return r->on_arrived ? r->on_arrived(r, e) : 0;
}

static int accept_one(struct rig *r, struct tree *machine, struct err *e)
{
	const struct door_shared shared = { &r->listeners, &r->refusals, { -1, -1 } };
	int rc;

	door_init(&r->door, &shared, DOOR_SILENCE_MS);
	if (door_open(&r->door, e))
		return -1;
	r->door.callers.stop_fd = r->destination_stop;
	rc = destination_accept(&r->destination, &r->door, r->destination_stop, machine, e);
	door_shut(&r->door);
	return rc;
}

static int arrive(struct rig *r, struct tree *machine, struct err *e)
{
	struct channel *ch;

	if (r->link != RIG_PAIR)
		return accept_one(r, machine, e);
	if (socket_channel(&ch, r->pair[1], "source", r->destination_stop, e))
		return -1;
	return destination_open(&r->destination, ch, false, r->destination_stop, machine, e);
}

static void *destination_thread(void *arg)
{
	struct rig *r = arg;
	struct err *e = &r->destination_error;
	struct tree machine;
	const char *name;

	r->destination_rc = -1;
	if (arrive(r, &machine, e))
		return NULL;
	__atomic_store_n(&r->arrived, true, __ATOMIC_RELEASE);
	ck_assert_int_eq(tree_str(&machine, "/", "name", &name, NULL), 0);
	ck_assert_str_eq(name, "fake");
	tree_free(&machine);
	r->destination.teller = r->agent ? &r->destination_teller : NULL;
	r->destination.lanes_ms = r->lanes_ms;
	r->destination.place = r->place;
	r->destination.commit = on_arrived;
	r->destination.commit_arg = r;
	if (r->load_us)
		destination_set_costs(&r->destination, r->load_us, r->start_us);
	if (destination_answer(&r->destination, r->refusal, e) == 0 && !r->refusal)
		r->destination_rc = destination_receive(&r->destination, &r->dst->guest,
							&r->destination_stats, e) ||
						    destination_start(&r->destination, r->paused, e)
					    ? -1
					    : 0;
	destination_free(&r->destination);
	return NULL;
}

/* -- bringing it up and down -- */

void rig_init(struct rig *r, enum rig_link link)
{
	rig_init_sized(r, link, pages[0]);
}

void rig_init_sized(struct rig *r, enum rig_link link, uint64_t first_pages)
{
	const uint64_t sizes[] = { first_pages, pages[1] };

	memset(r, 0, sizeof(*r));
	r->link = link;
	r->pair[0] = r->pair[1] = -1;
	r->lanes_ms = 5000;
	r->limits.downtime_us = 300000;
	r->src = fake_new(&r->world, 2, sizes);
	r->dst = fake_new(&r->world, 2, sizes);
	fake_fill(r->src, 7);
	r->source_stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->destination_stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->source = (struct source_job){
		.guest = &r->src->guest,
		.n_lanes = 1,
		.stop_fd = r->source_stop,
		.limits = &r->limits,
		.stats = &r->source_stats,
		.decisions = { on_decision, r },
		.events = { .phase = on_phase,
			    .round = on_round,
			    .commit = on_commit,
			    .connect = connect_one,
			    .arg = r },
	};
}

static void init_teller(struct teller *t, struct fake *f, struct fake_agent *a)
{
	ck_assert_int_eq(teller_init(t, NULL), 0);
	t->guest = &f->guest;
	t->decisions = (struct decisions){ fake_agent_decision, a };
	f->agent = a;
}

void rig_agent(struct rig *r, struct fake_agent *a)
{
	r->agent = a;
	init_teller(&r->source_teller, r->src, a);
	init_teller(&r->destination_teller, r->dst, a);
	r->source.teller = &r->source_teller;
	r->source.guest_events = true;
}

static void start_listening(struct rig *r)
{
	char name[300] = "tcp:127.0.0.1:0";
	struct uri u;

	if (r->link == RIG_UNIX) {
		snprintf(r->dir, sizeof(r->dir), "/tmp/godwit-test-XXXXXX");
		ck_assert_ptr_nonnull(mkdtemp(r->dir));
		snprintf(name, sizeof(name), "unix:%s/s", r->dir);
	}
	ck_assert_int_eq(uri_parse(name, &u, NULL), 0);
	ck_assert_int_eq(listeners_open(&r->listeners, &u, name, sizeof(name), NULL), 0);
	ck_assert_int_eq(uri_parse(name, &r->uri, NULL), 0);
}

void rig_start(struct rig *r)
{
	if (r->link == RIG_PAIR)
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, r->pair), 0);
	else
		start_listening(r);
	if (r->link == RIG_PROXY) {
		r->proxy.destination = r->uri;
		proxy_start(&r->proxy);
	}
	r->sum = fake_sum(r->src);
	if (r->idle)
		r->world.holder = r->src;
	else
		fake_run(r->src);
	r->engine = source_new(&r->source, NULL);
	ck_assert_ptr_nonnull(r->engine);
	if (r->on_start)
		r->on_start();
	ck_assert_int_eq(pthread_create(&r->destination_thread, NULL, destination_thread, r), 0);
	ck_assert_int_eq(pthread_create(&r->source_thread, NULL, source_thread, r), 0);
}

void rig_stop(int fd)
{
	uint64_t one = 1;

	ck_assert_int_eq(write(fd, &one, sizeof(one)), sizeof(one));
}

void rig_finish(struct rig *r)
{
	bool stalled = r->proxy.fault == PROXY_STALL || r->proxy.fault == PROXY_STALL_IN;

	pthread_join(r->source_thread, NULL);
	/* As keepalive would do in half a minute. */
	if (r->link == RIG_PROXY && stalled)
		proxy_stop(&r->proxy);
	/* Nobody else will come. */
	if (!__atomic_load_n(&r->arrived, __ATOMIC_ACQUIRE) && r->source_rc)
		rig_stop(r->destination_stop);
	pthread_join(r->destination_thread, NULL);
	if (r->link == RIG_PROXY && !stalled)
		proxy_stop(&r->proxy);
}

void rig_free(struct rig *r)
{
	if (r->agent) {
		teller_free(&r->source_teller);
		teller_free(&r->destination_teller);
	}
	source_free(r->engine);
	fake_free(r->src);
	fake_free(r->dst);
	close(r->source_stop);
	close(r->destination_stop);
	if (r->listeners.n) {
		door_close(&r->door);
		listeners_close(&r->listeners);
	}
	if (r->dir[0])
		rmdir(r->dir);
}

/* -- a guest that writes by plan -- */

#define PLAN_RATE (100u << 20)

static void write_some(struct rig *r, uint64_t first, uint64_t n)
{
	uint64_t i;

	for (i = 0; i < n; i++)
		if (i % 4)
			fake_write(r->src, 0, first + i * 2, 9, first + i);
		else
			fake_clear(r->src, 0, first + i * 2);
}

/* The first round ends with block 1: what is written then in block 0 is for the second. */
static void plan_touched(struct fake *f, unsigned int block)
{
	if (block == 1)
		write_some(f->arg, 10, 300);
}

/* From the second on: pages that are not in that round's own set, so they are for the next. */
static void plan_round(struct rig *r, uint64_t round)
{
	if (r->src->parked)
		return;
	if (round == 2)
		write_some(r, 11, 200);
	else if (round == 3)
		write_some(r, 700, 120);
}

void rig_dirty_by_plan(struct rig *r)
{
	r->limits.bandwidth = PLAN_RATE;
	r->src->on_touched = plan_touched;
	r->src->arg = r;
	r->on_round = plan_round;
}

/* -- what must hold -- */

void rig_check(struct rig *r)
{
	enum owner owner = source_owner(r->engine);
	bool writing = r->src->writers || r->on_round;

	ck_assert(!r->world.doubled);
	if (r->source_rc == 0)
		ck_assert_int_eq(owner, OWNER_DESTINATION);
	else
		ck_assert_int_ne(owner, OWNER_DESTINATION);
	if (owner == OWNER_NOBODY)
		ck_assert_msg(r->committed, "undecided, but GO was not sent: %s",
			      r->source_error.text);
	if (owner == OWNER_SOURCE) {
		ck_assert_msg(!r->dst->runs, "the destination runs, too: %s", r->source_error.text);
		ck_assert_msg(r->src->runs == !r->idle, "nobody runs: %s", r->source_error.text);
		ck_assert(!r->src->parked && !r->src->shared);
		ck_assert_ptr_eq(r->world.holder, r->src);
	} else {
		ck_assert(!r->src->runs && r->src->parked);
		ck_assert_ptr_eq(r->world.holder, r->dst->starts ? r->dst : NULL);
	}
	if (owner != OWNER_NOBODY)
		ck_assert(!r->src->logging);
	if (owner == OWNER_DESTINATION)
		ck_assert(r->destination_rc == 0 && (r->dst->runs || r->paused || !r->src->ran));
	ck_assert(r->dst->runs <= r->committed);
	fake_stop(r->src);
	fake_stop(r->dst);
	if (!writing)
		ck_assert_uint_eq(fake_sum(r->src), r->sum);
	if (r->dst->starts && !r->dst->writers) {
		ck_assert(fake_same(r->src, r->dst));
		ck_assert_uint_eq(r->dst->value, r->src->value);
	}
}

static unsigned int count(const char *path)
{
	DIR *d = opendir(path);
	unsigned int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void *nothing(void *arg)
{
	return arg;
}

void rig_count(unsigned int *fds, unsigned int *threads)
{
	pthread_t first;

	/* The thread sanitizer has a thread of its own, which comes with the first of ours. */
	pthread_create(&first, NULL, nothing, NULL);
	pthread_join(first, NULL);
	usleep(20000);
	*fds = count("/proc/self/fd");
	*threads = count("/proc/self/task");
}

void rig_check_count(unsigned int fds, unsigned int threads)
{
	unsigned int now_fds, now_threads, i;

	/* A thread that was joined may be seen for a moment yet. */
	for (i = 0; i < 1000; i++) {
		now_fds = count("/proc/self/fd");
		now_threads = count("/proc/self/task");
		if (now_threads == threads)
			break;
		usleep(1000);
	}
	ck_assert_uint_eq(now_fds, fds);
	ck_assert_uint_eq(now_threads, threads);
}
