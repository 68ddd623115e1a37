/*
 * The rate limit: see pace.h.
 */
#include "migrate/channel/pace.h"
#include "vmm/base/math.h"

/* A batch is what goes in so many microseconds. */
#define BATCH_US  10000u
#define BATCH_MIN 16384u

uint64_t pace_rescale(uint64_t us, uint64_t from, uint64_t to)
{
	return to ? min_u64(mul_div(us, from, to), UINT64_MAX / 4) : 0;
}

uint64_t pace_take(struct pace *p, uint64_t now_us, uint64_t rate, uint64_t bytes)
{
	unsigned __int128 cost;
	uint64_t start;

	if (!rate) {
		*p = (struct pace){ .next_us = now_us };
		return 0;
	}
	/* At a higher rate what is still to be paid is paid sooner: else a debt of minutes would
	 * outlive the crawl that made it. */
	if (p->rate && p->rate < rate && p->next_us > now_us)
		p->next_us = now_us + pace_rescale(p->next_us - now_us, p->rate, rate);
	if (p->rate != rate)
		p->rest = 0;
	p->rate = rate;
	if (p->next_us + PACE_CREDIT_US < now_us)
		p->next_us = now_us - PACE_CREDIT_US;
	start = p->next_us;
	/* The rest is kept: at gigabytes a second a page costs a microsecond and a bit. */
	cost = (unsigned __int128)bytes * 1000000 + p->rest;
	p->next_us += (uint64_t)(cost / rate);
	p->rest = (uint64_t)(cost % rate);
	return start > now_us ? start - now_us : 0;
}

uint64_t pace_batch_bytes(uint64_t rate, uint64_t max)
{
	return rate ? clamp_u64(mul_div(rate, BATCH_US, 1000000), BATCH_MIN, max) : max;
}
