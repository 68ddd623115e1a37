/*
 * Trees written from beginning to end: see tree_writer.h. Any thread, one at a time for each
 * writer.
 *
 * libfdt is told not to look whether a property's name is there already: that search goes through
 * all names for each property. A name costs its bytes each time instead.
 */
#include "vmm/tree_writer.h"

#include <libfdt.h>
#include <stdlib.h>

#include "vmm/base/err.h"
#include "vmm/tree.h"

#define LEAST_BYTES 65536

static int grow(struct tree_writer *w, struct err *e)
{
	size_t size = w->size * 2;
	void *bigger = tree_room(size, e);

	if (!bigger)
		return -1;
	if (fdt_resize(w->fdt, bigger, (int)size)) {
		free(bigger);
		return err_set(e, "cannot grow the tree");
	}
	free(w->fdt);
	w->fdt = bigger;
	w->moved_bytes += w->size;
	w->size = size;
	return 0;
}

/* After a call of libfdt that gave `rc`: true when there is more room now, and it is to be tried
 * again; *out is what the caller says else. */
static bool again(struct tree_writer *w, int rc, int *out, struct err *e)
{
	*out = 0;
	if (rc == 0)
		return false;
	*out = -1;
	if (rc == -FDT_ERR_NOSPACE && grow(w, e) == 0)
		return true;
	w->failed = true;
	if (rc != -FDT_ERR_NOSPACE)
		err_set(e, "cannot write the tree (%s)", fdt_strerror(rc));
	return false;
}

int tree_writer_begin(struct tree_writer *w, size_t bytes, struct err *e)
{
	int rc;

	if (bytes < LEAST_BYTES || bytes > TREE_BYTES_MAX)
		bytes = LEAST_BYTES;
	/* Zeroed: libfdt leaves padding as it finds it, and it goes out to the peer. */
	*w = (struct tree_writer){ .fdt = calloc(1, bytes), .size = bytes };
	if (!w->fdt)
		return err_set(e, "out of memory");
	rc = fdt_create_with_flags(w->fdt, (int)bytes, FDT_CREATE_FLAG_NO_NAME_DEDUP);
	if (rc || fdt_finish_reservemap(w->fdt) || fdt_begin_node(w->fdt, "")) {
		tree_writer_free(w);
		return err_set(e, "cannot begin a tree");
	}
	return 0;
}

int tree_writer_down(struct tree_writer *w, const char *name, struct err *e)
{
	int rc = -1;

	while (!w->failed && again(w, fdt_begin_node(w->fdt, name), &rc, e))
		;
	return rc;
}

int tree_writer_up(struct tree_writer *w, struct err *e)
{
	int rc = -1;

	while (!w->failed && again(w, fdt_end_node(w->fdt), &rc, e))
		;
	return rc;
}

int tree_writer_bytes(struct tree_writer *w, const char *name, const void *value, size_t len,
		      struct err *e)
{
	int rc = -1;

	if (len > TREE_BYTES_MAX) {
		w->failed = true;
		return err_set(e, "'%s' is too long (%zu bytes)", name, len);
	}
	while (!w->failed && again(w, fdt_property(w->fdt, name, value, (int)len), &rc, e))
		;
	return rc;
}

int tree_writer_end(struct tree_writer *w, struct tree *out, struct err *e)
{
	int rc = -1;

	if (!w->failed && tree_writer_up(w, e) == 0)
		while (again(w, fdt_finish(w->fdt), &rc, e))
			;
	if (rc) {
		tree_writer_free(w);
		return -1;
	}
	out->fdt = w->fdt;
	w->fdt = NULL;
	return 0;
}

void tree_writer_free(struct tree_writer *w)
{
	free(w->fdt);
	w->fdt = NULL;
}
