/* The tree of states of a machine that is one thing. */
#ifndef GODWIT_TESTS_ONE_STATE_H
#define GODWIT_TESTS_ONE_STATE_H

#include <stdint.h>
#include <stdio.h>

#include "vmm/states.h"

static inline int save_one(struct tree *out, const char *at, const struct state_desc *d,
			   const void *st, struct err *error)
{
	struct state_thing one = { .desc = d, .st = (void *)(uintptr_t)st };

	snprintf(one.path, sizeof(one.path), "%s", at);
	return states_write(&one, 1, 0, out, error);
}

#endif
