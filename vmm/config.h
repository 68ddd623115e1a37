/*
 * What the user asked for: the options of `run`, and the host's side of `receive` and `restore`.
 * Plain data, made by config_parse() from the command line without looking at the host.
 */
#ifndef GODWIT_CONFIG_H
#define GODWIT_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

struct tree;

#define CONFIG_DEVICES_MAX 16
#define CONFIG_NAME_MAX	   64

struct config_disk {
	const char *id, *path, *serial, *on_error; /* the last two may be NULL */
	bool readonly;
};

struct config_net {
	const char *id, *tap;
	uint8_t mac[6];
};

struct config_channel {
	const char *name;   /* what the guest sees: org.qemu.guest_agent.0 */
	const char *socket; /* host path */
};

/* A new host side for a device of a tree that came from elsewhere. */
struct config_override {
	const char *id, *value;
	bool copy; /* disks: one that the user has made */
};

/* All strings point into argv, or into `texts`. */
struct config {
	char name[CONFIG_NAME_MAX + 1];
	bool name_given;
	const char *kernel, *initrd, *cmdline;
	uint32_t cpus;
	uint64_t memory_bytes;
	struct config_disk disks[CONFIG_DEVICES_MAX];
	unsigned int n_disks;
	struct config_net nets[CONFIG_DEVICES_MAX];
	unsigned int n_nets;
	struct config_channel channels[CONFIG_DEVICES_MAX];
	unsigned int n_channels;
	struct config_override disk_overrides[CONFIG_DEVICES_MAX];
	unsigned int n_disk_overrides;
	struct config_override net_overrides[CONFIG_DEVICES_MAX];
	unsigned int n_net_overrides;
	const char *console; /* stdio, null, file:PATH, unix:PATH; NULL: as the tree says */
	/* receive, restore: what of the other side's own words on this host is taken. */
	const char *allow_paths[CONFIG_DEVICES_MAX];
	unsigned int n_allow_paths;
	bool same_paths;
	uint64_t memory_max_bytes; /* 0: not given */
	bool once;		   /* receive: the first guest that does not arrive is the last */
	uint32_t silence_s;	   /* receive: how long its source may say nothing */
	const char *control;	   /* path, or NULL: the default one */
	const char *user;	   /* to drop to, or NULL */
	uint32_t dirty_ring;	   /* entries; 0: none */
	bool dirty_ring_given;
	bool paused, verbose, help;
	const char *operand;		     /* restore: the file */
	const char *listen;		     /* receive: the URI */
	char *texts[8 * CONFIG_DEVICES_MAX]; /* owned */
	unsigned int n_texts;
};

/* Which verb's options are parsed: each allows its own set. */
enum config_verb { CONFIG_RUN, CONFIG_RESTORE, CONFIG_RECEIVE };

/*
 * Parses argv[0..argc), the words after the verb. -1 with a sentence naming the option (an unknown
 * one: with the nearest that is known). With c->help set nothing else counts. Without --name it is
 * "vm-PID". config_free() in either case.
 */
int config_parse(struct config *c, enum config_verb verb, int argc, char **argv, struct err *e);
void config_free(struct config *c);

/*
 * The machine tree of a parsed `run`. Pure, but that host paths are made absolute; the host is not
 * asked whether anything exists. `t` is initialised and empty.
 */
int config_tree(const struct config *c, struct tree *t, struct err *e);

/* What is to be said once a guest has come: nothing failed, but something is otherwise here. */
struct config_notes {
	struct err text[4];
	unsigned int n;
};

/* Refuses an --allow-path that is no directory here: it would allow nothing, in silence. */
int config_check_allowed(const struct config *c, struct err *e);

/*
 * The gate. A tree that came from elsewhere says under /host what a source had open on its own
 * host. Here that is a suggestion, by whoever was able to connect or to write the file: it stays in
 * the tree only if an option allows it, goes if an option replaces it or if the guest can do
 * without, and is refused otherwise, with the option that is missing. Everything below /host passes
 * here, also what this version does not know. Before config_override_tree. `trusted`: all is taken.
 */
int config_admit_tree(const struct config *c, bool trusted, struct tree *t,
		      struct config_notes *notes, struct err *e);

/* Refuses a tree with more memory than was allowed; of one that comes over a connection, and
 * nothing was said: than this host has. */
int config_check_memory(const struct config *c, const struct tree *t, struct err *e);

/*
 * Puts the host's side given to `restore` or `receive` into a tree that came from elsewhere; what
 * was not given stays as the tree has it. -1 for what the tree does not have, with what it has.
 */
int config_override_tree(const struct config *c, struct tree *t, struct err *e);

#endif
