#include "tests/unit/lib/short_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What the Makefile makes of the names of the library functions. */
void *short_malloc(size_t n);
void *short_calloc(size_t n, size_t size);
void *short_realloc(void *p, size_t n);
void *short_aligned_alloc(size_t alignment, size_t n);
char *short_strdup(const char *s);

static unsigned int left; /* atomic */
static bool failed;	  /* atomic */

void short_memory_at(unsigned int n)
{
	__atomic_store_n(&failed, false, __ATOMIC_RELAXED);
	__atomic_store_n(&left, n, __ATOMIC_RELAXED);
}

bool short_memory_failed(void)
{
	return __atomic_load_n(&failed, __ATOMIC_RELAXED);
}

static bool is_short(void)
{
	unsigned int n = __atomic_load_n(&left, __ATOMIC_RELAXED);

	while (n && !__atomic_compare_exchange_n(&left, &n, n - 1, false, __ATOMIC_RELAXED,
						 __ATOMIC_RELAXED))
		;
	if (n != 1)
		return false;
	__atomic_store_n(&failed, true, __ATOMIC_RELAXED);
	errno = ENOMEM;
	return true;
}

void *short_malloc(size_t n)
{
	return is_short() ? NULL : malloc(n);
}

void *short_calloc(size_t n, size_t size)
{
	return is_short() ? NULL : calloc(n, size);
}

void *short_realloc(void *p, size_t n)
{
	return is_short() ? NULL : realloc(p, n);
}

void *short_aligned_alloc(size_t alignment, size_t n)
{
	return is_short() ? NULL : aligned_alloc(alignment, n);
}

char *short_strdup(const char *s)
{
	return is_short() ? NULL : strdup(s);
}
