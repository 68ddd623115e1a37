/*
 * Blocks of guest memory. A block is private anonymous memory, with huge pages if the guest touches
 * enough; mapping it touches nothing.
 */
#include "vmm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/base/math.h"
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
	 * more at the start than it can give later. Many hosts give them unasked, hence
	 * NOHUGEPAGE. */
	madvise(b->host, min_u64(b->size, BLOCK_ALIGN), MADV_NOHUGEPAGE);
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
	const long host_page = sysconf(_SC_PAGESIZE);
	char path[TREE_PATH_MAX];
	unsigned int it = 0;

	memset(m, 0, sizeof(*m));
	if (host_page != PAGE_SIZE)
		return err_set(e,
			       "this host's pages have %ld bytes; godwit runs only on hosts whose "
			       "pages have %u",
			       host_page, PAGE_SIZE);
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

int memory_attach(struct memory *m, struct kvm *kvm, bool logged, struct err *e)
{
	unsigned int i;

	for (i = 0; i < m->n_blocks; i++) {
		const struct memory_block *b = &m->blocks[i];
		struct kvm_userspace_memory_region region = {
			.slot = i,
			.flags = logged ? KVM_MEM_LOG_DIRTY_PAGES : 0,
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

void memory_marks_start(struct memory *m)
{
	unsigned int i;

	for (i = 0; i < m->n_blocks; i++)
		memset(m->blocks[i].dirty, 0,
		       BITMAP_WORDS(m->blocks[i].size / PAGE_SIZE) * sizeof(uint64_t));
	__atomic_store_n(&m->marking, true, __ATOMIC_SEQ_CST);
}

void memory_marks_take(struct memory *m, unsigned int block, uint64_t *bits)
{
	struct memory_block *b = &m->blocks[block];
	uint64_t i;

	for (i = 0; i < BITMAP_WORDS(b->size / PAGE_SIZE); i++)
		if (__atomic_load_n(&b->dirty[i], __ATOMIC_RELAXED))
			bits[i] |= __atomic_exchange_n(&b->dirty[i], 0, __ATOMIC_ACQ_REL);
}

void memory_marks_stop(struct memory *m)
{
	__atomic_store_n(&m->marking, false, __ATOMIC_SEQ_CST);
}

int memory_discard(struct memory *m, uint64_t gpa, uint64_t len)
{
	void *host = memory_host(m, gpa, len);
	int rc;

	if (!host || gpa % PAGE_SIZE || len % PAGE_SIZE)
		return -1;
	rc = madvise(host, len, MADV_DONTNEED);
	memory_mark(m, gpa, len); /* also if only a part of the pages went */
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
