/*
 * What a migration counts. Its threads write, any thread reads. Each counter is atomic by itself,
 * so sums agree only once the migration is over (transferred = page data + the rest, all channels).
 */
#ifndef GODWIT_MIGRATE_STATS_H
#define GODWIT_MIGRATE_STATS_H

#include <stdint.h>

#define STATS_VCPUS_MAX 256

struct stats {
	uint64_t total_pages;	  /* of the guest's RAM */
	uint64_t remaining_pages; /* still to be sent in this round; at its end: in the next */
	uint64_t normal_pages;	  /* sent whole, over all rounds */
	uint64_t zero_pages;	  /* found zero, over all rounds */
	/* Sent as XBZRLE, or not sent because nothing had changed; and the bytes of that. */
	uint64_t xbzrle_pages, xbzrle_bytes;
	uint64_t xbzrle_misses, xbzrle_overflows; /* pages not in the cache; that did not shrink */
	uint64_t compressed_pages, compressed_bytes; /* of normal_pages */
	uint64_t data_bytes;			     /* page data */
	uint64_t meta_bytes;			     /* heads, runs, trees */
	uint64_t precopy_bytes;	    /* both, when the guest was parked; 0: it is not */
	uint64_t round;		    /* 1 is the first */
	uint64_t dirty_pages;	    /* found dirty at the end of the last round */
	uint64_t dirty_rate;	    /* pages a second (dirty_rate.h) */
	uint64_t send_rate;	    /* bytes a second, as last measured (link.h) */
	uint64_t throttle_permille; /* the share of the vCPUs' time that is taken */
	uint64_t vcpu_limit_bytes;  /* each vCPU's dirty limit, bytes a second; 0: none */
	uint64_t vcpu_dirty_bytes[STATS_VCPUS_MAX]; /* a second; only with dirty rings */
	uint64_t expected_us;			    /* the pause if the guest were parked now */
	/* The parts of the pause, in us. */
	uint64_t park_us;     /* vCPUs and devices stop */
	uint64_t pages_us;    /* the last pages are sent, and arrive */
	uint64_t sync_us;     /* the source's disks are synced, meanwhile */
	uint64_t states_us;   /* the states are collected and sent */
	uint64_t load_us;     /* the destination loads them and says READY */
	uint64_t start_us;    /* GO until RUNNING */
	uint64_t downtime_us; /* park to RUNNING */
	uint64_t setup_us;    /* start to the first page */
	/* When the round under way began (0: none has), and data_bytes then. */
	uint64_t round_at_us, round_from_bytes;
};

/* stats_copy() takes it for an array of counters, so each member is a uint64_t or an array of them.
 * A new member is counted here. */
#define STATS_COUNTERS (30 + STATS_VCPUS_MAX)
_Static_assert(sizeof(struct stats) == STATS_COUNTERS * sizeof(uint64_t),
	       "all members of struct stats are uint64_t, and STATS_COUNTERS counts them");

/* After this time the round under way tells the send rate better than the one before it. */
#define STATS_RATE_US 20000u

static inline void stats_add(uint64_t *counter, uint64_t n)
{
	__atomic_add_fetch(counter, n, __ATOMIC_RELAXED);
}

static inline void stats_set(uint64_t *value, uint64_t n)
{
	__atomic_store_n(value, n, __ATOMIC_RELAXED);
}

static inline uint64_t stats_get(const uint64_t *value)
{
	return __atomic_load_n(value, __ATOMIC_RELAXED);
}

/* Each counter at about the same moment. */
static inline void stats_copy(struct stats *to, const struct stats *from)
{
	for (unsigned int i = 0; i < STATS_COUNTERS; i++)
		((uint64_t *)to)[i] = stats_get((const uint64_t *)from + i);
}

/* Pages whose contents were sent, encoded or not. */
static inline uint64_t stats_data_pages(const struct stats *st)
{
	return stats_get(&st->normal_pages) + stats_get(&st->xbzrle_pages);
}

static inline void stats_begin_round(struct stats *st, uint64_t round, uint64_t now_us)
{
	stats_set(&st->round_from_bytes, stats_get(&st->data_bytes));
	stats_set(&st->round_at_us, now_us);
	stats_set(&st->round, round);
}

/* The send rate in the round under way, from a copy of the stats: what users are shown. Pure. */
static inline uint64_t stats_rate(const struct stats *st, uint64_t now_us)
{
	uint64_t us = now_us > st->round_at_us ? now_us - st->round_at_us : 0;

	if (!st->round_at_us || (us < STATS_RATE_US && st->send_rate))
		return st->send_rate;
	return us ? (st->data_bytes - st->round_from_bytes) * 1000000 / us : 0;
}

#endif
