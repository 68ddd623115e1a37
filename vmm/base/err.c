/*
 * Error sentences: see err.h. Pure; any thread; a text that is too long is cut, never overrun.
 */
#include "vmm/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return -1;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return -1;
}

int err_errno(struct err *e, int errnum, const char *fmt, ...)
{
	va_list ap;
	size_t n;

	if (!e)
		return -1;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	n = strlen(e->text);
	snprintf(e->text + n, sizeof(e->text) - n, ": %s", strerror(errnum));
	return -1;
}

int err_context(struct err *e, const char *fmt, ...)
{
	char text[sizeof(e->text)];
	va_list ap;

	if (!e)
		return -1;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	strncat(text, ": ", sizeof(text) - strlen(text) - 1);
	strncat(text, e->text, sizeof(text) - strlen(text) - 1);
	memcpy(e->text, text, sizeof(text));
	return -1;
}
