/*
 * Names and near misses: see words.h. Pure; no text of any length overruns anything.
 */
#include "vmm/base/words.h"

#include <string.h>

#include "vmm/base/err.h"

static int is_name_char(char c)
{
	/* Not isalnum(): a name means the same under every locale. */
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

int word_check_name(const char *what, const char *name, size_t max, struct err *e)
{
	size_t n = strlen(name);

	if (n == 0)
		return err_set(e, "%s is empty (expected 1 to %zu letters, digits, '.', '_', '-')",
			       what, max);
	if (n > max)
		return err_set(e, "%s '%.20s...' has %zu characters (at most %zu)", what, name, n,
			       max);
	for (size_t i = 0; i < n; i++)
		if (!is_name_char(name[i]) || (i == 0 && (name[0] == '.' || name[0] == '-')))
			return err_set(e,
				       "%s '%s' is not a name (letters, digits, '.', '_', '-'; not "
				       "'.' or '-' first)",
				       what, name);
	return 0;
}

/* Longer words are nobody's typing error. */
#define NEAR_MAX 40

/* Edit distance with neighbours swapped counting as one (optimal string alignment). */
static unsigned int distance(const char *a, size_t na, const char *b, size_t nb)
{
	unsigned int row[3][NEAR_MAX + 1];

	for (size_t j = 0; j <= nb; j++)
		row[0][j] = (unsigned int)j;
	for (size_t i = 1; i <= na; i++) {
		unsigned int *now = row[i % 3], *before = row[(i + 2) % 3];
		const unsigned int *two_before = row[(i + 1) % 3];

		now[0] = (unsigned int)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned int best = before[j - 1] + (a[i - 1] != b[j - 1]);

			if (before[j] + 1 < best)
				best = before[j] + 1;
			if (now[j - 1] + 1 < best)
				best = now[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    two_before[j - 2] + 1 < best)
				best = two_before[j - 2] + 1;
			now[j] = best;
		}
	}
	return row[na % 3][nb];
}

const char *word_nearest(const char *word, const char *const *known)
{
	size_t n = strlen(word);
	unsigned int best = n <= 3 ? 2 : n <= 6 ? 3 : 4; /* one more than is still near */
	const char *nearest = NULL;

	if (n > NEAR_MAX)
		return NULL;
	for (; *known; known++) {
		size_t m = strlen(*known);
		unsigned int d;

		if (m > NEAR_MAX)
			continue;
		d = distance(word, n, *known, m);
		/* A distance that replaces the whole word says nothing. */
		if (d < best && d < (n > m ? n : m)) {
			best = d;
			nearest = *known;
		}
	}
	return nearest;
}

void word_printable(char *to, size_t size, const char *from)
{
	size_t i;

	for (i = 0; i + 1 < size && from[i]; i++)
		to[i] = (unsigned char)from[i] < 0x20 || from[i] == 0x7f ? '?' : from[i];
	to[i] = '\0';
}
