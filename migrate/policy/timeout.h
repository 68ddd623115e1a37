/*
 * When a migration has taken too long. As in nova and KubeVirt there is a limit for all of it,
 * fixed or for each GiB of memory, and one for the time without progress. Pure: the caller has the
 * clock.
 */
#ifndef GODWIT_MIGRATE_POLICY_TIMEOUT_H
#define GODWIT_MIGRATE_POLICY_TIMEOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum timeout_action { TIMEOUT_ABORT, TIMEOUT_FORCE, TIMEOUT_POSTCOPY };

/* "abort", "force", "post-copy". */
const char *timeout_action_name(enum timeout_action a);
/* The action of that name; -1: there is none. */
int timeout_action_find(const char *name);

/* 0: no limit. */
struct timeout_limits {
	uint64_t total_s;    /* for the whole migration */
	uint64_t per_gib_s;  /* for each GiB of the guest's RAM, rounded up. If total_s is set
				too, the shorter time holds */
	uint64_t progress_s; /* without progress: at least 1 % less remains than ever before */
};

/* The state of a migration at one moment. Both times are of the same clock. */
struct timeout_sample {
	uint64_t now_us, start_us;
	uint64_t ram_bytes;	  /* all memory of the guest; 0: not known yet */
	uint64_t round;		  /* 0: the first has not begun */
	uint64_t round_bytes;	  /* to be sent when this round began; not used in round 1 */
	uint64_t remaining_bytes; /* of that, not sent yet */
};

/* The progress so far. Zero before the first sample. */
struct timeout {
	uint64_t round;
	bool hopeful;	       /* this round began with at least 1 % less than any before it */
	uint64_t lowest_start; /* the least that a round began with */
	uint64_t lowest_bytes; /* the least that remained within this round */
	uint64_t fell_at_us;   /* the last progress; 0: none yet */
};

bool timeout_is_set(const struct timeout_limits *l);

/* The limit for the whole migration, in us from its start; UINT64_MAX: none. */
uint64_t timeout_total_us(const struct timeout_limits *l, uint64_t ram_bytes);

/*
 * True if a limit has passed, with the sentence why in `reason`. The caller asks several times in
 * progress_s. Sending is progress only in a round that began with at least 1 % less than all rounds
 * before it.
 */
bool timeout_check(struct timeout *t, const struct timeout_limits *l,
		   const struct timeout_sample *s, char *reason, size_t size);

#endif
