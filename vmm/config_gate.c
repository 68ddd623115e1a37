/*
 * The gate: what a tree that came from elsewhere says of its host is a suggestion, and only what
 * the command line allows gets further. See config_admit_tree() in config.h. Main thread, before
 * the machine is built.
 *
 * The invariant: nothing stays below /host that no row of `kinds` knows. A device model that reads
 * a new property there gets a row first; without one a stranger's is refused.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/config.h"
#include "vmm/tree.h"

/* More than all devices together have. */
#define SUGGESTIONS_MAX 128

#define NOTES_MAX (sizeof(((struct config_notes *)0)->text) / sizeof(struct err))

enum kind { KIND_DISK, KIND_TAP, KIND_SOCKET, KIND_CONSOLE, KIND_BOOT, KIND_NUMBER, KIND_UNKNOWN };

struct suggestion {
	char node[TREE_PATH_MAX], prop[32];
	enum kind kind;
	const char *value; /* in the tree as it came: a string, but for numbers */
};

static const struct {
	const char *node; /* NULL: any child of /host */
	const char *prop;
	enum kind kind;
} kinds[] = {
	{ "/host", "dirty-ring", KIND_NUMBER },
	{ "/host/boot", "kernel", KIND_BOOT },
	{ "/host/boot", "initrd", KIND_BOOT },
	{ "/host/serial0", "console", KIND_CONSOLE },
	{ "/host/channels", "socket-*", KIND_SOCKET },
	{ NULL, "path", KIND_DISK },
	{ NULL, "tap", KIND_TAP },
};

static enum kind kind_of(const char *node, const char *prop)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		size_t n = strcspn(kinds[i].prop, "*");

		if (kinds[i].node ? strcmp(kinds[i].node, node) : !strcmp(node, "/host"))
			continue;
		if (kinds[i].prop[n] ? !strncmp(kinds[i].prop, prop, n)
				     : !strcmp(kinds[i].prop, prop))
			return kinds[i].kind;
	}
	return KIND_UNKNOWN;
}

/* Who has suggested it. */
static const char *who(const struct config *c)
{
	return c->operand ? "the file" : "the source";
}

/* A stranger's words, fit for a message. */
static const char *legible(const char *text, char out[128])
{
	size_t n = 0;

	for (; *text && n < 127; text++)
		out[n++] = isprint((unsigned char)*text) ? *text : '?';
	out[n] = '\0';
	return out;
}

/* -- what is there -- */

struct suggestions {
	struct suggestion list[SUGGESTIONS_MAX];
	unsigned int n;
};

/* What this side alone can say of a path: nothing of it comes from elsewhere. */
static bool is_mark(const char *prop)
{
	size_t n = strlen(prop), m = strlen(TREE_WITHOUT_LINKS);

	return !strcmp(prop, "copy") || (n > m && !strcmp(prop + n - m, TREE_WITHOUT_LINKS));
}

static int collect_node(const struct tree *t, const char *node, struct suggestions *all,
			struct err *e)
{
	unsigned int it = 0;
	const char *prop;
	const void *value;
	size_t len;

	while (tree_next_property(t, node, &it, &prop, &value, &len)) {
		struct suggestion *s = &all->list[all->n];

		if (all->n == SUGGESTIONS_MAX || strlen(prop) >= sizeof(s->prop))
			return err_set(e, "/host: there is more than any machine of this version "
					  "has");
		memcpy(s->node, node, strlen(node) + 1);
		memcpy(s->prop, prop, strlen(prop) + 1);
		s->kind = is_mark(prop) ? KIND_NUMBER : kind_of(node, prop);
		s->value = NULL;
		all->n++;
		if (s->kind != KIND_NUMBER && s->kind != KIND_UNKNOWN &&
		    tree_str(t, node, prop, &s->value, e))
			return -1;
	}
	return 0;
}

static int collect(const struct tree *t, struct suggestions *all, struct err *e)
{
	char child[TREE_PATH_MAX], deeper[TREE_PATH_MAX], text[128];
	unsigned int it = 0, none = 0;

	all->n = 0;
	if (collect_node(t, "/host", all, e))
		return -1;
	while (tree_next_child(t, "/host", &it, child)) {
		if (tree_next_child(t, child, &none, deeper))
			return err_set(e, "%s: no machine of this version has such a node",
				       legible(deeper, text));
		if (collect_node(t, child, all, e))
			return -1;
	}
	return 0;
}

/* -- what replaces it -- */

/* What a device is called by the options: the last part of its node below /host. */
static const char *id_of(const struct suggestion *s)
{
	return strrchr(s->node, '/') + 1;
}

static bool is_named(const struct config_override *list, unsigned int n, const char *id)
{
	while (n-- > 0)
		if (!strcmp(list[n].id, id))
			return true;
	return false;
}

/* The name of the channel whose socket it is; NULL: of none. */
static const char *channel_name(const struct tree *t, const struct suggestion *s)
{
	char port[TREE_PATH_MAX];
	const char *name;

	snprintf(port, sizeof(port), "/devices/channels/port@%.20s", s->prop + strlen("socket-"));
	return tree_str(t, port, "label", &name, NULL) ? NULL : name;
}

/* Whether an option of the command line takes its place. */
static bool is_replaced(const struct config *c, const struct tree *t, const struct suggestion *s)
{
	const char *name;

	switch (s->kind) {
	case KIND_DISK:
		return is_named(c->disk_overrides, c->n_disk_overrides, id_of(s));
	case KIND_TAP:
		return is_named(c->net_overrides, c->n_net_overrides, id_of(s));
	case KIND_CONSOLE:
		return c->console;
	case KIND_BOOT:
		return !strcmp(s->prop, "kernel") ? c->kernel : c->initrd;
	case KIND_SOCKET:
		name = channel_name(t, s);
		for (unsigned int i = 0; name && i < c->n_channels; i++)
			if (!strcmp(c->channels[i].name, name))
				return true;
		return false;
	case KIND_NUMBER:
	case KIND_UNKNOWN:
		break;
	}
	return false;
}

/* -- whether it is allowed -- */

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	if (n == 1)
		return true; /* "/" */
	return !strncmp(path, dir, n) && path[n] == '/' && path[n + 1];
}

/*
 * The path without links. What is still to be made need not be there, but its directory must; a
 * link that leads nowhere is no place to make something.
 */
static bool resolve(const char *path, bool to_be_made, char out[PATH_MAX])
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	struct stat st;
	size_t n;

	if (path[0] != '/' || strlen(path) >= PATH_MAX)
		return false;
	if (realpath(path, out))
		return true;
	if (errno != ENOENT || !to_be_made || lstat(path, &st) == 0)
		return false;
	if (!slash[1] || !strcmp(slash + 1, ".") || !strcmp(slash + 1, ".."))
		return false;
	snprintf(parent, sizeof(parent), "%.*s", slash > path ? (int)(slash - path) : 1, path);
	if (!realpath(parent, out))
		return false;
	n = strlen(out);
	if (n + strlen(slash) >= PATH_MAX)
		return false;
	strcpy(out + (n == 1 ? 0 : n), slash);
	return true;
}

/* Whether a path as it is written lies below `dir`, and goes nowhere up on the way. */
static bool is_written_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	while (n > 1 && dir[n - 1] == '/')
		n--;
	if (strstr(path, "/../") || strncmp(path, dir, n))
		return false;
	return n == 1 || path[n] == '/';
}

int config_check_allowed(const struct config *c, struct err *e)
{
	struct stat st;

	for (unsigned int i = 0; i < c->n_allow_paths && !c->help; i++) {
		const char *dir = c->allow_paths[i];

		if (stat(dir, &st))
			return err_errno(e, errno, "--allow-path: cannot look at '%.200s'", dir);
		if (!S_ISDIR(st.st_mode))
			return err_set(e, "--allow-path: '%.200s' is no directory", dir);
	}
	return 0;
}

/*
 * Whether it lies below a directory of --allow-path; `out` is where it really is. Where it lies is
 * looked at only if it is written so: merely to look may mount what an automounter finds there, or
 * wait for a server.
 */
static bool is_allowed(const struct config *c, const char *path, bool to_be_made,
		       char out[PATH_MAX])
{
	char dir[PATH_MAX];

	for (unsigned int i = 0; i < c->n_allow_paths; i++)
		if (realpath(c->allow_paths[i], dir) &&
		    (is_written_below(path, c->allow_paths[i]) || is_written_below(path, dir)) &&
		    resolve(path, to_be_made, out) && is_below(out, dir))
			return true;
	return false;
}

/* A file that is to be opened: nobody can turn its path into another meanwhile. */
static int admit_file(struct tree *t, const struct suggestion *s, const char *path, struct err *e)
{
	char mark[64];

	snprintf(mark, sizeof(mark), "%s" TREE_WITHOUT_LINKS, s->prop);
	return tree_set_str(t, s->node, s->prop, path, e) ||
			       tree_set_bytes(t, s->node, mark, "", 0, e)
		       ? -1
		       : 0;
}

/* -- one after the other -- */

static int admit_disk(const struct config *c, struct tree *t, const struct suggestion *s,
		      struct err *e)
{
	char path[PATH_MAX], id[128], text[128];

	if (is_allowed(c, s->value, false, path))
		return admit_file(t, s, path, e);
	return err_set(e,
		       "%s: %s has its image at '%s', which %s: say where it is with --disk "
		       "%s=PATH, or allow what %s says with --allow-path DIR or --same-paths",
		       legible(id_of(s), id), who(c), legible(s->value, text),
		       c->n_allow_paths ? "is in no directory of --allow-path here, or is not there"
					: "means nothing here",
		       id, who(c));
}

static int admit_tap(const struct config *c, const struct suggestion *s, struct err *e)
{
	char id[128], text[128];

	return err_set(e,
		       "%s: %s has it on the tap interface '%s', which means nothing here: say "
		       "which it is with --net %s=tap:IF, or allow what %s says with --same-paths",
		       legible(id_of(s), id), who(c), legible(s->value, text), id, who(c));
}

/* A socket is made, and never opened: the worst that a link in its way could do is to put it
 * elsewhere. So what is allowed is resolved, and that is all. */
static int admit_socket(const struct config *c, struct tree *t, const struct suggestion *s,
			struct err *e)
{
	const char *name = channel_name(t, s);
	char path[PATH_MAX], text[128], channel[128];

	if (is_allowed(c, s->value, true, path))
		return tree_set_str(t, s->node, s->prop, path, e);
	return err_set(e,
		       "channel %s: %s has its socket at '%s', which %s: say where it shall be "
		       "with --channel %s,socket=PATH, or allow what %s says with --allow-path "
		       "DIR or --same-paths",
		       legible(name ? name : s->prop, channel), who(c), legible(s->value, text),
		       c->n_allow_paths ? "is in no directory of --allow-path here"
					: "means nothing here",
		       channel, who(c));
}

/* stdio, as at `run`, is always there. A file would be made: that is not allowed by a directory. */
static int admit_console(const struct config *c, struct tree *t, const struct suggestion *s,
			 struct err *e)
{
	char path[PATH_MAX], spec[PATH_MAX + 8];

	if (!strcmp(s->value, "stdio") || !strcmp(s->value, "null"))
		return 0;
	if (!strncmp(s->value, "unix:", 5) && is_allowed(c, s->value + 5, true, path)) {
		snprintf(spec, sizeof(spec), "unix:%s", path);
		return tree_set_str(t, s->node, s->prop, spec, e);
	}
	return tree_set_str(t, s->node, s->prop, "stdio", e);
}

/* Without them the guest runs. */
static int admit_boot(const struct config *c, struct tree *t, const struct suggestion *s,
		      struct err *e)
{
	char path[PATH_MAX];

	if (is_allowed(c, s->value, false, path))
		return admit_file(t, s, path, e);
	return tree_remove(t, s->node, s->prop, e);
}

/* What is otherwise here, although nothing was refused. */
static void note_left_out(const struct config *c, const struct tree *t, const struct suggestion *s,
			  struct config_notes *notes)
{
	const char *now = "";
	char text[128];

	if (is_replaced(c, t, s) || notes->n + 1 >= NOTES_MAX)
		return;
	if (s->kind == KIND_CONSOLE && !tree_str(t, s->node, s->prop, &now, NULL) &&
	    !strcmp(now, "stdio") && strcmp(s->value, "stdio"))
		err_set(&notes->text[notes->n++],
			"the guest's console is stdio here: %s has it at '%s', which means nothing "
			"here (--console says otherwise)",
			who(c), legible(s->value, text));
	/* An initrd alone boots nothing: then the kernel's sentence is enough. */
	if (s->kind == KIND_BOOT && !tree_has(t, s->node, s->prop) &&
	    (!strcmp(s->prop, "kernel") || c->kernel))
		err_set(&notes->text[notes->n++],
			"the guest will not be able to reboot here%s: %s has the %s at '%s', "
			"which means nothing here (--%s FILE, --allow-path DIR or --same-paths "
			"would let it)",
			c->kernel ? " with an initrd" : "", who(c), s->prop,
			legible(s->value, text), s->prop);
}

static int admit(const struct config *c, struct tree *t, const struct suggestion *s, struct err *e)
{
	char node[128], prop[128];

	/* Gone before the option is put in: that finds one place, a stranger may have made two. */
	if (is_replaced(c, t, s))
		return tree_remove(t, s->node, s->prop, e);
	switch (s->kind) {
	case KIND_DISK:
		return admit_disk(c, t, s, e);
	case KIND_TAP:
		return admit_tap(c, s, e);
	case KIND_SOCKET:
		return admit_socket(c, t, s, e);
	case KIND_CONSOLE:
		return admit_console(c, t, s, e);
	case KIND_BOOT:
		return admit_boot(c, t, s, e);
	case KIND_NUMBER:
		return 0;
	case KIND_UNKNOWN:
		break;
	}
	return err_set(e, "%s: this version does not know '%s'", legible(s->node, node),
		       legible(s->prop, prop));
}

int config_admit_tree(const struct config *c, bool trusted, struct tree *t,
		      struct config_notes *notes, struct err *e)
{
	struct suggestions *all = malloc(sizeof(*all));
	struct tree as_it_came = { NULL };
	int rc;

	if (!all)
		return err_set(e, "out of memory");
	notes->n = 0;
	/* The values are read from a copy: the tree itself is written meanwhile. */
	tree_pack(t);
	rc = tree_copy(&as_it_came, t->fdt, tree_bytes_used(t), e) || collect(&as_it_came, all, e);
	for (unsigned int i = 0; !rc && i < all->n; i++)
		if (is_mark(all->list[i].prop))
			rc = tree_remove(t, all->list[i].node, all->list[i].prop, e);
	for (unsigned int i = 0; !rc && i < all->n && !trusted && !c->same_paths; i++)
		if (!is_mark(all->list[i].prop))
			rc = admit(c, t, &all->list[i], e);
	for (unsigned int i = 0; !rc && i < all->n && !trusted && !c->same_paths; i++)
		note_left_out(c, t, &all->list[i], notes);
	if (!rc && !c->kernel && !tree_has(&as_it_came, "/host/boot", "kernel"))
		err_set(&notes->text[notes->n++],
			"the guest will not be able to reboot here: it came without a kernel "
			"(--kernel FILE would let it)");
	tree_free(&as_it_came);
	free(all);
	return rc ? -1 : 0;
}

int config_check_memory(const struct config *c, const struct tree *t, struct err *e)
{
	uint64_t max = c->memory_max_bytes, all = 0, gpa, size;
	char path[TREE_PATH_MAX];
	unsigned int it = 0;
	bool has = false;

	if (!max && c->listen) {
		max = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
		has = true;
	}
	while (max && tree_next_child(t, "/", &it, path)) {
		if (strncmp(path, "/memory@", 8))
			continue;
		if (tree_u64_pair(t, path, "reg", &gpa, &size, e))
			return -1;
		all = size < UINT64_MAX - all ? all + size : UINT64_MAX;
	}
	if (all <= max || !max)
		return 0;
	return err_set(e, "the machine has %" PRIu64 " MiB of memory, %s %" PRIu64 " MiB%s",
		       all >> 20, has ? "this host has" : "--memory-max allows", max >> 20,
		       has ? " (--memory-max SIZE allows more)" : "");
}
