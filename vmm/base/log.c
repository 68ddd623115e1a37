/*
 * The log: see log.h. One write(2) a line, so that lines of several threads do not mix.
 */
#include "vmm/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool log_is_verbose;

void log_set_verbose(bool verbose)
{
	log_is_verbose = verbose;
}

static void log_line(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

static void log_line(const char *fmt, va_list ap)
{
	char line[1024] = "godwit: ";
	size_t n = strlen(line);
	int len = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);

	if (len < 0)
		return;
	n = strlen(line);
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
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
