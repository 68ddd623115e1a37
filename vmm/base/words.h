/*
 * Words that people type: names of VMs and devices, and which known word was probably meant.
 * Pure; any thread.
 */
#ifndef GODWIT_BASE_WORDS_H
#define GODWIT_BASE_WORDS_H

#include <stddef.h>
#include <stdint.h>

struct err;

/*
 * A name is 1 to `max` letters, digits, '.', '_' and '-', and begins with neither '.' nor '-': so
 * it is a file name, a device tree node name and one word of a shell. `what` begins the sentence.
 */
int word_check_name(const char *what, const char *name, size_t max, struct err *e);

/*
 * The word of `known` (NULL-terminated) that is nearest to `word` by letters added, dropped,
 * changed or swapped; NULL when none is near.
 */
const char *word_nearest(const char *word, const char *const *known);

/* The length of the UTF-8 sequence that `text` begins with, and its code; 0: it is none. */
size_t word_utf8(const char *text, size_t len, uint32_t *code);

/*
 * Copies what fits, with '?' for every control character and for bytes that are no UTF-8: for text
 * from elsewhere on a terminal. No sequence is cut.
 */
void word_printable(char *to, size_t size, const char *from);

#endif
