/*
 * The machine tree over libfdt: see tree.h. Any thread, one at a time; a tree that failed to be
 * written is as it was before the failing call.
 */
#include "vmm/tree.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"

#define TREE_FIRST_BYTES 8192

int tree_init(struct tree *t, struct err *e)
{
	t->fdt = calloc(1, TREE_FIRST_BYTES); /* libfdt leaves padding as it finds it */
	if (!t->fdt)
		return err_set(e, "out of memory");
	if (fdt_create_empty_tree(t->fdt, TREE_FIRST_BYTES)) {
		tree_free(t);
		return err_set(e, "cannot make an empty tree");
	}
	return 0;
}

void tree_free(struct tree *t)
{
	free(t->fdt);
	t->fdt = NULL;
}

size_t tree_bytes_used(const struct tree *t)
{
	return fdt_totalsize(t->fdt);
}

void tree_pack(struct tree *t)
{
	fdt_pack(t->fdt);
}

void *tree_room(size_t size, struct err *e)
{
	void *room = NULL;

	if (size > 2 * (size_t)TREE_BYTES_MAX)
		err_set(e, "the tree is larger than the limit of %u bytes", TREE_BYTES_MAX);
	else if (!(room = calloc(1, size)))
		err_set(e, "out of memory");
	return room;
}

static int grow(struct tree *t, struct err *e)
{
	size_t size = (size_t)fdt_totalsize(t->fdt) * 2;
	void *bigger = tree_room(size, e);

	if (!bigger)
		return -1;
	if (fdt_open_into(t->fdt, bigger, (int)size)) {
		free(bigger);
		return err_set(e, "cannot grow the tree");
	}
	free(t->fdt);
	t->fdt = bigger;
	return 0;
}

/* The offset of a node that is made, with those on the way, when it is missing. */
static int make_node(struct tree *t, const char *path, struct err *e)
{
	const char *at = path;
	int node = 0;

	while (*at == '/') {
		const char *name = at + 1;
		const char *end = strchrnul(name, '/');
		int len = (int)(end - name), child;

		if (!len)
			break;
		child = fdt_subnode_offset_namelen(t->fdt, node, name, len);
		if (child == -FDT_ERR_NOTFOUND)
			child = fdt_add_subnode_namelen(t->fdt, node, name, len);
		if (child == -FDT_ERR_NOSPACE) {
			if (grow(t, e))
				return -1;
			continue; /* offsets stay, the content does not move */
		}
		if (child < 0)
			return err_set(e, "%s: %s", path, fdt_strerror(child));
		node = child;
		at = end;
	}
	return node;
}

int tree_set_bytes(struct tree *t, const char *path, const char *prop, const void *value,
		   size_t len, struct err *e)
{
	if (len > TREE_BYTES_MAX)
		return err_set(e, "%s: '%s' is too long (%zu bytes)", path, prop, len);
	for (;;) {
		int node = make_node(t, path, e);
		int rc;

		if (node < 0)
			return -1;
		rc = fdt_setprop(t->fdt, node, prop, value, (int)len);
		if (!rc)
			return 0;
		if (rc != -FDT_ERR_NOSPACE)
			return err_set(e, "%s: cannot set '%s' (%s)", path, prop, fdt_strerror(rc));
		if (grow(t, e))
			return -1;
	}
}

int tree_set_str(struct tree *t, const char *path, const char *prop, const char *value,
		 struct err *e)
{
	return tree_set_bytes(t, path, prop, value, strlen(value) + 1, e);
}

int tree_set_u32(struct tree *t, const char *path, const char *prop, uint32_t value, struct err *e)
{
	fdt32_t cell = cpu_to_fdt32(value);

	return tree_set_bytes(t, path, prop, &cell, sizeof(cell), e);
}

int tree_set_u64(struct tree *t, const char *path, const char *prop, uint64_t value, struct err *e)
{
	fdt64_t cell = cpu_to_fdt64(value);

	return tree_set_bytes(t, path, prop, &cell, sizeof(cell), e);
}

int tree_set_u32_pair(struct tree *t, const char *path, const char *prop, uint32_t a, uint32_t b,
		      struct err *e)
{
	fdt32_t cells[2] = { cpu_to_fdt32(a), cpu_to_fdt32(b) };

	return tree_set_bytes(t, path, prop, cells, sizeof(cells), e);
}

int tree_set_u64_pair(struct tree *t, const char *path, const char *prop, uint64_t a, uint64_t b,
		      struct err *e)
{
	fdt64_t cells[2] = { cpu_to_fdt64(a), cpu_to_fdt64(b) };

	return tree_set_bytes(t, path, prop, cells, sizeof(cells), e);
}

bool tree_has(const struct tree *t, const char *path, const char *prop)
{
	int node = fdt_path_offset(t->fdt, path);

	return node >= 0 && (!prop || fdt_getprop(t->fdt, node, prop, NULL));
}

int tree_bytes(const struct tree *t, const char *path, const char *prop, const void **value,
	       size_t *len, struct err *e)
{
	int node = fdt_path_offset(t->fdt, path), n;

	if (node < 0)
		return err_set(e, "%s: no such node in the tree", path);
	*value = fdt_getprop(t->fdt, node, prop, &n);
	if (!*value)
		return err_set(e, "%s: '%s' is missing", path, prop);
	*len = (size_t)n;
	return 0;
}

static int fixed(const struct tree *t, const char *path, const char *prop, void *out, size_t len,
		 struct err *e)
{
	const void *value;
	size_t n;

	if (tree_bytes(t, path, prop, &value, &n, e))
		return -1;
	if (n != len)
		return err_set(e, "%s: '%s' has %zu bytes, expected %zu", path, prop, n, len);
	memcpy(out, value, len);
	return 0;
}

int tree_str(const struct tree *t, const char *path, const char *prop, const char **value,
	     struct err *e)
{
	const void *bytes;
	size_t n;

	if (tree_bytes(t, path, prop, &bytes, &n, e))
		return -1;
	if (n == 0 || memchr(bytes, 0, n) != (const char *)bytes + n - 1)
		return err_set(e, "%s: '%s' is not a string", path, prop);
	*value = bytes;
	return 0;
}

int tree_u32(const struct tree *t, const char *path, const char *prop, uint32_t *value,
	     struct err *e)
{
	fdt32_t cell;

	if (fixed(t, path, prop, &cell, sizeof(cell), e))
		return -1;
	*value = fdt32_to_cpu(cell);
	return 0;
}

int tree_u64(const struct tree *t, const char *path, const char *prop, uint64_t *value,
	     struct err *e)
{
	fdt64_t cell;

	if (fixed(t, path, prop, &cell, sizeof(cell), e))
		return -1;
	*value = fdt64_to_cpu(cell);
	return 0;
}

int tree_u32_pair(const struct tree *t, const char *path, const char *prop, uint32_t *a,
		  uint32_t *b, struct err *e)
{
	fdt32_t cells[2];

	if (fixed(t, path, prop, cells, sizeof(cells), e))
		return -1;
	*a = fdt32_to_cpu(cells[0]);
	*b = fdt32_to_cpu(cells[1]);
	return 0;
}

int tree_u64_pair(const struct tree *t, const char *path, const char *prop, uint64_t *a,
		  uint64_t *b, struct err *e)
{
	fdt64_t cells[2];

	if (fixed(t, path, prop, cells, sizeof(cells), e))
		return -1;
	*a = fdt64_to_cpu(cells[0]);
	*b = fdt64_to_cpu(cells[1]);
	return 0;
}

unsigned int tree_count_nodes(const struct tree *t)
{
	unsigned int n = 0;
	int node;

	for (node = 0; node >= 0; node = fdt_next_node(t->fdt, node, NULL))
		n++;
	return n;
}

/* The child that was written as number `index`: libfdt has them in the opposite order. */
static int nth_child(const void *fdt, int node, unsigned int index)
{
	unsigned int n = 0;
	int child;

	fdt_for_each_subnode(child, fdt, node) n++;
	if (index >= n)
		return -1;
	n -= index;
	fdt_for_each_subnode(child, fdt, node) if (--n == 0) return child;
	return -1;
}

bool tree_next_child(const struct tree *t, const char *path, unsigned int *it,
		     char child[TREE_PATH_MAX])
{
	int node = fdt_path_offset(t->fdt, path), sub;
	const char *name;

	if (node < 0)
		return false;
	for (;;) {
		sub = nth_child(t->fdt, node, *it);
		if (sub < 0)
			return false;
		++*it;
		name = fdt_get_name(t->fdt, sub, NULL);
		if (name && snprintf(child, TREE_PATH_MAX, "%s/%s", strcmp(path, "/") ? path : "",
				     name) < TREE_PATH_MAX)
			return true;
	}
}

bool tree_next_property(const struct tree *t, const char *path, unsigned int *it, const char **name,
			const void **value, size_t *len)
{
	int node = fdt_path_offset(t->fdt, path), prop, n = 0;
	unsigned int at = 0;

	if (node < 0)
		return false;
	fdt_for_each_property_offset(prop, t->fdt, node)
	{
		if (at++ < *it)
			continue;
		++*it;
		*value = fdt_getprop_by_offset(t->fdt, prop, name, &n);
		*len = *value ? (size_t)n : 0;
		return *value != NULL;
	}
	return false;
}

bool tree_is_without_links(const struct tree *t, const char *path, const char *prop)
{
	char mark[64];

	snprintf(mark, sizeof(mark), "%s" TREE_WITHOUT_LINKS, prop);
	return tree_has(t, path, mark);
}

int tree_remove(struct tree *t, const char *path, const char *prop, struct err *e)
{
	int node = fdt_path_offset(t->fdt, path);
	int rc = node < 0 ? -FDT_ERR_NOTFOUND : fdt_delprop(t->fdt, node, prop);

	if (rc && rc != -FDT_ERR_NOTFOUND)
		return err_set(e, "%s: cannot remove '%s' (%s)", path, prop, fdt_strerror(rc));
	return 0;
}

int tree_child(const struct tree *t, int node, int previous, const char **name)
{
	int child = previous ? fdt_next_subnode(t->fdt, previous) : fdt_first_subnode(t->fdt, node);

	if (child < 0)
		return 0;
	*name = fdt_get_name(t->fdt, child, NULL);
	return *name ? child : 0;
}

/* Whether a property reads as one or more non-empty printable strings. */
static bool is_text(const char *v, int len)
{
	int i;

	if (len < 2 || v[len - 1] || !v[0])
		return false;
	for (i = 0; i < len; i++)
		if (v[i] ? !isprint((unsigned char)v[i]) : i && !v[i - 1])
			return false;
	return true;
}

static void print_text(const char *v, int len, FILE *out)
{
	int i;

	fputc('"', out);
	for (i = 0; i < len - 1; i++) {
		if (!v[i])
			fputs("\", \"", out);
		else if (v[i] == '"' || v[i] == '\\')
			fprintf(out, "\\%c", v[i]);
		else
			fputc(v[i], out);
	}
	fputc('"', out);
}

/* A name from a stranger's tree, fit for a terminal. */
static void print_name(const char *name, FILE *out)
{
	for (; *name; name++)
		fputc(isprint((unsigned char)*name) ? *name : '?', out);
}

static void print_property(const char *name, const char *v, int len, FILE *out)
{
	int i;

	print_name(name, out);
	if (len == 0) {
		fputs(";\n", out);
		return;
	}
	fputs(" = ", out);
	if (is_text(v, len)) {
		print_text(v, len, out);
	} else if (len % 4 == 0) {
		for (i = 0; i < len; i += 4) {
			fdt32_t cell;

			memcpy(&cell, v + i, 4);
			fprintf(out, "%s0x%" PRIx32, i ? " " : "<", fdt32_to_cpu(cell));
		}
		fputc('>', out);
	} else {
		for (i = 0; i < len; i++)
			fprintf(out, "%s%02x", i ? " " : "[", (unsigned char)v[i]);
		fputc(']', out);
	}
	fputs(";\n", out);
}

static void indent(int depth, FILE *out)
{
	while (depth-- > 0)
		fputc('\t', out);
}

/* What a node has, found in one pass; no tree has more (tree_copy), and what is more is not shown.
 */
struct offsets {
	unsigned int n;
	int at[TREE_CHILDREN_MAX];
};

static void add_offset(struct offsets *o, int at)
{
	if (o->n < TREE_CHILDREN_MAX)
		o->at[o->n++] = at;
}

static int offset_number(const struct offsets *o, unsigned int i, bool turned)
{
	return o->at[turned ? o->n - 1 - i : i];
}

static void print_properties(const void *fdt, int node, int depth, bool turned, FILE *out)
{
	struct offsets props = { .n = 0 };
	unsigned int i;
	int at;

	fdt_for_each_property_offset(at, fdt, node) add_offset(&props, at);
	for (i = 0; i < props.n; i++) {
		const char *key, *v;
		int len;

		v = fdt_getprop_by_offset(fdt, offset_number(&props, i, turned), &key, &len);
		if (!v)
			continue;
		indent(depth, out);
		print_property(key, v, len, out);
	}
}

static void print_node(const void *fdt, int node, int depth, bool turned, FILE *out)
{
	const char *name = fdt_get_name(fdt, node, NULL);
	struct offsets nodes = { .n = 0 };
	unsigned int i;
	int at;

	indent(depth, out);
	print_name(depth && name ? name : "/", out);
	fputs(" {\n", out);
	print_properties(fdt, node, depth + 1, turned, out);
	if (depth < TREE_DEPTH_MAX)
		fdt_for_each_subnode(at, fdt, node) add_offset(&nodes, at);
	for (i = 0; i < nodes.n; i++)
		print_node(fdt, offset_number(&nodes, i, turned), depth + 1, turned, out);
	indent(depth, out);
	fputs("};\n", out);
}

void tree_print(const struct tree *t, FILE *out)
{
	fputs("/dts-v1/;\n\n", out);
	print_node(t->fdt, 0, 0, true, out);
}

void tree_print_as_it_lies(const struct tree *t, FILE *out)
{
	fputs("/dts-v1/;\n\n", out);
	print_node(t->fdt, 0, 0, false, out);
}
