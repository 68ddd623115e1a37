/*
 * Fuzzing the split virtqueue: the input is a queue's state and a little guest memory, so rings,
 * descriptors and indirect tables are whatever the fuzzer likes. Chains are popped, read, written
 * and pushed back; nothing may be touched outside the memory, and every turn must end.
 *
 * Bytes 0-31 of the input: size, flags, the three rings' addresses, the indices. The rest is put
 * at the begin of guest memory; the two blocks behind each other have no gap.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/queue.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

#define BLOCK_BYTES (2 * PAGE_SIZE)
#define TURNS	    1000

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len);

static uint16_t take_u16(const uint8_t **in)
{
	uint16_t v;

	memcpy(&v, *in, 2);
	*in += 2;
	return v;
}

/* Exactly as many bytes as guest memory has, each block by itself, so that ASan sees the ends. */
static void make_memory(struct memory *m, const uint8_t *in, size_t len)
{
	memset(m, 0, sizeof(*m));
	m->marking = true;
	m->n_blocks = 2;
	for (unsigned int i = 0; i < 2; i++) {
		struct memory_block *b = &m->blocks[i];
		size_t n = len < BLOCK_BYTES ? len : BLOCK_BYTES;

		*b = (struct memory_block){ .gpa = i * BLOCK_BYTES, .size = BLOCK_BYTES };
		b->host = aligned_alloc(PAGE_SIZE, BLOCK_BYTES);
		b->dirty = calloc(1, sizeof(uint64_t));
		if (!b->host || !b->dirty)
			abort();
		memset(b->host, 0, BLOCK_BYTES);
		memcpy(b->host, in, n);
		in += n;
		len -= n;
	}
}

static void use_chain(struct queue *q, const struct queue_chain *c)
{
	static uint8_t bytes[BLOCK_BYTES];
	static struct iovec iov[QUEUE_BUFFERS_MAX];
	uint64_t sum = 0;
	int n;

	if (c->n_out + c->n_in > QUEUE_BUFFERS_MAX || c->head >= q->st.size)
		abort();
	for (unsigned int i = 0; i < c->n_out + c->n_in; i++)
		sum += c->buffers[i].len;
	if (sum != c->out_bytes + c->in_bytes || sum > UINT32_MAX)
		abort();
	if (queue_chain_read(q, c, 0, bytes, sizeof(bytes)) !=
	    (c->out_bytes < sizeof(bytes) ? c->out_bytes : sizeof(bytes)))
		abort();
	n = queue_chain_iov(q, c, true, 0, c->in_bytes, iov, QUEUE_BUFFERS_MAX);
	if (n != c->n_in)
		abort();
	queue_chain_mark(q, c, c->in_bytes / 2, c->in_bytes);
	/* Last: what is written may well be the rings themselves. */
	queue_chain_write(q, c, 1, bytes, sizeof(bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
	static struct queue_chain chain;
	struct memory memory;
	struct queue q = { .memory = &memory };
	uint16_t flags;
	struct err e;

	if (len < 32)
		return 0;
	q.st.size = (uint16_t)(1u << (in[0] % 9));
	q.st.desc_gpa = in[2] & 1 ? 16ull * in[3] : 0;
	in += 4;
	flags = take_u16(&in);
	q.event_idx = flags & 1;
	q.indirect = flags & 2;
	q.st.ready = true;
	q.st.desc_gpa += take_u16(&in) % (2 * BLOCK_BYTES) & (flags & 4 ? ~0ull : ~15ull);
	q.st.avail_gpa = take_u16(&in) % (2 * BLOCK_BYTES) & (flags & 8 ? ~0ull : ~1ull);
	q.st.used_gpa = take_u16(&in) % (2 * BLOCK_BYTES) & (flags & 16 ? ~0ull : ~3ull);
	q.st.next_avail = take_u16(&in);
	q.st.next_used = take_u16(&in);
	q.st.signalled = take_u16(&in);
	q.st.signalled_valid = flags & 32;
	in += 32 - 18;
	make_memory(&memory, in, len - 32);

	/* As when the driver makes a queue ready. */
	if (queue_check_rings(&q, &e) == 0) {
		for (unsigned int turn = 0; turn < TURNS; turn++) {
			if (queue_pop(&q, &chain, &e) <= 0)
				break;
			use_chain(&q, &chain);
			if (turn % 3 == 1) {
				queue_unpop(&q);
				if (queue_pop(&q, &chain, &e) <= 0)
					break;
			}
			if (queue_push(&q, chain.head, (uint32_t)chain.in_bytes, &e) < 0)
				abort();
			queue_wants_interrupt(&q);
			queue_ask_rings(&q, turn & 1);
		}
	}
	for (unsigned int i = 0; i < memory.n_blocks; i++) {
		free(memory.blocks[i].host);
		free(memory.blocks[i].dirty);
	}
	return 0;
}
