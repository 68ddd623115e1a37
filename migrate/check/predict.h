/*
 * How a migration that has not begun would end. Simulates its rounds on a fake clock, from samples
 * of the guest's writes and of the link, with the same rules as the engine (course.h, converge.h,
 * timeout.h). Pure.
 */
#ifndef GODWIT_MIGRATE_CHECK_PREDICT_H
#define GODWIT_MIGRATE_CHECK_PREDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/policy/converge.h"
#include "migrate/policy/timeout.h"

struct policy;

#define PREDICT_LOOKS_MAX 8

/* A point of the curve: what was dirty `us` after the dirty log was cleared. */
struct predict_look {
	uint64_t us, bytes;
};

struct predict_input {
	uint64_t send_bytes; /* memory that the first round sends */
	uint64_t rate_bytes; /* that the link takes in a second; 0: not known */
	uint64_t round_trip_us;
	struct predict_look look[PREDICT_LOOKS_MAX]; /* sorted by both members */
	unsigned int n_looks;

	/* What is allowed. */
	uint64_t limit_us;	    /* the downtime */
	uint64_t fixed_us;	    /* the pause without pages and round trips */
	bool throttle, compression; /* compression: its gain is not simulated */
	bool by_limit;		    /* throttles by a dirty limit, whose floor is in `bounds` */
	struct converge_bounds bounds;
	const struct policy *policy; /* NULL: none */
	struct timeout_limits timeout;
	enum timeout_action timeout_action;
	uint64_t ram_bytes; /* the guest's RAM, for timeouts per GiB */
};

enum predict_answer {
	PREDICT_UNKNOWN, /* the sentence says what it depends on */
	PREDICT_CONVERGES,
	PREDICT_FORCED,	  /* moved with a pause longer than is allowed: a timeout forces it */
	PREDICT_GIVEN_UP, /* by the policy or a timeout */
	PREDICT_NEVER,	  /* its rounds would go on without end */
};

/* "converges", "forced", "given-up", "never", "unknown". */
const char *predict_answer_name(enum predict_answer a);

struct prediction {
	enum predict_answer answer;
	/*
	 * Time from the first page on, until the guest is moved or the migration fails. If the
	 * curve still grew at its end, nobody knows how far it would go: `least_us` assumes that it
	 * stops there, `total_us` that it grows to all memory.
	 */
	uint64_t total_us, least_us;
	uint64_t pause_us;
	uint64_t limit_us;   /* the downtime that is allowed at the end: a policy may raise it */
	unsigned int rounds; /* including the last, in the pause */
	uint64_t sent_bytes;
	unsigned int throttle_permille; /* the highest */
	uint64_t lost_us;		/* vCPU time that the throttle takes */
	char sentence[400];
};

void predict_make(const struct predict_input *in, struct prediction *out);

#endif
