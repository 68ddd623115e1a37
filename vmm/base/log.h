/*
 * The log: sentences to stderr, each beginning "godwit: ", without control characters. Any thread
 * may log.
 *
 * A process that runs a VM opens the log once: from then on no thread waits for who reads stderr.
 * What the reader does not take lies in a bounded queue; lines that do not fit are counted, and the
 * count is told in their place. Verbosity and this queue are the process-wide values of the
 * program.
 */
#ifndef GODWIT_BASE_LOG_H
#define GODWIT_BASE_LOG_H

#include <stdbool.h>

void log_set_verbose(bool verbose);

/* What the user should know although nothing failed for good. */
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Decisions and events: only with --verbose. */
void log_verbose(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Main thread, while it is the only one. Without it, and after log_close(), a line may wait. */
void log_open(void);

/* Gives a reader that reads a moment to take the rest. When no other thread logs any more. */
void log_close(void);

/*
 * Who writes later what could not be written at once: `fn` is called on any thread, at most once
 * until log_flush() has returned true. It must not log. NULL: nobody. Set while no other thread
 * logs.
 */
void log_set_backlogged(void (*fn)(void *arg), void *arg);

/* To be watched for writing when there is a backlog; -1: the log is not open. */
int log_fd(void);

/* Writes what the reader takes; whether that was all. */
bool log_flush(void);

#endif
