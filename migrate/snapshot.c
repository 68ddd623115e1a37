/*
 * Cold migration: see snapshot.h. Runs on the migration's thread (saving) or before the guest runs
 * (loading). Pages go straight from guest memory to the channel and back; pages that were never
 * touched are not even read, zero pages are not written.
 */
#include "migrate/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <zlib.h>

#include "migrate/channel/channel.h"
#include "migrate/codec/zero.h"
#include "migrate/guest.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"
#include "vmm/version.h"

/* Pages that are looked at together: what one PAGES record holds at most. */
#define CHUNK_PAGES 2048u

static void host_arch(char out[16])
{
	struct utsname u;

	memset(out, 0, 16);
	if (uname(&u) == 0)
		memcpy(out, u.machine, strnlen(u.machine, 15));
}

/* -- saving -- */

static int save_hello(struct writer *w, struct err *e)
{
	struct hello h = { .version = STREAM_VERSION, .page_bytes = PAGE_SIZE };
	uint8_t body[HELLO_BYTES];
	const char *version = godwit_version();

	host_arch(h.arch);
	memcpy(h.program, version, strnlen(version, sizeof(h.program) - 1));
	if (getrandom(h.id, sizeof(h.id), 0) != sizeof(h.id))
		return err_errno(e, errno, "no random numbers");
	hello_encode(&h, body);
	return writer_record(w, RECORD_HELLO, body, sizeof(body), NULL, 0, e);
}

static int save_tree(struct writer *w, enum record_type type, const struct tree *t, struct err *e)
{
	return writer_record(w, type, t->fdt, tree_bytes_used(t), NULL, 0, e);
}

/* The runs of one PAGES record on the way. */
struct batch {
	uint8_t body[PAGES_HEAD_BYTES + PAGES_RUNS_MAX * PAGES_RUN_BYTES];
	struct iovec data[PAGES_RUNS_MAX];
	uint32_t n_runs;
	uint64_t pages;
	uLong crc;
};

static void add_run(struct batch *b, const struct guest_block *block, uint64_t first, uint64_t n)
{
	uint8_t *run = b->body + PAGES_HEAD_BYTES + b->n_runs * PAGES_RUN_BYTES;
	uint8_t *host = block->host + first * PAGE_SIZE;

	put_u64(run, first);
	put_u64(run + 8, n);
	b->data[b->n_runs++] = (struct iovec){ host, n * PAGE_SIZE };
	b->pages += n;
	b->crc = crc32(b->crc, host, (uInt)(n * PAGE_SIZE));
}

static int write_batch(struct writer *w, struct batch *b, unsigned int block, struct err *e)
{
	int rc;

	if (!b->n_runs)
		return 0;
	put_u32(b->body, block);
	put_u32(b->body + 4, CODEC_PLAIN);
	put_u32(b->body + 8, b->n_runs);
	put_u32(b->body + 12, (uint32_t)b->crc);
	rc = writer_record(w, RECORD_PAGES, b->body,
			   PAGES_HEAD_BYTES + (size_t)b->n_runs * PAGES_RUN_BYTES, b->data,
			   (int)b->n_runs, e);
	b->n_runs = 0;
	b->pages = 0;
	b->crc = crc32(0, NULL, 0);
	return rc;
}

/* Clears the bits of pages that turn out to be zero. */
static void drop_zero_pages(const struct guest_block *block, uint64_t first, uint64_t n,
			    uint64_t *pages)
{
	uint64_t i;

	for (i = bitmap_next_set(pages, n, 0); i < n; i = bitmap_next_set(pages, n, i + 1))
		if (zero_page(block->host + (first + i) * PAGE_SIZE))
			bitmap_clear(pages, i);
}

static int save_chunk(struct writer *w, struct guest *g, unsigned int index, uint64_t first,
		      uint64_t n, struct batch *b, struct snapshot_progress *p, struct err *e)
{
	const struct guest_block *block = &g->blocks[index];
	uint64_t pages[BITMAP_WORDS(CHUNK_PAGES)] = { 0 };
	uint64_t from, to;

	if (g->ops->touched(g, index, first, n, pages, e))
		return -1;
	drop_zero_pages(block, first, n, pages);
	for (from = bitmap_next_set(pages, n, 0); from < n; from = bitmap_next_set(pages, n, to)) {
		to = bitmap_next_clear(pages, n, from);
		add_run(b, block, first + from, to - from);
		__atomic_add_fetch(&p->normal_pages, to - from, __ATOMIC_RELAXED);
		if (b->n_runs == PAGES_RUNS_MAX && write_batch(w, b, index, e))
			return -1;
	}
	return write_batch(w, b, index, e);
}

static int save_pages(struct writer *w, struct guest *g, struct snapshot_progress *p, struct err *e)
{
	struct batch b = { .crc = crc32(0, NULL, 0) };
	unsigned int i;

	for (i = 0; i < g->n_blocks; i++) {
		uint64_t first, n;

		for (first = 0; first < g->blocks[i].pages; first += n) {
			n = g->blocks[i].pages - first;
			n = n < CHUNK_PAGES ? n : CHUNK_PAGES;
			if (__atomic_load_n(&p->cancel, __ATOMIC_ACQUIRE))
				return err_set(e, "cancelled");
			if (save_chunk(w, g, i, first, n, &b, p, e))
				return -1;
			__atomic_add_fetch(&p->seen_pages, n, __ATOMIC_RELAXED);
			__atomic_store_n(&p->bytes, w->channel->bytes, __ATOMIC_RELAXED);
		}
	}
	return 0;
}

int snapshot_save(struct guest *g, struct channel *ch, struct snapshot_progress *p, struct err *e)
{
	struct writer w = { .channel = ch };
	struct tree states;
	unsigned int i;
	int rc;

	for (i = 0; i < g->n_blocks; i++)
		__atomic_add_fetch(&p->total_pages, g->blocks[i].pages, __ATOMIC_RELAXED);
	if (save_hello(&w, e) || save_tree(&w, RECORD_MACHINE, g->tree, e) ||
	    save_pages(&w, g, p, e) || g->ops->states_save(g, &states, e))
		return -1;
	rc = save_tree(&w, RECORD_STATES, &states, e);
	tree_free(&states);
	if (rc || writer_record(&w, RECORD_END, NULL, 0, NULL, 0, e))
		return -1;
	__atomic_store_n(&p->bytes, ch->bytes, __ATOMIC_RELAXED);
	/* The last moment: making the file last can take long, and then it is there. */
	return __atomic_load_n(&p->cancel, __ATOMIC_ACQUIRE) ? err_set(e, "cancelled") : 0;
}

/* -- loading -- */

int snapshot_open(struct reader *r, struct tree *machine, struct hello *hello, struct err *e)
{
	struct record rec;
	char arch[16];

	if (reader_record(r, &rec, e))
		return -1;
	if (hello_decode(&rec, hello, e))
		return err_context(e, "%s", r->channel->name);
	host_arch(arch);
	if (strcmp(hello->arch, arch))
		return err_set(e, "%s: made on %s, this host is %s", r->channel->name, hello->arch,
			       arch);
	if (reader_record(r, &rec, e))
		return -1;
	if (rec.type != RECORD_MACHINE)
		return err_set(e, "%s: a %s record where the machine should be", r->channel->name,
			       record_name(rec.type));
	if (tree_copy(machine, rec.body, rec.body_bytes, e))
		return err_context(e, "%s: the machine", r->channel->name);
	return 0;
}

static int load_pages(struct reader *r, const struct record *rec, struct guest *g, struct err *e)
{
	uLong crc = crc32(0, NULL, 0);
	struct pages p;
	uint32_t i;

	if (pages_decode(rec, &p, e))
		return err_context(e, "%s", r->channel->name);
	if (p.block >= g->n_blocks)
		return err_set(e, "%s: pages of memory block %" PRIu32 ", the machine has %u",
			       r->channel->name, p.block, g->n_blocks);
	for (i = 0; i < p.n_runs; i++) {
		const struct guest_block *block = &g->blocks[p.block];
		uint64_t first, n;
		uint8_t *host;

		pages_run(&p, i, &first, &n);
		if (first >= block->pages || n > block->pages - first)
			return err_set(e, "%s: pages outside memory block %" PRIu32,
				       r->channel->name, p.block);
		host = block->host + first * PAGE_SIZE;
		if (reader_data(r, host, n * PAGE_SIZE, e))
			return -1;
		crc = crc32(crc, host, (uInt)(n * PAGE_SIZE));
	}
	if ((uint32_t)crc != p.data_crc)
		return err_set(e, "%s: the pages of the record at byte %" PRIu64 " are damaged",
			       r->channel->name, rec->offset);
	return 0;
}

int snapshot_load(struct reader *r, struct guest *g, struct err *e)
{
	struct tree states = { 0 };
	struct record rec;
	int rc = -1;

	for (;;) {
		if (reader_record(r, &rec, e))
			goto out;
		if (rec.type != RECORD_PAGES)
			break;
		if (load_pages(r, &rec, g, e))
			goto out;
	}
	if (rec.type != RECORD_STATES) {
		err_set(e, "%s: a %s record where the states should be", r->channel->name,
			record_name(rec.type));
		goto out;
	}
	if (tree_copy(&states, rec.body, rec.body_bytes, e)) {
		err_context(e, "%s: the states", r->channel->name);
		goto out;
	}
	if (reader_record(r, &rec, e))
		goto out;
	if (rec.type != RECORD_END) {
		err_set(e, "%s: a %s record where the end should be", r->channel->name,
			record_name(rec.type));
		goto out;
	}
	/* Only now is it known to be whole; KVM looks at guest memory when it takes states. */
	if (g->ops->states_load(g, &states, e)) {
		err_context(e, "%s", r->channel->name);
		goto out;
	}
	rc = 0;
out:
	tree_free(&states);
	return rc;
}
