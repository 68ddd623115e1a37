/* Send rates: see link.h. Reads no clock, so tests choose the times. */
#include "migrate/source/link.h"

#include "migrate/policy/rate.h"
#include "migrate/stats.h"
#include "vmm/memory.h"

/* Bytes a second, if nothing was measured. */
#define RATE_GUESS (256u << 20)

static uint64_t allowed(const struct link *l)
{
	return __atomic_load_n(l->bandwidth, __ATOMIC_RELAXED);
}

static struct link_count count_now(const struct stats *st, uint64_t now_us)
{
	return (struct link_count){
		.us = now_us,
		.bytes = stats_get(&st->data_bytes),
		.pages = stats_data_pages(st),
		.zero = stats_get(&st->zero_pages),
		.encoded = stats_get(&st->xbzrle_pages) + stats_get(&st->compressed_pages),
	};
}

static struct link_count in_round(const struct link *l, uint64_t now_us)
{
	struct link_count now = count_now(l->stats, now_us);

	return (struct link_count){
		.us = now.us - l->began.us,
		.bytes = now.bytes - l->began.bytes,
		.pages = now.pages - l->began.pages,
		.zero = now.zero - l->began.zero,
		.encoded = now.encoded - l->began.encoded,
	};
}

void link_init(struct link *l, struct stats *stats, const uint64_t *bandwidth)
{
	*l = (struct link){ .stats = stats, .bandwidth = bandwidth };
}

void link_round_begin(struct link *l, uint64_t round, uint64_t now_us)
{
	stats_begin_round(l->stats, round, now_us);
	l->began = count_now(l->stats, now_us);
}

static void add_round(struct link *l, uint64_t now_us)
{
	struct link_count round = in_round(l, now_us), *since = &l->since;
	uint64_t bandwidth = allowed(l);

	/* What was sent under another limit says nothing about this one. */
	if (l->since_bandwidth != bandwidth)
		*since = (struct link_count){ 0 };
	l->since_bandwidth = bandwidth;
	since->us += round.us;
	since->bytes += round.bytes;
	since->pages += round.pages;
	since->encoded += round.encoded;
}

void link_round_end(struct link *l, uint64_t now_us)
{
	struct link_count *since = &l->since;
	bool sent, seen;

	add_round(l, now_us);
	sent = rate_is_known(since->bytes, since->us);
	/* Encoded pages may be enough to tell how fast pages go, on a link that hardly works. */
	seen = since->us >= RATE_SAMPLE_US && since->pages * PAGE_SIZE >= RATE_SAMPLE_BYTES;
	if (!sent && !seen)
		return;
	if (sent) {
		stats_set(&l->stats->send_rate, rate_per_second(since->bytes, since->us));
		l->send_bandwidth = l->since_bandwidth;
	}
	if (seen || !since->encoded) {
		l->page_rate = since->encoded ? rate_per_second(since->pages * PAGE_SIZE, since->us)
					      : 0;
		l->page_bandwidth = l->since_bandwidth;
	}
	*since = (struct link_count){ 0 };
}

uint64_t link_rate(const struct link *l, uint64_t now_us)
{
	uint64_t rate = stats_get(&l->stats->send_rate), bandwidth = allowed(l);
	struct link_count round;

	/* No rate is known yet; or it was measured under another limit. The round may be partly
	 * under that one too, but it is nearer. */
	if (!rate || (l->send_bandwidth && l->send_bandwidth != bandwidth)) {
		round = in_round(l, now_us);
		rate = round.us >= RATE_LONG_US && round.bytes >= RATE_LONG_BYTES
			       ? rate_per_second(round.bytes, round.us)
			       : 0;
	}
	if (!rate)
		rate = RATE_GUESS;
	if (bandwidth && bandwidth < rate)
		rate = bandwidth;
	/* If pages are encoded, more of them go over than the link has room for as they are. */
	return l->page_rate > rate && l->page_bandwidth == bandwidth ? l->page_rate : rate;
}

uint64_t link_us(const struct link *l, uint64_t bytes, uint64_t now_us)
{
	return rate_us(bytes, link_rate(l, now_us));
}

uint64_t link_round_data_rate(const struct link *l, uint64_t now_us)
{
	struct link_count round = in_round(l, now_us);

	return rate_per_second(round.pages * PAGE_SIZE, round.us);
}

uint64_t link_round_page_rate(const struct link *l, uint64_t now_us)
{
	struct link_count round = in_round(l, now_us);

	return rate_per_second((round.pages + round.zero) * PAGE_SIZE, round.us);
}
