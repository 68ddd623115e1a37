/*
 * Fuzzing the destination: the input is a stream, over memory, into a guest of two small blocks.
 * Nothing outside them may be written (the address sanitizer watches), it must end, and the guest
 * starts only after GO or END.
 *
 * Byte 0 of the input: bit 0: a file, not a connection; bits 1-2: 0 the rest is the stream as it
 * is; 1 the rest are records, whose heads and checksums are made here, since chance finds no
 * CRC-32; 2 the same after a good HELLO and MACHINE; 3 the same with data from the input. A record
 * in the input: u8 type, u8 flags, u8 pages of data (3: their 16 bytes, which follow the body), u8
 * padding, u16 body bytes, body. Bit 3 of byte 0: HELLO is of version 1. Good seeds:
 * tests/unit/golden, a byte in front.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <zlib.h>

#include "migrate/channel/channel.h"
#include "migrate/destination/destination.h"
#include "migrate/stream/body.h"
#include "migrate/stream/hello.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

#define N_BLOCKS    2
#define BLOCK_PAGES 16u
#define STREAM_MAX  (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len);

static int take_states(struct guest *g, const struct tree *states, uint64_t advance_ns,
		       struct err *e)
{
	uint32_t value;

	(void)g;
	(void)advance_ns;
	return tree_u32(states, "/vm", "value", &value, e);
}

static int start(struct guest *g, bool run, const struct guest_last *last, struct err *e)
{
	(void)g;
	(void)run;
	(void)last;
	(void)e;
	return 0;
}

static const struct guest_ops ops = { .states_load = take_states, .start = start };

struct out {
	uint8_t *bytes;
	size_t n;
	uint64_t sequence;
};

/* A whole record, as far as there is room; without `data` they are the same byte over and over. */
static void put_record(struct out *o, uint8_t type, uint8_t flags, const uint8_t *body,
		       uint32_t body_bytes, uint8_t pad, const uint8_t *data, uint64_t data_bytes)
{
	uint8_t *head = o->bytes + o->n;

	if (o->n + RECORD_HEAD_BYTES + body_bytes + pad + data_bytes > STREAM_MAX)
		return;
	memset(head, 0, RECORD_HEAD_BYTES);
	head[0] = type;
	head[2] = flags;
	put_u64(head + 8, o->sequence++);
	put_u32(head + 16, body_bytes);
	put_u32(head + 20, pad);
	put_u64(head + 24, data_bytes);
	if (body_bytes)
		memcpy(head + RECORD_HEAD_BYTES, body, body_bytes);
	put_u32(head + 4, (uint32_t)crc32(0, head, RECORD_HEAD_BYTES + body_bytes));
	o->n += RECORD_HEAD_BYTES + body_bytes;
	memset(o->bytes + o->n, type, pad + data_bytes);
	if (data)
		memcpy(o->bytes + o->n + pad, data, data_bytes);
	o->n += pad + data_bytes;
}

static void put_beginning(struct out *o, uint32_t version)
{
	struct hello h = {
		.version = version, .role = ROLE_MAIN, .page_bytes = PAGE_SIZE, .lanes = 1
	};
	uint8_t body[HELLO_BYTES];
	struct utsname u;
	struct tree t;

	if (uname(&u) || tree_init(&t, NULL))
		abort();
	memcpy(h.arch, u.machine, strnlen(u.machine, sizeof(h.arch) - 1));
	hello_encode(&h, body);
	put_record(o, RECORD_HELLO, 0, body, version == 1 ? HELLO_V1_BYTES : sizeof(body), 0, NULL,
		   0);
	tree_pack(&t);
	put_record(o, RECORD_MACHINE, 0, t.fdt, (uint32_t)tree_bytes_used(&t), 0, NULL, 0);
	tree_free(&t);
}

static void put_records(struct out *o, const uint8_t *in, size_t len, bool with_data)
{
	while (len >= 6) {
		const uint8_t *head = in;
		uint32_t body = in[4] | (uint32_t)in[5] << 8;
		uint64_t data = with_data ? in[2] * 16u : (uint64_t)in[2] * PAGE_SIZE;

		in += 6;
		len -= 6;
		body = body < len ? body : (uint32_t)len;
		if (with_data && data > len - body)
			data = len - body;
		put_record(o, head[0], head[1], in, body, head[3], with_data ? in + body : NULL,
			   data);
		in += body + (with_data ? data : 0);
		len -= body + (with_data ? data : 0);
	}
}

static void take(const uint8_t *stream, size_t len, bool cold)
{
	struct guest g = { .ops = &ops, .n_blocks = N_BLOCKS };
	struct stats stats = { 0 };
	struct destination d;
	struct channel *ch;
	struct tree machine;
	unsigned int i;
	struct err e;

	if (memory_channel(&ch, stream, len, NULL))
		abort();
	if (destination_open(&d, ch, cold, -1, &machine, &e))
		return;
	tree_free(&machine);
	for (i = 0; i < N_BLOCKS; i++) {
		g.blocks[i] = (struct guest_block){
			aligned_alloc(PAGE_SIZE, BLOCK_PAGES * PAGE_SIZE), BLOCK_PAGES
		};
		if (!g.blocks[i].host)
			abort();
		memset(g.blocks[i].host, 0, BLOCK_PAGES * PAGE_SIZE);
	}
	if (destination_answer(&d, NULL, &e) == 0 && destination_receive(&d, &g, &stats, &e) == 0 &&
	    destination_start(&d, false, &e))
		abort();
	/* A record may say 512 pages with little data, and takes more bytes than 64 for it. */
	if (stats.normal_pages > 8 * len || stats.data_bytes > len)
		abort();
	destination_free(&d);
	for (i = 0; i < N_BLOCKS; i++)
		free(g.blocks[i].host);
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
	struct out o = { 0 };
	bool cold;

	if (!len)
		return 0;
	cold = in[0] & 1;
	if ((in[0] >> 1 & 3) == 0) {
		/* A copy of just that size, so that its end is seen. */
		o.bytes = malloc(len);
		if (!o.bytes)
			abort();
		memcpy(o.bytes, in + 1, len - 1);
		o.n = len - 1;
	} else {
		o.bytes = malloc(STREAM_MAX);
		if (!o.bytes)
			abort();
		if ((in[0] >> 1 & 3) >= 2)
			put_beginning(&o, in[0] & 8 ? 1 : STREAM_VERSION);
		put_records(&o, in + 1, len - 1, (in[0] >> 1 & 3) == 3);
	}
	take(o.bytes, o.n, cold);
	free(o.bytes);
	return 0;
}
