/*
 * The progress of a migration as a line of text: percent, bytes, rates, round, time left. Pure.
 */
#ifndef GODWIT_CLI_PROGRESS_H
#define GODWIT_CLI_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

#include "vmm/cli/move/figures.h"

/* The rate is measured over about the last second. */
#define PROGRESS_WINDOW_MS 1000
#define PROGRESS_WINDOW	   48

/* Less than this says too little about the rate to tell the time that is left. */
#define PROGRESS_SURE_MS PROGRESS_WINDOW_MS

/* If the guest outruns the link for longer than this, "will not converge" is said. */
#define PROGRESS_HOPELESS_MS 2000

/* Zeroed before the first figures. */
struct progress {
	struct figures now;
	uint64_t rate;	      /* bytes a second, measured here */
	unsigned int percent; /* never falls */
	struct {
		uint64_t ms, bytes;
	} window[PROGRESS_WINDOW]; /* oldest first */
	unsigned int n;
	uint64_t outrun_since_ms; /* 0: the link is faster than the guest */
};

/* Adds figures; `ms` is their time, by any clock that does not go back. */
void progress_add(struct progress *p, const struct figures *f, uint64_t ms);

/*
 * "42 %, 434.2 MiB sent, 590.1 MiB left, 812.0 MiB/s, guest writes 12.0 MiB/s, round 1, 1 s left".
 * While the migration goes on.
 */
void progress_line(const struct progress *p, char *to, size_t size);

#endif
