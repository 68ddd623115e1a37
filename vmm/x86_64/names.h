/*
 * Lists of names for sentences: which features a host lacks. Pure.
 */
#ifndef GODWIT_X86_64_NAMES_H
#define GODWIT_X86_64_NAMES_H

#include <stddef.h>

/* A list in words for a sentence; what does not fit is counted. */
struct x86_names {
	char text[360];
	size_t len;
	unsigned int unnamed;
};

void x86_names_add(struct x86_names *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* " and 3 more", or nothing. */
const char *x86_names_more(const struct x86_names *l, char text[32]);
/* The word number `bit` of `names` and its length; 0: "-", or they have ended. */
int x86_name_of(const char *names, unsigned int bit, const char **name);

#endif
