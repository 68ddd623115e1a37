/*
 * The rate limit: see pace.h.
 */
#include "migrate/channel/pace.h"

/* A batch is what goes in so many microseconds. */
#define BATCH_US  10000u
#define BATCH_MIN 16384u

uint64_t pace_take(struct pace *p, uint64_t now_us, uint64_t rate, uint64_t bytes)
{
	uint64_t start;

	if (!rate) {
		p->next_us = now_us;
		return 0;
	}
	if (p->next_us + PACE_CREDIT_US < now_us)
		p->next_us = now_us - PACE_CREDIT_US;
	start = p->next_us;
	p->next_us += (uint64_t)((unsigned __int128)bytes * 1000000 / rate);
	return start > now_us ? start - now_us : 0;
}

uint64_t pace_batch_bytes(uint64_t rate, uint64_t max)
{
	uint64_t bytes;

	if (!rate)
		return max;
	bytes = (uint64_t)((unsigned __int128)rate * BATCH_US / 1000000);
	bytes = bytes < BATCH_MIN ? BATCH_MIN : bytes;
	return bytes < max ? bytes : max;
}
