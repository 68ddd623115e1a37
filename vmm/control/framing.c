/*
 * JSON objects out of a byte stream: see framing.h. Each byte is looked at once, however slowly
 * they come; jansson sees only what is balanced and bounded. Whoever owns the struct runs this.
 */
#include "vmm/control/framing.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"

/* An idle connection keeps no more memory than this. */
#define KEEP_BYTES 16384u

void framing_free(struct framing *f)
{
	free(f->buf);
	memset(f, 0, sizeof(*f));
}

int framing_feed(struct framing *f, const void *bytes, size_t len)
{
	if (f->start > 0) {
		memmove(f->buf, f->buf + f->start, f->len - f->start);
		f->len -= f->start;
		f->scan -= f->start;
		f->start = 0;
	}
	if (len > f->capacity - f->len) {
		size_t capacity = f->capacity ? f->capacity : 4096;
		char *grown;

		while (capacity - f->len < len)
			capacity *= 2;
		grown = realloc(f->buf, capacity);
		if (!grown)
			return -1;
		f->buf = grown;
		f->capacity = capacity;
	}
	if (len)
		memcpy(f->buf + f->len, bytes, len);
	f->len += len;
	return 0;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Everything up to `at` is done with; outside any object. */
static void begin_at(struct framing *f, size_t at)
{
	f->start = f->scan = at;
	f->inside = f->in_string = f->escaped = f->fresh_line = false;
	f->depth = 0;
	f->kinds = 0;
	f->last = 0;
	if (at == f->len) {
		f->start = f->scan = f->len = 0;
		if (f->capacity > KEEP_BYTES) {
			free(f->buf);
			f->buf = NULL;
			f->capacity = 0;
		}
	}
}

/* Goes on after the next newline at or after `at`. */
static void skip_from(struct framing *f, size_t at)
{
	const char *newline = at < f->len ? memchr(f->buf + at, '\n', f->len - at) : NULL;

	f->skipping = !newline;
	begin_at(f, newline ? (size_t)(newline - f->buf) + 1 : f->len);
}

/* Looks for the start of an object: 1 found, 0 no bytes left, -1 something else is there. */
static int find_start(struct framing *f, struct err *e)
{
	size_t at = f->start;

	if (f->skipping) {
		skip_from(f, at);
		if (f->skipping)
			return 0;
		at = f->start;
	}
	while (at < f->len && is_space(f->buf[at]))
		at++;
	begin_at(f, at);
	if (f->len == 0)
		return 0;
	if (f->buf[at] != '{') {
		skip_from(f, at);
		return err_set(e, "expected a JSON object; the rest of the line is passed over");
	}
	f->inside = true;
	return 1;
}

/* Whether a value may follow the last character: without it, two requests are grown together. */
static bool may_open(const struct framing *f)
{
	return f->depth == 0 || f->last == ':' || f->last == ',' || f->last == '[';
}

/*
 * Takes the character at f->scan in. 1: the object ends with it, 0: go on, -1: broken here (the
 * stream has been set to where it goes on).
 */
static int scan_one(struct framing *f, struct err *e)
{
	char c = f->buf[f->scan];

	if (f->in_string) {
		if ((unsigned char)c < 0x20) {
			skip_from(f, f->scan);
			return err_set(e, "a control character inside a JSON string");
		}
		if (f->escaped)
			f->escaped = false;
		else if (c == '\\')
			f->escaped = true;
		else if (c == '"')
			f->in_string = false;
		return 0;
	}
	if (is_space(c)) {
		f->fresh_line |= c == '\n';
		return 0;
	}
	switch (c) {
	case '{':
	case '[':
		if (!may_open(f)) {
			/* One that was cut off, then a line that begins a new one: lose only
			 * the first. */
			if (c == '{' && f->fresh_line)
				begin_at(f, f->scan);
			else
				skip_from(f, f->scan);
			return err_set(e, "malformed JSON: '%c' where none can be", c);
		}
		if (f->depth == FRAMING_DEPTH_MAX) {
			skip_from(f, f->scan);
			return err_set(e, "JSON nested deeper than %d levels", FRAMING_DEPTH_MAX);
		}
		f->depth++;
		f->kinds = f->kinds << 1 | (c == '{');
		break;
	case '}':
	case ']':
		if ((f->kinds & 1) != (c == '}')) {
			skip_from(f, f->scan);
			return err_set(e, "malformed JSON: '%c' closes nothing", c);
		}
		f->depth--;
		f->kinds >>= 1;
		if (f->depth == 0)
			return 1;
		break;
	case '"':
		f->in_string = true;
		break;
	default:
		break;
	}
	f->last = c;
	f->fresh_line = false;
	return 0;
}

static int parse(struct framing *f, json_t **out, struct err *e)
{
	json_error_t why;

	*out = json_loadb(f->buf + f->start, f->scan - f->start, JSON_REJECT_DUPLICATES, &why);
	if (!*out) {
		skip_from(f, f->scan);
		return err_set(e, "malformed JSON at character %d: %s", why.position, why.text);
	}
	begin_at(f, f->scan);
	return 1;
}

int framing_next(struct framing *f, json_t **out, struct err *e)
{
	int rc;

	*out = NULL;
	if (!f->inside) {
		rc = find_start(f, e);
		if (rc <= 0)
			return rc;
	}
	while (f->scan < f->len) {
		rc = scan_one(f, e);
		if (rc < 0)
			return -1;
		f->scan++;
		if (rc > 0)
			return parse(f, out, e);
		if (f->scan - f->start >= FRAMING_REQUEST_MAX) {
			skip_from(f, f->scan);
			return err_set(e, "a request is longer than %u bytes", FRAMING_REQUEST_MAX);
		}
	}
	return 0;
}
