/*
 * Steering from round to round: asks policy/course.h with the figures of this migration, and does
 * and says what it decides. Also says when the downtime limit cannot be kept, and when the
 * migration will not converge. The migration's thread.
 */
#ifndef GODWIT_MIGRATE_STEER_H
#define GODWIT_MIGRATE_STEER_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/policy/course.h"

struct err;
struct source;

/* Zero: no policy. */
struct steer {
	struct course course;
	uint64_t left_before; /* bytes at the end of the round before */
	bool told;	      /* that it will not converge; until a round makes progress */
};

/* Before the migration: takes the policy (NULL: none), and its first downtime limit. */
void steer_begin(struct source *s, const struct policy *p);

/* What holds now, at the end of a round that leaves so many pages; `round_us` is the caller's. */
struct course_figures steer_figures(const struct source *s, uint64_t remaining_pages);

/* What holds now, within a round. */
struct course_figures steer_figures_within(const struct source *s);

/*
 * The course's decision at the end of a round. Raises the downtime limit if the policy says so. -1:
 * the policy gives up, or asks for what is not implemented.
 */
int steer_round_end(struct source *s, const struct course_figures *f, struct course_verdict *v,
		    struct err *e);

/* What the pause is expected to take beside the pages that remain. */
uint64_t steer_fixed_us(const struct source *s);

/* If the downtime limit cannot be kept however little remains: says so, as the decision
 * "downtime-limit", once for each limit. */
void steer_say_unkeepable(struct source *s);

/* Whether the guest is to be parked at once, however long the pause will be. */
bool steer_forced(const struct source *s);

#endif
