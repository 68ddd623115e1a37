/*
 * Missing pages: see missing.h. Each block is a memfd that is mapped twice: once for the guest,
 * without access until a page is placed, and once for the place, which fills pages there.
 */
#include "tests/unit/lib/missing.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vmm/base/bitmap.h"
#include "vmm/memory.h"

__thread unsigned int missing_locks_held;

static struct missing *the_one;

static bool is_here(const struct missing *m, unsigned int block, uint64_t page)
{
	return __atomic_load_n(&m->here[block][page / 64], __ATOMIC_ACQUIRE) >> page % 64 & 1;
}

static void let_in(struct missing *m, unsigned int block, uint64_t first, uint64_t n)
{
	if (mprotect(m->guest->blocks[block].host + first * PAGE_SIZE, n * PAGE_SIZE,
		     PROT_READ | PROT_WRITE))
		abort();
	for (; n; n--, first++)
		bitmap_set_atomic(m->here[block], first);
}

static int copy(struct place *p, unsigned int block, uint64_t first, uint64_t n, const void *pages,
		struct err *e)
{
	struct missing *m = (struct missing *)p;

	(void)e;
	memcpy(m->behind[block] + first * PAGE_SIZE, pages, n * PAGE_SIZE);
	let_in(m, block, first, n);
	return 0;
}

static int zero(struct place *p, unsigned int block, uint64_t first, uint64_t n, struct err *e)
{
	struct missing *m = (struct missing *)p;

	(void)e;
	memset(m->behind[block] + first * PAGE_SIZE, 0, n * PAGE_SIZE);
	let_in(m, block, first, n);
	return 0;
}

static int prepare(struct place *p, unsigned int block, uint64_t first, uint64_t n)
{
	(void)p;
	(void)block;
	(void)first;
	(void)n;
	return -1;
}

static const struct place_ops ops = { .copy = copy, .zero = zero, .prepare = prepare };

static bool find(const struct missing *m, const uint8_t *at, unsigned int *block, uint64_t *page)
{
	const struct guest_block *b;

	for (unsigned int i = 0; m && i < m->guest->n_blocks; i++) {
		b = &m->guest->blocks[i];
		if (at < b->host || at >= b->host + b->pages * PAGE_SIZE)
			continue;
		*block = i;
		*page = (uint64_t)(at - b->host) / PAGE_SIZE;
		return true;
	}
	return false;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	const struct timespec soon = { .tv_nsec = 1000000 };
	struct missing *m = the_one;
	unsigned int block;
	uint64_t page;

	(void)context;
	if (!find(m, info->si_addr, &block, &page)) {
		signal(sig, SIG_DFL); /* a real one: it comes again */
		return;
	}
	if (is_here(m, block, page))
		return;
	__atomic_add_fetch(&m->locked, missing_locks_held > 0, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&m->touches, 1, __ATOMIC_SEQ_CST);
	while (!is_here(m, block, page))
		if (__atomic_load_n(&m->rest_is_zero, __ATOMIC_ACQUIRE))
			let_in(m, block, page, 1);
		else
			nanosleep(&soon, NULL);
}

static uint8_t *map(int fd, size_t bytes, int prot)
{
	uint8_t *at = mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		abort();
	return at;
}

void missing_init(struct missing *m, struct guest *g)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	*m = (struct missing){ .place = { .ops = &ops, .guest = g }, .guest = g };
	for (unsigned int i = 0; i < g->n_blocks; i++) {
		struct guest_block *b = &g->blocks[i];
		size_t bytes = b->pages * PAGE_SIZE;
		int fd = memfd_create("missing", MFD_CLOEXEC);

		if (fd < 0 || ftruncate(fd, (off_t)bytes))
			abort();
		m->behind[i] = map(fd, bytes, PROT_READ | PROT_WRITE);
		m->before[i] = b->host;
		b->host = map(fd, bytes, PROT_NONE);
		close(fd);
		m->here[i] = calloc(BITMAP_WORDS(b->pages), sizeof(uint64_t));
		if (!m->here[i])
			abort();
	}
	the_one = m;
	if (sigaction(SIGSEGV, &action, NULL))
		abort();
}

void missing_free(struct missing *m)
{
	signal(SIGSEGV, SIG_DFL);
	the_one = NULL;
	for (unsigned int i = 0; i < m->guest->n_blocks; i++) {
		struct guest_block *b = &m->guest->blocks[i];
		size_t bytes = b->pages * PAGE_SIZE;

		memcpy(m->before[i], m->behind[i], bytes);
		munmap(b->host, bytes);
		munmap(m->behind[i], bytes);
		b->host = m->before[i];
		free(m->here[i]);
	}
}
