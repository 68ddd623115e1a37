/*
 * What a processor with KVM really does: a tiny guest without any kernel runs a loop in kernel mode
 * and in user mode. Nested hypervisors exist that run one of the two by interpreting it. Measuring
 * depends on the architecture (arch_probe_modes); the verdict is a pure function of the figures.
 */
#ifndef GODWIT_PROBE_H
#define GODWIT_PROBE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * One ring. A run ends by an exit to the host, which may cost more than thousands of turns of the
 * loop. So a run of one turn is measured as well, and `turns` is made larger until they outweigh
 * the exit.
 */
struct probe_ring {
	uint64_t exit_ns; /* a run of one turn: the shortest of several */
	uint64_t run_ns;  /* a run of so many turns: the shortest of several */
	uint64_t turns;
};

struct probe_result {
	struct probe_ring kernel, user;
	bool refused; /* KVM could not run an instruction that every 64-bit kernel uses */
};

enum probe_verdict {
	PROBE_UNKNOWN, /* the figures do not tell */
	PROBE_HARDWARE,
	PROBE_INTERPRETED,
};

/* How kernel mode is run. */
enum probe_verdict probe_verdict(const struct probe_result *r);

/* The cost of a turn in picoseconds, without the exit. */
uint64_t probe_turn_ps(const struct probe_ring *ring);

#endif
