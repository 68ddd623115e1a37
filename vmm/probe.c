/*
 * The verdict of the two-ring probe: see probe.h. Pure functions of the figures, any thread.
 */
#include "vmm/probe.h"

/*
 * Kernel mode that takes a few times as long for a turn is not run by the processor: interpreters
 * take hundreds of times as long, and on a busy host the shortest of several runs is not this far
 * off.
 */
#define FEW_TIMES 4

uint64_t probe_turn_ps(const struct probe_ring *ring)
{
	if (!ring->turns || ring->run_ns <= ring->exit_ns)
		return 0;
	return (ring->run_ns - ring->exit_ns) * 1000 / ring->turns;
}

/* If the exit itself cost nothing: no turn takes longer. */
static uint64_t turn_ps_at_most(const struct probe_ring *ring)
{
	return ring->turns ? ring->run_ns * 1000 / ring->turns : 0;
}

/* Between the two bounds lies the truth, however much of a run was its exit. */
enum probe_verdict probe_verdict(const struct probe_result *r)
{
	uint64_t kernel_most = turn_ps_at_most(&r->kernel), user_most = turn_ps_at_most(&r->user);

	if (r->refused)
		return PROBE_INTERPRETED;
	if (!kernel_most || !user_most)
		return PROBE_UNKNOWN;
	if (probe_turn_ps(&r->kernel) > FEW_TIMES * user_most)
		return PROBE_INTERPRETED;
	if (kernel_most < FEW_TIMES * probe_turn_ps(&r->user))
		return PROBE_HARDWARE;
	return PROBE_UNKNOWN;
}
