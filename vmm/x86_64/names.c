/*
 * Lists of names for sentences: see names.h.
 */
#include "vmm/x86_64/names.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int x86_name_of(const char *names, unsigned int bit, const char **name)
{
	int len;

	while (bit--) {
		names += strcspn(names, " ");
		names += strspn(names, " ");
	}
	len = (int)strcspn(names, " ");
	*name = names;
	return len == 1 && *names == '-' ? 0 : len;
}

void x86_names_add(struct x86_names *l, const char *fmt, ...)
{
	char item[96];
	va_list ap;
	int n;

	va_start(ap, fmt);
	vsnprintf(item, sizeof(item), fmt, ap);
	va_end(ap);
	if (l->len + strlen(item) + 3 > sizeof(l->text)) {
		l->unnamed++;
		return;
	}
	n = snprintf(l->text + l->len, sizeof(l->text) - l->len, "%s%s", l->len ? ", " : "", item);
	l->len += (size_t)n;
}

const char *x86_names_more(const struct x86_names *l, char text[32])
{
	text[0] = 0;
	if (l->unnamed)
		snprintf(text, 32, " and %u more", l->unnamed);
	return text;
}
