/*
 * Guest memory: see memory.h. Blocks are private anonymous memory with huge pages where the guest
 * touches enough; nothing is touched by mapping it.
 */
#include "vmm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/dirty_ring.h"
#include "vmm/kvm.h"
#include "vmm/tree.h"

/* Blocks begin at multiples of this in our address space as well, so that huge pages fit both. */
#define BLOCK_ALIGN (2u << 20)

/* Maps `size` bytes at a multiple of BLOCK_ALIGN: NULL with errno. */
static void *map_aligned(uint64_t size)
{
	size_t reserved = size + BLOCK_ALIGN;
	uint8_t *start, *at;

	start = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED)
		return NULL;
	at = (uint8_t *)(((uintptr_t)start + BLOCK_ALIGN - 1) & ~(uintptr_t)(BLOCK_ALIGN - 1));
	/* Not MAP_NORESERVE: the kernel refuses here what it can never give. */
	if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == MAP_FAILED) {
		munmap(start, reserved);
		return NULL;
	}
	if (at > start)
		munmap(start, (size_t)(at - start));
	if (start + reserved > at + size)
		munmap(at + size, (size_t)(start + reserved - (at + size)));
	return at;
}

static int add_block(struct memory *m, const struct tree *t, const char *path, struct err *e)
{
	struct memory_block *b = &m->blocks[m->n_blocks];
	unsigned int i;

	if (m->n_blocks == MEMORY_BLOCKS_MAX)
		return err_set(e, "%s: more than %d blocks of memory", path, MEMORY_BLOCKS_MAX);
	if (strlen(path) >= sizeof(b->path))
		return err_set(e, "%s: the name is too long", path);
	if (tree_u64_pair(t, path, "reg", &b->gpa, &b->size, e))
		return -1;
	if (!b->size || b->gpa % PAGE_SIZE || b->size % PAGE_SIZE || b->gpa + b->size < b->gpa)
		return err_set(e, "%s: 0x%" PRIx64 " bytes at 0x%" PRIx64 " is no block of pages",
			       path, b->size, b->gpa);
	for (i = 0; i < m->n_blocks; i++)
		if (b->gpa < m->blocks[i].gpa + m->blocks[i].size &&
		    m->blocks[i].gpa < b->gpa + b->size)
			return err_set(e, "%s: overlaps %s", path, m->blocks[i].path);
	memcpy(b->path, path, strlen(path) + 1);
	b->host = map_aligned(b->size);
	if (!b->host)
		return err_errno(e, errno, "%s: this host cannot promise %" PRIu64 " MiB of memory",
				 path, b->size >> 20);
	/* Boot structures and small guests live in the first 2 MiB: a huge page there would cost
	 * more at the start than it can give later. Said aloud: many hosts give them unasked. */
	madvise(b->host, b->size < BLOCK_ALIGN ? b->size : BLOCK_ALIGN, MADV_NOHUGEPAGE);
	if (b->size > BLOCK_ALIGN)
		madvise(b->host + BLOCK_ALIGN, b->size - BLOCK_ALIGN, MADV_HUGEPAGE);
	madvise(b->host, b->size, MADV_DONTDUMP);
	b->dirty = calloc(BITMAP_WORDS(b->size / PAGE_SIZE), sizeof(uint64_t));
	m->n_blocks++;
	if (!b->dirty)
		return err_set(e, "%s: out of memory", path);
	return 0;
}

int memory_init(struct memory *m, const struct tree *t, struct err *e)
{
	char path[TREE_PATH_MAX];
	unsigned int it = 0;

	memset(m, 0, sizeof(*m));
	m->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (m->pagemap_fd < 0)
		return err_errno(e, errno, "cannot open /proc/self/pagemap");
	while (tree_next_child(t, "/", &it, path)) {
		if (strncmp(path, "/memory@", 8))
			continue;
		if (add_block(m, t, path, e)) {
			memory_free(m);
			return -1;
		}
	}
	if (m->n_blocks)
		return 0;
	memory_free(m);
	return err_set(e, "/: the machine has no memory");
}

void memory_free(struct memory *m)
{
	while (m->n_blocks) {
		struct memory_block *b = &m->blocks[--m->n_blocks];

		munmap(b->host, b->size);
		free(b->dirty);
	}
	if (m->pagemap_fd > 0)
		close(m->pagemap_fd);
	m->pagemap_fd = 0;
}

static int set_slots(struct memory *m, struct kvm *kvm, uint32_t flags, struct err *e)
{
	unsigned int i;

	for (i = 0; i < m->n_blocks; i++) {
		const struct memory_block *b = &m->blocks[i];
		struct kvm_userspace_memory_region region = {
			.slot = i,
			.flags = flags,
			.guest_phys_addr = b->gpa,
			.memory_size = b->size,
			.userspace_addr = (uintptr_t)b->host,
		};

		if (kvm_vm_ioctl(kvm, KVM_SET_USER_MEMORY_REGION, &region,
				 "KVM_SET_USER_MEMORY_REGION", e) < 0)
			return err_context(e, "%s", b->path);
	}
	return 0;
}

int memory_attach(struct memory *m, struct kvm *kvm, struct err *e)
{
	return set_slots(m, kvm, 0, e);
}

uint64_t memory_bytes(const struct memory *m)
{
	uint64_t bytes = 0;
	unsigned int i;

	for (i = 0; i < m->n_blocks; i++)
		bytes += m->blocks[i].size;
	return bytes;
}

static const struct memory_block *block_of(const struct memory *m, uint64_t gpa, uint64_t len)
{
	unsigned int i;

	for (i = 0; i < m->n_blocks; i++) {
		const struct memory_block *b = &m->blocks[i];

		if (gpa >= b->gpa && gpa - b->gpa < b->size)
			return len <= b->size - (gpa - b->gpa) ? b : NULL;
	}
	return NULL;
}

void *memory_host(const struct memory *m, uint64_t gpa, uint64_t len)
{
	const struct memory_block *b = block_of(m, gpa, len);

	return b ? b->host + (gpa - b->gpa) : NULL;
}

void memory_mark(struct memory *m, uint64_t gpa, uint64_t len)
{
	const struct memory_block *b;
	uint64_t page, last;

	if (!len || !__atomic_load_n(&m->marking, __ATOMIC_ACQUIRE))
		return;
	b = block_of(m, gpa, len);
	if (!b)
		return;
	last = (gpa - b->gpa + len - 1) / PAGE_SIZE;
	for (page = (gpa - b->gpa) / PAGE_SIZE; page <= last; page++)
		bitmap_set_atomic(b->dirty, page);
}

/* A pagemap entry (Linux Documentation/admin-guide/mm/pagemap.rst): present, or swapped out. */
#define PAGEMAP_TOUCHED (1ull << 63 | 1ull << 62)

/* Since Linux 6.7 it can be asked for ranges instead (same document, PAGEMAP_SCAN). */
#ifndef PAGEMAP_SCAN
#define PAGE_IS_PRESENT (1ull << 3)
#define PAGE_IS_SWAPPED (1ull << 4)

struct page_region {
	uint64_t start, end, categories;
};

struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif

/* Sets bits as memory_touched; -1 with errno where the kernel does not know that question. */
static int scan_touched(const struct memory *m, uint64_t start, uint64_t n, uint64_t *touched)
{
	struct page_region found[128];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = start,
		.end = start + n * PAGE_SIZE,
		.vec = (uintptr_t)found,
		.vec_len = sizeof(found) / sizeof(found[0]),
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	};
	uint64_t page;
	int got, i;

	for (; arg.start < arg.end; arg.start = arg.walk_end) {
		got = ioctl(m->pagemap_fd, PAGEMAP_SCAN, &arg);
		if (got < 0)
			return -1;
		for (i = 0; i < got; i++)
			for (page = found[i].start; page < found[i].end; page += PAGE_SIZE)
				bitmap_set(touched, (page - start) / PAGE_SIZE);
	}
	return 0;
}

int memory_touched(const struct memory *m, const struct memory_block *b, uint64_t first, uint64_t n,
		   uint64_t *touched, struct err *e)
{
	uint64_t entries[512], at = (uintptr_t)b->host / PAGE_SIZE + first, done, i;

	if (scan_touched(m, at * PAGE_SIZE, n, touched) == 0)
		return 0;

	for (done = 0; done < n; done += i) {
		size_t want = (n - done < 512 ? n - done : 512) * sizeof(entries[0]);
		ssize_t got = io_pread_full(m->pagemap_fd, entries, want,
					    (at + done) * sizeof(entries[0]));

		if (got != (ssize_t)want)
			return err_errno(e, got < 0 ? errno : EIO, "cannot read the page map");
		for (i = 0; i < want / sizeof(entries[0]); i++)
			if (entries[i] & PAGEMAP_TOUCHED)
				bitmap_set(touched, done + i);
	}
	return 0;
}

/* Dirty rings are harvested into the log by vCPU threads as well. */
static void lock_log(struct memory *m)
{
	if (m->rings)
		pthread_mutex_lock(&m->rings->lock);
}

static void unlock_log(struct memory *m)
{
	if (m->rings)
		pthread_mutex_unlock(&m->rings->lock);
}

static void free_log(struct memory *m)
{
	unsigned int i;

	for (i = 0; i < m->n_blocks; i++) {
		free(m->blocks[i].log);
		m->blocks[i].log = NULL;
	}
}

static int alloc_log(struct memory *m, struct err *e)
{
	unsigned int i;
	uint64_t page;

	for (i = 0; i < m->n_blocks; i++) {
		struct memory_block *b = &m->blocks[i];

		b->log = calloc(BITMAP_WORDS(b->size / PAGE_SIZE), sizeof(uint64_t));
		if (!b->log) {
			free_log(m);
			return err_set(e, "out of memory");
		}
		/* As KVM's bitmap is at first. */
		for (page = 0; m->rings && page < b->size / PAGE_SIZE; page++)
			bitmap_set(b->log, page);
		memset(b->dirty, 0, BITMAP_WORDS(b->size / PAGE_SIZE) * sizeof(uint64_t));
	}
	return 0;
}

int memory_log_start(struct memory *m, struct kvm *kvm, struct err *e)
{
	int rc;

	lock_log(m);
	rc = alloc_log(m, e);
	unlock_log(m);
	if (rc)
		return -1;
	/* Marks first: nothing that is written from here on may escape both. */
	__atomic_store_n(&m->marking, true, __ATOMIC_SEQ_CST);
	if (set_slots(m, kvm, KVM_MEM_LOG_DIRTY_PAGES, e)) {
		memory_log_stop(m, kvm);
		return -1;
	}
	return 0;
}

void memory_log_stop(struct memory *m, struct kvm *kvm)
{
	set_slots(m, kvm, 0, NULL);
	__atomic_store_n(&m->marking, false, __ATOMIC_SEQ_CST);
	lock_log(m);
	/* What is still in the rings would be taken for the next log's. */
	if (m->rings)
		dirty_rings_harvest_all(m->rings, NULL);
	free_log(m);
	unlock_log(m);
}

/* With dirty rings there is nothing to ask KVM for: it goes over from the log into `bits`. */
static int fetch_rings(struct memory *m, struct memory_block *b, uint64_t *bits, struct err *e)
{
	uint64_t words = BITMAP_WORDS(b->size / PAGE_SIZE), i;
	int rc;

	lock_log(m);
	rc = dirty_rings_harvest_all(m->rings, e);
	for (i = 0; i < words && !rc; i++) {
		bits[i] |= b->log[i];
		b->log[i] = 0;
	}
	unlock_log(m);
	return rc;
}

static int fetch_bitmap(struct kvm *kvm, unsigned int slot, struct memory_block *b, uint64_t *bits,
			struct err *e)
{
	struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = b->log };
	uint64_t words = BITMAP_WORDS(b->size / PAGE_SIZE), i;

	if (kvm_vm_ioctl(kvm, KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG", e) < 0)
		return -1;
	for (i = 0; i < words; i++)
		bits[i] |= b->log[i];
	return 0;
}

int memory_log_fetch(struct memory *m, struct kvm *kvm, unsigned int block, uint64_t *bits,
		     struct err *e)
{
	struct memory_block *b = &m->blocks[block];
	uint64_t words = BITMAP_WORDS(b->size / PAGE_SIZE), i;

	if (m->rings ? fetch_rings(m, b, bits, e) : fetch_bitmap(kvm, block, b, bits, e))
		return -1;
	for (i = 0; i < words; i++)
		if (__atomic_load_n(&b->dirty[i], __ATOMIC_RELAXED))
			bits[i] |= __atomic_exchange_n(&b->dirty[i], 0, __ATOMIC_ACQ_REL);
	return 0;
}

int memory_log_clear(struct memory *m, struct kvm *kvm, unsigned int block, uint64_t first,
		     uint64_t n, const uint64_t *bits, struct err *e)
{
	struct kvm_clear_dirty_log clear = {
		.slot = block,
		.first_page = first,
		.num_pages = (uint32_t)n,
		.dirty_bitmap = (void *)(uintptr_t)bits,
	};
	uint64_t i;

	if (m->rings) {
		/* What is in the log has been protected again: the read that follows sees it. */
		lock_log(m);
		for (i = 0; i < BITMAP_WORDS(n); i++)
			m->blocks[block].log[first / 64 + i] &= ~bits[i];
		unlock_log(m);
		return 0;
	}
	if (!kvm->manual_protect)
		return 0;
	return kvm_vm_ioctl(kvm, KVM_CLEAR_DIRTY_LOG, &clear, "KVM_CLEAR_DIRTY_LOG", e) < 0 ? -1
											    : 0;
}

int memory_discard(struct memory *m, uint64_t gpa, uint64_t len)
{
	void *host = memory_host(m, gpa, len);
	int rc;

	if (!host || gpa % PAGE_SIZE || len % PAGE_SIZE)
		return -1;
	rc = madvise(host, len, MADV_DONTNEED);
	memory_mark(m, gpa, len); /* also where it went only a part of the way */
	return rc ? -1 : 0;
}

int memory_read(const struct memory *m, uint64_t gpa, void *to, size_t len)
{
	const void *host = memory_host(m, gpa, len);

	if (!host)
		return -1;
	memcpy(to, host, len);
	return 0;
}

int memory_write(struct memory *m, uint64_t gpa, const void *from, size_t len)
{
	void *host = memory_host(m, gpa, len);

	if (!host)
		return -1;
	memcpy(host, from, len);
	memory_mark(m, gpa, len);
	return 0;
}
