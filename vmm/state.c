/*
 * The visitor behind state.h: one field list serves save and load. Any thread; a visitor lives on
 * the stack of state_save or state_load. While loading, each property that a field took is counted;
 * a node with more properties or sub-nodes than the fields asked for is refused.
 *
 * A node is gone through once, before its fields are loaded, and each field looks beside where the
 * one before it was found: so a state costs the same however many there are, and about its bytes.
 */
#include "vmm/state.h"

#include <inttypes.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/tree.h"
#include "vmm/tree_writer.h"

/* Fields, and elements of lists, that one node may have. */
#define ITEMS_MAX 128

/* The properties of a node, or its sub-nodes, in the order of the tree. */
struct items {
	unsigned int n, taken;
	int last; /* the one that was taken last, or -1 */
	struct item {
		const char *name;
		const uint8_t *value; /* of a property */
		int len;
		int offset; /* of a sub-node */
	} item[ITEMS_MAX];
};

/* A node that is being loaded. */
struct place {
	struct items fields, nodes;
};

struct state {
	bool loading, failed;
	/* Saving: a node has its properties first, so the fields are gone through a second time if
	 * there are lists among them. */
	bool lists_turn, lists_seen;
	struct tree_writer *writer; /* saving: the node at `path` is open */
	const struct tree *source;  /* loading */
	struct place *place;	    /* loading: the node at `path`; NULL: it is not there */
	char path[TREE_PATH_MAX];
	uint64_t steps; /* tags seen and names compared */
	struct err *e;
};

static void fail(struct state *s, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void fail(struct state *s, const char *name, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	if (s->failed)
		return;
	s->failed = true;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_set(s->e, "%s: field '%s' %s", s->path, name, text);
}

static void unknown_fields(struct state *s)
{
	s->failed = true;
	err_set(s->e, "%s: has fields that this version does not know (saved by a newer one?)",
		s->path);
}

static struct item *add(struct items *l)
{
	return l->n < ITEMS_MAX ? &l->item[l->n++] : NULL;
}

/* One pass over the node at that offset: its fields, and its sub-nodes without theirs. (A property
 * behind a sub-node is none to others who read trees.) */
static void look_around(struct state *s, int offset, struct place *p)
{
	const void *fdt = s->source->fdt;
	struct item *item = NULL;
	int depth = 0, at, next = offset;
	uint32_t tag;

	p->fields.n = p->fields.taken = p->nodes.n = p->nodes.taken = 0;
	p->fields.last = p->nodes.last = -1;
	do {
		at = next;
		tag = fdt_next_tag(fdt, at, &next);
		s->steps++;
		if (tag == FDT_BEGIN_NODE && ++depth == 2) {
			item = add(&p->nodes);
			if (item)
				*item = (struct item){ .name = fdt_get_name(fdt, at, NULL),
						       .offset = at };
		} else if (tag == FDT_PROP && depth == 1) {
			item = p->nodes.n ? NULL : add(&p->fields);
			if (item)
				item->value = fdt_getprop_by_offset(fdt, at, &item->name,
								    &item->len);
		} else {
			depth -= tag == FDT_END_NODE;
			continue;
		}
		if (!item) {
			unknown_fields(s);
			return;
		}
	} while (depth > 0 && tag != FDT_END && next >= 0);
}

static bool is_named(struct state *s, const struct items *l, int i, const char *name)
{
	if (i < 0 || i >= (int)l->n)
		return false;
	s->steps++;
	return l->item[i].name && !strcmp(l->item[i].name, name);
}

/*
 * NULL when it is not there. Beside the last one first: a tree has its fields in the order of the
 * list, or (where they were put in front of each other) the other way round.
 */
static const struct item *take(struct state *s, struct items *l, const char *name)
{
	int i, found = -1;

	if (is_named(s, l, l->last + 1, name))
		found = l->last + 1;
	else if (is_named(s, l, l->last - 1, name))
		found = l->last - 1;
	for (i = 0; i < (int)l->n && found < 0; i++)
		if (is_named(s, l, i, name))
			found = i;
	if (found < 0)
		return NULL;
	l->last = found;
	l->taken++;
	return &l->item[found];
}

/* The bytes of a field of the node being loaded; NULL when it is not there. */
static const uint8_t *take_field(struct state *s, const char *name, int *len)
{
	const struct item *f = s->place ? take(s, &s->place->fields, name) : NULL;

	if (!f)
		return NULL;
	*len = f->len;
	return f->value;
}

static void put(struct state *s, const char *name, const void *v, size_t len)
{
	if (s->lists_turn || !tree_writer_bytes(s->writer, name, v, len, s->e))
		return;
	s->failed = true;
	err_context(s->e, "%s", s->path);
}

static uint64_t big_endian(const uint8_t *v, unsigned int width)
{
	uint64_t n = 0;

	while (width--)
		n = n << 8 | *v++;
	return n;
}

static void to_big_endian(uint8_t *out, uint64_t n, unsigned int width)
{
	while (width--) {
		out[width] = (uint8_t)n;
		n >>= 8;
	}
}

/* One number of `width` bytes; returns the value to keep. `missing` NULL: it must be there. */
static uint64_t number(struct state *s, const char *name, uint64_t v, unsigned int width,
		       const uint64_t *missing)
{
	const uint8_t *bytes;
	uint8_t out[8];
	int len;

	if (s->failed)
		return v;
	if (!s->loading) {
		to_big_endian(out, v, width);
		if (!missing || v != *missing) /* else older versions take it too */
			put(s, name, out, width);
		return v;
	}
	bytes = take_field(s, name, &len);
	if (!bytes && missing)
		return *missing;
	if (!bytes)
		fail(s, name, "is missing");
	else if ((unsigned int)len != width)
		fail(s, name, "has %d bytes, expected %u", len, width);
	else
		return big_endian(bytes, width);
	return v;
}

void state_u8(struct state *s, const char *name, uint8_t *v)
{
	*v = (uint8_t)number(s, name, *v, 1, NULL);
}

void state_u16(struct state *s, const char *name, uint16_t *v)
{
	*v = (uint16_t)number(s, name, *v, 2, NULL);
}

void state_u32(struct state *s, const char *name, uint32_t *v)
{
	*v = (uint32_t)number(s, name, *v, 4, NULL);
}

void state_u64(struct state *s, const char *name, uint64_t *v)
{
	*v = number(s, name, *v, 8, NULL);
}

void state_bool(struct state *s, const char *name, bool *v)
{
	uint64_t n = number(s, name, *v, 1, NULL);

	if (n > 1)
		fail(s, name, "is %" PRIu64 ", expected 0 or 1", n);
	*v = n == 1;
}

void state_u8_optional(struct state *s, const char *name, uint8_t *v, uint8_t missing)
{
	*v = (uint8_t)number(s, name, *v, 1, &(uint64_t){ missing });
}

void state_u32_optional(struct state *s, const char *name, uint32_t *v, uint32_t missing)
{
	*v = (uint32_t)number(s, name, *v, 4, &(uint64_t){ missing });
}

void state_u64_optional(struct state *s, const char *name, uint64_t *v, uint64_t missing)
{
	*v = number(s, name, *v, 8, &missing);
}

void state_bytes(struct state *s, const char *name, void *v, size_t len)
{
	uint32_t n = (uint32_t)len;

	state_buffer(s, name, v, &n, (uint32_t)len);
	if (!s->failed && n != len)
		fail(s, name, "has %" PRIu32 " bytes, expected %zu", n, len);
}

void state_buffer(struct state *s, const char *name, void *v, uint32_t *len, uint32_t max)
{
	const uint8_t *bytes;
	int n;

	if (s->failed)
		return;
	if (!s->loading) {
		put(s, name, v, *len);
		return;
	}
	bytes = take_field(s, name, &n);
	if (!bytes) {
		fail(s, name, "is missing");
	} else if ((uint32_t)n > max) {
		fail(s, name, "has %d bytes, expected at most %" PRIu32, n, max);
	} else {
		memcpy(v, bytes, (size_t)n);
		*len = (uint32_t)n;
	}
}

/* `*n` numbers of `width` bytes at `v`, an array of uint32_t or uint64_t. */
static void array(struct state *s, const char *name, void *v, uint32_t *n, uint32_t max,
		  unsigned int width, bool optional)
{
	const uint8_t *bytes;
	uint8_t out[4096];
	uint32_t i;
	int len;

	if (s->failed)
		return;
	if (!s->loading) {
		if ((size_t)*n * width > sizeof(out)) {
			fail(s, name, "has %" PRIu32 " numbers, more than fit", *n);
			return;
		}
		for (i = 0; i < *n; i++)
			to_big_endian(out + i * width,
				      width == 4 ? ((uint32_t *)v)[i] : ((uint64_t *)v)[i], width);
		put(s, name, out, (size_t)*n * width);
		return;
	}
	bytes = take_field(s, name, &len);
	if (!bytes && optional)
		return;
	if (!bytes) {
		fail(s, name, "is missing");
		return;
	}
	if ((unsigned int)len % width || (unsigned int)len / width > max) {
		fail(s, name, "has %d bytes, expected at most %" PRIu32 " numbers of %u", len, max,
		     width);
		return;
	}
	*n = (uint32_t)len / width;
	for (i = 0; i < *n; i++) {
		if (width == 4)
			((uint32_t *)v)[i] = (uint32_t)big_endian(bytes + i * width, width);
		else
			((uint64_t *)v)[i] = big_endian(bytes + i * width, width);
	}
}

void state_u32_array(struct state *s, const char *name, uint32_t *v, uint32_t *n, uint32_t max)
{
	array(s, name, v, n, max, 4, false);
}

void state_u32_array_optional(struct state *s, const char *name, uint32_t *v, uint32_t *n,
			      uint32_t max)
{
	if (s->loading || *n)
		array(s, name, v, n, max, 4, true);
}

void state_u64_array(struct state *s, const char *name, uint64_t *v, uint32_t *n, uint32_t max)
{
	array(s, name, v, n, max, 8, false);
}

/* After the fields of the loaded node: nothing may be left over. */
static void check_complete(struct state *s)
{
	const struct place *p = s->place;

	if (!s->failed && p && (p->fields.taken != p->fields.n || p->nodes.taken != p->nodes.n))
		unknown_fields(s);
}

static void load_element(struct state *s, const char *name, void *element,
			 void (*fields)(struct state *s, void *element))
{
	struct place *parent = s->place, here;
	const struct item *node = parent ? take(s, &parent->nodes, name) : NULL;

	s->place = NULL;
	if (node) {
		s->place = &here;
		look_around(s, node->offset, &here);
	}
	fields(s, element);
	check_complete(s);
	s->place = parent;
}

/* The node at s->path, which is not open yet. */
static void save_node(struct state *s, const char *name, void *st,
		      void (*fields)(struct state *s, void *st))
{
	const bool lists_turn = s->lists_turn, lists_seen = s->lists_seen;

	if (tree_writer_down(s->writer, name, s->e)) {
		s->failed = true;
		return;
	}
	s->lists_turn = s->lists_seen = false;
	fields(s, st);
	s->lists_turn = true;
	if (s->lists_seen && !s->failed)
		fields(s, st);
	if (!s->failed && tree_writer_up(s->writer, s->e))
		s->failed = true;
	s->lists_turn = lists_turn;
	s->lists_seen = lists_seen;
}

void state_list(struct state *s, const char *name, void *first, size_t size, uint32_t n,
		void (*fields)(struct state *s, void *element))
{
	size_t end = strlen(s->path);
	char element[32];
	uint32_t i;
	int len;

	s->lists_seen = true;
	if (!s->loading && !s->lists_turn)
		return;
	for (i = 0; i < n && !s->failed; i++) {
		len = snprintf(element, sizeof(element), "%s@%" PRIu32, name, i);
		if ((size_t)len >= sizeof(element) || end + 1 + (size_t)len >= sizeof(s->path)) {
			fail(s, name, "is too deep in the tree");
			return;
		}
		s->path[end] = '/';
		memcpy(s->path + end + 1, element, (size_t)len + 1);
		(s->loading ? load_element : save_node)(s, element, (char *)first + i * size,
							fields);
		s->path[end] = 0;
	}
}

int state_save(struct tree_writer *w, const char *path, const struct state_desc *d, const void *st,
	       struct err *e)
{
	struct state s = { .writer = w, .e = e };
	const char *name = strrchr(path, '/');

	snprintf(s.path, sizeof(s.path), "%s", path);
	/* The list serves both directions; saving only reads through the pointer. */
	save_node(&s, name ? name + 1 : path, (void *)(uintptr_t)st, d->fields);
	return s.failed ? -1 : 0;
}

int state_load_at(const struct tree *states, int node, const char *path, const struct state_desc *d,
		  void *st, uint64_t *steps, struct err *e)
{
	struct place place;
	struct state s = { .loading = true, .source = states, .place = &place, .e = e };

	snprintf(s.path, sizeof(s.path), "%s", path);
	memset(st, 0, d->size);
	look_around(&s, node, &place);
	d->fields(&s, st);
	check_complete(&s);
	if (steps)
		*steps += s.steps;
	if (s.failed)
		return -1;
	if (d->check && d->check(st, e))
		return err_context(e, "%s", path);
	return 0;
}

int state_load(const struct tree *states, const char *path, const struct state_desc *d, void *st,
	       struct err *e)
{
	int node = fdt_path_offset(states->fdt, path);

	if (node < 0)
		return err_set(e, "%s: its state is missing", path);
	return state_load_at(states, node, path, d, st, NULL, e);
}
