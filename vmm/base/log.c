/*
 * The log: see log.h. One write a line, so that lines of several threads do not mix. Invariant: the
 * queue begins and ends with a line's end, unless the reader has taken a part of the first one.
 */
#include "vmm/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/base/output.h"
#include "vmm/base/words.h"

#define LOG_LINE_BYTES	  1024
#define LOG_QUEUE_BYTES	  (32u << 10)
#define LOG_ATOMIC_BYTES  4096 /* a pipe takes so many in one piece */
#define LOG_CLOSE_WAIT_MS 500

static bool log_is_verbose;

static struct {
	pthread_mutex_t lock;
	/* Set while there is one thread. */
	int fd; /* our own; -1: not open */
	enum output_mode mode;
	void (*backlogged)(void *arg);
	void *arg;
	/* Under lock. */
	bool told;	      /* `backlogged` was called */
	unsigned int dropped; /* lines, since the last one in the queue */
	size_t len;
	char text[LOG_QUEUE_BYTES];
} log_queue = { .lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1 };

void log_set_verbose(bool verbose)
{
	log_is_verbose = verbose;
}

void log_set_backlogged(void (*fn)(void *arg), void *arg)
{
	log_queue.backlogged = fn;
	log_queue.arg = arg;
}

int log_fd(void)
{
	return log_queue.fd;
}

void log_open(void)
{
	if (log_queue.fd < 0)
		log_queue.fd = output_open_shared(STDERR_FILENO, O_WRONLY, &log_queue.mode);
}

/* Whole lines that a pipe takes in one piece, or a part of one that is longer. Lock held. */
static size_t next_piece(void)
{
	size_t n = log_queue.len < LOG_ATOMIC_BYTES ? log_queue.len : LOG_ATOMIC_BYTES;
	const char *end = memrchr(log_queue.text, '\n', n);

	return end ? (size_t)(end + 1 - log_queue.text) : n;
}

/* Lock held. */
static bool put_line(const char *line, size_t n)
{
	if (n > sizeof(log_queue.text) - log_queue.len)
		return false;
	memcpy(log_queue.text + log_queue.len, line, n);
	log_queue.len += n;
	return true;
}

/* Says how many lines are missing, once there is room for that. Lock held. */
static void put_count(void)
{
	char line[128];
	int n;

	if (!log_queue.dropped)
		return;
	n = snprintf(line, sizeof(line),
		     "godwit: %u lines are missing here: nobody has read the standard error\n",
		     log_queue.dropped);
	if (put_line(line, (size_t)n))
		log_queue.dropped = 0;
}

/* Lock held. */
static bool flush(void)
{
	while (log_queue.len || log_queue.dropped) {
		ssize_t n;

		if (!log_queue.len)
			put_count();
		n = output_write(log_queue.fd, log_queue.mode, log_queue.text, next_piece());
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0 || (n < 0 && errno == EAGAIN))
			return false;
		/* No reader, no room on the disk: there is nowhere left to say it. */
		if (n < 0)
			n = (ssize_t)log_queue.len;
		log_queue.len -= (size_t)n;
		memmove(log_queue.text, log_queue.text + n, log_queue.len);
	}
	log_queue.told = false;
	return true;
}

bool log_flush(void)
{
	bool all;

	pthread_mutex_lock(&log_queue.lock);
	all = log_queue.fd < 0 || flush();
	pthread_mutex_unlock(&log_queue.lock);
	return all;
}

void log_close(void)
{
	struct pollfd p = { .fd = log_queue.fd, .events = POLLOUT };
	int64_t end_us = (int64_t)clock_us() + LOG_CLOSE_WAIT_MS * 1000, left_ms;

	if (log_queue.fd < 0)
		return;
	while (!log_flush()) {
		left_ms = (end_us - (int64_t)clock_us()) / 1000;
		if (left_ms <= 0 || poll(&p, 1, (int)left_ms) == 0)
			break;
	}
	close(log_queue.fd);
	log_queue.fd = -1;
	log_queue.len = log_queue.dropped = 0;
	log_queue.told = false;
}

static void queue_line(const char *line, size_t n)
{
	bool tell;

	pthread_mutex_lock(&log_queue.lock);
	flush();
	put_count();
	if (log_queue.dropped || !put_line(line, n))
		log_queue.dropped++;
	tell = !flush() && !log_queue.told && log_queue.backlogged;
	if (tell)
		log_queue.told = true;
	pthread_mutex_unlock(&log_queue.lock);
	if (tell)
		log_queue.backlogged(log_queue.arg);
}

static void log_line(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

static void log_line(const char *fmt, va_list ap)
{
	char text[LOG_LINE_BYTES], line[LOG_LINE_BYTES + 16] = "godwit: ";
	size_t n = strlen(line);

	if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
		return;
	word_printable(line + n, sizeof(line) - n - 1, text);
	n = strlen(line);
	line[n++] = '\n';
	if (log_queue.fd >= 0)
		queue_line(line, n);
	else if (write(STDERR_FILENO, line, n) < 0)
		return; /* nowhere left to say it */
}

void log_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(fmt, ap);
	va_end(ap);
}

void log_verbose(const char *fmt, ...)
{
	va_list ap;

	if (!log_is_verbose)
		return;
	va_start(ap, fmt);
	log_line(fmt, ap);
	va_end(ap);
}
