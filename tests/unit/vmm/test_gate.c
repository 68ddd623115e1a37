/*
 * The gate: which of a stranger's words on this host get through it. Only files of a directory of
 * the test's own are looked at.
 */
#include <check.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/backend/disk.h"
#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/config.h"
#include "vmm/tree.h"

#define WORDS_MAX 40

struct words {
	struct config config;
	char *argv[WORDS_MAX];
	int argc;
};

/* Words are separated by '|'. */
static void parse(struct words *w, enum config_verb verb, const char *line)
{
	char *copy = strdup(line), *rest = copy, *word;
	struct err e = { "" };

	w->argc = 0;
	while ((word = strsep(&rest, "|")))
		w->argv[w->argc++] = strdup(word);
	free(copy);
	ck_assert_msg(config_parse(&w->config, verb, w->argc, w->argv, &e) == 0, "'%s': %s", line,
		      e.text);
}

static void forget(struct words *w)
{
	config_free(&w->config);
	while (w->argc > 0)
		free(w->argv[--w->argc]);
}

/* The tree that a source started with `line` would send. */
static void sent(struct tree *t, const char *line)
{
	struct err e = { "" };
	struct words w;

	parse(&w, CONFIG_RUN, line);
	ck_assert_int_eq(tree_init(t, NULL), 0);
	ck_assert_msg(config_tree(&w.config, t, &e) == 0, "%s", e.text);
	forget(&w);
}

static struct config_notes notes;

/* What a receiver started with `line` makes of it. */
static int admit(struct tree *t, const char *line, bool own, struct err *e)
{
	struct words w;
	int rc;

	e->text[0] = '\0';
	parse(&w, CONFIG_RECEIVE, line);
	rc = config_admit_tree(&w.config, own, t, &notes, e);
	rc = rc ? rc : config_override_tree(&w.config, t, e);
	forget(&w);
	return rc;
}

static void is_refused(struct tree *t, const char *line, const char *const *says)
{
	struct err e;

	ck_assert_int_eq(admit(t, line, false, &e), -1);
	for (; *says; says++)
		ck_assert_msg(strstr(e.text, *says), "'%s' does not say '%s'", e.text, *says);
}

static void is_str(const struct tree *t, const char *path, const char *prop, const char *expected)
{
	const char *value;
	struct err e = { "" };

	ck_assert_msg(tree_str(t, path, prop, &value, &e) == 0, "%s", e.text);
	ck_assert_str_eq(value, expected);
}

#define SOURCE                                                                                    \
	"--kernel|/k|--initrd|/i|--console|file:/etc/cron.d/x|--disk|/a|--disk|/b,id=swap|--net|" \
	"tap=t0|--channel|x,socket=/x"
#define HERE "--listen|tcp::0"

START_TEST(what_a_stranger_suggests_is_refused_with_the_option_that_is_missing)
{
	static const struct {
		const char *line, *says[6];
	} rows[] = {
		{ HERE,
		  { "disk0: the source has its image at '/a'", "--disk disk0=PATH", "--allow-path",
		    "--same-paths" } },
		{ HERE "|--disk|disk0=/h", { "swap: ", "'/b'", "--disk swap=PATH" } },
		{ HERE "|--disk|disk0=/h|--disk|swap=/s",
		  { "net0: ", "'t0'", "--net net0=tap:IF" } },
		{ HERE "|--disk|disk0=/h|--disk|swap=/s|--net|net0=tap:t9",
		  { "channel x: ", "'/x'", "--channel x,socket=PATH" } },
		{ HERE "|--allow-path|/nonexistent",
		  { "disk0: ", "in no directory of --allow-path" } },
	};
	struct tree t;

	sent(&t, SOURCE);
	is_refused(&t, rows[_i].line, rows[_i].says);
	tree_free(&t);
}
END_TEST

START_TEST(what_is_named_here_is_used_and_what_the_guest_can_do_without_is_left_out)
{
	struct err e;
	struct tree t;

	sent(&t, SOURCE);
	ck_assert_msg(admit(&t,
			    HERE "|--disk|disk0=/h|--disk|swap=/s|--net|net0=tap:t9|--channel|"
				 "x,socket=/y",
			    false, &e) == 0,
		      "%s", e.text);
	is_str(&t, "/host/disk0", "path", "/h");
	is_str(&t, "/host/swap", "path", "/s");
	is_str(&t, "/host/net0", "tap", "t9");
	is_str(&t, "/host/channels", "socket-1", "/y");
	is_str(&t, "/host/serial0", "console", "stdio");
	ck_assert(!tree_has(&t, "/host/boot", "kernel") && !tree_has(&t, "/host/boot", "initrd"));
	ck_assert_uint_eq(notes.n, 2);
	ck_assert_ptr_nonnull(strstr(notes.text[0].text, "console is stdio here"));
	ck_assert_ptr_nonnull(strstr(notes.text[1].text, "not be able to reboot here: the source"));
	tree_free(&t);
}
END_TEST

START_TEST(harmless_consoles_and_the_dirty_ring_come_along)
{
	struct err e;
	struct tree t;
	uint32_t n;

	sent(&t, "--kernel|/k|--console|null|--dirty-ring|4096");
	ck_assert_msg(admit(&t, HERE, false, &e) == 0, "%s", e.text);
	is_str(&t, "/host/serial0", "console", "null");
	ck_assert(tree_u32(&t, "/host", "dirty-ring", &n, &e) == 0 && n == 4096);
	tree_free(&t);
}
END_TEST

START_TEST(kernel_and_console_are_those_of_the_command_line)
{
	struct err e;
	struct tree t;

	sent(&t, "--kernel|/k|--initrd|/i|--console|file:/log");
	ck_assert_msg(admit(&t, HERE "|--kernel|/mine|--console|unix:/c", false, &e) == 0, "%s",
		      e.text);
	is_str(&t, "/host/boot", "kernel", "/mine");
	is_str(&t, "/host/serial0", "console", "unix:/c");
	ck_assert(!tree_has(&t, "/host/boot", "initrd"));
	tree_free(&t);
}
END_TEST

START_TEST(equal_hosts_and_own_files_take_all_of_it)
{
	struct err e;
	struct tree t;

	sent(&t, SOURCE);
	ck_assert_int_eq(tree_set_bytes(&t, "/host/disk0", "path" TREE_WITHOUT_LINKS, "", 0, &e),
			 0);
	ck_assert_int_eq(tree_set_bytes(&t, "/host/disk0", "copy", "", 0, &e), 0);
	ck_assert_msg(admit(&t, _i ? HERE : HERE "|--same-paths", _i, &e) == 0, "%s", e.text);
	is_str(&t, "/host/disk0", "path", "/a");
	is_str(&t, "/host/swap", "path", "/b");
	is_str(&t, "/host/net0", "tap", "t0");
	is_str(&t, "/host/channels", "socket-1", "/x");
	is_str(&t, "/host/serial0", "console", "file:/etc/cron.d/x");
	is_str(&t, "/host/boot", "kernel", "/k");
	/* That the source was not to follow links, or was given a copy, says nothing of this host.
	 */
	ck_assert(!tree_has(&t, "/host/disk0", "copy"));
	ck_assert(!tree_is_without_links(&t, "/host/disk0", "path"));
	tree_free(&t);
}
END_TEST

/* Trees that no command line makes. */
START_TEST(nothing_unknown_gets_through)
{
	static const struct {
		const char *node, *prop, *says;
	} rows[] = {
		{ "/host/disk0", "backing-file", "'backing-file'" },
		{ "/host", "path", "'path'" },
		{ "/host/evil", "path", "--disk evil=PATH" },
		{ "/host/evil", "tap", "--net evil=tap:IF" },
		{ "/host/evil", "console", "'console'" },
		{ "/host/serial0", "path", "serial0: " },
		{ "/host/rng0", "kernel", "'kernel'" },
		{ "/host/disk0/deeper", "path", "/host/disk0/deeper" },
		{ "/host/disk0@1", "path", "disk0@1: " },
		{ "/host/disk0", "bad\033[2J", "the name of a property" },
	};
	const char *const says[] = { rows[_i].says, NULL };
	struct err e;
	struct tree t;

	sent(&t, "--kernel|/k|--disk|/a");
	ck_assert_int_eq(tree_set_str(&t, rows[_i].node, rows[_i].prop, "/etc/shadow", &e), 0);
	is_refused(&t, HERE "|--disk|disk0=/h", says);
	tree_free(&t);
}
END_TEST

START_TEST(value_that_is_no_string_is_refused)
{
	static const char *const says[] = { "/host/disk0: 'path' is not a string", NULL };
	struct err e;
	struct tree t;

	sent(&t, "--kernel|/k|--disk|/a");
	ck_assert_int_eq(tree_set_bytes(&t, "/host/disk0", "path", "/a", 2, &e), 0);
	is_refused(&t, HERE "|--disk|disk0=/h", says);
	tree_free(&t);
}
END_TEST

/* An option finds one port by its name; a second one of that name must not keep its socket. */
START_TEST(second_channel_of_one_name_keeps_no_socket)
{
	struct err e;
	struct tree t;

	sent(&t, "--kernel|/k|--channel|x,socket=/x");
	ck_assert_int_eq(tree_set_str(&t, "/devices/channels/port@2", "label", "x", &e), 0);
	ck_assert_int_eq(tree_set_str(&t, "/host/channels", "socket-2", "/root/y", &e), 0);
	ck_assert_int_eq(admit(&t, HERE "|--channel|x,socket=/mine", false, &e), 0);
	is_str(&t, "/host/channels", "socket-1", "/mine");
	ck_assert(!tree_has(&t, "/host/channels", "socket-2"));
	tree_free(&t);
}
END_TEST

/* -- directories that are allowed -- */

struct place {
	char dir[64], allowed[80], outside[80];
};

static void touch(const char *path)
{
	int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 512), 0);
	close(fd);
}

static char *at(const char *dir, const char *name)
{
	static char path[8][PATH_MAX];
	static unsigned int n;
	char *p = path[n++ % 8];

	snprintf(p, PATH_MAX, "%s/%s", dir, name);
	return p;
}

static void make_place(struct place *p)
{
	strcpy(p->dir, "/tmp/godwit-gate-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(p->dir));
	snprintf(p->allowed, sizeof(p->allowed), "%s/in", p->dir);
	snprintf(p->outside, sizeof(p->outside), "%s/inside-not", p->dir);
	ck_assert_int_eq(mkdir(p->allowed, 0700), 0);
	ck_assert_int_eq(mkdir(p->outside, 0700), 0);
	ck_assert_int_eq(mkdir(at(p->allowed, "sub"), 0700), 0);
	touch(at(p->allowed, "disk"));
	touch(at(p->allowed, "sub/disk"));
	touch(at(p->outside, "disk"));
	ck_assert_int_eq(symlink("sub/disk", at(p->allowed, "good-link")), 0);
	ck_assert_int_eq(symlink("../inside-not/disk", at(p->allowed, "bad-link")), 0);
	ck_assert_int_eq(symlink("../inside-not", at(p->allowed, "bad-dir")), 0);
	ck_assert_int_eq(symlink("../inside-not/new", at(p->allowed, "dangling")), 0);
}

static void remove_place(struct place *p)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", p->dir);
	ck_assert_int_eq(system(command), 0);
}

/* The verdict on a disk and a channel that the source had at `path` below the directory. */
static int judge(const struct place *p, const char *path, const char *device, struct tree *t)
{
	char source[PATH_MAX], here[PATH_MAX];
	struct err e;

	snprintf(source, sizeof(source), "--kernel|/k|%s%s/%s", device, p->allowed, path);
	snprintf(here, sizeof(here), HERE "|--allow-path|/nonexistent|--allow-path|%s/../in/",
		 p->allowed);
	sent(t, source);
	return admit(t, here, false, &e);
}

START_TEST(paths_that_really_lie_below_an_allowed_directory_are_taken)
{
	static const struct {
		const char *path, *real; /* NULL: refused */
	} rows[] = {
		{ "disk", "disk" },
		{ "sub/disk", "sub/disk" },
		{ "sub/../disk", NULL }, /* as it is written it goes up */
		{ "good-link", "sub/disk" },
		{ "bad-link", NULL },
		{ "bad-dir/disk", NULL },
		{ "../inside-not/disk", NULL },
		{ "missing", NULL },
		{ "dangling", NULL },
		{ "", NULL },
		{ "..", NULL },
	};
	struct place p;
	struct tree t;
	int rc;

	make_place(&p);
	rc = judge(&p, rows[_i].path, "--disk|", &t);
	ck_assert_int_eq(rc, rows[_i].real ? 0 : -1);
	if (rows[_i].real) {
		is_str(&t, "/host/disk0", "path", at(p.allowed, rows[_i].real));
		ck_assert(tree_is_without_links(&t, "/host/disk0", "path"));
	}
	tree_free(&t);
	remove_place(&p);
}
END_TEST

/* A socket is made there, so it need not be there. */
START_TEST(sockets_are_made_only_below_an_allowed_directory)
{
	static const struct {
		const char *path, *real;
	} rows[] = {
		{ "new", "new" },
		{ "sub/new", "sub/new" },
		{ "sub/./new", "sub/new" },
		{ "bad-dir/new", NULL },
		{ "dangling", NULL },
		{ "sub/..", NULL },
		{ "../inside-not/x", NULL },
		{ "nowhere/new", NULL },
	};
	struct place p;
	struct tree t;
	int rc;

	make_place(&p);
	rc = judge(&p, rows[_i].path, "--channel|x,socket=", &t);
	ck_assert_int_eq(rc, rows[_i].real ? 0 : -1);
	if (rows[_i].real)
		is_str(&t, "/host/channels", "socket-1", at(p.allowed, rows[_i].real));
	tree_free(&t);
	remove_place(&p);
}
END_TEST

/* Between the gate and the opening somebody who may write in the directory puts a link there. */
START_TEST(link_that_is_put_into_the_way_later_is_not_followed)
{
	const char *image;
	struct disk d = { .fd = -1 };
	struct err e = { "" };
	struct place p;
	struct tree t;

	make_place(&p);
	ck_assert_int_eq(judge(&p, "sub/disk", "--disk|", &t), 0);
	ck_assert_int_eq(tree_str(&t, "/host/disk0", "path", &image, &e), 0);
	ck_assert_msg(disk_open_without_links(&d, "disk0", image, false, &e) == 0, "%s", e.text);
	disk_close(&d);
	ck_assert_int_eq(rename(at(p.allowed, "sub"), at(p.allowed, "was")), 0);
	ck_assert_int_eq(symlink("../inside-not", at(p.allowed, "sub")), 0);
	ck_assert_int_eq(disk_open(&d, "disk0", image, false, &e), 0);
	disk_close(&d);
	ck_assert_int_eq(disk_open_without_links(&d, "disk0", image, false, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "symbolic link"));
	ck_assert_int_eq(io_open(image, O_RDONLY, 0, true), -1);
	tree_free(&t);
	remove_place(&p);
}
END_TEST

#define LOOP(test, n) tcase_add_loop_test(gate, test, 0, n)

int main(void)
{
	Suite *s = suite_create("gate");
	TCase *gate = tcase_create("gate");
	SRunner *runner = srunner_create(s);
	int failed;

	LOOP(what_a_stranger_suggests_is_refused_with_the_option_that_is_missing, 5);
	tcase_add_test(gate,
		       what_is_named_here_is_used_and_what_the_guest_can_do_without_is_left_out);
	tcase_add_test(gate, harmless_consoles_and_the_dirty_ring_come_along);
	tcase_add_test(gate, kernel_and_console_are_those_of_the_command_line);
	LOOP(equal_hosts_and_own_files_take_all_of_it, 2);
	LOOP(nothing_unknown_gets_through, 10);
	tcase_add_test(gate, value_that_is_no_string_is_refused);
	tcase_add_test(gate, second_channel_of_one_name_keeps_no_socket);
	LOOP(paths_that_really_lie_below_an_allowed_directory_are_taken, 11);
	LOOP(sockets_are_made_only_below_an_allowed_directory, 8);
	tcase_add_test(gate, link_that_is_put_into_the_way_later_is_not_followed);
	suite_add_tcase(s, gate);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
