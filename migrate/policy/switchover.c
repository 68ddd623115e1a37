/* Whether the guest can be parked. */
#include "migrate/policy/switchover.h"

#include "vmm/base/math.h"

/* If the rest is sent in less time than this, another round gains nothing. */
#define NEGLIGIBLE_US 2000u

/* An upper bound of times, so that sums do not overflow. */
#define US_MAX (UINT64_MAX / 4)

static uint64_t send_us(uint64_t bytes, uint64_t rate)
{
	return min_u64(mul_div(bytes, 1000000, rate), US_MAX);
}

struct switchover_verdict switchover_decide(const struct switchover_input *in)
{
	uint64_t transfer = send_us(in->remaining_bytes, in->rate_bytes);
	struct switchover_verdict v = { .expected_us = transfer + in->fixed_us };

	if (v.expected_us > in->limit_us && transfer <= NEGLIGIBLE_US) {
		/* What is left of the pause is not pages, so no round makes it shorter. */
		v.unkeepable = true;
		v.stop = !in->patient;
		v.reason = "hardly anything is left, and no round makes the pause fit the limit";
	} else if (v.expected_us > in->limit_us) {
		v.reason = "the pause would be longer than the limit";
	} else if (transfer <= NEGLIGIBLE_US) {
		v.stop = true;
		v.reason = "hardly anything is left";
	} else if (in->previous_remaining_bytes != UINT64_MAX &&
		   in->remaining_bytes >= in->previous_remaining_bytes / 4 * 3) {
		v.stop = true;
		v.reason = "another round would not make the pause notably shorter";
	} else {
		v.reason = "another round makes the pause shorter";
	}
	return v;
}
