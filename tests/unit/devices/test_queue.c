/*
 * Split virtqueues: what a driver may do works, what it may not is refused, and nothing that it
 * writes makes the device read or write where it should not.
 */
#include "devices/virtio/queue.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/lib/vring.h"
#include "vmm/base/bitmap.h"

#define RINGS	0x1000u
#define BUFFERS 0x10000u

static struct memory memory;
static struct vring ring;
static struct queue queue;
static struct queue_chain chain;
static struct err e;

static void make_queue(uint16_t size)
{
	vring_init(&ring, &memory, RINGS, size);
	queue = (struct queue){
		.memory = &memory,
		.st = { .size = size,
			.ready = true,
			.desc_gpa = ring.desc,
			.avail_gpa = ring.avail,
			.used_gpa = ring.used,
			.signalled_valid = true },
	};
	e.text[0] = 0;
}

static void setup(void)
{
	ck_assert_msg(guest_memory(&memory, &e) == 0, "%s", e.text);
	memory.marking = true;
	make_queue(16);
}

static void teardown(void)
{
	memory_free(&memory);
}

#define ck_refused(words)                                                                      \
	do {                                                                                   \
		uint16_t before = queue.st.next_avail;                                         \
		ck_assert_int_eq(queue_pop(&queue, &chain, &e), -1);                           \
		ck_assert_msg(strstr(e.text, words) != NULL, "'%s' does not say '%s'", e.text, \
			      words);                                                          \
		ck_assert_uint_eq(queue.st.next_avail, before);                                \
	} while (0)

static bool is_marked(uint64_t gpa)
{
	return bitmap_test(memory.blocks[gpa / GUEST_BLOCK].dirty, gpa % GUEST_BLOCK / PAGE_SIZE);
}

START_TEST(chain_is_popped_in_order_and_pushed_back)
{
	struct vring_buffer b[] = { { BUFFERS, 16, false },
				    { BUFFERS + 0x100, 8, false },
				    { BUFFERS + 0x1000, 512, true } };
	uint32_t head, written;

	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 0);
	vring_add(&ring, b, 3);
	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 1);
	ck_assert_uint_eq(chain.n_out, 2);
	ck_assert_uint_eq(chain.n_in, 1);
	ck_assert_uint_eq(chain.out_bytes, 24);
	ck_assert_uint_eq(chain.in_bytes, 512);
	ck_assert_uint_eq(chain.buffers[2].gpa, BUFFERS + 0x1000);
	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 0);
	queue_unpop(&queue);
	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 1);
	ck_assert(!is_marked(ring.used));
	ck_assert_int_eq(queue_push(&queue, chain.head, 77, &e), 0);
	ck_assert(is_marked(ring.used));
	ck_assert(vring_used(&ring, &head, &written));
	ck_assert_uint_eq(head, 0);
	ck_assert_uint_eq(written, 77);
}
END_TEST

START_TEST(indices_run_over_65535)
{
	struct vring_buffer b = { BUFFERS, 16, true };
	uint32_t head, written;

	for (unsigned int i = 0; i < 70000; i++) {
		uint16_t expected = vring_add(&ring, &b, 1);

		ck_assert_int_eq(queue_pop(&queue, &chain, &e), 1);
		ck_assert_uint_eq(chain.head, expected);
		ck_assert_int_eq(queue_push(&queue, chain.head, i, &e), 0);
		ck_assert(vring_used(&ring, &head, &written));
		ck_assert_uint_eq(head, expected);
		ck_assert_uint_eq(written, i);
	}
}
END_TEST

START_TEST(chain_with_loop_is_refused)
{
	vring_desc(&ring, 0, BUFFERS, 16, VRING_NEXT, 1);
	vring_desc(&ring, 1, BUFFERS, 16, VRING_NEXT, 0);
	vring_offer(&ring, 0);
	ck_refused("circle");
}
END_TEST

START_TEST(chain_as_long_as_the_queue_is_taken)
{
	for (unsigned int i = 0; i < 16; i++)
		vring_desc(&ring, i, BUFFERS, 16, i < 15 ? VRING_NEXT : 0, (uint16_t)(i + 1));
	vring_offer(&ring, 0);
	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 1);
	ck_assert_uint_eq(chain.n_out, 16);
}
END_TEST

START_TEST(indices_outside_the_queue_are_refused)
{
	vring_offer(&ring, 16);
	ck_refused("begins at descriptor 16");
	make_queue(16);
	vring_desc(&ring, 0, BUFFERS, 16, VRING_NEXT, 16);
	vring_offer(&ring, 0);
	ck_refused("descriptor 16 follows");
	make_queue(16);
	vring_set_avail_idx(&ring, 17);
	ck_refused("17 chains");
	make_queue(16);
	vring_set_avail_idx(&ring, 0xffff);
	ck_refused("65535 chains");
}
END_TEST

START_TEST(buffers_outside_memory_are_refused)
{
	static const struct {
		uint64_t gpa;
		uint32_t len;
	} bad[] = {
		{ GUEST_BYTES, 1 },	 { GUEST_BYTES - 1, 2 },
		{ GUEST_BLOCK - 8, 16 }, /* from one block into the next */
		{ UINT64_MAX, 1 },	 { UINT64_MAX - 7, 16 },
		{ 0, UINT32_MAX },	 { 0xd0000000, 4 },
	};

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		make_queue(16);
		vring_desc(&ring, 0, bad[i].gpa, bad[i].len, VRING_WRITE, 0);
		vring_offer(&ring, 0);
		ck_refused("not inside guest memory");
	}
}
END_TEST

START_TEST(readable_after_writable_is_refused)
{
	struct vring_buffer b[] = { { BUFFERS, 16, true }, { BUFFERS, 16, false } };

	vring_add(&ring, b, 2);
	ck_refused("after a writable one");
}
END_TEST

START_TEST(buffers_of_no_bytes_are_left_out)
{
	struct vring_buffer b[] = { { UINT64_MAX, 0, false },
				    { BUFFERS, 4, false },
				    { 0, 0, true } };

	vring_add(&ring, b, 3);
	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 1);
	ck_assert_uint_eq(chain.n_out, 1);
	ck_assert_uint_eq(chain.n_in, 0);
}
END_TEST

START_TEST(lengths_that_overflow_are_refused)
{
	struct tree t;
	struct memory big;

	/* 1 GiB of address space, never touched, offered five times over. */
	ck_assert_int_eq(tree_init(&t, &e), 0);
	ck_assert_int_eq(tree_set_u64_pair(&t, "/memory@0", "reg", 0, 1u << 30, &e), 0);
	ck_assert_int_eq(memory_init(&big, &t, &e), 0);
	vring_init(&ring, &big, RINGS, 16);
	queue.memory = &big;
	for (unsigned int i = 0; i < 5; i++)
		vring_desc(&ring, i, 0, 1u << 30, i < 4 ? VRING_NEXT : 0, (uint16_t)(i + 1));
	vring_offer(&ring, 0);
	ck_refused("more than 4 GiB");
	memory_free(&big);
	tree_free(&t);
}
END_TEST

/* Descriptor 0 names an indirect table at BUFFERS of `n` descriptors that are each a buffer. */
static void indirect(unsigned int n)
{
	make_queue(256);
	queue.indirect = true;
	for (unsigned int i = 0; i < n; i++)
		vring_desc_at(&memory, BUFFERS, i, 0x40000 + 16 * i, 16,
			      VRING_WRITE | (i + 1 < n ? VRING_NEXT : 0), (uint16_t)(i + 1));
	vring_desc(&ring, 0, BUFFERS, 16 * n, VRING_INDIRECT, 0);
	vring_offer(&ring, 0);
}

START_TEST(indirect_table_is_followed)
{
	indirect(256);
	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 1);
	ck_assert_uint_eq(chain.n_in, 256);
	/* After direct buffers as well, and at an address that is aligned to nothing. */
	make_queue(16);
	queue.indirect = true;
	vring_desc(&ring, 0, BUFFERS, 4, VRING_NEXT, 1);
	vring_desc(&ring, 1, BUFFERS + 0x1001, 16, VRING_INDIRECT, 0);
	vring_desc_at(&memory, BUFFERS + 0x1001, 0, 0x40000, 9, VRING_WRITE, 0);
	vring_offer(&ring, 0);
	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 1);
	ck_assert_uint_eq(chain.out_bytes, 4);
	ck_assert_uint_eq(chain.in_bytes, 9);
}
END_TEST

START_TEST(indirect_table_that_cannot_be_is_refused)
{
	static const uint32_t bad_lengths[] = { 0, 8, 24, 257 * 16, UINT32_MAX, 0xfffffff0 };

	for (unsigned int i = 0; i < sizeof(bad_lengths) / sizeof(bad_lengths[0]); i++) {
		indirect(2);
		vring_desc(&ring, 0, BUFFERS, bad_lengths[i], VRING_INDIRECT, 0);
		ck_refused("an indirect table of");
	}
	indirect(2);
	vring_desc(&ring, 0, GUEST_BYTES - 16, 32, VRING_INDIRECT, 0);
	ck_refused("not inside guest memory");
	indirect(2);
	queue.indirect = false;
	ck_refused("not negotiated");
	indirect(2);
	vring_desc_at(&memory, BUFFERS, 1, BUFFERS, 32, VRING_INDIRECT, 0);
	ck_refused("inside an indirect table");
	indirect(2);
	vring_desc(&ring, 0, BUFFERS, 32, VRING_INDIRECT | VRING_NEXT, 1);
	ck_refused("both indirect and continued");
	indirect(2);
	vring_desc_at(&memory, BUFFERS, 1, BUFFERS, 32, VRING_NEXT | VRING_WRITE, 2);
	ck_refused("descriptor 2 follows, of 2");
	indirect(2);
	vring_desc_at(&memory, BUFFERS, 1, BUFFERS, 32, VRING_NEXT | VRING_WRITE, 0);
	ck_refused("circle");
	/* 256 buffers in the table and one before it. */
	indirect(256);
	for (unsigned int i = 0; i < 256; i++)
		vring_desc_at(&memory, BUFFERS, i, 0x40000, 1, i < 255 ? VRING_NEXT : 0,
			      (uint16_t)(i + 1));
	vring_desc(&ring, 0, BUFFERS, 4, VRING_NEXT, 1);
	vring_desc(&ring, 1, BUFFERS, 256 * 16, VRING_INDIRECT, 0);
	ck_refused("more than 256 buffers");
}
END_TEST

START_TEST(queue_that_is_not_ready_is_empty)
{
	struct vring_buffer b = { BUFFERS, 16, true };

	vring_add(&ring, &b, 1);
	queue.st.ready = false;
	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 0);
	ck_assert_int_eq(queue_push(&queue, 0, 0, &e), -1);
	ck_assert(!queue_ask_rings(&queue, true));
	ck_assert(!queue_wants_interrupt(&queue));
}
END_TEST

START_TEST(rings_outside_memory_or_unaligned_are_refused)
{
	struct queue_state good = queue.st;

	ck_assert_int_eq(queue_check_rings(&queue, &e), 0);
	queue.st.desc_gpa = GUEST_BYTES - 16;
	ck_assert_int_eq(queue_check_rings(&queue, &e), -1);
	queue.st = good;
	queue.st.avail_gpa = UINT64_MAX - 1;
	ck_assert_int_eq(queue_check_rings(&queue, &e), -1);
	queue.st = good;
	queue.st.used_gpa = GUEST_BLOCK - 4;
	ck_assert_int_eq(queue_check_rings(&queue, &e), -1);
	queue.st = good;
	queue.st.desc_gpa += 8;
	ck_assert_int_eq(queue_check_rings(&queue, &e), -1);
	queue.st = good;
	queue.st.avail_gpa += 1;
	ck_assert_int_eq(queue_check_rings(&queue, &e), -1);
	queue.st = good;
	queue.st.used_gpa += 2;
	ck_assert_int_eq(queue_check_rings(&queue, &e), -1);
	queue.st = good;
	queue.st.size = 0;
	ck_assert_int_eq(queue_check_rings(&queue, &e), -1);
	queue.st.size = 12;
	ck_assert_int_eq(queue_check_rings(&queue, &e), -1);
	queue.st.size = 512;
	ck_assert_int_eq(queue_check_rings(&queue, &e), -1);
}
END_TEST

START_TEST(bytes_go_across_buffers_and_are_marked)
{
	struct vring_buffer b[] = { { BUFFERS, 3, false },
				    { BUFFERS + 0x1000, 5, false },
				    { BUFFERS + 0x2fff, 2, true },
				    { BUFFERS + 0x5000, 100, true } };
	char text[16] = "";
	struct iovec iov[4];

	memcpy(memory_host(&memory, BUFFERS, 3), "abc", 3);
	memcpy(memory_host(&memory, BUFFERS + 0x1000, 5), "defgh", 5);
	vring_add(&ring, b, 4);
	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 1);
	ck_assert_uint_eq(queue_chain_read(&queue, &chain, 2, text, 4), 4);
	ck_assert_str_eq(text, "cdef");
	ck_assert_uint_eq(queue_chain_read(&queue, &chain, 6, text, 10), 2);
	ck_assert_uint_eq(queue_chain_read(&queue, &chain, 8, text, 1), 0);
	ck_assert_uint_eq(queue_chain_read(&queue, &chain, UINT64_MAX, text, 1), 0);
	ck_assert_uint_eq(queue_chain_write(&queue, &chain, 1, "XYZ", 3), 3);
	ck_assert_mem_eq(memory_host(&memory, BUFFERS + 0x3000, 1), "X", 1);
	ck_assert_mem_eq(memory_host(&memory, BUFFERS + 0x5000, 2), "YZ", 2);
	ck_assert(is_marked(BUFFERS + 0x3000));
	ck_assert(is_marked(BUFFERS + 0x5000));
	ck_assert(!is_marked(BUFFERS + 0x2000));
	ck_assert(!is_marked(BUFFERS + 0x1000));
	queue_chain_mark(&queue, &chain, 0, 1);
	ck_assert(is_marked(BUFFERS + 0x2000));

	ck_assert_int_eq(queue_chain_iov(&queue, &chain, true, 1, 50, iov, 4), 2);
	ck_assert_ptr_eq(iov[0].iov_base, memory_host(&memory, BUFFERS + 0x3000, 1));
	ck_assert_uint_eq(iov[0].iov_len, 1);
	ck_assert_uint_eq(iov[1].iov_len, 49);
	ck_assert_int_eq(queue_chain_iov(&queue, &chain, true, 1, 102, iov, 4), -1);
	ck_assert_int_eq(queue_chain_iov(&queue, &chain, false, 0, 8, iov, 1), -1);
	ck_assert_int_eq(queue_chain_iov(&queue, &chain, false, 0, 0, iov, 1), 0);
}
END_TEST

START_TEST(interrupts_are_sent_as_the_driver_asks)
{
	/* By flag. */
	ck_assert(!queue_wants_interrupt(&queue));
	queue_push(&queue, 0, 0, &e);
	ck_assert(queue_wants_interrupt(&queue));
	ck_assert(!queue_wants_interrupt(&queue));
	vring_set_avail_flags(&ring, 1);
	queue_push(&queue, 0, 0, &e);
	ck_assert(!queue_wants_interrupt(&queue));

	/* By event index: when the entry after used_event is filled. */
	make_queue(16);
	queue.event_idx = true;
	vring_set_used_event(&ring, 2);
	queue_push(&queue, 0, 0, &e);
	ck_assert(!queue_wants_interrupt(&queue));
	queue_push(&queue, 0, 0, &e);
	ck_assert(!queue_wants_interrupt(&queue));
	queue_push(&queue, 0, 0, &e);
	ck_assert(queue_wants_interrupt(&queue));
	queue_push(&queue, 0, 0, &e);
	ck_assert(!queue_wants_interrupt(&queue));
	/* One look for many. */
	vring_set_used_event(&ring, 6);
	for (unsigned int i = 0; i < 10; i++)
		queue_push(&queue, 0, 0, &e);
	ck_assert(queue_wants_interrupt(&queue));
	/* So many without a look that the index came round: better once too often. */
	vring_set_used_event(&ring, 5);
	for (unsigned int i = 0; i < 65536; i++)
		queue_push(&queue, 0, 0, &e);
	ck_assert(queue_wants_interrupt(&queue));
}
END_TEST

START_TEST(rings_are_asked_for_without_a_gap)
{
	struct vring_buffer b = { BUFFERS, 16, true };

	ck_assert(!queue_ask_rings(&queue, false));
	ck_assert_uint_eq(vring_used_flags(&ring), 1);
	vring_add(&ring, &b, 1);
	ck_assert(queue_ask_rings(&queue, true));
	ck_assert_uint_eq(vring_used_flags(&ring), 0);
	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 1);
	ck_assert(!queue_ask_rings(&queue, true));

	make_queue(16);
	queue.event_idx = true;
	vring_add(&ring, &b, 1);
	ck_assert_int_eq(queue_pop(&queue, &chain, &e), 1);
	ck_assert(!queue_ask_rings(&queue, true));
	ck_assert_uint_eq(vring_avail_event(&ring), 1);
	vring_add(&ring, &b, 1);
	ck_assert(queue_ask_rings(&queue, true));
}
END_TEST

START_TEST(used_entries_appear_together)
{
	uint32_t head, written;

	for (uint16_t i = 0; i < 3; i++)
		ck_assert_int_eq(queue_fill(&queue, i, 5 + i, 100u + i, &e), 0);
	ck_assert(!vring_used(&ring, &head, &written));
	ck_assert_int_eq(queue_fill(&queue, 16, 0, 0, &e), -1);
	ck_assert_int_eq(queue_publish(&queue, 17, &e), -1);
	ck_assert_int_eq(queue_publish(&queue, 3, &e), 0);
	for (uint16_t i = 0; i < 3; i++) {
		ck_assert(vring_used(&ring, &head, &written));
		ck_assert_uint_eq(head, 5u + i);
		ck_assert_uint_eq(written, 100u + i);
	}
	ck_assert(!vring_used(&ring, &head, &written));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("queue");
	TCase *t = tcase_create("queue");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, chain_is_popped_in_order_and_pushed_back);
	tcase_add_test(t, indices_run_over_65535);
	tcase_add_test(t, chain_with_loop_is_refused);
	tcase_add_test(t, chain_as_long_as_the_queue_is_taken);
	tcase_add_test(t, indices_outside_the_queue_are_refused);
	tcase_add_test(t, buffers_outside_memory_are_refused);
	tcase_add_test(t, readable_after_writable_is_refused);
	tcase_add_test(t, buffers_of_no_bytes_are_left_out);
	tcase_add_test(t, lengths_that_overflow_are_refused);
	tcase_add_test(t, indirect_table_is_followed);
	tcase_add_test(t, indirect_table_that_cannot_be_is_refused);
	tcase_add_test(t, queue_that_is_not_ready_is_empty);
	tcase_add_test(t, rings_outside_memory_or_unaligned_are_refused);
	tcase_add_test(t, bytes_go_across_buffers_and_are_marked);
	tcase_add_test(t, interrupts_are_sent_as_the_driver_asks);
	tcase_add_test(t, rings_are_asked_for_without_a_gap);
	tcase_add_test(t, used_entries_appear_together);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
