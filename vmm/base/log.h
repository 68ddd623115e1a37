/*
 * The log: sentences to stderr, each beginning "godwit: ". The one process-wide value of the
 * program is its verbosity, set once by main.c before any thread starts. Any thread may log.
 */
#ifndef GODWIT_BASE_LOG_H
#define GODWIT_BASE_LOG_H

#include <stdbool.h>

void log_set_verbose(bool verbose);

/* What the user should know although nothing failed for good. */
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Decisions and events: only with --verbose. */
void log_verbose(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
