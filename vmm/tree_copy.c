/*
 * A tree that a file or a peer has written: see tree_copy in tree.h. Any thread. The foreign bytes
 * are only read here, token by token, and a tree of our own is written from what they say. So
 * libfdt, whose writing functions trust their input, never works on foreign bytes. Invariant: one
 * pass, and the cost of a node or property does not depend on how many there are.
 *
 *   header        magic, sizes and offsets of the blocks
 *   reservations  one entry of zeros: none
 *   structure     a node: BEGIN_NODE and its name, its properties, its nodes, END_NODE
 *                 a property: PROP, the value's length, where its name lies, the value
 *   strings       the names of properties
 */
#include <inttypes.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/tree.h"

/* In ours; libfdt leaves 8 bytes more behind the header of a tree that was not packed. */
#define RESERVATIONS_AT 40u
#define STRUCTURE_AT	(RESERVATIONS_AT + RESERVATIONS)
#define RESERVATIONS	((uint32_t)sizeof(struct fdt_reserve_entry))
#define ALIGN4(n)	(((n) + 3u) & ~3u)
#define VERSION		17u
#define OLDEST_VERSION	16u

#define NAMES_MAX ((TREE_DEPTH_MAX + 2) * (TREE_CHILDREN_MAX + 1))

struct copying {
	const uint8_t *in;   /* the foreign structure */
	uint32_t at, end;    /* in it: the next token, and its size */
	const char *strings; /* foreign; checked before the structure is read */
	uint32_t n_strings;
	uint8_t *out;	    /* our structure; a token has the same place in both */
	const char **names; /* NAMES_MAX: of the open nodes' children, and of one's properties */
	unsigned int n_names;
	unsigned int n_nodes, n_properties;
	struct err *e;
};

static int invalid(const struct copying *c, const char *why)
{
	return err_set(c->e, "not a valid tree (%s, at byte %" PRIu32 " of its structure)", why,
		       c->at);
}

/* What word_check_name takes, and what else our own names have. */
static bool is_name_char(char ch)
{
	return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
	       (ch && strchr(".,_-+@#?", ch));
}

/* The length of the name at `s`, which has `room` bytes; 0: none that is well formed. */
static uint32_t name_length(const char *s, uint32_t room)
{
	uint32_t n = 0;

	while (n < room && is_name_char(s[n]))
		n++;
	return n < room && !s[n] ? n : 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Forgets the names from number `first` on, if they differ. */
static int drop_names(struct copying *c, unsigned int first, const char *twice)
{
	unsigned int n = c->n_names - first, i;
	const char **names = c->names + first;

	c->n_names = first;
	if (n > 1)
		qsort(names, n, sizeof(names[0]), compare_names);
	for (i = 1; i < n; i++)
		if (!strcmp(names[i - 1], names[i]))
			return invalid(c, twice);
	return 0;
}

static int add_name(struct copying *c, unsigned int first, const char *name, const char *too_many)
{
	if (c->n_names - first >= TREE_CHILDREN_MAX)
		return invalid(c, too_many);
	c->names[c->n_names++] = name;
	return 0;
}

static uint32_t number_at(const uint8_t *at)
{
	fdt32_t cell;

	memcpy(&cell, at, sizeof(cell));
	return fdt32_to_cpu(cell);
}

static void put(struct copying *c, uint32_t at, uint32_t value)
{
	fdt32_t cell = cpu_to_fdt32(value);

	memcpy(c->out + at, &cell, sizeof(cell));
}

/* The next token of the structure; FDT_END also when there is no room for one. */
static uint32_t peek(const struct copying *c)
{
	return c->end - c->at < 4 ? FDT_END : number_at(c->in + c->at);
}

/* Steps over the token and `bytes` behind it, which are copied, and the padding, which is not. */
static void take(struct copying *c, uint32_t token, uint32_t bytes)
{
	put(c, c->at, token);
	memcpy(c->out + c->at + 4, c->in + c->at + 4, bytes);
	c->at += 4 + ALIGN4(bytes);
}

static int copy_property(struct copying *c, unsigned int first)
{
	uint32_t room = c->end - c->at, len, name;

	if (room < 12)
		return invalid(c, "a property is cut");
	len = number_at(c->in + c->at + 4);
	name = number_at(c->in + c->at + 8);
	/* In this order, as the sum could be too large. */
	if (len > room - 12 || ALIGN4(len) > room - 12)
		return invalid(c, "a property is longer than the tree");
	if (name >= c->n_strings || !c->strings[name])
		return invalid(c, "a property without a name");
	if (++c->n_properties > TREE_PROPERTIES_MAX)
		return invalid(c, "too many properties in all");
	if (add_name(c, first, c->strings + name, "a node with too many properties"))
		return -1;
	take(c, FDT_PROP, 8 + len);
	return 0;
}

/* The node that begins at c->at. `path_bytes`: of its parent's path. */
static int copy_node(struct copying *c, unsigned int depth, uint32_t path_bytes)
{
	unsigned int first = c->n_names;
	const char *name = (const char *)c->in + c->at + 4;
	uint32_t room = c->end - c->at - 4, n = depth ? name_length(name, room) : 0;

	if (++c->n_nodes > TREE_NODES_MAX)
		return invalid(c, "too many nodes in all");
	if (depth ? !n : !room || name[0])
		return invalid(c, "a node's name");
	path_bytes += depth ? 1 + n : 0;
	if (depth > TREE_DEPTH_MAX || path_bytes >= TREE_PATH_MAX)
		return invalid(c, "a node that lies too deep");
	if (ALIGN4(n + 1) > room)
		return invalid(c, "a node is cut");
	take(c, FDT_BEGIN_NODE, n + 1);
	while (peek(c) == FDT_PROP)
		if (copy_property(c, first))
			return -1;
	if (drop_names(c, first, "two properties of one name"))
		return -1;
	while (peek(c) == FDT_BEGIN_NODE)
		if (add_name(c, first, (const char *)c->in + c->at + 4,
			     "a node with too many children") ||
		    copy_node(c, depth + 1, path_bytes))
			return -1;
	if (drop_names(c, first, "two nodes of one name"))
		return -1;
	if (peek(c) != FDT_END_NODE)
		return invalid(c, "a node does not end");
	take(c, FDT_END_NODE, 0);
	return 0;
}

static int copy_structure(struct copying *c)
{
	if (peek(c) != FDT_BEGIN_NODE)
		return invalid(c, "no node");
	if (copy_node(c, 0, 0))
		return -1;
	if (c->end - c->at != 4 || peek(c) != FDT_END)
		return invalid(c, "no end where it should be");
	take(c, FDT_END, 0);
	return 0;
}

/* One well-formed name after the other; then a place in them is a name, or is empty. */
static int check_strings(const struct copying *c)
{
	uint32_t at, n;

	for (at = 0; at < c->n_strings; at += n + 1) {
		n = name_length(c->strings + at, c->n_strings - at);
		if (!n)
			return invalid(c, "the name of a property");
	}
	return 0;
}

/* The header as libfdt writes it: nothing reserved, the blocks one behind the other. */
static int read_header(struct copying *c, const uint8_t *blob, size_t len)
{
	static const uint8_t none[RESERVATIONS];
	uint32_t reservations, structure, strings;
	struct fdt_header h;

	if (len < sizeof(h))
		return invalid(c, "it is cut");
	memcpy(&h, blob, sizeof(h));
	reservations = fdt32_to_cpu(h.off_mem_rsvmap);
	c->end = fdt32_to_cpu(h.size_dt_struct);
	c->n_strings = fdt32_to_cpu(h.size_dt_strings);
	structure = reservations + RESERVATIONS;
	strings = structure + c->end;
	if (fdt32_to_cpu(h.magic) != FDT_MAGIC || fdt32_to_cpu(h.totalsize) != len ||
	    fdt32_to_cpu(h.version) != VERSION ||
	    fdt32_to_cpu(h.last_comp_version) != OLDEST_VERSION || h.boot_cpuid_phys ||
	    (reservations != RESERVATIONS_AT && reservations != RESERVATIONS_AT + 8) ||
	    fdt32_to_cpu(h.off_dt_struct) != structure || fdt32_to_cpu(h.off_dt_strings) != strings)
		return invalid(c, "its header");
	if (structure > len || c->end % 4 || c->end > len - structure ||
	    c->n_strings > len - strings || memcmp(blob + reservations, none, RESERVATIONS))
		return invalid(c, "its header");
	c->in = blob + structure;
	c->strings = (const char *)blob + strings;
	return 0;
}

static void write_header(const struct copying *c, uint8_t *tree)
{
	const uint32_t strings = STRUCTURE_AT + c->end;
	const struct fdt_header h = {
		.magic = cpu_to_fdt32(FDT_MAGIC),
		.totalsize = cpu_to_fdt32(strings + c->n_strings),
		.off_dt_struct = cpu_to_fdt32(STRUCTURE_AT),
		.off_dt_strings = cpu_to_fdt32(strings),
		.off_mem_rsvmap = cpu_to_fdt32(RESERVATIONS_AT),
		.version = cpu_to_fdt32(VERSION),
		.last_comp_version = cpu_to_fdt32(OLDEST_VERSION),
		.size_dt_strings = cpu_to_fdt32(c->n_strings),
		.size_dt_struct = cpu_to_fdt32(c->end),
	};

	memcpy(tree, &h, sizeof(h));
	memcpy(tree + strings, c->strings, c->n_strings);
}

int tree_copy(struct tree *t, const void *blob, size_t len, struct err *e)
{
	struct copying c = { .e = e };
	uint8_t *tree;
	int rc = -1;

	t->fdt = NULL;
	if (len > TREE_BYTES_MAX)
		return err_set(e, "a tree of %zu bytes is larger than the limit of %u", len,
			       TREE_BYTES_MAX);
	if (read_header(&c, blob, len) || check_strings(&c))
		return -1;
	/* Aligned, as libfdt asks; what is padding is zero. */
	tree = calloc(1, STRUCTURE_AT + c.end + c.n_strings);
	c.names = calloc(NAMES_MAX, sizeof(c.names[0]));
	if (tree && c.names) {
		c.out = tree + STRUCTURE_AT;
		rc = copy_structure(&c);
	} else {
		err_set(e, "out of memory");
	}
	free(c.names);
	if (rc) {
		free(tree);
		return -1;
	}
	write_header(&c, tree);
	t->fdt = tree;
	return 0;
}
