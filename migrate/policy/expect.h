/*
 * How long the pause will be beside the pages that are left: made of what was measured, of this
 * guest, on both hosts and between them. Pure, but for who measures; the migration's thread.
 */
#ifndef GODWIT_MIGRATE_EXPECT_H
#define GODWIT_MIGRATE_EXPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/guest.h"

struct record;

/* What stands for all of it if nothing was rehearsed. */
#define EXPECT_UNKNOWN_US 5000u

struct expect {
	bool known; /* something was rehearsed */
	bool told;  /* the destination has said what it costs there */
	struct guest_costs cost;
	uint64_t round_trip_us; /* the least that was seen; 0: none */
	uint64_t fetch_us;	/* the last look at the dirty log, all of it */
	uint64_t said_limit_us; /* for which it was said that it cannot be kept; 0: for none */
};

/* What was rehearsed at the source. If the destination says nothing, loading is taken for as dear
 * as collecting. */
void expect_rehearsed(struct expect *x, const struct guest_costs *here);

/* The destination's answer to MACHINE, which came after so long. */
void expect_checked(struct expect *x, const struct record *checked, uint64_t waited_us);

/* It has answered, after so long. */
void expect_answered(struct expect *x, uint64_t waited_us);

/* All of the pause but the pages, with so many bytes a second; 0: that is not known. */
uint64_t expect_fixed_us(const struct expect *x, uint64_t rate_bytes);

/*
 * If the limit cannot be kept however little is left: a sentence that says so, and what it is
 * made of, once for each limit; else false. `otherwise`: what happens then.
 */
bool expect_unkeepable(struct expect *x, uint64_t rate_bytes, uint64_t limit_us,
		       unsigned int n_vcpus, const char *otherwise, char *out, size_t size);

#endif
