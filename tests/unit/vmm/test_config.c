/*
 * The command line and what becomes of it: struct config, the machine tree, and the host's side of
 * a tree that came from elsewhere. No KVM, nothing of the host but the current directory.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/words.h"
#include "vmm/config.h"
#include "vmm/dirty_ring.h"
#include "vmm/tree.h"

#define WORDS_MAX 80

struct parsed {
	struct config config;
	struct err err;
	char *argv[WORDS_MAX];
	int argc, rc;
};

/* Words are separated by '|', so that they can be empty and can contain spaces. */
static void parse(struct parsed *p, enum config_verb verb, const char *line)
{
	char *copy = strdup(line), *rest = copy, *word;

	p->argc = 0;
	p->err.text[0] = '\0';
	while (*line && (word = strsep(&rest, "|")))
		p->argv[p->argc++] = strdup(word);
	free(copy);
	p->rc = config_parse(&p->config, verb, p->argc, p->argv, &p->err);
}

static void done(struct parsed *p)
{
	config_free(&p->config);
	while (p->argc > 0)
		free(p->argv[--p->argc]);
}

static void parse_run(struct parsed *p, const char *line)
{
	parse(p, CONFIG_RUN, line);
	ck_assert_msg(p->rc == 0, "'%s' was refused: %s", line, p->err.text);
}

START_TEST(defaults_are_those_of_the_interface)
{
	struct parsed p;

	parse_run(&p, "--kernel|k");
	ck_assert_uint_eq(p.config.cpus, 1);
	ck_assert_uint_eq(p.config.memory_bytes, 256u << 20);
	ck_assert_str_eq(p.config.cmdline, "console=ttyS0 panic=-1");
	ck_assert_str_eq(p.config.console, "stdio");
	ck_assert(!strncmp(p.config.name, "vm-", 3));
	ck_assert(!p.config.name_given && !p.config.paused && !p.config.control);
	done(&p);
}
END_TEST

START_TEST(options_take_their_value_in_both_forms)
{
	struct parsed p;

	parse_run(&p, "--kernel=k|--cpus=4|--memory|3G|--cmdline=a=b c|--name=web|--paused|"
		      "--initrd|i|--verbose|--user|nobody|--control|/c|--console|file:/l|"
		      "--dirty-ring|4096");
	ck_assert_str_eq(p.config.kernel, "k");
	ck_assert_str_eq(p.config.initrd, "i");
	ck_assert_str_eq(p.config.cmdline, "a=b c");
	ck_assert_str_eq(p.config.name, "web");
	ck_assert_str_eq(p.config.user, "nobody");
	ck_assert_str_eq(p.config.control, "/c");
	ck_assert_str_eq(p.config.console, "file:/l");
	ck_assert(p.config.name_given && p.config.paused && p.config.verbose);
	ck_assert_uint_eq(p.config.memory_bytes, 3ull << 30);
	ck_assert_uint_eq(p.config.cpus, 4);
	ck_assert_uint_eq(p.config.dirty_ring, 4096);
	done(&p);
}
END_TEST

START_TEST(devices_are_parsed_with_their_sub_options)
{
	struct parsed p;

	parse_run(&p, "--kernel|k|--disk|/a,,b.img,readonly,serial=S 1,id=root|--disk|b|"
		      "--net|tap=tap0,mac=52:54:00:AB:cd:ef|--net|id=lan,tap=t1|"
		      "--channel|org.qemu.guest_agent.0,socket=/s");
	ck_assert_uint_eq(p.config.n_disks, 2);
	ck_assert_str_eq(p.config.disks[0].path, "/a,b.img");
	ck_assert_str_eq(p.config.disks[0].id, "root");
	ck_assert_str_eq(p.config.disks[0].serial, "S 1");
	ck_assert(p.config.disks[0].readonly);
	ck_assert_str_eq(p.config.disks[1].id, "disk1");
	ck_assert(!p.config.disks[1].readonly && !p.config.disks[1].serial);
	ck_assert_str_eq(p.config.nets[0].id, "net0");
	ck_assert_str_eq(p.config.nets[0].tap, "tap0");
	ck_assert_mem_eq(p.config.nets[0].mac, "\x52\x54\x00\xab\xcd\xef", 6);
	ck_assert_str_eq(p.config.nets[1].id, "lan");
	ck_assert_str_eq(p.config.channels[0].name, "org.qemu.guest_agent.0");
	ck_assert_str_eq(p.config.channels[0].socket, "/s");
	done(&p);
}
END_TEST

START_TEST(derived_mac_depends_on_name_and_id_only)
{
	struct parsed a, b, c;

	parse_run(&a, "--kernel|k|--name|web|--net|tap=t0|--net|tap=t1");
	parse_run(&b, "--net|tap=other|--kernel|k2|--name|web");
	parse_run(&c, "--kernel|k|--name|db|--net|tap=t0");
	ck_assert_mem_eq(a.config.nets[0].mac, "\x52\x54\x00", 3);
	ck_assert_mem_eq(a.config.nets[0].mac, b.config.nets[0].mac, 6);
	ck_assert_mem_ne(a.config.nets[0].mac, a.config.nets[1].mac, 6);
	ck_assert_mem_ne(a.config.nets[0].mac, c.config.nets[0].mac, 6);
	done(&a);
	done(&b);
	done(&c);
}
END_TEST

/* What is refused, and the words that the sentence must have. */
static const struct {
	enum config_verb verb;
	const char *line, *says;
} refused[] = {
	{ CONFIG_RUN, "", "--kernel is missing" },
	{ CONFIG_RUN, "--kernel|k|--memroy|1G",
	  "unknown option '--memroy' (did you mean --memory?)" },
	{ CONFIG_RUN, "--kernel|k|--memroy=1G",
	  "unknown option '--memroy' (did you mean --memory?)" },
	{ CONFIG_RUN, "--kernel|k|--zzzzzzzzzz", "unknown option '--zzzzzzzzzz'" },
	{ CONFIG_RUN, "--kernel|k|-k", "unknown option '-k'" },
	{ CONFIG_RUN, "--kernel", "'--kernel' needs a value" },
	{ CONFIG_RUN, "--kernel|", "--kernel: the value is empty" },
	{ CONFIG_RUN, "--kernel|k|--paused=yes", "'--paused' takes no value" },
	{ CONFIG_RUN, "--kernel|k|word", "unexpected 'word'" },
	{ CONFIG_RUN, "--kernel|k|--|--paused", "unexpected '--paused'" },
	{ CONFIG_RUN, "--kernel|k|--cpus|0", "--cpus: '0' is not a number from 1 to 254" },
	{ CONFIG_RUN, "--kernel|k|--cpus|5000", "'5000' is not a number from 1 to 254" },
	{ CONFIG_RUN, "--kernel|k|--cpus|-1", "'-1'" },
	{ CONFIG_RUN, "--kernel|k|--cpus|2x", "'2x'" },
	{ CONFIG_RUN, "--kernel|k|--memory|0",
	  "--memory: 0 is 0 bytes; a machine needs at least 2M" },
	{ CONFIG_RUN, "--kernel|k|--memory|1M", "1M is 1048576 bytes" },
	{ CONFIG_RUN, "--kernel|k|--memory|2097153", "not a multiple of 4K" },
	{ CONFIG_RUN, "--kernel|k|--memory|17T", "more than a machine can have" },
	{ CONFIG_RUN, "--kernel|k|--memory|99999999999999999999", "too large" },
	{ CONFIG_RUN, "--kernel|k|--memory|lots", "'lots' is not a size" },
	{ CONFIG_RUN, "--kernel|k|--memory|1Gb", "'1Gb' is not a size" },
	{ CONFIG_RUN, "--kernel|k|--name|a|--name|b", "option '--name' is given twice" },
	{ CONFIG_RUN, "--kernel|k|--memory=1G|--memory|1G", "option '--memory' is given twice" },
	{ CONFIG_RUN, "--kernel|k|--disk|/a,serial=1,serial=2",
	  "sub-option 'serial' is given twice" },
	{ CONFIG_RUN, "--kernel|k|--net|tap=a,tap=b", "sub-option 'tap' is given twice" },
	{ CONFIG_RUN, "--kernel|k|--memory|-1G", "'-1G' is not a size" },
	{ CONFIG_RUN, "--kernel|k|--name|a/b", "--name: the VM's name 'a/b' is not a name" },
	{ CONFIG_RUN, "--kernel|k|--name|.a", "not a name" },
	{ CONFIG_RUN, "--kernel|k|--name|", "empty" },
	{ CONFIG_RUN,
	  "--kernel|k|--name|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	  "has 65 characters (at most 64)" },
	{ CONFIG_RUN, "--kernel|k|--disk|", "--disk: the path is empty" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,readnoly",
	  "unknown sub-option 'readnoly' (did you mean readonly?)" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,readonly=on", "'readonly' takes no value" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,serial", "'serial' needs a value" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,on-error=ignore", "expected enospc, stop or report" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,serial=123456789012345678901",
	  "has 21 bytes (at most 20)" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,serial=\x01", "byte 0x01" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,b,c,d,e,f,g,h,i", "more than 7 sub-options" },
	{ CONFIG_RUN, "--kernel|k|--disk|nbd://h/x", "network block devices are not supported" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,id=x|--net|tap=t,id=x", "two devices have the id 'x'" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,id=disk1|--disk|b", "two devices have the id 'disk1'" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,id=rng0", "id 'rng0' is the machine's own" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,id=balloon0", "id 'balloon0' is the machine's own" },
	{ CONFIG_RUN, "--kernel|k|--disk|a,id=a@1", "not a name" },
	{ CONFIG_RUN,
	  "--kernel|k|--disk|a,id=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	  "has 64 characters (at most 63)" },
	{ CONFIG_RUN, "--kernel|k|--net|mac=52:54:00:00:00:01", "no tap interface" },
	{ CONFIG_RUN, "--kernel|k|--net|tap0", "unknown sub-option 'tap0' (did you mean tap?)" },
	{ CONFIG_RUN, "--kernel|k|--net|tap=a234567890123456", "has 16 characters" },
	{ CONFIG_RUN, "--kernel|k|--net|tap=a/b", "'a/b' is not the name of a network interface" },
	{ CONFIG_RUN, "--kernel|k|--net|tap=t,mac=52:54:00:00:00", "is not a MAC address" },
	{ CONFIG_RUN, "--kernel|k|--net|tap=t,mac=52:54:00:00:00:0g", "is not a MAC address" },
	{ CONFIG_RUN, "--kernel|k|--net|tap=t,mac=53:54:00:00:00:01", "multicast" },
	{ CONFIG_RUN, "--kernel|k|--net|tap=t,mac=00:00:00:00:00:00", "all zero" },
	{ CONFIG_RUN, "--kernel|k|--net|tap=t|--net|tap=t", "use the same tap interface 't'" },
	{ CONFIG_RUN,
	  "--kernel|k|--net|tap=t,mac=52:54:00:00:00:01|--net|tap=u,mac=52:54:00:00:00:01",
	  "net0 and net1 have the same MAC address" },
	{ CONFIG_RUN, "--kernel|k|--channel|a.0", "channel 'a.0' has no socket" },
	{ CONFIG_RUN, "--kernel|k|--channel|a,socket=x|--channel|a,socket=y", "given twice" },
	{ CONFIG_RUN, "--kernel|k|--channel|a b,socket=x", "not a name" },
	{ CONFIG_RUN, "--kernel|k|--console|tty",
	  "'tty' is not stdio, null, file:PATH or unix:PATH" },
	{ CONFIG_RUN, "--kernel|k|--console|file:", "'file:' is not" },
	{ CONFIG_RUN, "--kernel|k|--dirty-ring|512", "512 is no power of two from 1024 to 65536" },
	{ CONFIG_RUN, "--kernel|k|--dirty-ring|5000", "5000 is no power of two" },
	{ CONFIG_RUN, "--kernel|k|--dirty-ring|131072", "65536" },
	{ CONFIG_RESTORE, "f|--dirty-ring|x", "'x'" },
	{ CONFIG_RESTORE, "", "the file to restore from is missing" },
	{ CONFIG_RESTORE, "a|b", "unexpected 'b'" },
	{ CONFIG_RESTORE, "f|--cpus|2", "unknown option '--cpus'" },
	{ CONFIG_RESTORE, "f|--disk|/a", "'/a' has no '='" },
	{ CONFIG_RESTORE, "f|--disk|a=", "the path is empty" },
	{ CONFIG_RESTORE, "f|--disk|a=b|--disk|a=c", "id 'a' is given twice" },
	{ CONFIG_RESTORE, "f|--disk|a=b,readonly", "unknown sub-option 'readonly'" },
	{ CONFIG_RESTORE, "f|--net|net0=tap1", "'tap1' is not tap:IF" },
	{ CONFIG_RESTORE, "f|--net|net0=tap:", "has 0 characters" },
};

START_TEST(bad_words_are_refused_with_a_sentence)
{
	struct parsed p;

	parse(&p, refused[_i].verb, refused[_i].line);
	ck_assert_msg(p.rc == -1, "'%s' was taken", refused[_i].line);
	ck_assert_msg(strstr(p.err.text, refused[_i].says), "'%s': '%s' does not say '%s'",
		      refused[_i].line, p.err.text, refused[_i].says);
	done(&p);
}
END_TEST

START_TEST(more_devices_than_there_is_room_for_are_refused)
{
	char line[2048] = "--kernel|k", more[64];
	struct parsed p;

	for (int i = 0; i <= CONFIG_DEVICES_MAX; i++) {
		if (_i == 0)
			snprintf(more, sizeof(more), "|--disk|a");
		else if (_i == 1)
			snprintf(more, sizeof(more), "|--net|tap=t%d", i);
		else
			snprintf(more, sizeof(more), "|--channel|c%d,socket=s", i);
		strcat(line, more);
		parse(&p, CONFIG_RUN, line);
		ck_assert_int_eq(p.rc, i == CONFIG_DEVICES_MAX ? -1 : 0);
		if (p.rc)
			ck_assert_ptr_nonnull(strstr(p.err.text, "more than 16"));
		done(&p);
	}
}
END_TEST

START_TEST(help_is_given_whatever_else_is_wrong)
{
	struct parsed p;

	parse(&p, CONFIG_RUN, "--disk|x|--help|--nonsense");
	ck_assert_int_eq(p.rc, 0);
	ck_assert(p.config.help);
	done(&p);
	parse(&p, CONFIG_RESTORE, "-h");
	ck_assert_int_eq(p.rc, 0);
	ck_assert(p.config.help);
	done(&p);
}
END_TEST

/* Trees. */

static void build(struct tree *t, const char *line)
{
	struct parsed p;
	struct err e = { "" };

	parse_run(&p, line);
	ck_assert_int_eq(tree_init(t, NULL), 0);
	ck_assert_msg(config_tree(&p.config, t, &e) == 0, "%s", e.text);
	done(&p);
}

static void is_str(const struct tree *t, const char *path, const char *prop, const char *want)
{
	const char *value;
	struct err e;

	ck_assert_msg(tree_str(t, path, prop, &value, &e) == 0, "%s", e.text);
	ck_assert_str_eq(value, want);
}

START_TEST(tree_holds_what_was_asked_for)
{
	uint64_t gpa, size;
	uint32_t count;
	const void *mac;
	struct tree t;
	size_t len;

	build(&t, "--kernel|/k|--initrd|/i|--name|web|--cpus|3|--memory|4G|--cmdline|quiet|"
		  "--console|null|--disk|/d,readonly,serial=S1|--disk|/e,on-error=stop|"
		  "--net|tap=t0,mac=52:54:00:01:02:03|"
		  "--channel|x.0,socket=/run/x|--channel|y.0,socket=/run/y");
	is_str(&t, "/", "label", "web");
	is_str(&t, "/chosen", "bootargs", "quiet");
	ck_assert(tree_has(&t, "/", "compatible"));
	ck_assert_int_eq(tree_u32(&t, "/cpus", "count", &count, NULL), 0);
	ck_assert_uint_eq(count, 3);
	/* 4 GiB do not fit below the hole: the rest lies from 4 GiB. */
	ck_assert_int_eq(tree_u64_pair(&t, "/memory@0", "reg", &gpa, &size, NULL), 0);
	ck_assert_uint_eq(size, 3ull << 30);
	ck_assert_int_eq(tree_u64_pair(&t, "/memory@100000000", "reg", &gpa, &size, NULL), 0);
	ck_assert_uint_eq(gpa, 1ull << 32);
	ck_assert_uint_eq(size, 1ull << 30);
	is_str(&t, "/devices/serial0", "model", "serial-8250");
	is_str(&t, "/host/serial0", "console", "null");
	is_str(&t, "/devices/power", "model", "power");
	is_str(&t, "/devices/i8042", "model", "i8042");
	is_str(&t, "/devices/disk0", "model", "virtio-blk");
	is_str(&t, "/devices/disk0", "id", "disk0");
	is_str(&t, "/devices/disk0", "serial", "S1");
	ck_assert(tree_has(&t, "/devices/disk0", "readonly"));
	ck_assert(!tree_has(&t, "/devices/disk1", "readonly"));
	ck_assert(!tree_has(&t, "/devices/disk0", "on-error"));
	is_str(&t, "/devices/disk1", "on-error", "stop");
	ck_assert(!tree_has(&t, "/devices/disk1", "serial"));
	is_str(&t, "/host/disk0", "path", "/d");
	is_str(&t, "/host/disk1", "path", "/e");
	is_str(&t, "/devices/net0", "model", "virtio-net");
	ck_assert_int_eq(tree_bytes(&t, "/devices/net0", "mac", &mac, &len, NULL), 0);
	ck_assert_uint_eq(len, 6);
	ck_assert_mem_eq(mac, "\x52\x54\x00\x01\x02\x03", 6);
	is_str(&t, "/host/net0", "tap", "t0");
	is_str(&t, "/devices/channels", "model", "virtio-console");
	is_str(&t, "/devices/channels/port@1", "label", "x.0");
	is_str(&t, "/devices/channels/port@2", "label", "y.0");
	is_str(&t, "/host/channels", "socket-1", "/run/x");
	is_str(&t, "/host/channels", "socket-2", "/run/y");
	is_str(&t, "/devices/rng0", "model", "virtio-rng");
	is_str(&t, "/devices/balloon0", "model", "virtio-balloon");
	is_str(&t, "/host/boot", "kernel", "/k");
	is_str(&t, "/host/boot", "initrd", "/i");
	tree_free(&t);
}
END_TEST

START_TEST(devices_have_places_of_their_own)
{
	uint64_t gpa, size, last_gpa = 0;
	uint32_t gsi, seen = 0;
	char child[TREE_PATH_MAX];
	unsigned int it = 0;
	struct tree t;

	build(&t, "--kernel|/k|--disk|/a|--disk|/b|--net|tap=t|--channel|c,socket=/c");
	while (tree_next_child(&t, "/devices", &it, child)) {
		if (!strcmp(child, "/devices/i8042"))
			continue; /* it has none */
		ck_assert_int_eq(tree_u32(&t, child, "interrupts", &gsi, NULL), 0);
		ck_assert_uint_lt(gsi, 32);
		ck_assert_msg(!(seen & 1u << gsi), "%s shares interrupt %u", child, gsi);
		seen |= 1u << gsi;
		if (tree_u64_pair(&t, child, "reg", &gpa, &size, NULL))
			continue;
		ck_assert_uint_gt(gpa, last_gpa);
		last_gpa = gpa;
	}
	ck_assert_int_eq(__builtin_popcount(seen), 8);
	tree_free(&t);
}
END_TEST

START_TEST(more_devices_than_interrupts_are_refused)
{
	char line[2048] = "--kernel|/k", more[48];
	struct err e = { "" };
	struct parsed p;
	struct tree t;

	for (int i = 0; i < 10; i++) {
		snprintf(more, sizeof(more), "|--disk|/d|--net|tap=t%d", i);
		strcat(line, more);
	}
	parse_run(&p, line);
	ck_assert_int_eq(tree_init(&t, NULL), 0);
	ck_assert_int_eq(config_tree(&p.config, &t, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "virtio devices"));
	tree_free(&t);
	done(&p);
}
END_TEST

START_TEST(host_paths_are_made_absolute)
{
	char cwd[2048], want[4096];
	struct tree t;

	ck_assert_ptr_nonnull(getcwd(cwd, sizeof(cwd)));
	build(&t, "--kernel|k|--disk|../d|--console|unix:c|--channel|x,socket=s");
	snprintf(want, sizeof(want), "%s/k", cwd);
	is_str(&t, "/host/boot", "kernel", want);
	snprintf(want, sizeof(want), "%s/../d", cwd);
	is_str(&t, "/host/disk0", "path", want);
	snprintf(want, sizeof(want), "unix:%s/c", cwd);
	is_str(&t, "/host/serial0", "console", want);
	snprintf(want, sizeof(want), "%s/s", cwd);
	is_str(&t, "/host/channels", "socket-1", want);
	ck_assert(!tree_has(&t, "/host/boot", "initrd"));
	ck_assert(!tree_has(&t, "/host/rng0", NULL));
	tree_free(&t);
}
END_TEST

#define LONG_30	 "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define LONG_120 LONG_30 LONG_30 LONG_30 LONG_30

START_TEST(socket_paths_that_no_socket_can_have_are_refused)
{
	static const char *const lines[] = { "--kernel|k|--channel|x,socket=" LONG_120,
					     "--kernel|k|--console|unix:" LONG_120 };
	struct err e = { "" };
	struct parsed p;
	struct tree t;

	parse_run(&p, lines[_i]);
	ck_assert_int_eq(tree_init(&t, NULL), 0);
	ck_assert_int_eq(config_tree(&p.config, &t, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "has 120 characters; a socket's path may have 107"));
	tree_free(&t);
	done(&p);
}
END_TEST

/* The host's side of a tree from elsewhere. */

#define SAVED                                                                                  \
	"--kernel|/k|--name|old|--console|file:/log|--disk|/a|--disk|/b,id=swap|--net|tap=t0|" \
	"--channel|x,socket=/x|--channel|y,socket=/y"

static int override(struct tree *t, const char *line, struct err *e)
{
	struct parsed p;
	int rc;

	parse(&p, CONFIG_RESTORE, line);
	ck_assert_msg(p.rc == 0, "%s", p.err.text);
	rc = config_override_tree(&p.config, t, e);
	done(&p);
	return rc;
}

START_TEST(override_without_options_changes_nothing)
{
	struct tree made, t, before;

	build(&made, SAVED);
	tree_pack(&made);
	ck_assert_int_eq(tree_copy(&before, made.fdt, tree_bytes_used(&made), NULL), 0);
	ck_assert_int_eq(tree_copy(&t, made.fdt, tree_bytes_used(&made), NULL), 0);
	tree_free(&made);
	ck_assert_int_eq(override(&t, "file", NULL), 0);
	tree_pack(&t);
	ck_assert_uint_eq(tree_bytes_used(&t), tree_bytes_used(&before));
	ck_assert_mem_eq(t.fdt, before.fdt, tree_bytes_used(&t));
	tree_free(&t);
	tree_free(&before);
}
END_TEST

START_TEST(override_changes_the_hosts_side_and_only_that)
{
	struct err e = { "" };
	struct tree t;

	build(&t, SAVED);
	ck_assert_msg(override(&t,
			       "file|--name|new|--disk|swap=/new,,b|--net|net0=tap:t9|"
			       "--channel|y,socket=/newy|--console|stdio|--initrd|/i",
			       &e) == 0,
		      "%s", e.text);
	is_str(&t, "/", "label", "new");
	is_str(&t, "/host/disk0", "path", "/a");
	is_str(&t, "/host/swap", "path", "/new,b");
	is_str(&t, "/host/net0", "tap", "t9");
	is_str(&t, "/host/channels", "socket-1", "/x");
	is_str(&t, "/host/channels", "socket-2", "/newy");
	is_str(&t, "/host/serial0", "console", "stdio");
	is_str(&t, "/host/boot", "kernel", "/k");
	is_str(&t, "/host/boot", "initrd", "/i");
	is_str(&t, "/devices/swap", "model", "virtio-blk");
	tree_free(&t);
}
END_TEST

static const struct {
	const char *line, *says;
} not_there[] = {
	{ "file|--disk|disk7=/x", "the machine has no disk 'disk7' (it has disk0, swap)" },
	{ "file|--disk|net0=/x", "the machine has no disk 'net0'" },
	{ "file|--net|disk0=tap:t", "the machine has no network card 'disk0' (it has net0)" },
	{ "file|--channel|z,socket=/z", "the machine has no channel 'z' (it has x, y)" },
	{ "file|--channel|x,socket=" LONG_120, "has 120 characters" },
};

START_TEST(dirty_ring_goes_along_unless_the_destination_says_otherwise)
{
	struct err e = { "" };
	struct tree t;
	uint32_t n;

	build(&t, SAVED);
	ck_assert(!tree_has(&t, "/host", "dirty-ring"));
	ck_assert_int_eq(override(&t, "file|--dirty-ring|2048", &e), 0);
	ck_assert(tree_u32(&t, "/host", "dirty-ring", &n, &e) == 0 && n == 2048);
	tree_free(&t);
	build(&t, SAVED "|--dirty-ring|4096");
	ck_assert_int_eq(override(&t, "file", &e), 0);
	ck_assert(tree_u32(&t, "/host", "dirty-ring", &n, &e) == 0 && n == 4096);
	ck_assert_int_eq(override(&t, "file|--dirty-ring|0", &e), 0);
	ck_assert(tree_u32(&t, "/host", "dirty-ring", &n, &e) == 0 && n == 0);
	tree_free(&t);
}
END_TEST

/* A tree from elsewhere can ask for anything. */
START_TEST(dirty_ring_that_no_kvm_has_is_refused)
{
	static const uint32_t bad[] = { 1, 512, 1023, 1025, 65537, 131072, UINT32_MAX };
	struct err e = { "" };
	struct tree t;
	uint32_t n;

	build(&t, SAVED);
	ck_assert(dirty_ring_entries(&t, &n, &e) == 0 && n == 0);
	ck_assert_int_eq(tree_set_u32(&t, "/host", "dirty-ring", 65536, &e), 0);
	ck_assert(dirty_ring_entries(&t, &n, &e) == 0 && n == 65536);
	ck_assert_int_eq(tree_set_u32(&t, "/host", "dirty-ring", bad[_i], &e), 0);
	ck_assert_int_eq(dirty_ring_entries(&t, &n, &e), -1);
	ck_assert_ptr_nonnull(strstr(e.text, "/host: a dirty ring of"));
	tree_free(&t);
}
END_TEST

START_TEST(override_of_what_is_not_there_is_refused_with_what_is)
{
	struct err e = { "" };
	struct tree t;

	build(&t, SAVED);
	ck_assert_int_eq(override(&t, not_there[_i].line, &e), -1);
	ck_assert_msg(strstr(e.text, not_there[_i].says), "'%s' does not say '%s'", e.text,
		      not_there[_i].says);
	tree_free(&t);
}
END_TEST

START_TEST(nearest_word_is_near)
{
	static const char *const known[] = { "memory", "name", "net", "disk", NULL };
	char longest[4096];

	ck_assert_str_eq(word_nearest("memroy", known), "memory");
	ck_assert_str_eq(word_nearest("mem0ry", known), "memory");
	ck_assert_str_eq(word_nearest("disks", known), "disk");
	ck_assert_str_eq(word_nearest("nam", known), "name");
	ck_assert_ptr_null(word_nearest("frobnicate", known));
	ck_assert_ptr_null(word_nearest("x", known));
	ck_assert_ptr_null(word_nearest("", known));
	memset(longest, 'm', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	ck_assert_ptr_null(word_nearest(longest, known));
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *s = suite_create("config");
	TCase *words = tcase_create("words"), *trees = tcase_create("trees");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_add_test(words, defaults_are_those_of_the_interface);
	tcase_add_test(words, options_take_their_value_in_both_forms);
	tcase_add_test(words, devices_are_parsed_with_their_sub_options);
	tcase_add_test(words, derived_mac_depends_on_name_and_id_only);
	tcase_add_loop_test(words, bad_words_are_refused_with_a_sentence, 0, COUNT(refused));
	tcase_add_loop_test(words, more_devices_than_there_is_room_for_are_refused, 0, 3);
	tcase_add_test(words, help_is_given_whatever_else_is_wrong);
	tcase_add_test(words, nearest_word_is_near);
	tcase_add_test(trees, tree_holds_what_was_asked_for);
	tcase_add_test(trees, devices_have_places_of_their_own);
	tcase_add_test(trees, more_devices_than_interrupts_are_refused);
	tcase_add_test(trees, host_paths_are_made_absolute);
	tcase_add_loop_test(trees, socket_paths_that_no_socket_can_have_are_refused, 0, 2);
	tcase_add_test(trees, override_without_options_changes_nothing);
	tcase_add_test(trees, override_changes_the_hosts_side_and_only_that);
	tcase_add_test(trees, dirty_ring_goes_along_unless_the_destination_says_otherwise);
	tcase_add_loop_test(trees, dirty_ring_that_no_kvm_has_is_refused, 0, 7);
	tcase_add_loop_test(trees, override_of_what_is_not_there_is_refused_with_what_is, 0,
			    COUNT(not_there));
	suite_add_tcase(s, words);
	suite_add_tcase(s, trees);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
