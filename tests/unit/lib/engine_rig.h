/*
 * A whole migration between two fake guests: source and destination on a thread each, joined by a
 * socket pair, a unix socket, loopback TCP, or TCP through the proxy. And what must be true of any
 * migration, however it ended.
 */
#ifndef GODWIT_TESTS_ENGINE_RIG_H
#define GODWIT_TESTS_ENGINE_RIG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/channel/listeners.h"
#include "migrate/destination/destination.h"
#include "migrate/destination/door.h"
#include "migrate/destination/refusals.h"
#include "migrate/source/source.h"
#include "migrate/agent/teller.h"
#include "tests/unit/lib/engine_proxy.h"
#include "tests/unit/lib/fake_agent.h"
#include "tests/unit/lib/fake_guest.h"
#include "vmm/base/err.h"

enum rig_link { RIG_PAIR, RIG_UNIX, RIG_TCP, RIG_PROXY };

struct rig {
	/* May be changed between rig_init and rig_start. */
	enum rig_link link;
	struct source_job source; /* n_lanes, timeouts, checks; the rest is set */
	struct source_limits limits;
	struct proxy proxy;
	const char *refusal; /* what the destination answers; NULL: builds it */
	bool paused;	     /* the destination is told not to let it run */
	bool far;	     /* the ends take each other to be on different hosts */
	bool idle;	     /* the guest is paused already */
	int lanes_ms;
	struct place *place;	    /* of the destination's pages; NULL: its memory as it is */
	uint64_t load_us, start_us; /* that the destination says it takes; 0: it says nothing */
	void (*on_start)(void);	    /* all is made, and the migration begins */
	void (*on_round)(struct rig *r, uint64_t round);
	int (*on_commit)(struct rig *r, struct err *e);
	int (*on_arrived)(struct rig *r, struct err *e); /* the destination's last moment */

	struct teller source_teller, destination_teller; /* used if rig_agent was called */
	struct fake_agent *agent;
	struct fake_world world;
	struct fake *src, *dst;
	struct stats source_stats, destination_stats;
	int source_stop, destination_stop;

	struct source *engine; /* from rig_start to rig_free */

	/* How it ended: after rig_finish. */
	int source_rc, destination_rc;
	struct err source_error, destination_error;
	bool committed; /* atomic: it was asked for the last time, GO follows */
	uint64_t rounds, sent_bytes;
	enum phase phase; /* atomic */
	char reason[128];
	char limit_reason[512]; /* that the downtime limit cannot be kept */
	bool limit_in_time;	/* it was said before the guest was parked */

	/* Its own. */
	pthread_t source_thread, destination_thread;
	struct destination destination;
	bool arrived; /* atomic: the destination has accepted */
	bool left;    /* atomic: the source has closed its connection */
	struct uri uri;
	struct listeners listeners;
	struct refusals refusals;
	struct door door;
	int pair[2];
	char dir[32];
	uint64_t sum; /* of the source's memory, when nothing writes to it */
};

/* A source with something in its memory, and an empty destination. */
void rig_init(struct rig *r, enum rig_link link);
/* With so many pages in its first block. */
void rig_init_sized(struct rig *r, enum rig_link link, uint64_t first_pages);
void rig_start(struct rig *r);
void rig_finish(struct rig *r);
static inline void rig_run(struct rig *r)
{
	rig_start(r);
	rig_finish(r);
}
void rig_free(struct rig *r);

void rig_stop(int eventfd);

/* Its guest has an agent, which is told. */
void rig_agent(struct rig *r, struct fake_agent *a);

/* Makes its guest write to fewer and fewer pages, always the same: so there are several rounds, of
 * the same records each time. */
void rig_dirty_by_plan(struct rig *r);

/* Waits (at most 10 s) until a condition holds that a thread brings about. */
#define RIG_AWAIT(condition)                                          \
	do {                                                          \
		unsigned int rig_tries;                               \
		for (rig_tries = 0; !(condition); rig_tries++) {      \
			ck_assert_msg(rig_tries < 10000, #condition); \
			usleep(1000);                                 \
		}                                                     \
	} while (0)

/*
 * Asserts what must hold after each migration: one copy runs, never two did, the disk is held by
 * the one that runs; none runs only where GO went out; a source that goes on has its memory, its
 * log is off; a destination that runs has all of it.
 */
void rig_check(struct rig *r);

/* The descriptors and threads of this process, for before and after. */
void rig_count(unsigned int *fds, unsigned int *threads);
void rig_check_count(unsigned int fds, unsigned int threads);

#endif
