/*
 * The memory balloon (virtio 1.2, section 5.5): memory that the guest does not use, for the host to
 * have. Queues: 0 inflate, 1 deflate, 2 statistics, 3 free page hints, 4 free page reports.
 *
 * - Inflate: on the host's wish (`num_pages`) the guest gives pages away. Deflate: it says that it
 *   has them again; as it may use one without a word (MUST_TELL_HOST is not offered), that is no
 * news.
 * - Reports: the guest says of its own accord what it has free in large pieces.
 * - Hints: asked for by a migration, it says what is free by now.
 *
 * What was given away or reported is discarded before the guest has its buffer back, and never
 * touched after it. Pages that are discarded read as zero, are not sent by a migration, and cost
 * the host nothing until they are used again. (Or until khugepaged makes a large page of what is
 * left around single ones: that is the host's setting max_ptes_none.)
 *
 * Nobody asks for statistics. They are offered because drivers differ in what number the queues
 * have that come after one that is not there.
 *
 * All work is done on the I/O thread, under the device's lock. The invariant: a page is discarded
 * only while the guest waits for the buffer that names it, so its content is nobody's then.
 */
#include <endian.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "devices/models.h"
#include "devices/virtio/device.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"
#include "vmm/tree.h"

#define BALLOON_DEVICE_ID 5

#define BALLOON_F_STATS_VQ	 1
#define BALLOON_F_DEFLATE_ON_OOM 2
#define BALLOON_F_FREE_PAGE_HINT 3
#define BALLOON_F_PAGE_POISON	 4
#define BALLOON_F_REPORTING	 5

#define BALLOON_FEATURES                                                            \
	(VIRTIO_BIT(BALLOON_F_STATS_VQ) | VIRTIO_BIT(BALLOON_F_DEFLATE_ON_OOM) |    \
	 VIRTIO_BIT(BALLOON_F_FREE_PAGE_HINT) | VIRTIO_BIT(BALLOON_F_PAGE_POISON) | \
	 VIRTIO_BIT(BALLOON_F_REPORTING) | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) |     \
	 VIRTIO_BIT(VIRTIO_F_EVENT_IDX) | VIRTIO_BIT(VIRTIO_F_VERSION_1))

enum {
	QUEUE_INFLATE,
	QUEUE_DEFLATE,
	QUEUE_STATS,
	QUEUE_HINTS,
	QUEUE_REPORTS,
	QUEUES,
};

/* Page numbers and counts are in units of 4 KiB, whatever pages the guest has. */
#define UNIT_BYTES 4096u

/* Values of free_page_hint_cmd_id; the others are commands. */
#define HINT_STOP  0u
#define HINT_DONE  1u
#define HINT_FIRST 2u

/* How much is discarded in a turn; and what the smallest piece counts as, for its system call. */
#define TURN_BYTES  (64u << 20)
#define PIECE_BYTES (64u << 10)

/* Page numbers that are looked at together. */
#define NUMBERS 256u

struct balloon_config {
	/* Little endian. The host writes the first and the third, the driver the others. */
	uint32_t num_pages, actual, free_page_hint_cmd_id, poison_val;
};

struct balloon_state {
	struct virtio_state v;
	uint32_t num_pages, actual, hint_cmd_id, last_hint_id, poison_val;
};

struct balloon {
	struct virtio_device v; /* first */

	/* Under lock. */
	struct balloon_config config;
	uint32_t last_hint_id;
	struct free_pages hints; /* of whom names are for: found == NULL: nobody */
	bool hinting;		 /* the guest has said that names for the command follow */
	/* Bytes of each queue's next chain that were worked on. Not part of the state: to discard
	 * a page twice before the guest has its buffer back changes nothing. */
	uint64_t done[QUEUES];
	struct queue_chain chain;
};

/* -- giving pages back; lock held -- */

/* What a turn has left, less a piece of that size. */
static void spend(uint64_t *left, uint64_t bytes)
{
	bytes = bytes < PIECE_BYTES ? PIECE_BYTES : bytes;
	*left -= bytes < *left ? bytes : *left;
}

/* Whole pages that lie inside [gpa, gpa + len); false: there is none. */
static bool whole_pages(uint64_t *gpa, uint64_t *len)
{
	uint64_t first = (*gpa + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
	uint64_t end = (*gpa + *len) / PAGE_SIZE * PAGE_SIZE;

	*gpa = first;
	*len = first < end ? end - first : 0;
	return *len;
}

/* A run of page numbers; those of what is no RAM are passed over. */
static void discard_run(struct balloon *b, uint32_t first, uint32_t last)
{
	struct memory *m = b->v.dev.env->memory;
	uint64_t n;

	if (memory_discard(m, (uint64_t)first * UNIT_BYTES,
			   ((uint64_t)last - first + 1) * UNIT_BYTES) == 0)
		return;
	/* It may reach over the end of a block. */
	for (n = first; n <= last; n++)
		memory_discard(m, n * UNIT_BYTES, UNIT_BYTES);
}

static int compare_numbers(const void *a, const void *b)
{
	uint32_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

/*
 * Inflate: some of the page numbers of the popped chain; false: there are no more. Drivers name
 * pages one by one, in either direction: sorted, they make runs.
 */
static bool take_numbers(struct balloon *b, uint64_t *left)
{
	uint32_t numbers[NUMBERS];
	size_t n, i, from;

	n = queue_chain_read(&b->v.queues[QUEUE_INFLATE], &b->chain, b->done[QUEUE_INFLATE],
			     numbers, sizeof(numbers)) /
	    sizeof(numbers[0]);
	for (i = 0; i < n; i++)
		numbers[i] = le32toh(numbers[i]);
	qsort(numbers, n, sizeof(numbers[0]), compare_numbers);
	for (from = 0; from < n; from = i) {
		for (i = from + 1; i < n && numbers[i] - numbers[i - 1] <= 1; i++)
			;
		discard_run(b, numbers[from], numbers[i - 1]);
		spend(left, (i - from) * (uint64_t)UNIT_BYTES);
	}
	b->done[QUEUE_INFLATE] += n * sizeof(numbers[0]);
	return n > 0;
}

/*
 * A report: the buffers are the pages. A driver that counts on what free pages hold (poison_val)
 * finds that: they are discarded only if it is zero, and left alone else.
 */
static bool take_report(struct balloon *b, uint64_t *left)
{
	const struct queue_chain *c = &b->chain;
	bool keep = virtio_has(&b->v, BALLOON_F_PAGE_POISON) && b->config.poison_val;
	uint64_t at = 0, *done = &b->done[QUEUE_REPORTS];
	unsigned int i;

	for (i = c->n_out; i < c->n_out + c->n_in && !keep; at += c->buffers[i].len, i++) {
		uint64_t end = at + c->buffers[i].len;

		while (*done < end) {
			uint64_t skip = *done > at ? *done - at : 0;
			uint64_t gpa = c->buffers[i].gpa + skip, len = end - at - skip;

			if (!*left)
				return false;
			len = len < TURN_BYTES ? len : TURN_BYTES;
			*done = at + skip + len;
			spend(left, len);
			if (whole_pages(&gpa, &len))
				memory_discard(b->v.dev.env->memory, gpa, len);
		}
	}
	return true;
}

/* -- hints; lock held -- */

/* To mark pages in a bitmap costs so much less than to discard them. */
#define HINT_SHARE 64u

/*
 * What is readable is a command, under which the pages that follow are named; what is writable is
 * pages. Those of another command than the present one are old, and may be in use again.
 */
static void take_hint(struct balloon *b, uint64_t *left)
{
	const struct queue_chain *c = &b->chain;
	uint32_t id;
	unsigned int i;

	if (c->n_out && queue_chain_read(&b->v.queues[QUEUE_HINTS], c, 0, &id, sizeof(id)) == 4)
		b->hinting = b->hints.found && id == b->config.free_page_hint_cmd_id;
	for (i = c->n_out; i < c->n_out + c->n_in && b->hinting; i++) {
		uint64_t gpa = c->buffers[i].gpa, len = c->buffers[i].len;

		if (whole_pages(&gpa, &len))
			b->hints.found(b->hints.arg, gpa, len);
		spend(left, len / HINT_SHARE);
	}
}

/*
 * Only one that does not report: what the others have free is discarded already, and Linux names
 * pages by allocating all that it has free, which it fills with zeros first (init_on_alloc).
 */
static bool balloon_names_free_pages(struct device *d)
{
	struct balloon *b = (struct balloon *)d;
	bool yes;

	pthread_mutex_lock(&b->v.lock);
	yes = virtio_working(&b->v) && virtio_has(&b->v, BALLOON_F_FREE_PAGE_HINT) &&
	      !virtio_has(&b->v, BALLOON_F_REPORTING);
	pthread_mutex_unlock(&b->v.lock);
	return yes;
}

static void balloon_free_pages(struct device *d, const struct free_pages *f)
{
	struct balloon *b = (struct balloon *)d;
	uint32_t id = f->step == FREE_PAGES_STOP ? HINT_STOP : HINT_DONE;

	pthread_mutex_lock(&b->v.lock);
	if (f->step == FREE_PAGES_NAME) {
		b->last_hint_id = b->last_hint_id < UINT32_MAX ? b->last_hint_id + 1 : HINT_FIRST;
		id = b->last_hint_id;
	}
	b->hints = f->step == FREE_PAGES_NAME ? *f : (struct free_pages){ 0 };
	b->hinting = false;
	b->config.free_page_hint_cmd_id = htole32(id);
	virtio_config_changed(&b->v);
	pthread_mutex_unlock(&b->v.lock);
}

/* -- ops; lock held -- */

/* The popped chain: false when the turn ends before all of it is done. */
static bool take_chain(struct balloon *b, unsigned int q, uint64_t *left)
{
	switch (q) {
	case QUEUE_INFLATE:
		while (*left)
			if (!take_numbers(b, left))
				return true;
		return false;
	case QUEUE_REPORTS:
		return take_report(b, left);
	case QUEUE_HINTS:
		take_hint(b, left);
		return true;
	default:
		return true;
	}
}

static enum virtio_took balloon_take(struct virtio_device *v, unsigned int q, struct queue_chain *c,
				     uint32_t *written, void *turn)
{
	struct balloon *b = (struct balloon *)v;
	uint64_t *left = turn;

	(void)c;
	(void)written;
	if (!*left || !take_chain(b, q, left))
		return VIRTIO_LATER;
	b->done[q] = 0;
	spend(left, 0);
	return VIRTIO_TOOK;
}

static void balloon_ring(struct virtio_device *v, unsigned int index)
{
	uint64_t left = TURN_BYTES;

	if (index != QUEUE_STATS)
		virtio_drain(v, index, NULL, &((struct balloon *)v)->chain, balloon_take, &left);
}

static void balloon_config_write(struct virtio_device *v, uint32_t offset, const void *value,
				 uint32_t len)
{
	struct balloon *b = (struct balloon *)v;

	if (len != sizeof(uint32_t))
		return;
	if (offset == offsetof(struct balloon_config, actual))
		memcpy(&b->config.actual, value, len);
	if (offset == offsetof(struct balloon_config, poison_val) &&
	    virtio_has(v, BALLOON_F_PAGE_POISON) && !(v->st.status & VIRTIO_STATUS_DRIVER_OK))
		memcpy(&b->config.poison_val, value, len);
}

/* Also where a queue is taken back: chains of another one begin at their beginning. */
static void balloon_stop(struct virtio_device *v)
{
	memset(((struct balloon *)v)->done, 0, sizeof(((struct balloon *)v)->done));
}

/* What the host wants is not the driver's to forget. */
static void balloon_reset(struct virtio_device *v)
{
	struct balloon *b = (struct balloon *)v;

	b->config = (struct balloon_config){ .num_pages = b->config.num_pages };
	b->hints = (struct free_pages){ 0 };
	b->hinting = false;
}

static const struct virtio_ops balloon_ops = {
	.device_id = BALLOON_DEVICE_ID,
	.known_features = BALLOON_FEATURES,
	.config_write = balloon_config_write,
	.stop = balloon_stop,
	.reset = balloon_reset,
	.ring = balloon_ring,
};

/* -- what the host wants, and has; I/O thread -- */

static void balloon_set(struct device *d, uint64_t bytes)
{
	struct balloon *b = (struct balloon *)d;
	uint64_t pages = bytes / UNIT_BYTES;
	uint32_t value = htole32(pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX);

	pthread_mutex_lock(&b->v.lock);
	if (b->config.num_pages != value) {
		b->config.num_pages = value;
		virtio_config_changed(&b->v);
	}
	pthread_mutex_unlock(&b->v.lock);
}

static void balloon_query(struct device *d, struct device_balloon *out)
{
	struct balloon *b = (struct balloon *)d;

	pthread_mutex_lock(&b->v.lock);
	out->wanted_bytes = (uint64_t)le32toh(b->config.num_pages) * UNIT_BYTES;
	out->actual_bytes = (uint64_t)le32toh(b->config.actual) * UNIT_BYTES;
	pthread_mutex_unlock(&b->v.lock);
}

/* -- life; I/O thread -- */

static int balloon_probe(struct tree *t, const char *path, struct err *e)
{
	return tree_set_u64(t, path, "features", BALLOON_FEATURES, e);
}

static int balloon_create(const struct device_env *env, const struct tree *t, const char *path,
			  struct device **out, struct err *e)
{
	struct balloon *b = calloc(1, sizeof(*b));

	if (!b)
		return err_set(e, "%s: out of memory", path);
	if (virtio_init(&b->v, &virtio_balloon_model, &balloon_ops, QUEUES, env, t, path, e) < 0) {
		free(b);
		return -1;
	}
	b->last_hint_id = HINT_FIRST - 1;
	b->v.config = &b->config;
	b->v.config_size = sizeof(b->config);
	*out = &b->v.dev;
	return 0;
}

static void balloon_destroy(struct device *d)
{
	struct balloon *b = (struct balloon *)d;

	virtio_destroy(&b->v);
	free(b);
}

/* -- state -- */

static void balloon_fields(struct state *s, void *p)
{
	struct balloon_state *st = p;

	virtio_fields(s, &st->v);
	state_u32(s, "num-pages", &st->num_pages);
	state_u32(s, "actual", &st->actual);
	state_u32(s, "hint-cmd-id", &st->hint_cmd_id);
	state_u32(s, "last-hint-id", &st->last_hint_id);
	state_u32(s, "poison-val", &st->poison_val);
}

static int balloon_check(const void *p, struct err *e)
{
	const struct balloon_state *st = p;

	/* The next one would be no command. */
	if (st->last_hint_id < HINT_FIRST - 1)
		return err_set(e, "'last-hint-id' is %u, expected at least %u", st->last_hint_id,
			       HINT_FIRST - 1);
	return virtio_state_check(&st->v, e);
}

static void balloon_save(struct device *d, void *p)
{
	struct balloon *b = (struct balloon *)d;
	struct balloon_state *st = p;

	virtio_save(&b->v, &st->v);
	pthread_mutex_lock(&b->v.lock);
	st->num_pages = le32toh(b->config.num_pages);
	st->actual = le32toh(b->config.actual);
	st->hint_cmd_id = le32toh(b->config.free_page_hint_cmd_id);
	st->last_hint_id = b->last_hint_id;
	st->poison_val = le32toh(b->config.poison_val);
	pthread_mutex_unlock(&b->v.lock);
}

static void balloon_load(struct device *d, const void *p)
{
	struct balloon *b = (struct balloon *)d;
	const struct balloon_state *st = p;

	virtio_load(&b->v, &st->v);
	pthread_mutex_lock(&b->v.lock);
	b->config = (struct balloon_config){
		.num_pages = htole32(st->num_pages),
		.actual = htole32(st->actual),
		.free_page_hint_cmd_id = htole32(st->hint_cmd_id),
		.poison_val = htole32(st->poison_val),
	};
	b->last_hint_id = st->last_hint_id;
	pthread_mutex_unlock(&b->v.lock);
}

static const struct state_desc balloon_state_desc = {
	.size = sizeof(struct balloon_state),
	.fields = balloon_fields,
	.check = balloon_check,
};

static const struct device_balloon_ops balloon_device_ops = {
	.set = balloon_set,
	.ask = balloon_query,
	.names_free_pages = balloon_names_free_pages,
	.free_pages = balloon_free_pages,
};

const struct device_model virtio_balloon_model = {
	.name = "virtio-balloon",
	.state = &balloon_state_desc,
	.probe = balloon_probe,
	.create = balloon_create,
	.destroy = balloon_destroy,
	.activate = virtio_activate,
	.quiesce = virtio_quiesce,
	.save = balloon_save,
	.fits = virtio_plain_fits,
	.load = balloon_load,
	.balloon = &balloon_device_ops,
};
