/*
 * How long the pause is expected to be, apart from the pages that remain: a sum of what was
 * measured of this guest, on both hosts and between them. Pure: the callers measure. The
 * migration's thread.
 */
#ifndef GODWIT_MIGRATE_EXPECT_H
#define GODWIT_MIGRATE_EXPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/guest.h"

struct checked_costs;

/* The whole sum, if nothing was rehearsed. */
#define EXPECT_UNKNOWN_US 5000u

struct expect {
	bool known; /* something was rehearsed */
	bool told;  /* the destination has told its own costs */
	struct guest_costs cost;
	uint64_t round_trip_us; /* the shortest so far; 0: none was seen */
	uint64_t fetch_us;	/* the last fetch of the whole dirty log */
	uint64_t said_limit_us; /* the last limit that was said to be unkeepable; 0: none */
};

/* Takes what was rehearsed at the source. Until the destination tells its costs, loading the states
 * is assumed to take as long as collecting them. */
void expect_rehearsed(struct expect *x, const struct guest_costs *here);

/* Takes the costs that the destination told in its answer to MACHINE, which came after `waited_us`.
 */
void expect_checked(struct expect *x, const struct checked_costs *c, uint64_t waited_us);

/* The destination has answered something else, after `waited_us`: a round trip. */
void expect_answered(struct expect *x, uint64_t waited_us);

/* The pause without pages, at a send rate in bytes a second (0: not known). */
uint64_t expect_fixed_us(const struct expect *x, uint64_t rate_bytes);

/*
 * True, once for each limit, if the limit cannot be kept however little remains. `out` is then a
 * sentence that says so, with the parts of the pause and with `otherwise`: what is done about it.
 */
bool expect_unkeepable(struct expect *x, uint64_t rate_bytes, uint64_t limit_us,
		       unsigned int n_vcpus, const char *otherwise, char *out, size_t size);

#endif
