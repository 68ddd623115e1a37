/*
 * The lanes of a migration: one connection each, with one stream's guarantees. Pages are handed
 * over in chunks; a lane finds the zero pages, keeps the rate, and sends straight from guest
 * memory. At the end of a round all lanes say so, and the destination lets none of them go on
 * before all have arrived there: a page goes out at most once in a round, so its newest copy wins.
 *
 * With one lane everything runs on the caller's thread; else each has a thread, "migrate0"...
 */
#ifndef GODWIT_MIGRATE_LANES_H
#define GODWIT_MIGRATE_LANES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/channel/pace.h"
#include "migrate/codec/choice.h"
#include "migrate/codec/encoder.h"
#include "migrate/decisions.h"
#include "migrate/guest.h"
#include "migrate/stats.h"
#include "migrate/stream/body.h"
#include "migrate/stream/hello.h"
#include "vmm/base/err.h"

#define CHUNK_PAGES 512u
#define CHUNK_WORDS (CHUNK_PAGES / 64)

/* Chunks that wait for a lane, at most, for each of them: enough for none to wait, and few, as what
 * waits is written to meanwhile. */
#define LANES_QUEUE_EACH 2
#define LANES_QUEUE	 (LANES_QUEUE_EACH * LANES_MAX)

/* Pages of one block, whose dirty bits have been cleared: they may be read now. */
struct chunk {
	unsigned int block;
	uint64_t first; /* a multiple of CHUNK_PAGES */
	uint64_t pages[CHUNK_WORDS];
};

/* How pages may be encoded; they are where that gains. */
struct lanes_codecs {
	struct page_cache *cache; /* for XBZRLE; NULL: none. Not owned. */
	enum pages_codec rest;	  /* CODEC_PLAIN, or a compression */
	int level;
	/* Told when a codec was left out, or comes back; any thread. */
	struct decisions decisions;
};

struct lanes;

struct lane {
	struct lanes *all;
	struct writer writer;
	pthread_t thread;
	bool started;
	bool busy;	     /* under lock: it has a chunk */
	struct batch *batch; /* what goes into one record */
	struct encoder encoder;
	/* Of what was sent lately. */
	uint64_t link_bytes, link_ns;
};

struct lanes {
	/* Set before the first chunk. */
	struct guest *guest;
	struct stats *stats;
	const uint64_t *rate;		  /* atomic: bytes a second over all lanes, 0 = no limit */
	const bool *force;		  /* atomic: the limit does not hold any more; or NULL */
	int stop_fd;			  /* readable: give up; -1: none */
	bool checksums;			  /* of page data: files */
	uint64_t *sent[GUEST_BLOCKS_MAX]; /* pages that the destination has as other than zero */
	struct lane lane[LANES_MAX];
	unsigned int n;
	struct lanes_codecs codecs;
	uint32_t round; /* from 1; changes only while no chunk is under way */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct chunk queue[LANES_QUEUE];
	unsigned int queue_at, queue_n;
	unsigned int busy; /* lanes that have a chunk */
	bool end, failed;
	struct err error; /* of the first that failed */
	struct pace pace;
	struct choice delta, rest; /* whether the codecs gain */
};

/* Lane 0's channel is the main one, owned by the caller like the others. */
int lanes_init(struct lanes *l, struct guest *g, struct stats *stats, const uint64_t *rate,
	       int stop_fd, struct channel **channels, unsigned int n,
	       const struct lanes_codecs *codecs, struct err *e);
void lanes_free(struct lanes *l);

/* Ends what the lanes are doing, however long the other side would let them wait; after that
 * nothing can be sent but what lanes_main still takes. */
void lanes_abort(struct lanes *l);

/* -1 with "cancelled" when stopped: for whoever works for long without sending. */
int lanes_check(struct lanes *l, struct err *e);

/* Sends or queues a chunk. */
int lanes_send(struct lanes *l, const struct chunk *c, struct err *e);

/* Waits until everything is on the way; then a ROUND record with that number on every lane. */
int lanes_drain(struct lanes *l, struct err *e);
int lanes_end_round(struct lanes *l, uint32_t round, struct err *e);

/* The writer of lane 0, for all other records; only after lanes_drain or lanes_end_round. */
struct writer *lanes_main(struct lanes *l);

#endif
