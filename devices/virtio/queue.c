/*
 * The split virtqueue: see queue.h. Runs under the device's lock on the I/O thread (stop and the
 * readying of a queue: any thread).
 *
 * The invariant: whatever the guest shares is loaded exactly once into a local, checked there, and
 * only the local is used, so that a guest which changes it meanwhile gains nothing. Addresses are
 * turned into host pointers once per use and forgotten at the end of the call.
 *
 *   descriptor  u64 gpa, u32 len, u16 flags, u16 next                    x size
 *   available   u16 flags, u16 idx, u16 head[size], u16 used_event       written by the driver
 *   used        u16 flags, u16 idx, { u32 head, u32 written }[size], u16 avail_event    by us
 *
 * Memory order. The driver fills entries, then moves avail.idx; we load idx with acquire, so all
 * that it covers is seen. We fill used entries, then store used.idx with release. Two places need
 * a store to be seen before a later load, which only a full fence gives: used.idx before the
 * driver's wish for interrupts is read, and our wish for rings before avail.idx is read again.
 * Each side does the same mirrored, so at least one of the two sees the other's store, and neither
 * an interrupt nor a ring is ever lost.
 */
#include "devices/virtio/queue.h"

#include <endian.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/memory.h"
#include "vmm/state.h"

#define DESC_BYTES    16u
#define DESC_NEXT     1u
#define DESC_WRITE    2u
#define DESC_INDIRECT 4u

#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY	   1u

#define RING_FLAGS   0u
#define RING_IDX     2u
#define RING_ENTRIES 4u

struct desc {
	uint64_t gpa;
	uint32_t len;
	uint16_t flags, next;
};

static uint64_t desc_bytes(const struct queue *q)
{
	return (uint64_t)DESC_BYTES * q->st.size;
}

static uint64_t avail_bytes(const struct queue *q)
{
	return RING_ENTRIES + 2ull * q->st.size + 2;
}

static uint64_t used_bytes(const struct queue *q)
{
	return RING_ENTRIES + 8ull * q->st.size + 2;
}

/* The rings are aligned (queue_check_rings), so their fields are loaded and stored whole. */
static uint16_t load_u16(const uint8_t *p, int order)
{
	const uint16_t *field = (const uint16_t *)(const void *)p;

	return le16toh(order == __ATOMIC_ACQUIRE ? __atomic_load_n(field, __ATOMIC_ACQUIRE)
						 : __atomic_load_n(field, __ATOMIC_RELAXED));
}

static void store_u16(uint8_t *p, uint16_t v, int order)
{
	uint16_t *field = (uint16_t *)(void *)p;

	if (order == __ATOMIC_RELEASE)
		__atomic_store_n(field, htole16(v), __ATOMIC_RELEASE);
	else
		__atomic_store_n(field, htole16(v), __ATOMIC_RELAXED);
}

/* One copy of a descriptor; an indirect table may lie anywhere, so alignment is not assumed. */
static void load_desc(const uint8_t *p, struct desc *d)
{
	uint8_t copy[DESC_BYTES];
	uint64_t gpa;
	uint32_t len;
	uint16_t flags, next;

	memcpy(copy, p, sizeof(copy));
	/* The compiler must not read guest memory again in place of the copy. */
	__asm__ volatile("" : "+m"(copy) : : "memory");
	memcpy(&gpa, copy, 8);
	memcpy(&len, copy + 8, 4);
	memcpy(&flags, copy + 12, 2);
	memcpy(&next, copy + 14, 2);
	d->gpa = le64toh(gpa);
	d->len = le32toh(len);
	d->flags = le16toh(flags);
	d->next = le16toh(next);
}

void queue_fields(struct state *s, void *queue_state)
{
	struct queue_state *st = queue_state;

	state_u16(s, "size", &st->size);
	state_bool(s, "ready", &st->ready);
	state_u64(s, "desc", &st->desc_gpa);
	state_u64(s, "avail", &st->avail_gpa);
	state_u64(s, "used", &st->used_gpa);
	state_u16(s, "next-avail", &st->next_avail);
	state_u16(s, "next-used", &st->next_used);
	state_u16(s, "signalled", &st->signalled);
	state_bool(s, "signalled-valid", &st->signalled_valid);
}

static bool power_of_two(unsigned int n)
{
	return n && !(n & (n - 1));
}

int queue_state_check(const struct queue_state *st, struct err *e)
{
	if (st->size && (!power_of_two(st->size) || st->size > QUEUE_SIZE_MAX))
		return err_set(e, "a size of %u descriptors (expected a power of two up to %u)",
			       st->size, QUEUE_SIZE_MAX);
	if (!st->ready)
		return 0;
	if (!st->size)
		return err_set(e, "ready without a size");
	if (st->desc_gpa % 16 || st->avail_gpa % 2 || st->used_gpa % 4)
		return err_set(e,
			       "rings at 0x%llx, 0x%llx, 0x%llx (expected multiples of 16, 2 and "
			       "4)",
			       (unsigned long long)st->desc_gpa, (unsigned long long)st->avail_gpa,
			       (unsigned long long)st->used_gpa);
	return 0;
}

int queue_check_rings(const struct queue *q, struct err *e)
{
	struct queue_state st = q->st;

	st.ready = true;
	if (queue_state_check(&st, e) < 0)
		return -1;
	if (!memory_host(q->memory, st.desc_gpa, desc_bytes(q)))
		return err_set(e, "its descriptors at 0x%llx are not inside guest memory",
			       (unsigned long long)st.desc_gpa);
	if (!memory_host(q->memory, st.avail_gpa, avail_bytes(q)))
		return err_set(e, "its available ring at 0x%llx is not inside guest memory",
			       (unsigned long long)st.avail_gpa);
	if (!memory_host(q->memory, st.used_gpa, used_bytes(q)))
		return err_set(e, "its used ring at 0x%llx is not inside guest memory",
			       (unsigned long long)st.used_gpa);
	return 0;
}

static const uint8_t *avail_ring(const struct queue *q)
{
	return memory_host(q->memory, q->st.avail_gpa, avail_bytes(q));
}

static uint8_t *used_ring(const struct queue *q)
{
	return memory_host(q->memory, q->st.used_gpa, used_bytes(q));
}

/* A part of the used ring was written. */
static void mark_used(struct queue *q, uint64_t offset, uint64_t len)
{
	memory_mark(q->memory, q->st.used_gpa + offset, len);
}

/* Takes one buffer into the chain. */
static int chain_add(const struct queue *q, struct queue_chain *c, const struct desc *d,
		     struct err *e)
{
	bool in = d->flags & DESC_WRITE;

	if (!in && c->n_in)
		return err_set(e, "a readable buffer comes after a writable one");
	if (!d->len)
		return 0;
	if (c->n_out + c->n_in >= QUEUE_BUFFERS_MAX)
		return err_set(e, "a chain has more than %u buffers", QUEUE_BUFFERS_MAX);
	if (!memory_host(q->memory, d->gpa, d->len))
		return err_set(e, "a buffer of %u bytes at 0x%llx is not inside guest memory",
			       d->len, (unsigned long long)d->gpa);
	/* A used entry tells lengths in 32 bits. */
	if (c->out_bytes + c->in_bytes + d->len > UINT32_MAX)
		return err_set(e, "a chain holds more than 4 GiB");
	c->buffers[c->n_out + c->n_in] = (struct queue_buffer){ .gpa = d->gpa, .len = d->len };
	if (in) {
		c->n_in++;
		c->in_bytes += d->len;
	} else {
		c->n_out++;
		c->out_bytes += d->len;
	}
	return 0;
}

/* Follows descriptors from table[i]; ends after `n` steps at the latest. */
static int chain_walk(const struct queue *q, struct queue_chain *c, const uint8_t *table,
		      unsigned int n, unsigned int i, bool inside_indirect, struct err *e)
{
	struct desc d;

	for (unsigned int steps = 0; steps < n; steps++) {
		load_desc(table + (size_t)i * DESC_BYTES, &d);
		if (d.flags & DESC_INDIRECT) {
			const uint8_t *indirect;

			if (!q->indirect)
				return err_set(e, "an indirect table that was not negotiated");
			if (inside_indirect)
				return err_set(e, "an indirect table inside an indirect table");
			if (d.flags & DESC_NEXT)
				return err_set(e, "a descriptor both indirect and continued");
			if (!d.len || d.len % DESC_BYTES || d.len / DESC_BYTES > QUEUE_BUFFERS_MAX)
				return err_set(e,
					       "an indirect table of %u bytes (expected 1 to %u "
					       "descriptors of %u)",
					       d.len, QUEUE_BUFFERS_MAX, DESC_BYTES);
			indirect = memory_host(q->memory, d.gpa, d.len);
			if (!indirect)
				return err_set(e,
					       "an indirect table of %u bytes at 0x%llx is not "
					       "inside guest memory",
					       d.len, (unsigned long long)d.gpa);
			return chain_walk(q, c, indirect, d.len / DESC_BYTES, 0, true, e);
		}
		if (chain_add(q, c, &d, e) < 0)
			return -1;
		if (!(d.flags & DESC_NEXT))
			return 0;
		if (d.next >= n)
			return err_set(e, "descriptor %u follows, of %u", d.next, n);
		i = d.next;
	}
	return err_set(e, "a chain of descriptors runs in a circle");
}

int queue_chain_at(struct queue *q, uint16_t head, struct queue_chain *c, struct err *e)
{
	const uint8_t *table = memory_host(q->memory, q->st.desc_gpa, desc_bytes(q));

	if (!table)
		return err_set(e, "its rings are not inside guest memory");
	if (head >= q->st.size)
		return err_set(e, "a chain begins at descriptor %u, of %u", head, q->st.size);
	c->head = head;
	c->n_out = c->n_in = 0;
	c->out_bytes = c->in_bytes = 0;
	return chain_walk(q, c, table, q->st.size, head, false, e) < 0 ? -1 : 1;
}

int queue_pop(struct queue *q, struct queue_chain *c, struct err *e)
{
	uint16_t idx, waiting, head;
	const uint8_t *avail;

	if (!q->st.ready)
		return 0;
	avail = avail_ring(q);
	if (!avail)
		return err_set(e, "its rings are not inside guest memory");
	idx = load_u16(avail + RING_IDX, __ATOMIC_ACQUIRE);
	waiting = (uint16_t)(idx - q->st.next_avail);
	if (!waiting)
		return 0;
	if (waiting > q->st.size)
		return err_set(e, "%u chains are said to wait in a queue of %u", waiting,
			       q->st.size);
	head = load_u16(avail + RING_ENTRIES + 2 * (q->st.next_avail & (q->st.size - 1)),
			__ATOMIC_RELAXED);
	if (queue_chain_at(q, head, c, e) < 0)
		return -1;
	q->st.next_avail++;
	return 1;
}

void queue_unpop(struct queue *q)
{
	q->st.next_avail--;
}

int queue_fill(struct queue *q, uint16_t ahead, uint16_t head, uint32_t written, struct err *e)
{
	uint8_t *used = q->st.ready ? used_ring(q) : NULL;
	uint32_t entry[2] = { htole32(head), htole32(written) };
	uint64_t offset;

	if (!used)
		return err_set(e, "its used ring is not inside guest memory");
	if (ahead >= q->st.size)
		return err_set(e, "more used entries at once than the queue's %u", q->st.size);
	offset = RING_ENTRIES + 8ull * ((uint16_t)(q->st.next_used + ahead) & (q->st.size - 1));
	memcpy(used + offset, entry, sizeof(entry));
	mark_used(q, offset, sizeof(entry));
	return 0;
}

int queue_publish(struct queue *q, uint16_t n, struct err *e)
{
	uint8_t *used = q->st.ready ? used_ring(q) : NULL;

	if (!used)
		return err_set(e, "its used ring is not inside guest memory");
	if (n > q->st.size)
		return err_set(e, "more used entries at once than the queue's %u", q->st.size);
	q->st.next_used = (uint16_t)(q->st.next_used + n);
	store_u16(used + RING_IDX, q->st.next_used, __ATOMIC_RELEASE);
	mark_used(q, RING_IDX, 2);
	/* Pushed 65536 without a look at the interrupt: what `signalled` says is a turn old. */
	if ((uint16_t)(q->st.next_used - q->st.signalled) < n)
		q->st.signalled_valid = false;
	return 0;
}

int queue_push(struct queue *q, uint16_t head, uint32_t written, struct err *e)
{
	if (queue_fill(q, 0, head, written, e) < 0)
		return -1;
	return queue_publish(q, 1, e);
}

bool queue_wants_interrupt(struct queue *q)
{
	const uint8_t *avail = q->st.ready ? avail_ring(q) : NULL;
	uint16_t old = q->st.signalled, new = q->st.next_used, event;
	bool valid = q->st.signalled_valid;

	if (!avail || (valid && old == new))
		return false;
	/* used.idx must be seen before the driver's wish is read: see above. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q->st.signalled = new;
	q->st.signalled_valid = true;
	if (!q->event_idx)
		return !(load_u16(avail + RING_FLAGS, __ATOMIC_RELAXED) & AVAIL_NO_INTERRUPT);
	if (!valid)
		return true;
	/* Whether the entry that the driver waits for is among [old, new). */
	event = load_u16(avail + RING_ENTRIES + 2 * q->st.size, __ATOMIC_RELAXED);
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

bool queue_ask_rings(struct queue *q, bool rings)
{
	uint8_t *used = q->st.ready ? used_ring(q) : NULL;
	const uint8_t *avail = q->st.ready ? avail_ring(q) : NULL;

	if (!used || !avail)
		return false;
	if (q->event_idx) {
		uint64_t offset = RING_ENTRIES + 8ull * q->st.size;

		/* An old avail_event already means "do not ring", until its turn comes round. */
		if (!rings)
			return false;
		store_u16(used + offset, q->st.next_avail, __ATOMIC_RELAXED);
		mark_used(q, offset, 2);
	} else {
		store_u16(used + RING_FLAGS, rings ? 0 : USED_NO_NOTIFY, __ATOMIC_RELAXED);
		mark_used(q, RING_FLAGS, 2);
		if (!rings)
			return false;
	}
	/* Our wish must be seen before avail.idx is read once more: see above. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return load_u16(avail + RING_IDX, __ATOMIC_ACQUIRE) != q->st.next_avail;
}

int queue_pop_or_ask(struct queue *q, struct queue_chain *c, struct err *e)
{
	int rc = queue_pop(q, c, e);

	return rc == 0 && queue_ask_rings(q, true) ? queue_pop(q, c, e) : rc;
}

/*
 * A walk over the pieces of [offset, offset + len) of a chain's readable or writable part. Gives
 * each piece's guest address and length; ends when the bytes asked for or the buffers end.
 */
struct pieces {
	const struct queue_buffer *b, *end;
	uint64_t skip, left;
};

static struct pieces pieces_of(const struct queue_chain *c, bool in, uint64_t offset, uint64_t len)
{
	const struct queue_buffer *first = c->buffers + (in ? c->n_out : 0);

	return (struct pieces){ first, first + (in ? c->n_in : c->n_out), offset, len };
}

static bool next_piece(struct pieces *p, uint64_t *gpa, uint64_t *len)
{
	while (p->b < p->end && p->skip >= p->b->len)
		p->skip -= p->b++->len;
	if (p->b == p->end || !p->left)
		return false;
	*gpa = p->b->gpa + p->skip;
	*len = p->b->len - p->skip;
	if (*len > p->left)
		*len = p->left;
	p->left -= *len;
	p->skip = 0;
	p->b++;
	return true;
}

size_t queue_chain_read(const struct queue *q, const struct queue_chain *c, uint64_t offset,
			void *to, size_t len)
{
	struct pieces p = pieces_of(c, false, offset, len);
	uint64_t gpa, n;
	size_t done = 0;

	while (next_piece(&p, &gpa, &n)) {
		if (memory_read(q->memory, gpa, (uint8_t *)to + done, n) < 0)
			break;
		done += n;
	}
	return done;
}

size_t queue_chain_write(struct queue *q, const struct queue_chain *c, uint64_t offset,
			 const void *from, size_t len)
{
	struct pieces p = pieces_of(c, true, offset, len);
	uint64_t gpa, n;
	size_t done = 0;

	while (next_piece(&p, &gpa, &n)) {
		if (memory_write(q->memory, gpa, (const uint8_t *)from + done, n) < 0)
			break;
		done += n;
	}
	return done;
}

int queue_chain_iov(const struct queue *q, const struct queue_chain *c, bool in, uint64_t offset,
		    uint64_t len, struct iovec *iov, int max)
{
	struct pieces p = pieces_of(c, in, offset, len);
	uint64_t gpa, n;
	int count = 0;

	while (next_piece(&p, &gpa, &n)) {
		void *host = memory_host(q->memory, gpa, n);

		if (!host || count >= max)
			return -1;
		iov[count++] = (struct iovec){ .iov_base = host, .iov_len = n };
	}
	return p.left ? -1 : count;
}

void queue_chain_mark(struct queue *q, const struct queue_chain *c, uint64_t offset, uint64_t len)
{
	struct pieces p = pieces_of(c, true, offset, len);
	uint64_t gpa, n;

	while (next_piece(&p, &gpa, &n))
		memory_mark(q->memory, gpa, n);
}
