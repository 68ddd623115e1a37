/*
 * The dirty log of a whole guest, over the ops of guest.h that know one block. The migration's
 * thread.
 */
#ifndef GODWIT_MIGRATE_GUEST_LOG_H
#define GODWIT_MIGRATE_GUEST_LOG_H

#include <stdint.h>

#include "migrate/guest.h"

struct err;

/* What the log says by now is added to the bits of each block. */
int guest_log_fetch(struct guest *g, uint64_t *const bits[GUEST_BLOCKS_MAX], struct err *e);

/*
 * Clears in the log of a block the pages that are set in `bits`, one for each of its pages; in
 * steps, as KVM holds vCPUs up meanwhile and somebody may want to cancel: -1 with "cancelled" when
 * stop_fd is readable (-1: nobody does).
 */
int guest_log_clear(struct guest *g, unsigned int block, const uint64_t *bits, int stop_fd,
		    struct err *e);

#endif
