/*
 * The visitor behind state.h: one field list serves save and load. Any thread; a visitor lives on
 * the stack of state_save or state_load. While loading, each property that a field took is counted;
 * a node with more properties or sub-nodes than the fields asked for is refused.
 */
#include "vmm/state.h"

#include <inttypes.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/tree.h"

struct state {
	bool loading, failed;
	struct tree *states;	   /* saving */
	const struct tree *source; /* loading */
	char path[TREE_PATH_MAX];
	int node; /* loading: the one at `path`, looked up once; negative: not there */
	unsigned int n_properties, n_nodes; /* of the node at `path`, taken so far */
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

/* The bytes of a field of the node being loaded; NULL when it is not there. */
static const uint8_t *take(struct state *s, const char *name, int *len)
{
	const uint8_t *v = s->node < 0 ? NULL : fdt_getprop(s->source->fdt, s->node, name, len);

	if (v)
		s->n_properties++;
	return v;
}

static void put(struct state *s, const char *name, const void *v, size_t len)
{
	if (tree_set_bytes(s->states, s->path, name, v, len, s->e))
		s->failed = true;
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
		put(s, name, out, width);
		return v;
	}
	bytes = take(s, name, &len);
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
	bytes = take(s, name, &n);
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
		  unsigned int width)
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
	bytes = take(s, name, &len);
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
	array(s, name, v, n, max, 4);
}

void state_u64_array(struct state *s, const char *name, uint64_t *v, uint32_t *n, uint32_t max)
{
	array(s, name, v, n, max, 8);
}

/* After the fields of the loaded node at s->path: nothing may be left over. */
static void check_complete(struct state *s)
{
	const void *fdt = s->source->fdt;
	unsigned int properties = 0, nodes = 0;
	int node, i;

	if (s->failed)
		return;
	node = fdt_path_offset(fdt, s->path);
	fdt_for_each_property_offset(i, fdt, node) properties++;
	fdt_for_each_subnode(i, fdt, node) nodes++;
	if (properties == s->n_properties && nodes == s->n_nodes)
		return;
	s->failed = true;
	err_set(s->e, "%s: has fields that this version does not know (saved by a newer one?)",
		s->path);
}

void state_list(struct state *s, const char *name, void *first, size_t size, uint32_t n,
		void (*fields)(struct state *s, void *element))
{
	const struct state parent = *s;
	size_t end = strlen(s->path);
	char element[32];
	uint32_t i;
	int len;

	for (i = 0; i < n && !s->failed; i++) {
		len = snprintf(element, sizeof(element), "%s@%" PRIu32, name, i);
		if ((size_t)len >= sizeof(element) || end + 1 + (size_t)len >= sizeof(s->path)) {
			fail(s, name, "is too deep in the tree");
			return;
		}
		s->path[end] = '/';
		memcpy(s->path + end + 1, element, (size_t)len + 1);
		if (s->loading && parent.node >= 0)
			s->node = fdt_subnode_offset(s->source->fdt, parent.node, element);
		s->n_properties = s->n_nodes = 0;
		fields(s, (char *)first + i * size);
		if (s->loading)
			check_complete(s);
		s->path[end] = 0;
	}
	s->node = parent.node;
	s->n_properties = parent.n_properties;
	s->n_nodes = parent.n_nodes + n;
}

bool state_is_loading(const struct state *s)
{
	return s->loading;
}

int state_save(struct tree *states, const char *path, const struct state_desc *d, const void *st,
	       struct err *e)
{
	struct state s = { .states = states, .e = e };

	snprintf(s.path, sizeof(s.path), "%s", path);
	/* The list serves both directions; saving only reads through the pointer. */
	d->fields(&s, (void *)(uintptr_t)st);
	return s.failed ? -1 : 0;
}

int state_load(const struct tree *states, const char *path, const struct state_desc *d, void *st,
	       struct err *e)
{
	struct state s = { .loading = true, .source = states, .e = e };

	snprintf(s.path, sizeof(s.path), "%s", path);
	memset(st, 0, d->size);
	s.node = fdt_path_offset(states->fdt, path);
	if (s.node < 0)
		return err_set(e, "%s: its state is missing", path);
	d->fields(&s, st);
	check_complete(&s);
	if (s.failed)
		return -1;
	if (d->check && d->check(st, e))
		return err_context(e, "%s", path);
	return 0;
}
