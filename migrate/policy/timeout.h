/*
 * When a migration has taken too long: as in nova and KubeVirt by a time for the whole of it, for
 * each GiB of memory or absolute, and by a time without progress. Pure: whoever has a clock asks.
 */
#ifndef GODWIT_MIGRATE_POLICY_TIMEOUT_H
#define GODWIT_MIGRATE_POLICY_TIMEOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum timeout_action { TIMEOUT_ABORT, TIMEOUT_FORCE, TIMEOUT_POSTCOPY };

/* "abort", "force", "post-copy". */
const char *timeout_action_name(enum timeout_action a);
/* -1: none is called so. */
int timeout_action_find(const char *name);

/* 0: none. */
struct timeout_limits {
	uint64_t total_s;    /* for the whole migration */
	uint64_t per_gib_s;  /* for each GiB of the guest's RAM, a begun one counts; of the two
				the shorter time holds */
	uint64_t progress_s; /* without that less remains than ever before, by a percent */
};

/* What is asked about. Times are one clock's. */
struct timeout_sample {
	uint64_t now_us, start_us;
	uint64_t ram_bytes;	  /* all that is to be moved; 0: not known yet */
	uint64_t round;		  /* 0: the first has not begun */
	uint64_t round_bytes;	  /* what was to be sent when this round began (not asked in 1) */
	uint64_t remaining_bytes; /* of that */
};

/* The progress so far; zeroed before the first sample. */
struct timeout {
	uint64_t round;
	bool hopeful;	       /* this round began with less than any before it, by a percent */
	uint64_t lowest_start; /* at the beginning of a round */
	uint64_t lowest_bytes; /* within this one */
	uint64_t fell_at_us;   /* when there was less than before; 0: never yet */
};

bool timeout_is_set(const struct timeout_limits *l);

/* The time for the whole, in us from the start; UINT64_MAX: for ever. */
uint64_t timeout_total_us(const struct timeout_limits *l, uint64_t ram_bytes);

/*
 * Whether the time is over, with a sentence why. To be asked now and then, a few times in
 * progress_s. A round counts as progress while it sends, if it began with less than all before it,
 * by a percent.
 */
bool timeout_check(struct timeout *t, const struct timeout_limits *l,
		   const struct timeout_sample *s, char *reason, size_t size);

#endif
