/*
 * Will a pre-copy come to its end, when, and with which pause; and what would help it if not. From
 * measured rates, by going through the rounds that are to come as switchover.h would. Pure.
 */
#ifndef GODWIT_MIGRATE_POLICY_FORECAST_H
#define GODWIT_MIGRATE_POLICY_FORECAST_H

#include <stdbool.h>
#include <stdint.h>

struct forecast_input {
	uint64_t send_bytes;	    /* a second; 0: not known */
	uint64_t dirty_bytes;	    /* a second, at the guest's present speed */
	uint64_t remaining_bytes;   /* to be sent in the next round */
	uint64_t working_set_bytes; /* what is written to again and again; 0: not known */
	uint64_t limit_us;	    /* the downtime that is allowed */
	uint64_t fixed_us;	    /* of the pause: what is not pages */
	/* dirty_bytes is no more than a lower bound: all that is written to was dirty in the end.
	 */
	bool saturated;
	/* What may be used, and was not yet when the rates were measured. */
	bool throttle, compression;
	unsigned int compressed_pct; /* the size of a page that is sent again; 0: not known */
};

enum forecast_answer { FORECAST_UNKNOWN, FORECAST_YES, FORECAST_NO };

struct forecast {
	enum forecast_answer converges;
	/* Of a yes: from now on, with the least throttle and compression that it takes. */
	uint64_t total_us, pause_us;
	unsigned int throttle_pct;
	/* Of a no: the downtime limit under which it would converge. */
	uint64_t needed_us;
	char sentence[400];
};

void forecast_make(const struct forecast_input *in, struct forecast *out);

/* A longer downtime cannot be allowed. */
#define FORECAST_DOWNTIME_MAX_US 2000000000u

/* What would help one that does not converge. */
struct forecast_help {
	bool throttle, downtime;
	unsigned int throttle_pct; /* 0: not known */
	bool compression, compression_known;
};

/*
 * The sentences alone, for who has found the answer in another way: added to what is in
 * f->sentence, with the numbers of f that belong to a yes, or to a no.
 */
void forecast_say_rates(const struct forecast_input *in, struct forecast *f);
void forecast_say_yes(const struct forecast_input *in, bool compression, struct forecast *f);
void forecast_say_no(const struct forecast_input *in, const struct forecast_help *help,
		     struct forecast *f);
void forecast_say_help(const struct forecast_help *help, struct forecast *f);

#endif
