/*
 * JSON objects out of a byte stream: see framing.h. Each byte is looked at once, however slowly
 * they come; jansson sees only what is balanced and bounded. Whoever owns the struct runs this.
 */
#include "vmm/control/framing.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/words.h"

/* An idle connection keeps no more memory than this, twice. */
#define KEEP_BYTES 16384u

/* What one byte did. */
enum taken { TAKEN, TAKEN_END, TAKEN_BROKEN };

static int append(struct framing_bytes *b, const void *bytes, size_t len)
{
	if (len > b->capacity - b->len) {
		size_t capacity = b->capacity ? b->capacity : 4096;
		char *grown;

		while (capacity - b->len < len)
			capacity *= 2;
		grown = realloc(b->at, capacity);
		if (!grown)
			return -1;
		b->at = grown;
		b->capacity = capacity;
	}
	if (len)
		memcpy(b->at + b->len, bytes, len);
	b->len += len;
	return 0;
}

static void empty(struct framing_bytes *b)
{
	b->len = 0;
	if (b->capacity > KEEP_BYTES) {
		free(b->at);
		*b = (struct framing_bytes){ 0 };
	}
}

void framing_free(struct framing *f)
{
	free(f->in.at);
	free(f->text.at);
	free(f->id);
	memset(f, 0, sizeof(*f));
}

int framing_feed(struct framing *f, const void *bytes, size_t len)
{
	if (f->start > 0) {
		f->in.len -= f->start;
		memmove(f->in.at, f->in.at + f->start, f->in.len);
		f->start = 0;
	}
	return append(&f->in, bytes, len);
}

/* Nothing is under way any more. */
static void go_on(struct framing *f, enum framing_state state)
{
	empty(&f->text);
	f->state = state;
	f->dropped = f->escaped = f->fresh_line = false;
	f->quote = f->last = 0;
	f->depth = f->kinds = 0;
	f->string_at = f->string_end = f->id_at = f->id_end = 0;
}

/* Broken here: all of the value is dropped. The next one may begin on the same line. */
static enum taken broken(struct framing *f)
{
	bool told = f->dropped;

	go_on(f, FRAMING_LOST);
	return told ? TAKEN : TAKEN_BROKEN;
}

/* Refuses the value under way; its end is still to be found. */
static enum taken drop(struct framing *f)
{
	empty(&f->text);
	f->dropped = true;
	return TAKEN_BROKEN;
}

static enum taken keep(struct framing *f, const char *bytes, size_t n, struct err *e)
{
	if (f->dropped)
		return TAKEN;
	if (n > FRAMING_REQUEST_MAX - f->text.len) {
		err_set(e, "a request is longer than %u bytes", FRAMING_REQUEST_MAX);
		return drop(f);
	}
	if (append(&f->text, bytes, n)) {
		err_set(e, "out of memory");
		return drop(f);
	}
	return TAKEN;
}

static enum taken take_in_string(struct framing *f, char c, struct err *e)
{
	char pair[2] = { '\\', c };

	if ((unsigned char)c < 0x20 || (unsigned char)c >= 0xfe) {
		err_set(e, "malformed JSON: byte 0x%02x inside a string", (unsigned char)c);
		return broken(f);
	}
	if (f->escaped) {
		f->escaped = false;
		return c == '\'' ? keep(f, &c, 1, e) : keep(f, pair, 2, e);
	}
	if (c == '\\') {
		f->escaped = true;
		return TAKEN;
	}
	if (c != f->quote)
		return c == '"' ? keep(f, pair, 2, e) : keep(f, &c, 1, e);
	f->quote = 0;
	f->last = '"';
	if (f->depth == 0)
		return TAKEN_END;
	if (keep(f, "\"", 1, e) == TAKEN_BROKEN)
		return TAKEN_BROKEN;
	if (f->depth == 1)
		f->string_end = f->text.len;
	return TAKEN;
}

/* Whether a value may follow the last character: without it, two requests are grown together. */
static bool may_open(const struct framing *f)
{
	return f->depth == 0 || f->last == ':' || f->last == ',' || f->last == '[';
}

static enum taken take_opening(struct framing *f, char c, struct err *e)
{
	/* One that was cut off, then a line that begins a new one: lose only the first. */
	if (c == '{' && f->fresh_line && !may_open(f)) {
		bool told = f->dropped;

		go_on(f, FRAMING_BETWEEN);
		f->start--;
		err_set(e, "malformed JSON: '{' where none can be");
		return told ? TAKEN : TAKEN_BROKEN;
	}
	f->depth++;
	f->kinds = f->kinds << 1 | (c == '{');
	if (f->depth > FRAMING_DEPTH_MAX && !f->dropped) {
		err_set(e, "JSON nested deeper than %d levels", FRAMING_DEPTH_MAX);
		return drop(f);
	}
	return keep(f, &c, 1, e);
}

static enum taken take_closing(struct framing *f, char c, struct err *e)
{
	if (!f->dropped && (f->kinds & 1) != (c == '}')) {
		err_set(e, "malformed JSON: '%c' closes nothing", c);
		go_on(f, FRAMING_BETWEEN);
		return TAKEN_BROKEN;
	}
	if (f->depth == 1 && f->id_at && !f->id_end)
		f->id_end = f->text.len;
	f->depth--;
	f->kinds >>= 1;
	if (keep(f, &c, 1, e) == TAKEN_BROKEN) {
		if (f->depth == 0)
			go_on(f, FRAMING_BETWEEN);
		return TAKEN_BROKEN;
	}
	return f->depth == 0 ? TAKEN_END : TAKEN;
}

static enum taken take_quote(struct framing *f, char c, struct err *e)
{
	f->quote = c;
	if (f->depth == 1)
		f->string_at = f->text.len;
	return keep(f, "\"", 1, e);
}

/* Between two members of the outermost object, or after a name: is its value the id's? */
static void watch_id(struct framing *f, char c)
{
	static const char name[] = "\"id\"";

	if (f->depth != 1 || f->dropped)
		return;
	if (c == ',' && f->id_at && !f->id_end)
		f->id_end = f->text.len;
	if (c == ':' && f->last == '"' && !f->id_at &&
	    f->string_end - f->string_at == sizeof(name) - 1 &&
	    !memcmp(f->text.at + f->string_at, name, sizeof(name) - 1))
		f->id_at = f->text.len + 1;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static enum taken take_outside(struct framing *f, char c, struct err *e)
{
	enum taken taken;

	if (is_space(c)) {
		f->fresh_line |= c == '\n';
		return keep(f, &c, 1, e);
	}
	if (c == '{' || c == '[') {
		taken = take_opening(f, c, e);
	} else if (c == '}' || c == ']') {
		taken = take_closing(f, c, e);
	} else if (c == '"' || c == '\'') {
		taken = take_quote(f, c, e);
	} else if (c == ':' || c == ',' || c == '-' || c == '+' || c == '.' ||
		   ((c & 0x80) == 0 && isalnum((unsigned char)c))) {
		watch_id(f, c);
		taken = keep(f, &c, 1, e);
	} else {
		err_set(e, "malformed JSON: byte 0x%02x outside strings", (unsigned char)c);
		return broken(f);
	}
	if (f->state == FRAMING_VALUE) {
		f->last = c;
		f->fresh_line = false;
	}
	return taken;
}

static enum taken take_first(struct framing *f, char c, struct err *e)
{
	if (is_space(c))
		return TAKEN;
	if (c == '{' || c == '[' || c == '"' || c == '\'') {
		f->state = FRAMING_VALUE;
		f->dropped = c != '{';
		if (take_outside(f, c, e) == TAKEN_BROKEN)
			return TAKEN_BROKEN;
		if (c == '{')
			return TAKEN;
		err_set(e, "malformed JSON: expected a JSON object");
		return TAKEN_BROKEN;
	}
	err_set(e, "malformed JSON: expected a JSON object");
	return broken(f);
}

/* Bytes that are in no JSON text: a client sends one to end what was begun. */
static bool ends_all(char c)
{
	unsigned char byte = (unsigned char)c;

	return (byte < 0x20 && c != '\t' && c != '\r' && c != '\n') || byte >= 0xfe;
}

static enum taken take(struct framing *f, struct err *e)
{
	char c = f->in.at[f->start++];

	switch (f->state) {
	case FRAMING_BETWEEN:
		return take_first(f, c, e);
	case FRAMING_VALUE:
		return f->quote ? take_in_string(f, c, e) : take_outside(f, c, e);
	case FRAMING_LOST:
		if (c == '{')
			f->start--;
		if (c == '{' || c == '\n' || ends_all(c))
			f->state = FRAMING_BETWEEN;
		break;
	}
	return TAKEN;
}

/* The JSON text in ASCII; NULL when memory is short. The text has been found to be right. */
static char *in_ascii(const char *text, size_t len)
{
	char *out = malloc(3 * len + 1), *to = out; /* \uXXXX for two bytes at least */
	uint32_t code;
	size_t n;

	for (size_t i = 0; out && i < len; i += n) {
		n = word_utf8(text + i, len - i, &code);
		if (n <= 1) {
			n = 1;
			*to++ = text[i];
		} else if (code < 0x10000) {
			to += sprintf(to, "\\u%04x", code);
		} else {
			code -= 0x10000;
			to += sprintf(to, "\\u%04x\\u%04x", 0xd800 + (code >> 10),
				      0xdc00 + (code & 0x3ff));
		}
	}
	if (out)
		*to = '\0';
	return out;
}

/*
 * Takes the id out of the text. jansson has no integers above 63 bits, and its reals are rounded:
 * so an id comes back as the text that it is.
 */
static int take_id(struct framing *f, json_error_t *why)
{
	size_t len = f->id_end - f->id_at;
	char *at = f->text.at + f->id_at;
	json_t *id;

	if (!f->id_at)
		return 0;
	for (; len && is_space(*at); len--)
		at++;
	while (len && is_space(at[len - 1]))
		len--;
	id = json_loadb(at, len,
			JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL |
				JSON_DECODE_INT_AS_REAL,
			why);
	if (!id)
		return -1;
	json_decref(id);
	f->id = in_ascii(at, len);
	if (!f->id)
		return -1;
	memset(at, ' ', len);
	*at = '0';
	return 0;
}

static int parse(struct framing *f, json_t **out, struct err *e)
{
	const size_t flags = JSON_REJECT_DUPLICATES;
	json_error_t why = { .text = "out of memory" }, again;
	json_t *id;

	if (take_id(f, &why) == 0)
		*out = json_loadb(f->text.at, f->text.len, flags, &why);
	/* So that an integer which is too large can be refused by its name. */
	if (!*out && json_error_code(&why) == json_error_numeric_overflow)
		*out = json_loadb(f->text.at, f->text.len, flags | JSON_DECODE_INT_AS_REAL, &again);
	go_on(f, FRAMING_BETWEEN);
	if (!*out) {
		/* Of what cannot be read, no part is to be trusted. */
		free(f->id);
		f->id = NULL;
		return err_set(e, "malformed JSON at character %d: %s", why.position, why.text);
	}
	id = json_object_get(*out, "id");
	/* Its name was written with an escape. */
	if (id && !f->id)
		f->id = json_dumps(id, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
	if (id && !f->id) {
		json_decref(*out);
		*out = NULL;
		return err_set(e, "out of memory");
	}
	return 1;
}

int framing_next(struct framing *f, json_t **out, struct err *e)
{
	enum taken taken;

	*out = NULL;
	free(f->id);
	f->id = NULL;
	while (f->start < f->in.len) {
		taken = take(f, e);
		if (taken == TAKEN_BROKEN)
			return -1;
		if (taken == TAKEN_END && !f->dropped)
			return parse(f, out, e);
		if (taken == TAKEN_END)
			go_on(f, FRAMING_BETWEEN);
	}
	f->start = 0;
	empty(&f->in);
	return 0;
}
