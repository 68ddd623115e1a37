/*
 * The machine tree: a flattened device tree (libfdt) that says what a machine is. It is made once
 * from the command line, and every machine (fresh, restored, incoming) is built from it.
 *
 * Nodes are named by path. Numbers are big endian cells as in every device tree; u64 is two cells.
 *
 *   /            compatible = "godwit,x86_64", label = the VM's name
 *   /chosen      bootargs
 *   /memory@GPA  reg = <u64 gpa, u64 size>
 *   /cpus        count, and what the architecture adds (x86_64: cpuid, tsc-khz, feature-msrs, msrs)
 *   /devices/X   model = "serial-8250" "power" "virtio-blk" ...: which device model it is
 *                id    = what the user calls it: "disk0", "net0"
 *                port = <u32 base, u32 size> or reg = <u64 gpa, u64 size>, interrupts = <u32 gsi>
 *                and the guest-visible configuration of the model
 *   /host        dirty-ring = entries a vCPU, if there shall be rings
 *   /host/boot   kernel, initrd = paths, for the next reboot
 *   /host/ID     what belongs to this host only: paths, tap names; the one part a destination may
 *                override; nothing in it is visible to the guest
 *
 * Reading checks: a property that is missing, of another length or not a string is an error that
 * names node and property. A tree from a file or a peer is only read, and a new one is made of what
 * it says (tree_copy): libfdt's writing functions would trust its offsets.
 */
#ifndef GODWIT_TREE_H
#define GODWIT_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct err;

struct tree {
	void *fdt; /* owned; grows when written */
};

/* The longest node path, and the largest tree that is accepted from outside, in bytes. (What
 * a record may hold is less, see migrate/stream/record.h.) */
#define TREE_PATH_MAX  96
#define TREE_BYTES_MAX (64u << 20)

/* Children and properties that one node of an accepted tree may have, and how deep it may be. */
#define TREE_CHILDREN_MAX 1024
/* Of a whole foreign tree. The states of 254 vCPUs have 9 nodes each; a machine's tree has some
 * hundred, and as look-ups in it begin at the root, it may have no more than a few times that. */
#define TREE_NODES_MAX	       8192
#define TREE_MACHINE_NODES_MAX 512
#define TREE_PROPERTIES_MAX    65536
#define TREE_DEPTH_MAX	       8

int tree_init(struct tree *t, struct err *e);
/*
 * A tree of our own from the foreign bytes of another one, packed or not; -1 for one whose header,
 * names, shape or order is not what this program writes. The one way in for foreign bytes.
 */
int tree_copy(struct tree *t, const void *blob, size_t len, struct err *e);

/* Zeroed room for a tree that grows to `size` bytes, to be freed; NULL beyond twice TREE_BYTES_MAX.
 */
void *tree_room(size_t size, struct err *e);

/* How many nodes it has, the root included. */
unsigned int tree_count_nodes(const struct tree *t);
void tree_free(struct tree *t);
size_t tree_bytes_used(
	const struct tree *t); /* size of the packed blob at t->fdt, after tree_pack */
void tree_pack(struct tree *t);

/* Writing creates missing nodes on the way and replaces a property that is there. */
int tree_set_bytes(struct tree *t, const char *path, const char *prop, const void *value,
		   size_t len, struct err *e);
int tree_set_str(struct tree *t, const char *path, const char *prop, const char *value,
		 struct err *e);
int tree_set_u32(struct tree *t, const char *path, const char *prop, uint32_t value, struct err *e);
int tree_set_u64(struct tree *t, const char *path, const char *prop, uint64_t value, struct err *e);
/* Two numbers side by side, as in reg = <base size>. */
int tree_set_u32_pair(struct tree *t, const char *path, const char *prop, uint32_t a, uint32_t b,
		      struct err *e);
int tree_set_u64_pair(struct tree *t, const char *path, const char *prop, uint64_t a, uint64_t b,
		      struct err *e);

bool tree_has(const struct tree *t, const char *path, const char *prop); /* prop NULL: the node */
int tree_bytes(const struct tree *t, const char *path, const char *prop, const void **value,
	       size_t *len, struct err *e);
/* The string lives in the tree: until it is written or freed. */
int tree_str(const struct tree *t, const char *path, const char *prop, const char **value,
	     struct err *e);
int tree_u32(const struct tree *t, const char *path, const char *prop, uint32_t *value,
	     struct err *e);
int tree_u64(const struct tree *t, const char *path, const char *prop, uint64_t *value,
	     struct err *e);
int tree_u32_pair(const struct tree *t, const char *path, const char *prop, uint32_t *a,
		  uint32_t *b, struct err *e);
int tree_u64_pair(const struct tree *t, const char *path, const char *prop, uint64_t *a,
		  uint64_t *b, struct err *e);

/*
 * Walks the subnodes of `path` in the order in which they were written (libfdt puts a new subnode
 * first; tree.c hides that). Start with *it = 0; false at the end. `child` is the full path.
 */
bool tree_next_child(const struct tree *t, const char *path, unsigned int *it,
		     char child[TREE_PATH_MAX]);

/*
 * The properties of a node, in no order that counts. Start with *it = 0; false at the end. Name and
 * value live in the tree: until it is written or freed.
 */
bool tree_next_property(const struct tree *t, const char *path, unsigned int *it, const char **name,
			const void **value, size_t *len);

/*
 * Beside a path in /host that was only suggested, and allowed (config_admit_tree), stands a
 * property of its name with this behind it: all links in it are resolved. Whoever opens it follows
 * no link, so that nobody can put one into its way meanwhile.
 */
#define TREE_WITHOUT_LINKS "-without-links"

bool tree_is_without_links(const struct tree *t, const char *path, const char *prop);

/* Takes a property away, if it is there; a node that has become empty stays. */
int tree_remove(struct tree *t, const char *path, const char *prop, struct err *e);

/*
 * The first subnode of the node at that offset (0: the root), or the one after `previous` if that
 * is not 0, in the order of the bytes: a walk costs what it passes. 0 at the end.
 */
int tree_child(const struct tree *t, int node, int previous, const char **name);

/*
 * Writes the tree as DTS text to `out` (a stdio stream), as dtc would read it, in the order in
 * which it was written by the functions above; or in that of its bytes, for one by tree_writer.h.
 */
void tree_print(const struct tree *t, FILE *out);
void tree_print_as_it_lies(const struct tree *t, FILE *out);

#endif
