/*
 * Fuzzing a machine tree from elsewhere, from behind the checksum of its record (damage.h):
 * whatever it holds is refused with a sentence, or all that is done with it before there is a KVM
 * (the gate, the host's side, memory, CPUID, ACPI tables) stays within its memory, and it is a tree
 * that can be sent on.
 */
#include <stdio.h>

#include "tests/fuzz/damage.h"
#include "vmm/arch.h"
#include "vmm/base/err.h"
#include "vmm/config.h"
#include "vmm/dirty_ring.h"
#include "vmm/memory.h"
#include "vmm/x86_64/acpi.h"
#include "vmm/x86_64/cpuid.h"

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len);

struct host {
	struct tree good;
	struct config config;
	FILE *null;
};

static char *sender[] = { "--kernel",	  "/k",
			  "--name",	  "web",
			  "--cpus",	  "2",
			  "--memory",	  "4G",
			  "--console",	  "file:/log",
			  "--disk",	  "/d,serial=S",
			  "--disk",	  "/e,readonly",
			  "--net",	  "tap=t0",
			  "--channel",	  "x.0,socket=/x",
			  "--channel",	  "y.0,socket=/y",
			  "--dirty-ring", "4096" };
static char *receiver[] = { "--listen",	 "tcp::0",	  "--name",    "other",
			    "--console", "null",	  "--disk",    "disk0=/a",
			    "--disk",	 "disk1=/b",	  "--net",     "net0=tap:t1",
			    "--channel", "x.0,socket=/z", "--channel", "y.0,socket=/y" };

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static void make(struct host *h)
{
	struct cpuid_table cpuid = { .n = 3, .entries = { { .function = 0, .eax = 1 } } };
	struct config theirs;
	struct err e;

	h->null = fopen("/dev/null", "w");
	if (!h->null || config_parse(&theirs, CONFIG_RUN, COUNT(sender), sender, &e) ||
	    config_parse(&h->config, CONFIG_RECEIVE, COUNT(receiver), receiver, &e) ||
	    tree_init(&h->good, &e) || config_tree(&theirs, &h->good, &e) ||
	    cpuid_to_tree(&cpuid, &h->good, &e))
		abort();
	config_free(&theirs);
	tree_pack(&h->good);
}

static int build(const struct tree *t, struct err *e)
{
	static uint8_t tables[65536];
	static struct cpuid_table cpuid;
	struct memory m;
	uint32_t rings;
	int rc;

	if (memory_init(&m, t, e))
		return -1;
	rc = dirty_ring_entries(t, &rings, e) || cpuid_from_tree(t, &cpuid, e) ||
	     acpi_build(t, 0xe0000, tables, sizeof(tables), e) < 0;
	memory_free(&m);
	return rc ? -1 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
	static struct host h;
	struct config_notes notes = { 0 };
	struct tree t, again;
	struct err e = { "" };
	uint8_t *bytes;
	size_t n;

	if (!len)
		return 0;
	if (!h.null)
		make(&h);
	bytes = damaged(&h.good, in, len, &n);
	if (tree_copy(&t, bytes, n, &e) == 0) {
		tree_print(&t, h.null);
		tree_pack(&t);
		if (config_admit_tree(&h.config, in[0] == 1, &t, &notes, &e) ||
		    config_override_tree(&h.config, &t, &e) || build(&t, &e)) {
			if (!e.text[0])
				abort();
		}
		tree_pack(&t);
		if (tree_copy(&again, t.fdt, tree_bytes_used(&t), &e))
			abort();
		tree_free(&again);
		tree_free(&t);
	} else if (!e.text[0]) {
		abort();
	}
	free(bytes);
	return 0;
}
