/*
 * A bucket of dirtied bytes, in floating point: its figures are estimates.
 */
#include "vmm/quota.h"

#include "vmm/base/math.h"
#include "vmm/throttle.h"

#define SECOND_NS 1000000000ull

/* A shorter nap costs more than it is worth; the debt waits for the next one. */
#define NAP_MIN_NS 200000

/* A shorter run says nothing about speed. */
#define SPEED_RUN_NS 20000

/* The speed of a vCPU that was not seen to write yet, as a multiple of its quota: the first look
 * comes after 1 ms. */
#define FIRST_SPEED 10

static int64_t bytes_in(const struct quota *q, uint64_t ns)
{
	return (int64_t)((double)q->bytes_per_s * (double)ns / (double)SECOND_NS);
}

static void keep_in_bounds(struct quota *q)
{
	q->owed_bytes = clamp_i64(q->owed_bytes, -bytes_in(q, THROTTLE_NAP_MAX_NS),
				  bytes_in(q, SECOND_NS));
}

void quota_set(struct quota *q, uint64_t bytes_per_s)
{
	if (!bytes_per_s)
		*q = (struct quota){ 0 };
	else if (!q->bytes_per_s)
		q->speed = FIRST_SPEED * bytes_per_s;
	q->bytes_per_s = bytes_per_s;
	keep_in_bounds(q);
}

void quota_spent(struct quota *q, uint64_t bytes, uint64_t ran_ns)
{
	uint64_t speed;

	q->owed_bytes += (int64_t)bytes;
	keep_in_bounds(q);
	if (ran_ns < SPEED_RUN_NS)
		return;
	speed = (uint64_t)((double)bytes * (double)SECOND_NS / (double)ran_ns);
	/* A writer that begins is believed at once, one that pauses is not. */
	q->speed = speed > q->speed ? speed : (3 * q->speed + speed) / 4;
}

void quota_passed(struct quota *q, uint64_t ns)
{
	q->owed_bytes -= bytes_in(q, ns < SECOND_NS ? ns : SECOND_NS);
	keep_in_bounds(q);
}

uint64_t quota_nap_ns(const struct quota *q)
{
	int64_t ns;

	if (!q->bytes_per_s || q->owed_bytes <= 0)
		return 0;
	ns = (int64_t)((double)q->owed_bytes * (double)SECOND_NS / (double)q->bytes_per_s);
	return ns < NAP_MIN_NS ? 0 : (uint64_t)clamp_i64(ns, 0, THROTTLE_NAP_MAX_NS);
}

uint64_t quota_slice_ns(const struct quota *q)
{
	int64_t may = bytes_in(q, THROTTLE_NAP_MAX_NS) - q->owed_bytes;

	if (q->speed <= q->bytes_per_s)
		return THROTTLE_NAP_MAX_NS;
	return (uint64_t)clamp_i64((int64_t)((double)may * (double)SECOND_NS / (double)q->speed),
				   THROTTLE_SLICE_MIN_NS, THROTTLE_NAP_MAX_NS);
}
