/*
 * rewrite: rewrites memory at full speed, as stress-ng's vm workers do. Linked statically; runs in
 * the Linux test guest while it is moved.
 *
 *   rewrite BYTES...   a process for each working set of so many bytes (K, M): whole pages, one
 * after the other and round again, each time with new content that does not compress
 *
 * Before a page is rewritten all of it is compared with what was written there last, so one that a
 * migration has lost, torn or brought back in an older state is found. Goes on until SIGTERM,
 * compares all once more then, and says how many pages each process has written; SIGUSR1: says that
 * at once. Exit status 0: all was right.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE_SIZE  4096u
#define PAGE_WORDS (PAGE_SIZE / 8)
#define SETS_MAX   16u

struct shared { /* by all processes */
	int stop;
	uint64_t pages[SETS_MAX];
};

static volatile sig_atomic_t stopped, asked;

static void on_signal(int number)
{
	if (number == SIGTERM)
		stopped = 1;
	else
		asked = 1;
}

/* The content of a page is that of a generator with this start. */
static uint64_t start_of(unsigned int set, uint64_t page_no, uint64_t version)
{
	uint64_t x = (set + 1) * 0x9e3779b97f4a7c15u + page_no;

	x = (x ^ x >> 31) * 0xd6e8feb86659fd93u + version;
	x = (x ^ x >> 29) * 0xd6e8feb86659fd93u;
	return x ^ x >> 32;
}

static uint64_t next(uint64_t *x)
{
	*x = *x * 0xd1342543de82ef95u + 1;
	return *x ^ *x >> 32;
}

static void page_fill(uint64_t *page, uint64_t start)
{
	for (unsigned int i = 0; i < PAGE_WORDS; i++)
		page[i] = next(&start);
}

/* 0 or -1 after saying what is wrong. */
static int page_check(const uint64_t *page, unsigned int set, uint64_t page_no, uint64_t version)
{
	uint64_t x = start_of(set, page_no, version);

	for (unsigned int i = 0; i < PAGE_WORDS; i++) {
		uint64_t expected = next(&x);

		if (page[i] == expected)
			continue;
		fprintf(stderr,
			"rewrite: set %u, page %llu, word %u is 0x%llx, expected 0x%llx (version "
			"%llu)\n",
			set, (unsigned long long)page_no, i, (unsigned long long)page[i],
			(unsigned long long)expected, (unsigned long long)version);
		return -1;
	}
	return 0;
}

/* A process's work; 0 when every page was as it was left. */
static int rewrite(struct shared *s, unsigned int set, uint64_t bytes)
{
	uint64_t pages = bytes / PAGE_SIZE, version = 0, n = 0;
	uint64_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);

	if (at == MAP_FAILED) {
		fprintf(stderr, "rewrite: no memory for set %u\n", set);
		return -1;
	}
	for (n = 0; n < pages; n++)
		page_fill(at + n * PAGE_WORDS, start_of(set, n, 0));
	n = pages;
	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		if (n == pages) {
			n = 0;
			version++;
		}
		if (page_check(at + n * PAGE_WORDS, set, n, version - 1))
			return -1;
		page_fill(at + n * PAGE_WORDS, start_of(set, n, version));
		n++;
		__atomic_add_fetch(&s->pages[set], 1, __ATOMIC_RELEASE);
	}
	for (uint64_t i = 0; i < pages; i++)
		if (page_check(at + i * PAGE_WORDS, set, i, i < n ? version : version - 1))
			return -1;
	return 0;
}

static void say(const struct shared *s, unsigned int sets)
{
	printf("pages");
	for (unsigned int i = 0; i < sets; i++)
		printf(" %llu",
		       (unsigned long long)__atomic_load_n(&s->pages[i], __ATOMIC_ACQUIRE));
	printf("\n");
	fflush(stdout);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	return *end == 'K' ? n << 10 : *end == 'M' ? n << 20 : n;
}

int main(int argc, char **argv)
{
	struct sigaction on = { .sa_handler = on_signal };
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned int sets = (unsigned int)argc - 1, left = sets;
	int status, rc = 0;

	if (s == MAP_FAILED || sets < 1 || sets > SETS_MAX) {
		fprintf(stderr, "rewrite: usage: rewrite BYTES... (at most %u)\n", SETS_MAX);
		return 2;
	}
	for (unsigned int i = 0; i < sets; i++)
		if (fork() == 0)
			_exit(rewrite(s, i, number(argv[i + 1])) ? 1 : 0);
	sigaction(SIGUSR1, &on, NULL);
	sigaction(SIGTERM, &on, NULL);
	while (left) {
		pid_t child;

		if (stopped)
			__atomic_store_n(&s->stop, 1, __ATOMIC_RELEASE);
		if (asked) {
			asked = 0;
			say(s, sets);
		}
		child = waitpid(-1, &status, WNOHANG);
		if (child > 0) {
			left--;
			rc |= status;
			/* One that has found a fault ends all, or nobody would hear of it. */
			stopped |= status != 0;
		} else {
			usleep(5000);
		}
	}
	say(s, sets);
	return rc ? 1 : 0;
}
