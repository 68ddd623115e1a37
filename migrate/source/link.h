/*
 * How fast the link is: the one place that measures it during a migration. A round is measured
 * until the destination has answered, so that no socket's buffer flatters; rounds that are too
 * short to tell are added up. The migration's thread; rates go to the stats, where anybody reads
 * them.
 */
#ifndef GODWIT_MIGRATE_LINK_H
#define GODWIT_MIGRATE_LINK_H

#include <stdint.h>

struct stats;

/* What was sent by some moment, or in some time. */
struct link_count {
	uint64_t us;
	uint64_t bytes;	  /* page data on the link */
	uint64_t pages;	  /* that went over with what they hold */
	uint64_t zero;	  /* pages found zero */
	uint64_t encoded; /* of `pages`: not sent as they are */
};

struct link {
	struct stats *stats;
	const uint64_t *bandwidth; /* atomic: what is allowed, bytes a second; 0: no limit */

	struct link_count began; /* as the round under way began */
	/* In the rounds since the last rate, all under one bandwidth. */
	struct link_count since;
	uint64_t since_bandwidth;

	/* What was allowed when the send rate in the stats was measured. */
	uint64_t send_bandwidth;
	/* Bytes of pages a second before they were encoded; 0: none are encoded. */
	uint64_t page_rate, page_bandwidth;
};

void link_init(struct link *l, struct stats *stats, const uint64_t *bandwidth);

void link_round_begin(struct link *l, uint64_t round, uint64_t now_us);

/* The destination has all of the round. Sets the send rate if enough was sent to know it. */
void link_round_end(struct link *l, uint64_t now_us);

/*
 * Bytes of pages that can be sent in a second: as achieved, but not more than is allowed by now.
 * Before anything was measured: by the round under way, or a guess.
 */
uint64_t link_rate(const struct link *l, uint64_t now_us);

/* How long sending that many bytes of pages takes, in us. */
uint64_t link_us(const struct link *l, uint64_t bytes, uint64_t now_us);

/* In the round under way: bytes of pages a second that went over with what they hold. */
uint64_t link_round_data_rate(const struct link *l, uint64_t now_us);

/* In the round under way: bytes of pages a second that were done with, zero pages included. */
uint64_t link_round_page_rate(const struct link *l, uint64_t now_us);

#endif
