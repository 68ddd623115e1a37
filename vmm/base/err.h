/*
 * Errors as sentences. A function that can fail takes `struct err *e` last and returns 0 or -1;
 * where the cause is known it sets the text once, callers only put context in front of it.
 * `e` may be NULL where a caller does not want the text.
 */
#ifndef GODWIT_BASE_ERR_H
#define GODWIT_BASE_ERR_H

struct err {
	char text[512];
};

/* Sets the sentence; always returns -1. */
int err_set(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Sets the sentence and adds ": " and the text of errno value `errnum`; always returns -1. */
int err_errno(struct err *e, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "CONTEXT: " in front of a sentence that is already set; always returns -1. */
int err_context(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
