/*
 * A check: what would become of a migration, without one. Measures the link to the destination,
 * which goes on waiting, and how the guest writes, which runs on; then predicts. Nothing of the
 * guest leaves this host, and nothing of it is changed.
 */
#ifndef GODWIT_MIGRATE_CHECK_H
#define GODWIT_MIGRATE_CHECK_H

#include <stdint.h>

#include "migrate/check/predict.h"
#include "migrate/check/probe.h"

struct channel;
struct err;
struct guest;

struct check {
	/* Set by the caller. */
	struct guest *guest;
	struct channel *channel; /* to the destination; not closed here */
	int stop_fd;		 /* readable: give up; -1: none */
	uint64_t bandwidth;	 /* bytes a second, 0: no limit */
	struct predict_input in; /* what is allowed; what is measured is filled in */

	/* What was found. */
	uint64_t touched_bytes, zero_bytes; /* the latter estimated, of the former */
	struct probe link;
	struct prediction prediction;
};

/*
 * Takes about two seconds, on the migration's thread. However it ends, the dirty log is off; before
 * the destination has answered it was never on. -1: nothing can be said, and why.
 */
int check_run(struct check *c, struct err *e);

#endif
