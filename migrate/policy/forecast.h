/*
 * Whether a pre-copy will end, when, and with what pause; and if not, what would help. Simulates
 * the rounds to come at measured rates, and ends them as switchover.h would. Pure.
 */
#ifndef GODWIT_MIGRATE_POLICY_FORECAST_H
#define GODWIT_MIGRATE_POLICY_FORECAST_H

#include <stdbool.h>
#include <stdint.h>

struct forecast_input {
	uint64_t send_bytes;	    /* a second; 0: not known */
	uint64_t dirty_bytes;	    /* a second, by the guest at its present speed */
	uint64_t remaining_bytes;   /* to be sent in the next round */
	uint64_t working_set_bytes; /* memory that is written again and again; 0: not known */
	uint64_t limit_us;	    /* the downtime that is allowed */
	uint64_t fixed_us;	    /* the pause without pages */
	/* dirty_bytes is a lower bound: by the end of the round all of the working set was dirty.
	 */
	bool saturated;
	/* What may be used, but was not in use when the rates were measured. */
	bool throttle, compression;
	unsigned int compressed_pct; /* the size to which compression brings a page; 0: not known */
};

enum forecast_answer { FORECAST_UNKNOWN, FORECAST_YES, FORECAST_NO };

struct forecast {
	enum forecast_answer converges;
	/* If FORECAST_YES: counted from now, with the least throttle that is enough. */
	uint64_t total_us, pause_us;
	unsigned int throttle_pct;
	/* If FORECAST_NO: the downtime limit with which it would converge. */
	uint64_t needed_us;
	char sentence[400];
};

void forecast_make(const struct forecast_input *in, struct forecast *out);

/* The highest downtime limit that can be set. */
#define FORECAST_DOWNTIME_MAX_US 2000000000u

/* What would help a migration that does not converge. */
struct forecast_help {
	bool throttle, downtime;
	unsigned int throttle_pct; /* 0: not known */
	bool compression, compression_known;
};

/*
 * Only the sentences, for callers that have the answer already. They are appended to f->sentence,
 * and take their numbers from f.
 */
void forecast_say_rates(const struct forecast_input *in, struct forecast *f);
void forecast_say_yes(const struct forecast_input *in, bool compression, struct forecast *f);
void forecast_say_no(const struct forecast_input *in, const struct forecast_help *help,
		     struct forecast *f);
void forecast_say_help(const struct forecast_help *help, struct forecast *f);

#endif
