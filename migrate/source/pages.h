/*
 * From a chunk of RAM to PAGES records. Zero pages go without data. The others are encoded if a
 * codec gains, and are plain if not. The limiter keeps the bandwidth. Several threads may send at a
 * time, each as a worker with its own buffers and its own writer.
 */
#ifndef GODWIT_MIGRATE_SOURCE_PAGES_H
#define GODWIT_MIGRATE_SOURCE_PAGES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/codec/choice.h"
#include "migrate/codec/encoder.h"
#include "migrate/decisions.h"
#include "migrate/guest.h"
#include "migrate/source/part.h"
#include "migrate/stats.h"
#include "migrate/stream/hello.h"

struct err;
struct limiter;
struct writer;

/* How pages may be encoded. */
struct pages_codecs {
	struct page_cache *cache; /* for XBZRLE; NULL: none. Not owned. */
	enum pages_codec rest;	  /* CODEC_PLAIN, or a compression */
	int level;
	/* Told when a codec is left out, or tried again; any thread. */
	struct decisions decisions;
};

struct pages_sender;

/* Of one lane; on its thread. */
struct pages_worker {
	struct pages_sender *all;
	struct writer *writer; /* of the chunk under way */
	struct batch *batch;   /* what goes into one record */
	struct encoder encoder;
	/* Page data sent lately, and how long the link took for them. */
	uint64_t link_bytes, link_ns;
};

struct pages_sender {
	/* Set by pages_init. */
	const struct guest *guest;
	struct stats *stats;
	struct limiter *limiter;
	struct pages_codecs codecs;
	/* May be set before the first chunk. */
	bool checksums; /* page data have one */
	bool still;	/* the guest is parked from the start: nobody writes to its pages */
	unsigned int n;

	uint32_t round; /* from 1; changes only while no chunk is under way */
	/* Pages that are not zero at the destination. The words of a chunk belong to the worker
	 * that sends it. */
	uint64_t *sent[GUEST_BLOCKS_MAX];
	struct pages_worker worker[LANES_MAX];

	pthread_mutex_t lock;
	struct choice delta, rest; /* under lock: whether the codecs gain */
};

/* For `n` workers. After a failure nothing may be called but pages_free. */
int pages_init(struct pages_sender *p, const struct guest *g, struct stats *stats,
	       struct limiter *limiter, unsigned int n, const struct pages_codecs *codecs,
	       struct err *e);

/* Sends a chunk by `writer`: see part.h. */
int pages_send(struct pages_sender *p, unsigned int worker, struct writer *writer, struct chunk *c,
	       struct err *e);

/* Does nothing if *p is all zero. */
void pages_free(struct pages_sender *p);

#endif
