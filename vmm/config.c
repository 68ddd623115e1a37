/*
 * Command line -> struct config: see config.h; devices are in config_devices.c. Main thread, before
 * anything else; looks at nothing but the words. Invariant: what it lets through, config_tree() can
 * put into a tree.
 */
#include "vmm/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/arch.h"
#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/options.h"
#include "vmm/base/words.h"
#include "vmm/config_internal.h"
#include "vmm/dirty_ring.h"

#define DEFAULT_MEMORY_BYTES (256ull << 20)

#define MEMORY_MIN_BYTES (2ull << 20)
#define MEMORY_MAX_BYTES (16ull << 40)
#define MEMORY_UNIT	 4096ull
#define CPUS_MAX	 254

#define DEFAULT_SILENCE_S 60
#define SILENCE_MAX_S	  86400

enum option {
	OPT_KERNEL,
	OPT_INITRD,
	OPT_CMDLINE,
	OPT_NAME,
	OPT_CPUS,
	OPT_MEMORY,
	OPT_DISK,
	OPT_NET,
	OPT_CHANNEL,
	OPT_CONSOLE,
	OPT_CONTROL,
	OPT_DIRTY_RING,
	OPT_LISTEN,
	OPT_ALLOW_PATH,
	OPT_SAME_PATHS,
	OPT_MEMORY_MAX,
	OPT_SILENCE,
	OPT_ONCE,
	OPT_USER,
	OPT_PAUSED,
	OPT_VERBOSE,
	OPT_HELP,
};

#define RUN	(1u << CONFIG_RUN)
#define RECEIVE (1u << CONFIG_RECEIVE)
#define COMING	(1u << CONFIG_RESTORE | RECEIVE)
#define ALL	(RUN | COMING)

static const struct option_spec config_options[] = {
	[OPT_KERNEL] = { "kernel", true, ALL },
	[OPT_INITRD] = { "initrd", true, ALL },
	[OPT_CMDLINE] = { "cmdline", true, RUN },
	[OPT_NAME] = { "name", true, ALL },
	[OPT_CPUS] = { "cpus", true, RUN },
	[OPT_MEMORY] = { "memory", true, RUN },
	[OPT_DISK] = { "disk", true, ALL, .repeats = true },
	[OPT_NET] = { "net", true, ALL, .repeats = true },
	[OPT_CHANNEL] = { "channel", true, ALL, .repeats = true },
	[OPT_CONSOLE] = { "console", true, ALL },
	[OPT_CONTROL] = { "control", true, ALL },
	[OPT_DIRTY_RING] = { "dirty-ring", true, ALL },
	[OPT_LISTEN] = { "listen", true, RECEIVE },
	[OPT_USER] = { "user", true, ALL },
	[OPT_ALLOW_PATH] = { "allow-path", true, COMING, .repeats = true },
	[OPT_MEMORY_MAX] = { "memory-max", true, COMING },
	[OPT_SILENCE] = { "silence", true, RECEIVE },
	[OPT_ONCE] = { "once", false, RECEIVE },
	[OPT_SAME_PATHS] = { "same-paths", false, COMING },
	[OPT_PAUSED] = { "paused", false, ALL },
	[OPT_VERBOSE] = { "verbose", false, ALL },
	[OPT_HELP] = { "help", false, ALL },
	{ NULL, false, 0 },
};

static int parse_console(struct config *c, const char *value, struct err *e)
{
	if (strcmp(value, "stdio") && strcmp(value, "null") &&
	    (strncmp(value, "file:", 5) || !value[5]) && (strncmp(value, "unix:", 5) || !value[5]))
		return err_set(e, "'%s' is not stdio, null, file:PATH or unix:PATH", value);
	c->console = value;
	return 0;
}

static int parse_memory(struct config *c, const char *value, struct err *e)
{
	uint64_t bytes;

	if (parse_size(value, &bytes, e))
		return -1;
	if (bytes < MEMORY_MIN_BYTES)
		return err_set(e, "%s is %" PRIu64 " bytes; a machine needs at least 2M", value,
			       bytes);
	if (bytes % MEMORY_UNIT)
		return err_set(e, "%s is %" PRIu64 " bytes, which is not a multiple of 4K", value,
			       bytes);
	if (bytes > MEMORY_MAX_BYTES)
		return err_set(e, "%s is more than a machine can have (16T)", value);
	c->memory_bytes = bytes;
	return 0;
}

static int parse_dirty_ring(struct config *c, const char *value, struct err *e)
{
	uint64_t n;

	if (parse_number(value, 0, DIRTY_RING_MAX, &n, e))
		return -1;
	if (n && (n < DIRTY_RING_MIN || (n & (n - 1))))
		return err_set(e, "%s is no power of two from %d to %d, nor 0 (no ring)", value,
			       DIRTY_RING_MIN, DIRTY_RING_MAX);
	c->dirty_ring = (uint32_t)n;
	c->dirty_ring_given = true;
	return 0;
}

static int parse_text(const char **to, const char *value, struct err *e)
{
	if (!*value)
		return err_set(e, "the value is empty");
	*to = value;
	return 0;
}

static int parse_name(struct config *c, const char *value, struct err *e)
{
	if (word_check_name("the VM's name", value, CONFIG_NAME_MAX, e))
		return -1;
	snprintf(c->name, sizeof(c->name), "%s", value);
	c->name_given = true;
	return 0;
}

/* Options without a value. */
static int parse_flag(struct config *c, int option)
{
	switch (option) {
	case OPT_SAME_PATHS:
		c->same_paths = true;
		break;
	case OPT_ONCE:
		c->once = true;
		break;
	case OPT_PAUSED:
		c->paused = true;
		break;
	case OPT_VERBOSE:
		c->verbose = true;
		break;
	default:
		c->help = true;
		break;
	}
	return 0;
}

static int parse_option(struct config *c, enum config_verb verb, int option, const char *value,
			struct err *e)
{
	uint64_t n;

	switch (option) {
	case OPT_KERNEL:
		return parse_text(&c->kernel, value, e);
	case OPT_INITRD:
		return parse_text(&c->initrd, value, e);
	case OPT_CMDLINE:
		c->cmdline = value;
		return 0;
	case OPT_NAME:
		return parse_name(c, value, e);
	case OPT_CPUS:
		if (parse_number(value, 1, CPUS_MAX, &n, e))
			return -1;
		c->cpus = (uint32_t)n;
		return 0;
	case OPT_MEMORY:
		return parse_memory(c, value, e);
	case OPT_DISK:
		return verb == CONFIG_RUN ? config_add_disk(c, value, e)
					  : config_add_disk_override(c, value, e);
	case OPT_NET:
		return verb == CONFIG_RUN ? config_add_net(c, value, e)
					  : config_add_net_override(c, value, e);
	case OPT_CHANNEL:
		return config_add_channel(c, value, e);
	case OPT_CONSOLE:
		return parse_console(c, value, e);
	case OPT_CONTROL:
		return parse_text(&c->control, value, e);
	case OPT_DIRTY_RING:
		return parse_dirty_ring(c, value, e);
	case OPT_LISTEN:
		return parse_text(&c->listen, value, e);
	case OPT_ALLOW_PATH:
		if (c->n_allow_paths == CONFIG_DEVICES_MAX)
			return err_set(e, "more than %d directories", CONFIG_DEVICES_MAX);
		return parse_text(&c->allow_paths[c->n_allow_paths++], value, e);
	case OPT_MEMORY_MAX:
		if (parse_size(value, &c->memory_max_bytes, e))
			return -1;
		return c->memory_max_bytes ? 0 : err_set(e, "no machine has no memory");
	case OPT_SILENCE:
		if (parse_number(value, 1, SILENCE_MAX_S, &n, e))
			return -1;
		c->silence_s = (uint32_t)n;
		return 0;
	case OPT_USER:
		return parse_text(&c->user, value, e);
	default:
		return parse_flag(c, option);
	}
}

/* What depends on all options. */
static int complete(struct config *c, enum config_verb verb, struct err *e)
{
	if (verb == CONFIG_RESTORE)
		return c->operand ? 0 : err_set(e, "the file to restore from is missing");
	if (verb == CONFIG_RECEIVE)
		return c->listen ? 0
				 : err_set(e, "--listen is missing: where shall the machine come "
					      "from (tcp:HOST:PORT, unix:PATH)?");
	if (!c->kernel)
		return err_set(e, "--kernel is missing: what shall the machine boot?");
	return config_complete_devices(c, e);
}

static int take_operand(struct config *c, enum config_verb verb, const char *word, struct err *e)
{
	if (verb != CONFIG_RESTORE || c->operand)
		return err_set(e, "unexpected '%s'", word);
	return parse_text(&c->operand, word, e);
}

int config_parse(struct config *c, enum config_verb verb, int argc, char **argv, struct err *e)
{
	struct options o = {
		.argc = argc, .argv = argv, .group = 1u << verb, .table = config_options
	};
	const char *value;
	int option;

	*c = (struct config){ .cpus = 1,
			      .memory_bytes = DEFAULT_MEMORY_BYTES,
			      .cmdline = arch_default_cmdline,
			      .silence_s = DEFAULT_SILENCE_S,
			      .console = verb == CONFIG_RUN ? "stdio" : NULL };
	snprintf(c->name, sizeof(c->name), "vm-%d", (int)getpid());
	while ((option = option_next(&o, &value, e)) != OPTION_END) {
		if (option == OPTION_ERROR)
			return -1;
		if (option == OPTION_OPERAND) {
			if (take_operand(c, verb, value, e))
				return -1;
			continue;
		}
		if (parse_option(c, verb, option, value, e))
			return err_context(e, "--%s", config_options[option].name);
		/* Who asks for help need not have the rest right. */
		if (c->help)
			return 0;
	}
	return complete(c, verb, e);
}

void config_free(struct config *c)
{
	while (c->n_texts > 0)
		free(c->texts[--c->n_texts]);
}
