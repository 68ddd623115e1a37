/*
 * pattern: moves and checks bytes, on both sides of a machine. Linked statically; the same program
 * runs in the Linux test guest and on the host. Bytes come from a pattern: the 64-bit word at byte
 * 8 * k is a mix of a seed and k, so that any part of a stream can be checked without the rest, and
 * a byte that is lost, doubled, moved or old is found at the place where it is.
 *
 *   pattern put WHERE SEED BYTES [OPTION]...   write the pattern
 *   pattern get WHERE SEED BYTES [OPTION]...   read as many bytes and check them
 *   pattern talk WHERE SEED SEED               send the first and check the second pattern at the
 *                                             same time, until the other side has ended too
 *   pattern churn WHERE SEED BYTES [OPTION]... write a file's range again and again, each time with
 *                                             the next seed, and read it back
 *   pattern discard|zero WHERE BYTES [OPTION]  the range of a block device
 *   pattern clock                              read the clocks on all processors: never backwards
 *
 * WHERE is - (stdin, stdout), tcp:HOST:PORT (tries until somebody listens), listen:PORT, unix:PATH
 * (the same) or a file. Options: at=OFFSET, block=BYTES, from=FILE (put: sendfile its bytes
 * instead), into=FILE (get: keep the bytes there, to be checked later), and the words direct and
 * sync. BYTES and OFFSET take K and M. talk, churn and clock go on until SIGTERM, say where they
 * are at SIGUSR1, and at their end what they did. Exit status 0: all was right.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_MAX_BYTES (1u << 20)
#define RETRY_MS	50
#define RETRIES		6000

struct options {
	uint64_t at, block;
	const char *from, *into;
	bool direct, sync;
};

static volatile sig_atomic_t stopped, asked;

static void on_signal(int number)
{
	if (number == SIGTERM)
		stopped = 1;
	else
		asked = 1;
}

/* -- the pattern -- */

static uint64_t pattern_word(uint64_t seed, uint64_t k)
{
	uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15u + k;

	x = (x ^ x >> 31) * 0xd6e8feb86659fd93u;
	return x ^ x >> 29;
}

/* The `len` bytes from stream position `at`. */
static void pattern_fill(uint64_t seed, uint64_t at, uint8_t *out, size_t len)
{
	while (len) {
		uint64_t word = pattern_word(seed, at / 8);
		size_t skip = at % 8, n = 8 - skip < len ? 8 - skip : len;

		memcpy(out, (uint8_t *)&word + skip, n);
		out += n;
		at += n;
		len -= n;
	}
}

/* 0 or -1 after saying where the first wrong byte is. `scratch` is as large as `got`. */
static int pattern_check(uint64_t seed, uint64_t at, const uint8_t *got, uint8_t *scratch,
			 size_t len)
{
	size_t i;

	pattern_fill(seed, at, scratch, len);
	if (!memcmp(got, scratch, len))
		return 0;
	for (i = 0; got[i] == scratch[i];)
		i++;
	fprintf(stderr, "pattern: byte %llu is 0x%02x, expected 0x%02x (seed %llu)\n",
		(unsigned long long)(at + i), got[i], scratch[i], (unsigned long long)seed);
	return -1;
}

/* -- opening -- */

static int complain(const char *what, const char *where)
{
	fprintf(stderr, "pattern: %s %s: %s\n", what, where, strerror(errno));
	return -1;
}

static int connect_to(int family, const struct sockaddr *address, socklen_t len)
{
	unsigned int i;

	for (i = 0; i < RETRIES && !stopped; i++) {
		int fd = socket(family, SOCK_STREAM, 0);

		if (fd < 0 || !connect(fd, address, len))
			return fd;
		close(fd);
		/* Nobody there yet, or the interface is not up on the other side. */
		if (errno != ECONNREFUSED && errno != ENOENT && errno != EHOSTUNREACH)
			return -1;
		usleep(RETRY_MS * 1000);
	}
	return -1;
}

static int accept_at(const struct sockaddr_in *address)
{
	int one = 1, fd = -1, s = socket(AF_INET, SOCK_STREAM, 0);

	if (s < 0)
		return -1;
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (!bind(s, (const struct sockaddr *)address, sizeof(*address)) && !listen(s, 1))
		fd = accept(s, NULL, NULL);
	close(s);
	return fd;
}

static int open_where(const char *where, int flags, const struct options *o)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = -1;

	if (!strcmp(where, "-"))
		return (flags & O_ACCMODE) == O_RDONLY ? 0 : 1;
	if (!strncmp(where, "unix:", 5)) {
		snprintf(un.sun_path, sizeof(un.sun_path), "%s", where + 5);
		fd = connect_to(AF_UNIX, (struct sockaddr *)&un, sizeof(un));
	} else if (!strncmp(where, "listen:", 7)) {
		in.sin_port = htons((uint16_t)atoi(where + 7));
		fd = accept_at(&in);
	} else if (!strncmp(where, "tcp:", 4)) {
		char host[64];
		int port;

		if (sscanf(where + 4, "%63[0-9.]:%d", host, &port) != 2 ||
		    inet_pton(AF_INET, host, &in.sin_addr) != 1) {
			errno = EINVAL;
			return complain("cannot read", where);
		}
		in.sin_port = htons((uint16_t)port);
		fd = connect_to(AF_INET, (struct sockaddr *)&in, sizeof(in));
	} else {
		fd = open(where, flags | (o->direct ? O_DIRECT : 0), 0600);
	}
	return fd < 0 ? complain("cannot open", where) : fd;
}

/* -- put and get -- */

static int write_all(int fd, const uint8_t *from, size_t len)
{
	while (len) {
		ssize_t n = write(fd, from, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return complain("cannot write to", "the other side");
		from += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Fewer bytes than asked for: the end, -1: it failed. */
static ssize_t read_all(int fd, uint8_t *to, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, to + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return complain("cannot read from", "the other side");
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int put_range(int fd, uint64_t seed, uint64_t bytes, const struct options *o, uint8_t *buf)
{
	uint64_t done, n;

	for (done = 0; done < bytes; done += n) {
		n = bytes - done < o->block ? bytes - done : o->block;
		pattern_fill(seed, o->at + done, buf, n);
		if (write_all(fd, buf, n))
			return -1;
	}
	return o->sync && fsync(fd) ? complain("cannot sync", "the file") : 0;
}

static int get_range(int fd, uint64_t seed, uint64_t bytes, const struct options *o, uint8_t *buf,
		     uint8_t *scratch)
{
	uint64_t done, n;

	for (done = 0; done < bytes; done += n) {
		ssize_t got;

		n = bytes - done < o->block ? bytes - done : o->block;
		got = read_all(fd, buf, n);
		if (got < 0 || pattern_check(seed, o->at + done, buf, scratch, (size_t)got))
			return -1;
		if ((uint64_t)got < n) {
			fprintf(stderr, "pattern: it ended after %llu of %llu bytes\n",
				(unsigned long long)done + (uint64_t)got,
				(unsigned long long)bytes);
			return -1;
		}
	}
	return 0;
}

static int send_file(int fd, const char *path, uint64_t bytes)
{
	int from = open(path, O_RDONLY);

	while (from >= 0 && bytes) {
		ssize_t n = sendfile(fd, from, NULL, bytes);

		if (n <= 0)
			break;
		bytes -= (uint64_t)n;
	}
	return from < 0 || bytes ? complain("cannot send", path) : 0;
}

static int keep(int fd, const char *path, uint64_t bytes, uint8_t *buf)
{
	int to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ssize_t n = 0;

	if (to < 0)
		return complain("cannot open", path);
	for (; bytes; bytes -= (uint64_t)n) {
		n = read(fd, buf, bytes < BLOCK_MAX_BYTES ? bytes : BLOCK_MAX_BYTES);
		if (n <= 0)
			return complain("cannot read from", "the other side");
		if (write_all(to, buf, (size_t)n))
			return -1;
	}
	return 0;
}

static int put(const char *where, uint64_t seed, uint64_t bytes, const struct options *o,
	       uint8_t *buf)
{
	int fd = open_where(where, O_WRONLY | O_CREAT, o);

	if (fd < 0)
		return -1;
	if (o->from)
		return send_file(fd, o->from, bytes);
	if (o->at && lseek(fd, (off_t)o->at, SEEK_SET) < 0)
		return complain("cannot seek in", where);
	return put_range(fd, seed, bytes, o, buf);
}

static int get(const char *where, uint64_t seed, uint64_t bytes, const struct options *o,
	       uint8_t *buf, uint8_t *scratch)
{
	int fd = open_where(where, O_RDONLY, o);

	if (fd < 0)
		return -1;
	if (o->into)
		return keep(fd, o->into, bytes, buf);
	if (o->at && lseek(fd, (off_t)o->at, SEEK_SET) < 0)
		return complain("cannot seek in", where);
	return get_range(fd, seed, bytes, o, buf, scratch);
}

/* -- talk: two processes, one for each direction, that share what they did -- */

struct talk {
	uint64_t sent, received;
	int stop;
};

static int talk_send(int fd, uint64_t seed, struct talk *t, uint8_t *buf)
{
	const size_t n = 64u << 10;

	while (!__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE)) {
		pattern_fill(seed, t->sent, buf, n);
		if (write_all(fd, buf, n))
			return -1;
		__atomic_add_fetch(&t->sent, n, __ATOMIC_RELEASE);
	}
	return shutdown(fd, SHUT_WR) ? complain("cannot end", "the connection") : 0;
}

static int talk_receive(int fd, uint64_t seed, struct talk *t, uint8_t *buf, uint8_t *scratch)
{
	for (;;) {
		ssize_t n = read(fd, buf, BLOCK_MAX_BYTES);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return complain("cannot read from", "the connection");
		if (n == 0)
			return 0;
		if (pattern_check(seed, t->received, buf, scratch, (size_t)n))
			return -1;
		__atomic_add_fetch(&t->received, (uint64_t)n, __ATOMIC_RELEASE);
	}
}

static void talk_say(const struct talk *t)
{
	printf("sent %llu received %llu\n",
	       (unsigned long long)__atomic_load_n(&t->sent, __ATOMIC_ACQUIRE),
	       (unsigned long long)__atomic_load_n(&t->received, __ATOMIC_ACQUIRE));
	fflush(stdout);
}

static int talk(const char *where, uint64_t out_seed, uint64_t in_seed, const struct options *o,
		uint8_t *buf, uint8_t *scratch)
{
	struct talk *t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			      -1, 0);
	int fd = open_where(where, O_RDWR, o), status, left = 2, rc = 0;

	if (fd < 0 || t == MAP_FAILED)
		return -1;
	if (fork() == 0)
		_exit(talk_send(fd, out_seed, t, buf) ? 1 : 0);
	if (fork() == 0)
		_exit(talk_receive(fd, in_seed, t, buf, scratch) ? 1 : 0);
	while (left) {
		pid_t child;

		if (stopped)
			__atomic_store_n(&t->stop, 1, __ATOMIC_RELEASE);
		if (asked) {
			asked = 0;
			talk_say(t);
		}
		child = waitpid(-1, &status, WNOHANG);
		if (child > 0) {
			left--;
			rc |= status;
		} else {
			usleep(5000);
		}
	}
	talk_say(t);
	return rc ? -1 : 0;
}

/* -- churn -- */

static int churn(const char *where, uint64_t seed, uint64_t bytes, const struct options *o,
		 uint8_t *buf, uint8_t *scratch)
{
	int fd = open_where(where, O_RDWR, o);
	uint64_t turns = 0;

	if (fd < 0)
		return -1;
	do {
		if (asked) {
			asked = 0;
			printf("turns %llu\n", (unsigned long long)turns);
			fflush(stdout);
		}
		if (lseek(fd, (off_t)o->at, SEEK_SET) < 0 ||
		    put_range(fd, seed + turns, bytes, o, buf) ||
		    lseek(fd, (off_t)o->at, SEEK_SET) < 0 ||
		    get_range(fd, seed + turns, bytes, o, buf, scratch))
			return -1;
		turns++;
	} while (!stopped);
	if (fsync(fd))
		return complain("cannot sync", where);
	printf("turns %llu\n", (unsigned long long)turns);
	return 0;
}

/* -- discard and zero -- */

static int range_ioctl(const char *where, unsigned long request, uint64_t bytes,
		       const struct options *o)
{
	uint64_t range[2] = { o->at, bytes };
	int fd = open_where(where, O_RDWR, o);

	if (fd < 0)
		return -1;
	return ioctl(fd, request, range) ? complain("cannot discard or zero in", where) : 0;
}

/* -- clock: a process on each processor; what one has read, none may read as later -- */

struct clocks {
	uint64_t monotonic, realtime, boottime; /* the latest that anybody read, ns */
	uint64_t reads, backwards;
	int stop;
};

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void clock_read(struct clocks *c, uint64_t *latest, clockid_t id, const char *name)
{
	/* Loaded first: whatever is read after it must not be earlier. */
	uint64_t before = __atomic_load_n(latest, __ATOMIC_SEQ_CST), now = clock_ns(id);

	if (now < before) {
		__atomic_add_fetch(&c->backwards, 1, __ATOMIC_SEQ_CST);
		fprintf(stderr, "pattern: the %s clock went back by %llu ns on processor %d\n",
			name, (unsigned long long)(before - now), sched_getcpu());
	}
	while (before < now && !__atomic_compare_exchange_n(latest, &before, now, false,
							    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

static void clock_watch(struct clocks *c, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
	while (!__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE)) {
		clock_read(c, &c->monotonic, CLOCK_MONOTONIC, "monotonic");
		clock_read(c, &c->realtime, CLOCK_REALTIME, "wall");
		clock_read(c, &c->boottime, CLOCK_BOOTTIME, "boot");
		__atomic_add_fetch(&c->reads, 1, __ATOMIC_SEQ_CST);
		usleep(500);
	}
}

static int clock_all(void)
{
	struct clocks *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN), i;

	if (c == MAP_FAILED)
		return -1;
	for (i = 0; i < cpus; i++) {
		if (fork() == 0) {
			clock_watch(c, (int)i);
			_exit(0);
		}
	}
	while (!stopped) {
		usleep(5000);
		if (asked) {
			asked = 0;
			printf("reads %llu\n", (unsigned long long)c->reads);
			fflush(stdout);
		}
	}
	__atomic_store_n(&c->stop, 1, __ATOMIC_RELEASE);
	while (wait(NULL) > 0)
		;
	printf("reads %llu backwards %llu\n", (unsigned long long)c->reads,
	       (unsigned long long)c->backwards);
	return c->backwards || !c->reads ? -1 : 0;
}

/* -- the command line -- */

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (*end == 'K')
		n <<= 10;
	else if (*end == 'M')
		n <<= 20;
	return n;
}

static int parse_options(struct options *o, char **words)
{
	*o = (struct options){ .block = BLOCK_MAX_BYTES };
	for (; *words; words++) {
		if (!strncmp(*words, "at=", 3))
			o->at = number(*words + 3);
		else if (!strncmp(*words, "block=", 6))
			o->block = number(*words + 6);
		else if (!strncmp(*words, "from=", 5))
			o->from = *words + 5;
		else if (!strncmp(*words, "into=", 5))
			o->into = *words + 5;
		else if (!strcmp(*words, "direct"))
			o->direct = true;
		else if (!strcmp(*words, "sync"))
			o->sync = true;
		else
			return -1;
	}
	return o->block && o->block <= BLOCK_MAX_BYTES ? 0 : -1;
}

static int usage(void)
{
	fprintf(stderr, "pattern: usage: see the head of tests/linux/pattern.c\n");
	return 2;
}

int main(int argc, char **argv)
{
	uint8_t *buf = aligned_alloc(4096, BLOCK_MAX_BYTES);
	uint8_t *scratch = aligned_alloc(4096, BLOCK_MAX_BYTES);
	struct sigaction asks = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct sigaction ends = { .sa_handler = on_signal };
	struct options o;
	const char *verb = argc > 1 ? argv[1] : "";
	int rc;

	if (!buf || !scratch)
		return 2;
	/* A question must not cut short what is waited for, a connection above all. */
	sigaction(SIGUSR1, &asks, NULL);
	sigaction(SIGTERM, &ends, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(verb, "clock"))
		return clock_all() ? 1 : 0;
	if (!strcmp(verb, "discard") || !strcmp(verb, "zero")) {
		if (argc < 4 || parse_options(&o, argv + 4))
			return usage();
		return range_ioctl(argv[2], *verb == 'z' ? BLKZEROOUT : BLKDISCARD, number(argv[3]),
				   &o)
			       ? 1
			       : 0;
	}
	if (argc < 5 || parse_options(&o, argv + 5))
		return usage();
	if (!strcmp(verb, "put"))
		rc = put(argv[2], number(argv[3]), number(argv[4]), &o, buf);
	else if (!strcmp(verb, "get"))
		rc = get(argv[2], number(argv[3]), number(argv[4]), &o, buf, scratch);
	else if (!strcmp(verb, "talk"))
		rc = talk(argv[2], number(argv[3]), number(argv[4]), &o, buf, scratch);
	else if (!strcmp(verb, "churn"))
		rc = churn(argv[2], number(argv[3]), number(argv[4]), &o, buf, scratch);
	else
		return usage();
	return rc ? 1 : 0;
}
