/*
 * The course of a pre-copy: at the end of a round, and within one, the decision to go on, to park
 * the guest, to raise the downtime limit or to give up. The engine asks it with measured figures,
 * and a check with simulated ones, so that both always decide alike. Pure.
 */
#ifndef GODWIT_MIGRATE_POLICY_COURSE_H
#define GODWIT_MIGRATE_POLICY_COURSE_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/policy/schedule.h"
#include "migrate/policy/stall.h"

struct course_figures {
	uint64_t round;		  /* 1 is the first */
	uint64_t remaining_bytes; /* dirty, or still to be sent in this round */
	uint64_t rate_bytes;	  /* a second, as achieved */
	uint64_t fixed_us;	  /* the pause without the pages that remain */
	uint64_t limit_us;	  /* the downtime that is allowed now */
	bool timed;		  /* a timeout decides if the limit cannot be kept */
	bool forced;		  /* the guest is to be parked, however long the pause will be */
	bool agent_busy;	  /* the guest's agent is still being told of the migration */

	/* Only at the end of a round: how long it took. */
	uint64_t round_us;

	/* Only within a round: the limit when it began, and how long it takes to send all that
	 * remains, as of the last look at the dirty log (UINT64_MAX: not known). */
	uint64_t round_limit_us, rest_us;
};

enum course_action {
	COURSE_GO_ON,
	COURSE_PARK,
	/* The guest could be parked, but its agent is busy: wait for it, then send one more round.
	 * Meanwhile the guest goes on writing. */
	COURSE_AWAIT_AGENT,
	COURSE_GIVE_UP,	 /* the policy says so */
	COURSE_POSTCOPY, /* the policy says so */
};

struct course_verdict {
	enum course_action action;
	uint64_t expected_us; /* the pause if the guest were parked now */
	const char *reason;   /* of COURSE_PARK and COURSE_AWAIT_AGENT; else why not */

	/* An item of the policy has fired: what it was, and why. */
	bool policy_fired;
	struct schedule_step policy_step;
	uint64_t limit_us; /* the downtime that is allowed from now on; never below the figures' */

	/* Of the round that has ended; neither, if it was too short to count (stall.h). */
	bool stalled, progressed;
};

/* Zero: no policy, before the first round. */
struct course {
	const struct policy *policy; /* NULL: none */
	struct schedule schedule;
	struct stall stall;
	bool any; /* a round has ended: `previous_bytes` is what it left */
	uint64_t previous_bytes;
};

/* Before the first round. *limit_us becomes the policy's first downtime limit, if it has one. */
void course_begin(struct course *c, const struct policy *p, uint64_t *limit_us);

/*
 * A round has ended, and no further one can make the pause fit the limit, but a policy or a timeout
 * decides what is done about that. The caller waits a little before it asks course_round_end, and
 * the wait counts into `round_us`: such rounds would otherwise follow each other without a pause.
 */
bool course_must_wait(const struct course *c, const struct course_figures *f);

/* A round has ended. Counts it, and asks the policy unless the guest can be parked. */
struct course_verdict course_round_end(struct course *c, const struct course_figures *f);

/* Within a round: COURSE_PARK or COURSE_GO_ON. */
struct course_verdict course_within_round(const struct course *c, const struct course_figures *f);

/* Within a round: the limit has been raised since it began, and all that remains fits now. */
bool course_fits_raised_limit(const struct course_figures *f);

#define COURSE_BY_FORCE "by force: the time is over"

#endif
