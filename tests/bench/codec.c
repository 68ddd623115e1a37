/*
 * How fast the codecs are, on one core, with more memory than its caches hold. Says GB/s (1e9
 * bytes) of guest pages, the median of several runs; scripts/bench codec.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "migrate/codec/scan.h"
#include "migrate/codec/xbzrle.h"
#include "vmm/memory.h"

#define PAGES 32768u /* 128 MiB, twice */
#define RUNS  7

struct bench {
	uint8_t *old, *new;
	uint8_t *out;
	size_t encoded; /* bytes in `out` that are decoded into each page */
	const struct scan *scan;
	uint64_t sum; /* so that nothing is optimised away */
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The median, in GB/s. */
static double measure(struct bench *b, uint64_t bytes, void (*work)(struct bench *b))
{
	double rate[RUNS];
	unsigned int i;

	work(b);
	for (i = 0; i < RUNS; i++) {
		double start = now();

		work(b);
		rate[i] = (double)bytes / (now() - start) / 1e9;
	}
	qsort(rate, RUNS, sizeof(rate[0]), compare);
	return rate[RUNS / 2];
}

static void row(const char *what, const char *path, double rate, const char *more)
{
	printf("%-44s %-9s %8.2f GB/s%s\n", what, path, rate, more);
	fflush(stdout);
}

static uint8_t *page(uint8_t *pages, unsigned int i)
{
	return pages + (size_t)i * PAGE_SIZE;
}

static uint64_t next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* -- what is measured -- */

static void copy(struct bench *b)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++)
		memcpy(b->out, page(b->new, i), PAGE_SIZE);
	b->sum += b->out[0];
}

static void find_zero(struct bench *b)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++)
		b->sum += b->scan->zero(page(b->new, i));
}

static void encode(struct bench *b)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++)
		b->sum += (uint64_t)xbzrle_encode_with(b->scan, page(b->old, i), page(b->new, i),
						       b->out, PAGE_SIZE);
}

static void decode(struct bench *b)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++)
		b->sum += (uint64_t)xbzrle_decode(b->out, b->encoded, page(b->old, i));
}

/* -- contents -- */

static void fill_random(struct bench *b)
{
	uint64_t seed = 88172645463325252ull, i;

	for (i = 0; i < (uint64_t)PAGES * PAGE_SIZE / 8; i++)
		((uint64_t *)b->old)[i] = next(&seed);
	memcpy(b->new, b->old, (size_t)PAGES * PAGE_SIZE);
}

static void change(struct bench *b, unsigned int bytes)
{
	uint64_t seed = 362436069;
	unsigned int i, k;

	for (i = 0; i < PAGES; i++)
		for (k = 0; k < bytes; k++)
			page(b->new, i)[next(&seed) % PAGE_SIZE]++;
}

static void bench_scan(struct bench *b)
{
	const uint64_t bytes = (uint64_t)PAGES * PAGE_SIZE;
	unsigned int i;

	row("copying (for comparison)", "memcpy", measure(b, bytes, copy), "");
	for (i = 0; (b->scan = scan_path(i)); i++)
		row("zero test, random pages", b->scan->name, measure(b, bytes, find_zero), "");
	memset(b->new, 0, bytes);
	for (i = 0; (b->scan = scan_path(i)); i++)
		row("zero test, zero pages", b->scan->name, measure(b, bytes, find_zero), "");
}

static void bench_xbzrle(struct bench *b)
{
	static const unsigned int changed[] = { 8, 256 };
	const uint64_t bytes = (uint64_t)PAGES * PAGE_SIZE;
	char what[64], size[64];
	unsigned int i, k;

	for (k = 0; k < sizeof(changed) / sizeof(changed[0]); k++) {
		fill_random(b);
		change(b, changed[k]);
		snprintf(what, sizeof(what), "XBZRLE encode, %u bytes a page changed", changed[k]);
		for (i = 0; (b->scan = scan_path(i)); i++) {
			uint64_t before = b->sum;

			encode(b);
			snprintf(size, sizeof(size), "  %6.1f bytes a page",
				 (double)(b->sum - before) / PAGES);
			row(what, b->scan->name, measure(b, bytes, encode), size);
		}
		b->encoded = (size_t)xbzrle_encode(b->old, b->new, b->out, PAGE_SIZE);
		snprintf(what, sizeof(what), "XBZRLE decode, %u bytes a page changed", changed[k]);
		row(what, "", measure(b, bytes, decode), "");
	}
}

int main(void)
{
	struct bench b = { 0 };

	b.old = aligned_alloc(PAGE_SIZE, (size_t)PAGES * PAGE_SIZE);
	b.new = aligned_alloc(PAGE_SIZE, (size_t)PAGES * PAGE_SIZE);
	b.out = aligned_alloc(PAGE_SIZE, 2 * PAGE_SIZE);
	if (!b.old || !b.new || !b.out)
		return 1;
	fill_random(&b);
	bench_scan(&b);
	bench_xbzrle(&b);
	free(b.old);
	free(b.new);
	free(b.out);
	return b.sum == 0;
}
