/*
 * The encoder: see encoder.h. Of its worker's thread; only the cache is shared, which locks.
 */
#include "migrate/codec/encoder.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "migrate/codec/page_cache.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

/* What saves less than an eighth of a page, or of a frame, is not worth the other side's time. */
#define WORTH(bytes) ((bytes) - (bytes) / 8)

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Written by one thread, read by others. */
static void add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static void count(struct encoder *enc, const struct encoded *part)
{
	add(&enc->count[part->codec].pages, part->n_pages);
	add(&enc->count[part->codec].out_bytes, part->data.iov_len);
}

static int reserve(uint8_t **buffer, size_t bytes, struct err *e)
{
	if (!*buffer)
		*buffer = aligned_alloc(PAGE_SIZE, bytes);
	return *buffer ? 0 : err_set(e, "out of memory");
}

static void begin_part(struct encoded *part, enum pages_codec codec, uint8_t *to)
{
	*part = (struct encoded){ .codec = codec, .data = { to, 0 } };
}

static void add_page(struct encoded *part, uint64_t i, size_t bytes)
{
	bitmap_set(part->pages, i);
	part->n_pages++;
	part->data.iov_len += bytes;
}

static uint8_t *end_of(const struct encoded *part)
{
	return (uint8_t *)part->data.iov_base + part->data.iov_len;
}

/*
 * Reads the pages of the set, each once, to behind those of `rest`; a page that becomes a delta
 * leaves its place to the next.
 */
static void read_pages(struct encoder *enc, const struct encode_how *how,
		       const struct page_set *set, struct encoded *delta, struct encoded *rest)
{
	const uint64_t n = PAGES_ENCODED_MAX;
	uint64_t i;
	uint8_t *copy, *to;
	int bytes;

	for (i = bitmap_next_set(set->pages, n, 0); i < n;
	     i = bitmap_next_set(set->pages, n, i + 1)) {
		copy = end_of(rest);
		memcpy(copy, set->host + i * PAGE_SIZE, PAGE_SIZE);
		if (how->delta) {
			to = end_of(delta);
			bytes = page_cache_encode(enc->cache, set->block, set->first + i,
						  how->round, copy, to + PAGES_XBZRLE_HEAD_BYTES,
						  WORTH(PAGE_SIZE));
			enc->known_pages += bytes != PAGE_CACHE_MISS;
			if (bytes == PAGE_CACHE_OVERFLOW) {
				enc->known_bytes += PAGE_SIZE;
				enc->overflows++;
			}
			if (bytes == 0)
				continue;
			if (bytes > 0) {
				enc->known_bytes += PAGES_XBZRLE_HEAD_BYTES + (size_t)bytes;
				to[0] = (uint8_t)bytes;
				to[1] = (uint8_t)(bytes >> 8);
				add_page(delta, i, PAGES_XBZRLE_HEAD_BYTES + (size_t)bytes);
				continue;
			}
		}
		add_page(rest, i, PAGE_SIZE);
	}
}

/* Makes a plain part a compressed one, if that gains. */
static int compress_part(struct encoder *enc, enum pages_codec codec, struct encoded *part,
			 struct err *e)
{
	const size_t bytes = part->data.iov_len;
	const uint64_t start = cpu_ns();
	ptrdiff_t n = compressor_run(&enc->compressor, part->data.iov_base, bytes, enc->frame,
				     WORTH(bytes), e);

	if (n < 0)
		return -1;
	add(&enc->count[codec].cpu_ns, cpu_ns() - start);
	if (n > 0) {
		part->codec = codec;
		part->data = (struct iovec){ enc->frame, (size_t)n };
	}
	return 0;
}

/* Whatever can fail for what was asked does so before the cache is changed. */
static int prepare(struct encoder *enc, const struct encode_how *how, struct err *e)
{
	if (how->delta && !enc->cache)
		return err_set(e, "there is no page cache");
	if (reserve(&enc->copies, PAGES_ENCODED_MAX * PAGE_SIZE, e))
		return -1;
	if (how->delta && reserve(&enc->deltas, PAGES_ENCODED_MAX * PAGE_SIZE, e))
		return -1;
	if (how->rest == CODEC_PLAIN)
		return 0;
	return reserve(&enc->frame, COMPRESS_MAX, e) ||
			       compressor_init(&enc->compressor, how->rest, how->level, e)
		       ? -1
		       : 0;
}

void encoder_init(struct encoder *enc, struct page_cache *cache)
{
	*enc = (struct encoder){ .cache = cache };
}

void encoder_free(struct encoder *enc)
{
	compressor_free(&enc->compressor);
	free(enc->copies);
	free(enc->deltas);
	free(enc->frame);
	*enc = (struct encoder){ 0 };
}

int encoder_run(struct encoder *enc, const struct encode_how *how, const struct page_set *set,
		struct encoded out[2], struct err *e)
{
	const uint64_t start = cpu_ns();
	struct encoded delta, rest;
	int n = 0;

	enc->known_pages = enc->known_bytes = enc->overflows = 0;
	if (prepare(enc, how, e))
		return -1;
	begin_part(&delta, CODEC_XBZRLE, enc->deltas);
	begin_part(&rest, CODEC_PLAIN, enc->copies);
	if (!how->delta)
		encoder_forget(enc, set);
	read_pages(enc, how, set, &delta, &rest);
	add(&enc->count[how->delta ? CODEC_XBZRLE : CODEC_PLAIN].cpu_ns, cpu_ns() - start);
	if (delta.n_pages)
		out[n++] = delta;
	if (rest.n_pages) {
		if (how->rest != CODEC_PLAIN && compress_part(enc, how->rest, &rest, e))
			return -1;
		out[n++] = rest;
	}
	for (int i = 0; i < n; i++)
		count(enc, &out[i]);
	return n;
}

void encoder_forget(struct encoder *enc, const struct page_set *set)
{
	const uint64_t n = PAGES_ENCODED_MAX;
	uint64_t i;

	if (!enc->cache)
		return;
	for (i = bitmap_next_set(set->pages, n, 0); i < n;
	     i = bitmap_next_set(set->pages, n, i + 1))
		page_cache_forget(enc->cache, set->block, set->first + i);
}
