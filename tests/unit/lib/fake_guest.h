/*
 * A guest made of plain memory, for tests of the engine without /dev/kvm: a few blocks of pages,
 * threads that write to them, a dirty log with KVM's rules (everything is dirty at the start, fetch
 * does not clear, a write sets its bit after it is done) and one number for a state.
 *
 * A source's and a destination's copy share a world, which notices two that run at once, and two
 * that hold the disk.
 */
#ifndef GODWIT_TESTS_FAKE_GUEST_H
#define GODWIT_TESTS_FAKE_GUEST_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/guest.h"

struct fake;
struct fake_agent;

struct fake_world {
	int running; /* atomic: copies that run; 0 or 1 */
	bool doubled;
	struct fake *holder; /* atomic: who has the disk */
};

struct fake {
	struct guest guest; /* first */
	struct tree tree;
	struct fake_world *world;
	uint64_t *log[GUEST_BLOCKS_MAX], *touched[GUEST_BLOCKS_MAX]; /* atomic */
	bool logging;						     /* atomic */
	bool runs, parked, ran;

	/* Threads that write while it runs: their number, how many pages each writes to, and how
	 * long it rests after each. */
	/* As a device's marks, and KVM where it knows no manual protection: fetching takes the
	 * bits, and clearing does nothing. Before the guest runs. */
	bool log_is_taken;
	unsigned int writers;
	/* Atomic: taken from them, who are the first vCPU; ever; and from the others. */
	unsigned int permille, highest_permille, others_permille;
	uint64_t writer_first, writer_pages,
		writer_rest_us; /* the first block's, from the first on */
	pthread_t thread[4];
	bool stop;	 /* atomic */
	uint64_t writes; /* atomic: so far */

	/* The state; what load was told of the pause. */
	uint32_t value;
	uint64_t advance_ns;

	/* What it says that a pause costs, if save_us is not 0; and what it really does. */
	struct guest_costs costs;
	unsigned int rehearsals;
	unsigned int save_takes_us, load_takes_us;

	/* What shall go wrong: the sentence, or NULL. */
	const char *fail_log, *fail_park, *fail_save, *fail_sync, *fail_load, *fail_start;
	const char *fail_unpark;
	const char *fail_entry; /* it ran for a moment, and could not go on */
	bool sync_hangs;	/* a sync never ends */

	/* Called when it is about to be started, or its states to be saved; or NULL. */
	void (*before_start)(struct fake *f);
	void (*before_save)(struct fake *f);

	/* Called at the end of each question for touched pages but the first one of a block, which
	 * is before the first round; or NULL. */
	bool asked[GUEST_BLOCKS_MAX];
	void (*on_touched)(struct fake *f, unsigned int block);
	void *arg;

	struct fake_agent *agent; /* NULL: none */

	/* Whether it names free pages; and what it does when it is asked to. */
	bool names_free;
	void (*on_asked)(struct fake *f);
	guest_found_fn *found; /* while somebody listens: fake_name() */
	void *found_arg;
	pthread_t namer; /* a thread that names pages, which on_asked started */
	bool namer_runs;
	unsigned int names_asked, names_stopped, names_done;
	bool done_parked; /* it was parked when it was told that names are done with */

	/* What happened. */
	unsigned int parks, unparks, saves, syncs, loads, starts, releases, settles;
	uint64_t dirty_limit,
		dirty_limits; /* atomic: as it was set last; how often there was one */
	bool shared;	      /* as the engine said last */
};

/* `world` may be NULL. Blocks have the sizes given, in pages; all zero and never touched. */
struct fake *fake_new(struct fake_world *world, unsigned int n_blocks, const uint64_t *pages);
void fake_free(struct fake *f);

/* Lets it run, as a source before its migration, and holds the disk. */
void fake_run(struct fake *f);
/* Stops its threads: before its memory is looked at. */
void fake_stop(struct fake *f);

/* As the guest writes: 64-bit word `word` of a page; or zeros over all of it. */
void fake_write(struct fake *f, unsigned int block, uint64_t page, unsigned int word,
		uint64_t value);
void fake_clear(struct fake *f, unsigned int block, uint64_t page);

/* Names pages of a block as free, if anybody listens. */
void fake_name(struct fake *f, unsigned int block, uint64_t first, uint64_t n);

/* Fills two pages of three, some with zeros, some only at their end; the third stays untouched. */
void fake_fill(struct fake *f, uint64_t seed);

/* A number over all of its memory. */
uint64_t fake_sum(const struct fake *f);

/* Whether two have the same memory; both stopped. */
bool fake_same(const struct fake *a, const struct fake *b);

#endif
