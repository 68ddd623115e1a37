/*
 * The expected pause:
 *
 *     park | fetch the log | pages ... | collect | send states | load | start
 *
 * It includes two round trips: from the last pages and states to READY, and from GO to RUNNING.
 */
#include "migrate/policy/expect.h"

#include <inttypes.h>
#include <stdio.h>

#include "migrate/stream/hello.h"
#include "vmm/base/math.h"

/* An upper bound for one part: a longer one is no measurement. */
#define PART_MAX_US (600ull * 1000000)

/* No network takes longer. */
#define ROUND_TRIP_MAX_US 2000000u

void expect_rehearsed(struct expect *x, const struct guest_costs *here)
{
	x->known = true;
	x->cost = *here;
	x->cost.load_us = here->save_us;
	x->cost.start_us = here->park_us;
}

void expect_checked(struct expect *x, const struct checked_costs *c, uint64_t waited_us)
{
	x->told = true;
	x->cost.load_us = c->load_us;
	x->cost.start_us = c->start_us;
	/* MACHINE may have waited in a queue there; then the first round's answer tells. */
	if (waited_us > c->build_us && waited_us - c->build_us < ROUND_TRIP_MAX_US)
		expect_answered(x, waited_us - c->build_us);
}

void expect_answered(struct expect *x, uint64_t waited_us)
{
	if (!x->round_trip_us || waited_us < x->round_trip_us)
		x->round_trip_us = waited_us;
}

static uint64_t send_us(const struct expect *x, uint64_t rate_bytes)
{
	return rate_bytes ? min_u64(mul_div(x->cost.states_bytes, 1000000, rate_bytes), PART_MAX_US)
			  : 0;
}

uint64_t expect_fixed_us(const struct expect *x, uint64_t rate_bytes)
{
	const struct guest_costs *c = &x->cost;

	if (!x->known)
		return EXPECT_UNKNOWN_US;
	return c->park_us + x->fetch_us + c->save_us + send_us(x, rate_bytes) + c->load_us +
	       c->start_us + 2 * x->round_trip_us;
}

static uint64_t ms(uint64_t us)
{
	return (us + 999) / 1000;
}

bool expect_unkeepable(struct expect *x, uint64_t rate_bytes, uint64_t limit_us,
		       unsigned int n_vcpus, const char *otherwise, char *out, size_t size)
{
	uint64_t fixed = expect_fixed_us(x, rate_bytes), sent = send_us(x, rate_bytes);

	if (!x->known || fixed <= limit_us || limit_us == x->said_limit_us)
		return false;
	x->said_limit_us = limit_us;
	snprintf(out, size,
		 "the pause will be longer than the %" PRIu64
		 " ms that are allowed, however little is left: without memory it takes about "
		 "%" PRIu64 " ms (the states of %u vCPU%s: %" PRIu64 " ms to collect, %" PRIu64
		 " ms to send, %" PRIu64 " ms to load); %s",
		 limit_us / 1000, ms(fixed), n_vcpus, n_vcpus == 1 ? "" : "s", ms(x->cost.save_us),
		 ms(sent), ms(x->cost.load_us), otherwise);
	return true;
}
