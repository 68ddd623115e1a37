/*
 * The answer to query-migrate as numbers, and numbers as text for people. Pure. Missing and
 * senseless numbers become 0.
 */
#ifndef GODWIT_CLI_FIGURES_H
#define GODWIT_CLI_FIGURES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum figures_end {
	FIGURES_GOES_ON,
	FIGURES_MOVED,
	FIGURES_FAILED,
	FIGURES_CANCELLED,
	FIGURES_UNDECIDED
};

struct figures {
	char status[32];			 /* printable; "none" before the first migration */
	char error[512], uri[512], waiting[512]; /* waiting: why it has not begun yet */
	bool incoming;				 /* this VM receives the guest */
	enum figures_end end;			 /* what the status means */

	uint64_t total_ms, setup_ms, downtime_ms, expected_ms;
	uint64_t limit_ms, bandwidth; /* what is allowed: downtime, bytes a second (0: no limit) */
	uint64_t sent_bytes, left_bytes, total_bytes;
	uint64_t round, zero_pages, normal_pages, normal_bytes, page_bytes;
	uint64_t dirty_pages_rate;	   /* a second */
	uint64_t throttle_pct, vcpu_limit; /* bytes a second that each vCPU may dirty */

	/* The parts of the pause. */
	uint64_t park_us, pages_us, sync_us, states_us, load_us, start_us, pause_us;
};

void figures_read(struct figures *f, const json_t *answer);

/* Bytes a second that the guest writes: its dirty pages. */
uint64_t figures_dirty_bytes(const struct figures *f);

/* Bytes a second; 0 if `ms` is 0. */
uint64_t figures_rate(uint64_t bytes, uint64_t ms);

/* How much of the memory is at the destination, 0 to 100. 100 only once the guest is there. */
unsigned int figures_percent(const struct figures *f);

#define FIGURES_TEXT 32

/* "1.5 GiB"; "12 s", "3 min 20 s"; "4.2 ms". Return `to`. */
const char *figures_bytes(char to[FIGURES_TEXT], uint64_t bytes);
const char *figures_seconds(char to[FIGURES_TEXT], uint64_t seconds);
const char *figures_us(char to[FIGURES_TEXT], uint64_t us);

#endif
