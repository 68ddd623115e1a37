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

size_t word_utf8(const char *text, size_t len, uint32_t *code)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *s = (const unsigned char *)text;
	size_t n;

	if (len == 0)
		return 0;
	n = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (n == 0 || n > len || s[0] >= 0xf8)
		return 0;
	*code = n == 1 ? s[0] : s[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | (s[i] & 0x3f);
	}
	if (*code < least[n] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000))
		return 0;
	return n;
}

void word_printable(char *to, size_t size, const char *from)
{
	size_t len = strlen(from), n;
	uint32_t code;

	for (; len > 0; len -= n, from += n) {
		n = word_utf8(from, len, &code);
		if (n + (n == 0) >= size)
			break;
		/* 0x80 to 0x9f are control characters too. */
		if (n == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0)) {
			*to++ = '?';
			size--;
			n += n == 0;
			continue;
		}
		memcpy(to, from, n);
		to += n;
		size -= n;
	}
	if (size > 0)
		*to = '\0';
}
