/*
 * All states as one tree: see states.h. Any thread.
 */
#include "vmm/states.h"

#include <stdio.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/state.h"
#include "vmm/tree_writer.h"

/* The bytes of a path's group, "/cpus" of "/cpus/cpu@3"; 0: it stands by itself. */
static size_t group_len(const char *path)
{
	return (size_t)(strrchr(path, '/') - path);
}

static int write_all(struct tree_writer *w, const struct state_thing *things, unsigned int n,
		     struct err *e)
{
	const char *open = "";
	size_t open_len = 0, len;
	char name[TREE_PATH_MAX];
	unsigned int i;

	for (i = 0; i < n; i++) {
		len = group_len(things[i].path);
		if (len != open_len || memcmp(open, things[i].path, len)) {
			if (open_len && tree_writer_up(w, e))
				return -1;
			open = things[i].path;
			open_len = len;
			if (len) {
				snprintf(name, sizeof(name), "%.*s", (int)len - 1, open + 1);
				if (tree_writer_down(w, name, e))
					return -1;
			}
		}
		if (state_save(w, things[i].path, things[i].desc, things[i].st, e))
			return -1;
	}
	return open_len ? tree_writer_up(w, e) : 0;
}

int states_write(const struct state_thing *things, unsigned int n, size_t bytes, struct tree *out,
		 struct err *e)
{
	struct tree_writer w;

	if (tree_writer_begin(&w, bytes, e))
		return -1;
	if (write_all(&w, things, n, e)) {
		tree_writer_free(&w);
		return -1;
	}
	return tree_writer_end(&w, out, e);
}

/* Finds the things that nodes of the tree belong to, in whatever order they come. */
struct search {
	const struct tree *states;
	struct state_thing *things;
	int n, last; /* the one that was found last, or -1 */
	uint64_t *steps;
	struct err *e;
};

static bool is_at(struct search *s, int i, const char *path)
{
	if (i < 0 || i >= s->n)
		return false;
	if (s->steps)
		++*s->steps;
	return !strcmp(s->things[i].path, path);
}

static int find(struct search *s, const char *path)
{
	int i;

	if (is_at(s, s->last + 1, path))
		return s->last + 1;
	if (is_at(s, s->last - 1, path))
		return s->last - 1;
	for (i = 0; i < s->n; i++)
		if (is_at(s, i, path))
			return i;
	return -1;
}

/* 0 when it was a thing's, 1 when there is no such thing. */
static int place(struct search *s, int node, const char *path)
{
	int i = find(s, path);

	if (i < 0)
		return 1;
	if (s->things[i].node)
		return err_set(s->e, "%s: its state is there twice", path);
	s->things[i].node = node;
	s->last = i;
	return 0;
}

static bool is_group(const struct search *s, const char *path)
{
	size_t len = strlen(path);
	int i;

	for (i = 0; i < s->n; i++)
		if (group_len(s->things[i].path) == len && !memcmp(s->things[i].path, path, len))
			return true;
	return false;
}

static int place_group(struct search *s, int group, const char *group_path)
{
	char path[TREE_PATH_MAX];
	const char *name;
	int node = 0, rc;

	while ((node = tree_child(s->states, group, node, &name)) > 0) {
		snprintf(path, sizeof(path), "%.32s/%s", group_path, name);
		rc = place(s, node, path);
		if (rc)
			return rc < 0 ? -1
				      : err_set(s->e,
						"%s: the state of something that this machine "
						"does not have",
						path);
	}
	return 0;
}

static int place_all(struct search *s)
{
	char path[TREE_PATH_MAX];
	const char *name;
	int node = 0, rc;

	while ((node = tree_child(s->states, 0, node, &name)) > 0) {
		snprintf(path, sizeof(path), "/%s", name);
		if (is_group(s, path))
			rc = place_group(s, node, path);
		else
			rc = place(s, node, path);
		if (rc)
			return rc < 0 ? -1
				      : err_set(s->e, "%s: a state that this version does not know",
						path);
	}
	return 0;
}

int states_find(const struct tree *states, struct state_thing *things, unsigned int n,
		uint64_t *steps, struct err *e)
{
	struct search s = {
		.states = states, .things = things, .n = (int)n, .last = -1, .steps = steps, .e = e
	};
	unsigned int i;

	for (i = 0; i < n; i++)
		things[i].node = 0;
	if (place_all(&s))
		return -1;
	for (i = 0; i < n; i++)
		if (!things[i].node)
			return err_set(e, "%s: its state is missing", things[i].path);
	return 0;
}

int states_read_one(const struct tree *states, const struct state_thing *t, uint64_t *steps,
		    struct err *e)
{
	return state_load_at(states, t->node, t->path, t->desc, t->st, steps, e);
}

int states_read(const struct tree *states, struct state_thing *things, unsigned int n,
		uint64_t *steps, struct err *e)
{
	unsigned int i;

	if (states_find(states, things, n, steps, e))
		return -1;
	for (i = 0; i < n; i++)
		if (states_read_one(states, &things[i], steps, e))
			return -1;
	return 0;
}
