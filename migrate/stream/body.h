/*
 * What is inside the records between HELLO and END, both directions side by side. An encode cannot
 * fail. A decode checks all that can be checked without knowing the machine, and says in a sentence
 * what is wrong. Pure; HELLO, MACHINE and CHECKED are in hello.h, texts (FAILED) in record.h.
 */
#ifndef GODWIT_MIGRATE_STREAM_BODY_H
#define GODWIT_MIGRATE_STREAM_BODY_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/stream/record.h"

/* -- runs of pages: u64 first page, u64 number of pages -- */

#define RUN_BYTES 16u

void run_encode(uint8_t *runs, uint32_t i, uint64_t first, uint64_t n);
void run_decode(const uint8_t *runs, uint32_t i, uint64_t *first, uint64_t *n);

/* -- PAGES: a head, n_runs runs, and the data -- */

#define PAGES_HEAD_BYTES 16u
#define PAGES_RUNS_MAX	 1000u

/* Compressed or encoded records hold at most this many pages, so that a lane's memory is bounded.
 */
#define PAGES_ENCODED_MAX 512u

enum pages_codec {
	CODEC_PLAIN = 1,  /* the data are the pages */
	CODEC_ZERO = 2,	  /* no data: the pages are zero */
	CODEC_XBZRLE = 3, /* for each page: u16 bytes of its encoding, and the encoding */
	CODEC_ZLIB = 4,	  /* a zlib stream of the pages */
	CODEC_ZSTD = 5,	  /* a zstd frame of the pages */
};

/* "plain", "zero", ...; "unknown" for others. */
const char *pages_codec_name(uint32_t codec);

/* An XBZRLE record says for each page how many bytes follow; 0: it is unchanged. */
#define PAGES_XBZRLE_HEAD_BYTES 2u

struct pages {
	uint32_t block;
	uint32_t codec; /* enum pages_codec */
	uint32_t n_runs;
	uint32_t data_crc;
	const uint8_t *runs; /* decoded: in the record's body, n_runs of them */
};

/* The head of the body; the runs are put behind it with run_encode. */
void pages_encode(const struct pages *p, uint8_t head[PAGES_HEAD_BYTES]);
/* Refuses runs that are none, and data that are too many or too few for the pages. */
int pages_decode(const struct record *r, struct pages *out, struct err *e);

/* -- AHEAD: a head and n_runs runs, in rising order and apart from each other -- */

#define AHEAD_HEAD_BYTES 8u
#define AHEAD_RUNS_MAX	 1024u
#define AHEAD_BODY_MAX	 (AHEAD_HEAD_BYTES + AHEAD_RUNS_MAX * RUN_BYTES)

/* Each run begins at a multiple of this. */
#define AHEAD_UNIT_PAGES 512u

struct ahead_runs {
	uint32_t block, n;
	const uint8_t *runs; /* decoded: in the record's body */
};

void ahead_runs_encode(const struct ahead_runs *a, uint8_t head[AHEAD_HEAD_BYTES]);
int ahead_runs_decode(const struct record *r, struct ahead_runs *out, struct err *e);

/* -- ROUND: u32 number, from 1 -- */

#define ROUND_BYTES 4u

void round_encode(uint32_t round, uint8_t out[ROUND_BYTES]);
int round_decode(const struct record *r, uint32_t *round, struct err *e);

/* -- STATES: a head, and the tree of the states behind it -- */

#define STATES_HEAD_BYTES 16u

/* The longest pause by which a guest's clock is advanced: a year. */
#define STATES_PAUSE_MAX_NS (365ull * 24 * 3600 * 1000000000)

struct states_head {
	uint64_t pause_ns; /* since the guest was parked; 0 in a file: its time stood still */
	bool ran;	   /* the guest ran */
	bool tell;	   /* only with it: it has heard before_migration, and is to hear the end */
};

void states_encode(const struct states_head *h, uint8_t out[STATES_HEAD_BYTES]);
int states_decode(const struct record *r, struct states_head *out, struct err *e);

/* -- PROBE: no body, and data to be read and forgotten -- */

#define PROBE_DATA_MAX (1u << 20)

/* A destination reads no more on the connection of a probe, and answers no more rounds. */
#define PROBE_BYTES_MAX	 (64u << 20)
#define PROBE_ROUNDS_MAX 16

bool probe_is_good(const struct record *r);

#endif
