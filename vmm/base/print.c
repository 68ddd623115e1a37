/*
 * Lines for people: see print.h. Any thread; a line is written in one piece.
 */
#include "vmm/base/print.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/words.h"

void print_line(FILE *out, const char *fmt, ...)
{
	char *text, *line;
	size_t size;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	size = strlen(text) + 1;
	line = malloc(size);
	if (line) {
		word_printable(line, size, text);
		fprintf(out, "%s\n", line);
	}
	free(line);
	free(text);
}
