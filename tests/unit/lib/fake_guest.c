/*
 * The fake guest: see fake_guest.h. The writers' stores are hidden from the thread sanitizer: a
 * guest's memory is read while it runs, and what is torn is sent once more.
 */
#include "tests/unit/lib/fake_guest.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/lib/fake_agent.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

#define WORDS (PAGE_SIZE / sizeof(uint64_t))

static struct fake *fake_of(struct guest *g)
{
	return (struct fake *)g;
}

/* -- running -- */

static void set_running(struct fake *f, bool on)
{
	int now;

	if (f->runs == on)
		return;
	f->runs = on;
	if (!f->world)
		return;
	now = __atomic_add_fetch(&f->world->running, on ? 1 : -1, __ATOMIC_SEQ_CST);
	if (now < 0 || now > 1)
		__atomic_store_n(&f->world->doubled, true, __ATOMIC_SEQ_CST);
}

/* Takes the disk, which nobody else may have. */
static int take_disk(struct fake *f, struct err *e)
{
	struct fake *nobody = NULL;

	if (f->world &&
	    !__atomic_compare_exchange_n(&f->world->holder, &nobody, f, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST) &&
	    nobody != f)
		return err_set(e, "the disk is in use by the other side");
	return 0;
}

__attribute__((no_sanitize("thread"))) static void store(struct fake *f, unsigned int block,
							 uint64_t page, unsigned int word,
							 uint64_t value)
{
	volatile uint64_t *at = (volatile void *)(f->guest.blocks[block].host + page * PAGE_SIZE);

	at[word] = value;
}

static void wrote(struct fake *f, unsigned int block, uint64_t page)
{
	bitmap_set_atomic(f->touched[block], page);
	if (__atomic_load_n(&f->logging, __ATOMIC_SEQ_CST))
		bitmap_set_atomic(f->log[block], page);
}

void fake_write(struct fake *f, unsigned int block, uint64_t page, unsigned int word,
		uint64_t value)
{
	store(f, block, page, word, value);
	wrote(f, block, page);
}

void fake_clear(struct fake *f, unsigned int block, uint64_t page)
{
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		store(f, block, page, i, 0);
	wrote(f, block, page);
}

static uint64_t scramble(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* As if so much of its time were taken from it; begun anew each time, as it may end. */
static void rest_throttled(struct fake *f)
{
	unsigned int permille = __atomic_load_n(&f->permille, __ATOMIC_RELAXED);
	uint64_t limit = __atomic_load_n(&f->dirty_limit, __ATOMIC_RELAXED);

	if (permille)
		usleep(permille < 990 ? 20 * permille / (1000 - permille) : 2000);
	if (limit)
		usleep((useconds_t)(f->writers * PAGE_SIZE * 1000000 / limit));
}

static void *writer(void *arg)
{
	struct fake *f = arg;
	uint64_t n = 0, seed = scramble((uintptr_t)pthread_self());

	while (!__atomic_load_n(&f->stop, __ATOMIC_ACQUIRE)) {
		uint64_t r = scramble(seed + ++n);
		unsigned int block = (unsigned int)(r % f->guest.n_blocks);
		uint64_t pages = f->guest.blocks[block].pages;
		uint64_t page = (r >> 8) % (f->writer_pages < pages ? f->writer_pages : pages);

		page += block ? 0 : f->writer_first;
		if (r >> 32 & 7)
			fake_write(f, block, page, (unsigned int)(r >> 40) % WORDS, r);
		else
			fake_clear(f, block, page);
		__atomic_add_fetch(&f->writes, 1, __ATOMIC_RELAXED);
		if (f->writer_rest_us)
			usleep((useconds_t)f->writer_rest_us);
		rest_throttled(f);
	}
	return NULL;
}

static void start_writers(struct fake *f)
{
	unsigned int i;

	__atomic_store_n(&f->stop, false, __ATOMIC_RELEASE);
	for (i = 0; i < f->writers; i++)
		if (pthread_create(&f->thread[i], NULL, writer, f))
			abort();
}

static void stop_writers(struct fake *f)
{
	unsigned int i;

	__atomic_store_n(&f->stop, true, __ATOMIC_RELEASE);
	for (i = 0; i < f->writers; i++)
		pthread_join(f->thread[i], NULL);
}

void fake_run(struct fake *f)
{
	take_disk(f, NULL);
	set_running(f, true);
	start_writers(f);
}

void fake_stop(struct fake *f)
{
	if (f->runs)
		stop_writers(f);
	set_running(f, false);
}

/* -- what the engine asks for -- */

static int fake_log_start(struct guest *g, struct err *e)
{
	struct fake *f = fake_of(g);
	unsigned int i;
	uint64_t page;

	if (f->fail_log)
		return err_set(e, "%s", f->fail_log);
	for (i = 0; i < g->n_blocks; i++)
		for (page = 0; !f->log_is_taken && page < g->blocks[i].pages; page++)
			bitmap_set_atomic(f->log[i], page);
	memset(f->asked, 0, sizeof(f->asked));
	__atomic_store_n(&f->logging, true, __ATOMIC_SEQ_CST);
	return 0;
}

static int fake_log_fetch(struct guest *g, unsigned int block, uint64_t *bits, struct err *e)
{
	struct fake *f = fake_of(g);
	uint64_t i;

	(void)e;
	for (i = 0; i < BITMAP_WORDS(g->blocks[block].pages); i++)
		bits[i] |= f->log_is_taken
				   ? __atomic_exchange_n(&f->log[block][i], 0, __ATOMIC_ACQ_REL)
				   : __atomic_load_n(&f->log[block][i], __ATOMIC_ACQUIRE);
	return 0;
}

static int fake_log_clear(struct guest *g, unsigned int block, uint64_t first, uint64_t n,
			  const uint64_t *bits, struct err *e)
{
	struct fake *f = fake_of(g);
	uint64_t i;

	if (first % 64 || first + n > g->blocks[block].pages ||
	    (n % 64 && first + n != g->blocks[block].pages))
		return err_set(e, "KVM would not clear %lu pages from %lu", n, first);
	for (i = 0; !f->log_is_taken && i < BITMAP_WORDS(n); i++)
		__atomic_fetch_and(&f->log[block][first / 64 + i], ~bits[i], __ATOMIC_SEQ_CST);
	return 0;
}

static void fake_log_stop(struct guest *g)
{
	__atomic_store_n(&fake_of(g)->logging, false, __ATOMIC_SEQ_CST);
}

static void fake_throttle(struct guest *g, unsigned int vcpu, unsigned int permille)
{
	struct fake *f = fake_of(g);

	if (vcpu) {
		if (permille)
			__atomic_store_n(&f->others_permille, permille, __ATOMIC_RELAXED);
		return;
	}
	__atomic_store_n(&f->permille, permille, __ATOMIC_RELAXED);
	if (permille > f->highest_permille)
		__atomic_store_n(&f->highest_permille, permille, __ATOMIC_RELAXED);
}

static int fake_touched(struct guest *g, unsigned int block, uint64_t first, uint64_t n,
			uint64_t *touched, struct err *e)
{
	struct fake *f = fake_of(g);
	uint64_t i;

	(void)e;
	for (i = 0; i < n; i++)
		if (__atomic_load_n(&f->touched[block][(first + i) / 64], __ATOMIC_ACQUIRE) >>
			    ((first + i) % 64) &
		    1)
			bitmap_set(touched, i);
	if (f->on_touched && f->asked[block])
		f->on_touched(f, block);
	f->asked[block] = true;
	return 0;
}

static bool fake_names_free_pages(struct guest *g)
{
	return fake_of(g)->names_free;
}

static void fake_free_pages_name(struct guest *g, guest_found_fn *found, void *arg)
{
	struct fake *f = fake_of(g);

	if (!f->logging || f->names_asked != f->names_done)
		abort();
	f->names_asked++;
	f->found = found;
	f->found_arg = arg;
	if (f->on_asked)
		f->on_asked(f);
}

static void fake_free_pages_stop(struct guest *g)
{
	struct fake *f = fake_of(g);

	if (f->namer_runs)
		pthread_join(f->namer, NULL);
	f->namer_runs = false;
	f->names_stopped++;
	f->found = NULL;
}

static void fake_free_pages_done(struct guest *g)
{
	fake_of(g)->names_done++;
	fake_of(g)->done_parked = fake_of(g)->parked;
}

void fake_name(struct fake *f, unsigned int block, uint64_t first, uint64_t n)
{
	if (f->found)
		f->found(f->found_arg, block, first, n);
}

static int fake_park(struct guest *g, struct err *e)
{
	struct fake *f = fake_of(g);

	if (f->fail_park)
		return err_set(e, "%s", f->fail_park);
	f->parks++;
	if (f->agent)
		fake_agent_note(f->agent, "park");
	f->parked = true;
	f->ran = f->runs;
	fake_stop(f);
	return 0;
}

static int fake_unpark(struct guest *g, struct err *e)
{
	struct fake *f = fake_of(g);

	if (f->fail_unpark)
		return err_set(e, "%s", f->fail_unpark);
	if (take_disk(f, e))
		return -1;
	f->unparks++;
	f->parked = false;
	if (f->agent)
		fake_agent_note(f->agent, "unpark");
	if (f->ran) {
		set_running(f, true);
		start_writers(f);
	}
	return 0;
}

static int fake_states_save(struct guest *g, struct tree *states, struct err *e)
{
	struct fake *f = fake_of(g);

	f->saves++;
	if (f->before_save)
		f->before_save(f);
	if (f->fail_save)
		return err_set(e, "%s", f->fail_save);
	usleep(f->save_takes_us);
	if (tree_init(states, e))
		return -1;
	if (tree_set_u32(states, "/vm", "value", f->value, e)) {
		tree_free(states);
		return -1;
	}
	tree_pack(states);
	return 0;
}

static int fake_rehearse(struct guest *g, struct guest_costs *out, struct err *e)
{
	struct fake *f = fake_of(g);

	f->rehearsals++;
	*out = f->costs;
	return f->costs.save_us ? 0 : err_set(e, "the fake does not know");
}

static bool fake_ran(struct guest *g)
{
	return fake_of(g)->ran;
}

static void fake_share(struct guest *g, bool on)
{
	fake_of(g)->shared = on;
}

static int fake_dirty_limit(struct guest *g, uint64_t bytes_per_s, struct err *e)
{
	if (bytes_per_s && !g->vcpu_dirty_known)
		return err_set(e, "the fake has no dirty rings");
	__atomic_store_n(&fake_of(g)->dirty_limit, bytes_per_s, __ATOMIC_RELAXED);
	fake_of(g)->dirty_limits += bytes_per_s != 0;
	return 0;
}

/* The first of its vCPUs is all writers together. */
static uint64_t fake_vcpu_dirty_pages(struct guest *g, unsigned int vcpu)
{
	return vcpu ? 0 : __atomic_load_n(&fake_of(g)->writes, __ATOMIC_RELAXED);
}

static void fake_sync_begin(struct guest *g)
{
	__atomic_add_fetch(&fake_of(g)->syncs, 1, __ATOMIC_RELAXED);
}

static int fake_sync_done(struct guest *g, struct err *e)
{
	struct fake *f = fake_of(g);

	if (f->sync_hangs)
		return 0;
	return f->fail_sync ? err_set(e, "%s", f->fail_sync) : 1;
}

static void fake_release(struct guest *g)
{
	struct fake *f = fake_of(g);

	f->releases++;
	if (f->world && __atomic_load_n(&f->world->holder, __ATOMIC_SEQ_CST) == f)
		__atomic_store_n(&f->world->holder, NULL, __ATOMIC_SEQ_CST);
}

static int fake_open_agent(struct guest *g, struct err *e)
{
	struct fake *f = fake_of(g);

	if (!f->agent)
		return err_set(e, "the fake has no agent");
	return f->runs ? fake_agent_open(f->agent, e) : err_set(e, "the fake is paused");
}

static int fake_states_load(struct guest *g, const struct tree *states, uint64_t advance_ns,
			    struct err *e)
{
	struct fake *f = fake_of(g);

	if (f->fail_load)
		return err_set(e, "%s", f->fail_load);
	usleep(f->load_takes_us);
	f->loads++;
	f->advance_ns = advance_ns;
	return tree_u32(states, "/vm", "value", &f->value, e);
}

static int fake_start(struct guest *g, bool run, const struct guest_last *last, struct err *e)
{
	struct fake *f = fake_of(g);

	if (f->before_start)
		f->before_start(f);
	if (f->fail_start)
		return err_set(e, "%s", f->fail_start);
	if (take_disk(f, e))
		return -1;
	if (last && last->ask(last->arg, e)) {
		fake_release(g);
		return -1;
	}
	if (f->fail_entry)
		return err_set(e, "%s", f->fail_entry), 1;
	f->starts++;
	if (f->agent)
		fake_agent_note(f->agent, "start");
	if (run) {
		set_running(f, true);
		start_writers(f);
	}
	return 0;
}

static void fake_settle(struct guest *g)
{
	fake_of(g)->settles++;
}

/* -- what the owner of a machine asks -- */

static int fake_agree(struct guest *g, struct err *e)
{
	(void)g;
	(void)e;
	return 0;
}

static void fake_left(struct guest *g)
{
	(void)g;
}

static void fake_set_announce(struct guest *g, const struct guest_announce *a)
{
	(void)g;
	(void)a;
}

static int fake_take_over(struct guest *g, bool run, struct err *e)
{
	return fake_start(g, run, NULL, e);
}

static const struct guest_ops ops = {
	.log_start = fake_log_start,
	.log_fetch = fake_log_fetch,
	.log_clear = fake_log_clear,
	.log_stop = fake_log_stop,
	.throttle = fake_throttle,
	.touched = fake_touched,
	.names_free_pages = fake_names_free_pages,
	.free_pages_name = fake_free_pages_name,
	.free_pages_stop = fake_free_pages_stop,
	.free_pages_done = fake_free_pages_done,
	.park = fake_park,
	.unpark = fake_unpark,
	.states_save = fake_states_save,
	.ran = fake_ran,
	.rehearse = fake_rehearse,
	.share = fake_share,
	.settle = fake_settle,
	.dirty_limit = fake_dirty_limit,
	.vcpu_dirty_pages = fake_vcpu_dirty_pages,
	.sync_begin = fake_sync_begin,
	.sync_done = fake_sync_done,
	.release = fake_release,
	.agent_open = fake_open_agent,
	.states_load = fake_states_load,
	.start = fake_start,
	.may_leave = fake_agree,
	.check_host = fake_agree,
	.left = fake_left,
	.set_announce = fake_set_announce,
	.take_back = fake_unpark,
	.take_over = fake_take_over,
};

/* -- making and looking -- */

struct fake *fake_new(struct fake_world *world, unsigned int n_blocks, const uint64_t *pages)
{
	struct fake *f = calloc(1, sizeof(*f));
	unsigned int i;

	if (!f || tree_init(&f->tree, NULL) || tree_set_str(&f->tree, "/", "name", "fake", NULL))
		abort();
	tree_pack(&f->tree);
	f->world = world;
	f->guest.ops = &ops;
	f->guest.tree = &f->tree;
	f->guest.n_blocks = n_blocks;
	f->guest.n_vcpus = 1;
	for (i = 0; i < n_blocks; i++) {
		struct guest_block *b = &f->guest.blocks[i];

		*b = (struct guest_block){ aligned_alloc(PAGE_SIZE, pages[i] * PAGE_SIZE),
					   pages[i] };
		f->log[i] = calloc(BITMAP_WORDS(pages[i]), sizeof(uint64_t));
		f->touched[i] = calloc(BITMAP_WORDS(pages[i]), sizeof(uint64_t));
		if (!b->host || !f->log[i] || !f->touched[i])
			abort();
		memset(b->host, 0, pages[i] * PAGE_SIZE);
	}
	return f;
}

void fake_free(struct fake *f)
{
	unsigned int i;

	fake_stop(f);
	for (i = 0; i < f->guest.n_blocks; i++) {
		free(f->guest.blocks[i].host);
		free(f->log[i]);
		free(f->touched[i]);
	}
	tree_free(&f->tree);
	free(f);
}

void fake_fill(struct fake *f, uint64_t seed)
{
	unsigned int b, word;
	uint64_t i;

	f->value = 42;
	for (b = 0; b < f->guest.n_blocks; b++)
		for (i = 0; i < f->guest.blocks[b].pages; i++) {
			if (i % 3 == 0)
				continue;
			if (i % 5 == 0)
				fake_clear(f, b, i);
			else if (i % 7 == 0)
				fake_write(f, b, i, WORDS - 1, i + 1);
			else
				for (word = 0; word < WORDS; word++)
					fake_write(f, b, i, word,
						   scramble(seed + (i * 8 + b) * WORDS + word));
		}
}

uint64_t fake_sum(const struct fake *f)
{
	uint64_t sum = 0, i;
	unsigned int b;

	for (b = 0; b < f->guest.n_blocks; b++) {
		const uint64_t *w = (const void *)f->guest.blocks[b].host;

		for (i = 0; i < f->guest.blocks[b].pages * WORDS; i++)
			if (w[i])
				sum += scramble(w[i] + i * 8 + b);
	}
	return sum;
}

bool fake_same(const struct fake *a, const struct fake *b)
{
	unsigned int i;

	if (a->guest.n_blocks != b->guest.n_blocks)
		return false;
	for (i = 0; i < a->guest.n_blocks; i++)
		if (a->guest.blocks[i].pages != b->guest.blocks[i].pages ||
		    memcmp(a->guest.blocks[i].host, b->guest.blocks[i].host,
			   a->guest.blocks[i].pages * PAGE_SIZE))
			return false;
	return true;
}
