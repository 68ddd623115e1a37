/*
 * Streams made by hand, good ones and bad ones, and a destination (a fake guest with two small
 * blocks) that takes them in. Over memory, without sockets and threads.
 */
#ifndef GODWIT_TESTS_STREAM_MAKER_H
#define GODWIT_TESTS_STREAM_MAKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/channel/channel.h"
#include "migrate/stream/body.h"
#include "migrate/stream/hello.h"
#include "tests/unit/lib/fake_guest.h"
#include "vmm/base/err.h"

#define MAKER_PAGES_0 40u
#define MAKER_PAGES_1 9u

/* A guest as the maker's streams are for. */
struct fake *maker_guest(void);

struct maker {
	struct channel *ch; /* what it writes to: memory_channel_written, ch->bytes of it */
	struct writer w;
	struct fake *f; /* whose machine it is */
};

void maker_make(struct maker *m);
void maker_unmake(struct maker *m);

struct hello maker_good_hello(void);
void maker_hello(struct maker *m, const struct hello *h);
void maker_machine(struct maker *m);
/* Both. */
void maker_begin(struct maker *m);

/* Any record, of any type. */
void maker_record(struct maker *m, int type, const void *body, size_t len);

/* PAGES: what the body says of its runs, those that are really there, and so much data of 0x5a. */
void maker_pages(struct maker *m, uint32_t block, uint32_t codec, uint32_t n_runs,
		 const uint64_t (*runs)[2], uint32_t written_runs, size_t data_bytes);
/* The same with data that the caller has; `flags` 0: with their checksum. */
void maker_encoded(struct maker *m, uint16_t flags, uint32_t block, uint32_t codec, uint32_t n_runs,
		   const uint64_t (*runs)[2], const void *data, size_t data_bytes);
/* Like maker_pages, with one run and what belongs to it. */
void maker_run(struct maker *m, uint32_t block, uint32_t codec, uint64_t first, uint64_t n);
void maker_round_end(struct maker *m, uint32_t round);
void maker_states(struct maker *m, uint64_t pause_ns);

/*
 * What comes of a stream: 0 when the guest runs; asserts that it does not run on -1. `answers` (or
 * NULL) gets a letter for each record that the destination said, 'A' + its type.
 */
int maker_take_into(struct fake *f, const uint8_t *bytes, size_t len, bool cold, char answers[32],
		    struct err *e);
/* The same with a guest of its own, whose memory nobody wants to see. */
int maker_take(const uint8_t *bytes, size_t len, bool cold, char answers[32], struct err *e);

#endif
