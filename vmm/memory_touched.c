/*
 * Which pages of guest memory were ever touched, by /proc/self/pagemap. Any thread. Not mincore: a
 * page that is swapped out is not resident, and not zero either.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/ioctl.h>

#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/math.h"
#include "vmm/memory.h"

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

/* Sets bits as memory_touched; -1 with errno if the kernel does not know the question. */
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
		size_t want = min_u64(n - done, 512) * sizeof(entries[0]);
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
