/*
 * Timeouts. What remains falls within every round, even if the migration gets nowhere. So sending
 * counts as progress only in a round that began with less than any round before it.
 */
#include "migrate/policy/timeout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GIB (1ull << 30)

static const char *const actions[] = {
	[TIMEOUT_ABORT] = "abort", [TIMEOUT_FORCE] = "force", [TIMEOUT_POSTCOPY] = "post-copy"
};

const char *timeout_action_name(enum timeout_action a)
{
	return actions[a];
}

int timeout_action_find(const char *name)
{
	for (int a = TIMEOUT_ABORT; a <= TIMEOUT_POSTCOPY; a++)
		if (!strcmp(name, actions[a]))
			return a;
	return -1;
}

bool timeout_is_set(const struct timeout_limits *l)
{
	return l->total_s || l->per_gib_s || l->progress_s;
}

static uint64_t seconds(const struct timeout_limits *l, uint64_t ram_bytes)
{
	uint64_t gib = ram_bytes / GIB + (ram_bytes % GIB != 0), s = UINT64_MAX;

	if (l->per_gib_s && gib)
		s = l->per_gib_s < UINT64_MAX / gib ? l->per_gib_s * gib : UINT64_MAX;
	return l->total_s && l->total_s < s ? l->total_s : s;
}

uint64_t timeout_total_us(const struct timeout_limits *l, uint64_t ram_bytes)
{
	uint64_t s = seconds(l, ram_bytes);

	return s < UINT64_MAX / 1000000 ? s * 1000000 : UINT64_MAX;
}

static void look(struct timeout *t, const struct timeout_sample *s)
{
	if (s->round != t->round) {
		/* A guest that writes all the time leaves a little more or less in each round;
		 * hence the 1 %. */
		t->hopeful = s->round == 1 || !t->round ||
			     s->round_bytes < t->lowest_start - t->lowest_start / 100;
		t->round = s->round;
		/* How much the first round has to send is not known before its end. */
		t->lowest_bytes = UINT64_MAX;
		if (t->hopeful) {
			t->lowest_start = s->round == 1 ? UINT64_MAX : s->round_bytes;
			t->fell_at_us = s->now_us;
		}
	}
	if (s->remaining_bytes < t->lowest_bytes) {
		t->lowest_bytes = s->remaining_bytes;
		if (t->hopeful)
			t->fell_at_us = s->now_us;
	}
}

bool timeout_check(struct timeout *t, const struct timeout_limits *l,
		   const struct timeout_sample *s, char *reason, size_t size)
{
	uint64_t total = timeout_total_us(l, s->ram_bytes), still;

	if (s->now_us - s->start_us >= total) {
		if (total / 1000000 == l->total_s)
			snprintf(reason, size,
				 "the timeout of %" PRIu64
				 " s has passed before the guest was moved",
				 l->total_s);
		else
			snprintf(reason, size,
				 "the timeout of %" PRIu64 " s (%" PRIu64
				 " s for each GiB of %" PRIu64
				 " MiB) has passed before the guest was moved",
				 total / 1000000, l->per_gib_s, s->ram_bytes >> 20);
		return true;
	}
	if (!s->round)
		return false;
	look(t, s);
	still = s->now_us - t->fell_at_us;
	if (!l->progress_s || still / 1000000 < l->progress_s)
		return false;
	snprintf(reason, size,
		 "no progress for %" PRIu64 " s: in round %" PRIu64 " %" PRIu64
		 " bytes remain, and the lowest at the end of a round was %" PRIu64,
		 still / 1000000, s->round, s->remaining_bytes,
		 t->lowest_start == UINT64_MAX ? s->remaining_bytes : t->lowest_start);
	return true;
}
