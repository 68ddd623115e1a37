/*
 * Allocations that fail, for programs that are linked with build/libgodwit-short.a, in which the
 * allocating functions have other names. So only godwit's own calls fail.
 */
#ifndef GODWIT_TESTS_SHORT_MEMORY_H
#define GODWIT_TESTS_SHORT_MEMORY_H

#include <stdbool.h>

/* From now on the n-th allocation of any thread fails, once, from 1; 0: none does. */
void short_memory_at(unsigned int n);

/* Whether it has failed. */
bool short_memory_failed(void);

#endif
