/*
 * What will become of a migration that has not begun: from a sample of how the guest writes and of
 * how fast the link is, by going through the rounds on a fake clock, with the very rules that the
 * engine has (switchover.h, converge.h, schedule.h, timeout.h). Pure.
 */
#ifndef GODWIT_MIGRATE_CHECK_PREDICT_H
#define GODWIT_MIGRATE_CHECK_PREDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/policy/converge.h"
#include "migrate/policy/timeout.h"

struct policy;

#define PREDICT_LOOKS_MAX 8

/* So long after the dirty log was clear, so much memory had been written to. */
struct predict_look {
	uint64_t us, bytes;
};

struct predict_input {
	uint64_t send_bytes; /* of pages that the first round sends */
	uint64_t rate_bytes; /* of the link, a second; 0: not known */
	uint64_t round_trip_us;
	struct predict_look look[PREDICT_LOOKS_MAX]; /* both rising */
	unsigned int n_looks;

	/* What is allowed. */
	uint64_t limit_us, fixed_us; /* downtime; of the pause, what is not pages */
	bool throttle, compression;  /* what the latter gains is not reckoned with */
	bool by_limit;		     /* throttle: by a dirty limit, with its floor in `bounds` */
	struct converge_bounds bounds;
	const struct policy *policy; /* NULL: none */
	struct timeout_limits timeout;
	enum timeout_action timeout_action;
	uint64_t ram_bytes; /* what timeouts go by */
};

enum predict_answer {
	PREDICT_UNKNOWN, /* the sentence says what it depends on */
	PREDICT_CONVERGES,
	PREDICT_FORCED,	  /* moved, by a pause longer than is allowed */
	PREDICT_GIVEN_UP, /* by the policy or a timeout */
	PREDICT_NEVER,
};

/* "converges", "forced", "given-up", "never", "unknown". */
const char *predict_answer_name(enum predict_answer a);

struct prediction {
	enum predict_answer answer;
	/*
	 * From the first page on. What the guest writes to beyond what was seen nobody knows: the
	 * least time is without it, the total with as much as there is memory. (Where it is not
	 * moved: until that is certain.)
	 */
	uint64_t total_us, least_us;
	uint64_t pause_us, limit_us; /* and what is allowed by then: a policy may raise that */
	unsigned int rounds;	     /* the last, in the pause, included */
	uint64_t sent_bytes;
	unsigned int throttle_permille; /* the highest */
	uint64_t lost_us;		/* of the guest's work, by the throttle */
	char sentence[400];
};

void predict_make(const struct predict_input *in, struct prediction *out);

#endif
