/*
 * How fast the codecs are, on one core, with more memory than its caches hold. Says GB/s (1e9
 * bytes) of guest pages, the median of several runs; scripts/bench codec.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "migrate/codec/crc32c.h"
#include "migrate/codec/encoder.h"
#include "migrate/codec/page_cache.h"
#include "migrate/codec/scan.h"
#include "migrate/codec/xbzrle.h"
#include "vmm/memory.h"

#define PAGES 32768u /* 128 MiB, twice */
#define RUNS  5

struct bench {
	uint8_t *old, *new;
	uint8_t *out;
	size_t encoded; /* bytes in `out` that are decoded into each page */
	const struct scan *scan;
	const struct crc32c *crc32c;
	struct encoder encoder;
	struct encode_how how;
	struct decompressor decompressor;
	enum pages_codec codec;
	unsigned int pages; /* for the encoder and the decompressor */
	uint64_t out_bytes; /* what the encoder gave out */
	uint64_t sum;	    /* so that nothing is optimised away */
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

static void sum(struct bench *b)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++)
		b->sum += b->crc32c->run(0, page(b->new, i), PAGE_SIZE);
}

/* As pages of a guest that runs are sent: the copy is summed, and sent. */
static void copy_and_sum(struct bench *b)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++) {
		memcpy(b->out + i % 64 * PAGE_SIZE, page(b->new, i), PAGE_SIZE);
		b->sum += b->crc32c->run(0, b->out + i % 64 * PAGE_SIZE, PAGE_SIZE);
	}
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

/* All pages in records of 512, as a worker does it. */
static void encode_records(struct bench *b)
{
	struct page_set set = { .block = 0 };
	struct encoded out[2];
	int i, n;

	b->out_bytes = 0;
	memset(set.pages, 0xff, sizeof(set.pages));
	for (; set.first < b->pages; set.first += PAGES_ENCODED_MAX) {
		set.host = page(b->new, (unsigned int)set.first);
		n = encoder_run(&b->encoder, &b->how, &set, out, NULL);
		for (i = 0; i < n; i++)
			b->out_bytes += out[i].data.iov_len;
	}
	b->sum += b->out_bytes;
}

/* By turns the one and the other content of all pages, so that the cache always has a delta. */
static void encode_deltas(struct bench *b)
{
	uint8_t *swap = b->old;

	b->how.round++;
	b->old = b->new;
	b->new = swap;
	encode_records(b);
}

static void decompress(struct bench *b)
{
	struct iovec to;
	unsigned int i;

	for (i = 0; i < b->pages; i += PAGES_ENCODED_MAX) {
		to = (struct iovec){ page(b->old, i), PAGES_ENCODED_MAX * PAGE_SIZE };
		if (decompressor_begin(&b->decompressor, b->codec, &to, 1, NULL) ||
		    decompressor_feed(&b->decompressor, b->out, b->encoded, NULL) ||
		    decompressor_end(&b->decompressor, NULL))
			exit(1);
	}
	b->sum += b->old[0];
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

/* Words of a few kinds, as in a heap: small numbers, pointers that are near each other, and noise.
 */
static void fill_heap(struct bench *b)
{
	uint64_t seed = 521288629, *words = (uint64_t *)b->new, i;

	for (i = 0; i < (uint64_t)PAGES * PAGE_SIZE / 8; i++) {
		uint64_t r = next(&seed);

		switch (r >> 60) {
		case 0 ... 7:
			words[i] = 0;
			break;
		case 8 ... 10:
			words[i] = r & 0xff;
			break;
		case 11 ... 13:
			words[i] = 0x00007f0000000000ull | (r & 0xffff0);
			break;
		default:
			words[i] = r;
		}
	}
}

static void bench_checksum(struct bench *b)
{
	const uint64_t bytes = (uint64_t)PAGES * PAGE_SIZE;

	for (unsigned int i = 0; (b->crc32c = crc32c_path(i)); i++) {
		row("CRC-32C", b->crc32c->name, measure(b, bytes, sum), "");
		row("copying and CRC-32C of the copy", b->crc32c->name,
		    measure(b, bytes, copy_and_sum), "");
	}
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

static void bench_cache(struct bench *b)
{
	const uint64_t bytes = (uint64_t)PAGES * PAGE_SIZE;
	struct page_cache cache;
	char more[64];

	b->pages = PAGES;
	fill_random(b);
	change(b, 8);
	if (page_cache_init(&cache, bytes + PAGE_CACHE_BYTES_MIN, NULL))
		exit(1);
	encoder_init(&b->encoder, &cache);
	b->how = (struct encode_how){ .delta = true, .rest = CODEC_PLAIN, .round = 1 };
	encode_records(b);
	snprintf(more, sizeof(more), "  into %u MiB",
		 (unsigned int)(page_cache_bytes(&cache) >> 20));
	row("cache and XBZRLE, 8 bytes a page changed", "", measure(b, bytes, encode_deltas), more);
	encoder_free(&b->encoder);
	page_cache_free(&cache);
}

static void bench_compress(struct bench *b)
{
	static const struct {
		enum pages_codec codec;
		int level;
	} ways[] = { { CODEC_ZLIB, 1 }, { CODEC_ZLIB, 6 }, { CODEC_ZSTD, 1 }, { CODEC_ZSTD, 3 } };
	const uint64_t bytes = (uint64_t)(PAGES / 16) * PAGE_SIZE;
	struct page_set set = { .host = b->new };
	struct encoded out[2];
	char more[64], what[64];
	unsigned int i;

	/* These are far slower than any memory. */
	b->pages = PAGES / 16;
	fill_heap(b);
	memset(set.pages, 0xff, sizeof(set.pages));
	encoder_init(&b->encoder, NULL);
	for (i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		const struct compression *c = compression_of(ways[i].codec);

		b->how = (struct encode_how){ .rest = ways[i].codec, .level = ways[i].level };
		snprintf(what, sizeof(what), "%s level %d, a made-up heap", c->name, ways[i].level);
		encode_records(b);
		snprintf(more, sizeof(more), "  %5.1f %% is left",
			 100.0 * (double)b->out_bytes / (double)bytes);
		row(what, "compress", measure(b, bytes, encode_records), more);
		if (encoder_run(&b->encoder, &b->how, &set, out, NULL) != 1)
			exit(1);
		b->codec = out[0].codec;
		b->encoded = out[0].data.iov_len;
		memcpy(b->out, out[0].data.iov_base, b->encoded);
		row(what, "expand", measure(b, bytes, decompress), "");
	}
	encoder_free(&b->encoder);
	decompressor_free(&b->decompressor);
}

int main(void)
{
	struct bench b = { 0 };

	b.old = aligned_alloc(PAGE_SIZE, (size_t)PAGES * PAGE_SIZE);
	b.new = aligned_alloc(PAGE_SIZE, (size_t)PAGES * PAGE_SIZE);
	b.out = aligned_alloc(PAGE_SIZE, COMPRESS_MAX);
	if (!b.old || !b.new || !b.out)
		return 1;
	fill_random(&b);
	bench_checksum(&b);
	bench_scan(&b);
	bench_xbzrle(&b);
	bench_cache(&b);
	bench_compress(&b);
	free(b.old);
	free(b.new);
	free(b.out);
	return b.sum == 0;
}
