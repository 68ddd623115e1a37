/*
 * Slices and naps of a throttled vCPU. Owner: its thread.
 */
#include "vmm/base/math.h"
#include "vmm/throttle.h"

/* A vCPU that ran much longer than allowed pays for 100 naps of it. */
#define OWED_MAX_NS (100ll * THROTTLE_NAP_MAX_NS)

/* Each look wakes a vCPU that is in HLT. So the looks get rarer, up to REST_MAX_NS. */
#define REST_FIRST_NS 100000
#define REST_MAX_NS   THROTTLE_NAP_MAX_NS

/* What a whole slice owes. */
static int64_t whole_nap(const struct throttle *t)
{
	return (int64_t)THROTTLE_NAP_MAX_NS * t->permille / 1000;
}

void throttle_set(struct throttle *t, unsigned int permille)
{
	t->permille = permille < THROTTLE_MAX_PERMILLE ? permille : THROTTLE_MAX_PERMILLE;
	t->owed_ns = clamp_i64(t->owed_ns, -whole_nap(t), whole_nap(t));
}

void throttle_ran(struct throttle *t, uint64_t ran_ns, uint64_t wall_ns)
{
	int64_t ran = ran_ns < OWED_MAX_NS ? (int64_t)ran_ns : OWED_MAX_NS;

	t->owed_ns += ran * t->permille / (1000 - t->permille);
	t->owed_ns = clamp_i64(t->owed_ns, -THROTTLE_NAP_MAX_NS, OWED_MAX_NS);
	if (ran_ns >= wall_ns / 2)
		t->rest_ns = 0;
	else
		t->rest_ns = (uint64_t)clamp_i64(2 * (int64_t)t->rest_ns, REST_FIRST_NS,
						 REST_MAX_NS);
}

void throttle_napped(struct throttle *t, uint64_t ns)
{
	t->owed_ns -= ns < OWED_MAX_NS ? (int64_t)ns : OWED_MAX_NS;
	t->owed_ns = clamp_i64(t->owed_ns, -THROTTLE_NAP_MAX_NS, OWED_MAX_NS);
}

uint64_t throttle_nap_ns(const struct throttle *t)
{
	/* Less than half of one is left for later: it slept by itself in much of its slice. */
	if (!t->permille || t->owed_ns < whole_nap(t) / 2)
		return 0;
	return (uint64_t)clamp_i64(t->owed_ns, 0, THROTTLE_NAP_MAX_NS);
}

uint64_t throttle_slice_ns(const struct throttle *t)
{
	int64_t slice;

	if (!t->permille)
		return THROTTLE_NAP_MAX_NS;
	slice = (whole_nap(t) - t->owed_ns) * (1000 - t->permille) / t->permille;
	slice = clamp_i64(slice, THROTTLE_SLICE_MIN_NS, THROTTLE_NAP_MAX_NS);
	return t->rest_ns > (uint64_t)slice ? t->rest_ns : (uint64_t)slice;
}
