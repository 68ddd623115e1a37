/* The dirty rate: see dirty_rate.h. Reads no clock, so tests choose the times. */
#include "migrate/source/dirty_rate.h"

#include "migrate/policy/rate.h"
#include "migrate/stats.h"

/* Within a round a rate is taken over at least this time. */
#define TAKEN_OVER_US 200000u

void dirty_rate_init(struct dirty_rate *d, struct stats *stats)
{
	*d = (struct dirty_rate){ .stats = stats };
}

void dirty_rate_restart(struct dirty_rate *d)
{
	d->at_us = 0;
}

void dirty_rate_look(struct dirty_rate *d, uint64_t again, uint64_t now_us)
{
	uint64_t us = now_us - d->at_us;

	if (d->at_us && us < TAKEN_OVER_US)
		return;
	if (d->at_us && again >= d->again)
		stats_set(&d->stats->dirty_rate, rate_per_second(again - d->again, us));
	d->at_us = now_us;
	d->again = again;
}

void dirty_rate_round(struct dirty_rate *d, uint64_t pages, uint64_t round_us)
{
	stats_set(&d->stats->dirty_rate, rate_per_second(pages, round_us));
}
