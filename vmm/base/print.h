/*
 * Lines for people. Parts of them come from peers, files and guests, so nothing else prints them.
 */
#ifndef GODWIT_BASE_PRINT_H
#define GODWIT_BASE_PRINT_H

#include <stdio.h>

/* Prints one line, and ends it; what would upset a terminal, line ends included, becomes '?'
 * (word_printable). */
void print_line(FILE *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
