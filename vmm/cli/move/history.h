/*
 * The history of one migration, for its report: samples of its figures, and what happened between
 * them. Its memory is bounded: in a long migration samples are thinned out.
 */
#ifndef GODWIT_CLI_HISTORY_H
#define GODWIT_CLI_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/cli/move/figures.h"

#define HISTORY_SAMPLES 2000
#define HISTORY_NOTES	2000

/* All uint64_t: the picture's curves name them by offset. */
struct history_sample {
	uint64_t ms; /* since the start, like all times here */
	uint64_t round, left_bytes, sent_bytes, rate, dirty_rate, throttle_pct;
	uint64_t limit_ms, expected_ms, bandwidth;
	uint64_t vcpu_limit; /* bytes a second that each vCPU may dirty */
};

enum history_kind { HISTORY_ROUND, HISTORY_DECISION, HISTORY_STATUS };

struct history_note {
	enum history_kind kind;
	uint64_t ms, round;
	char what[64], why[256]; /* a decision and its reason; a status */
};

/* Zeroed before use. */
struct history {
	struct history_sample *samples;
	struct history_note *notes;
	unsigned int n_samples, n_notes;
	uint64_t apart_ms;    /* samples closer together than this are left out */
	uint64_t notes_lost;  /* for lack of room */
	struct figures final; /* the last ones */
};

void history_free(struct history *h);

/* If memory is short, a sample or a note is lost. */
void history_sample(struct history *h, const struct figures *f, uint64_t rate);
void history_note(struct history *h, enum history_kind kind, uint64_t ms, uint64_t round,
		  const char *what, const char *why);

#endif
