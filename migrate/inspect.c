/*
 * A stream as text: see inspect.h. Main thread of a short-lived process. The stream is as hostile
 * here as anywhere.
 */
#include "migrate/inspect.h"

#include <inttypes.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "migrate/stream/body.h"
#include "migrate/stream/checksum.h"
#include "migrate/stream/hello.h"
#include "vmm/base/err.h"
#include "vmm/base/print.h"
#include "vmm/memory.h"

struct totals {
	uint64_t pages, records, runs;
};

static int check_data(struct reader *r, const struct record *rec, uint32_t expected, struct err *e)
{
	struct checksum sum = checksum_of(rec);
	uint8_t buf[16 * PAGE_SIZE];

	while (r->data_left) {
		size_t n = r->data_left < sizeof(buf) ? (size_t)r->data_left : sizeof(buf);

		if (reader_data(r, buf, n, e))
			return -1;
		checksum_add(&sum, buf, n);
	}
	if (!checksum_is(&sum, expected))
		return err_set(e, "%s: the pages of the record at byte %" PRIu64 " are damaged",
			       r->channel->name, rec->offset);
	return 0;
}

static int inspect_pages(struct reader *r, const struct record *rec, bool print, struct totals *t,
			 FILE *out, struct err *e)
{
	struct pages p;
	uint32_t i;

	if (pages_decode(rec, &p, e))
		return err_context(e, "%s", r->channel->name);
	for (i = 0; i < p.n_runs; i++) {
		uint64_t first, n;

		run_decode(p.runs, i, &first, &n);
		t->pages += n;
		if (print)
			print_line(out, "block %" PRIu32 " page 0x%" PRIx64 " + %" PRIu64 " %s",
				   p.block, first, n, pages_codec_name(p.codec));
	}
	t->runs += p.n_runs;
	return check_data(r, rec, p.data_crc, e);
}

/* Files were once written with the last thing first; /vm is the first in either. */
static void print_states_tree(const struct tree *t, FILE *out)
{
	const char *name;

	if (tree_child(t, 0, 0, &name) && !strcmp(name, "vm"))
		tree_print_as_it_lies(t, out);
	else
		tree_print(t, out);
}

static int print_states(struct reader *r, const struct record *rec, FILE *out, struct err *e)
{
	struct states_head head;
	struct tree states;

	if (states_decode(rec, &head, e))
		return err_context(e, "%s", r->channel->name);
	if (tree_copy(&states, rec->body + STATES_HEAD_BYTES, rec->body_bytes - STATES_HEAD_BYTES,
		      e))
		return err_context(e, "%s: the states", r->channel->name);
	if (out)
		print_states_tree(&states, out);
	tree_free(&states);
	return 0;
}

/* A line of the summary: what it is of, and what its node below /host says of this host. */
static void print_host(const struct tree *t, const char *what, const char *node, FILE *out)
{
	char line[8192];
	size_t at = (size_t)snprintf(line, sizeof(line), "%s", what);
	static const char *const props[] = { "path", "tap", "console", "kernel", "initrd" };
	const unsigned int n = sizeof(props) / sizeof(props[0]);
	const char *text, *between = ": ";
	char prop[32];

	/* Channels have a socket each, counted from 1. */
	for (unsigned int i = 0;; i++) {
		snprintf(prop, sizeof(prop), "socket-%u", i < n ? 0 : i - n + 1);
		if (tree_str(t, node, i < n ? props[i] : prop, &text, NULL)) {
			if (i < n)
				continue;
			break;
		}
		if (at < sizeof(line))
			at += (size_t)snprintf(line + at, sizeof(line) - at, "%s%s %s", between,
					       i < n ? props[i] : "socket", text);
		between = ", ";
	}
	print_line(out, "%s", line);
}

static void print_summary(const struct hello *h, const struct tree *t, const struct totals *n,
			  uint64_t bytes, FILE *out)
{
	char path[TREE_PATH_MAX], host[TREE_PATH_MAX + 8], what[TREE_PATH_MAX + 96];
	const char *text;
	unsigned int it = 0;
	uint64_t gpa, size, memory = 0;
	uint32_t cpus;

	print_line(out,
		   "stream:  version %" PRIu32 ", written by godwit %s on %s, %" PRIu64 " bytes",
		   h->version, h->program, h->arch, bytes);
	if (!tree_str(t, "/", "label", &text, NULL))
		print_line(out, "name:    %s", text);
	while (tree_next_child(t, "/", &it, path))
		if (!strncmp(path, "/memory@", 8) &&
		    !tree_u64_pair(t, path, "reg", &gpa, &size, NULL))
			memory += size;
	print_line(out, "memory:  %" PRIu64 " MiB, %" PRIu64 " pages written (%" PRIu64 " MiB)",
		   memory >> 20, n->pages, n->pages * PAGE_SIZE >> 20);
	if (!tree_u32(t, "/cpus", "count", &cpus, NULL))
		print_line(out, "cpus:    %" PRIu32, cpus);
	for (it = 0; tree_next_child(t, "/devices", &it, path);) {
		const char *model = "?";

		tree_str(t, path, "model", &model, NULL);
		snprintf(what, sizeof(what), "device:  %s (%.64s)", strrchr(path, '/') + 1, model);
		snprintf(host, sizeof(host), "/host%s", strrchr(path, '/'));
		print_host(t, what, host, out);
	}
	if (!tree_str(t, "/host/boot", "kernel", &text, NULL))
		print_host(t, "reboots", "/host/boot", out);
}

static int read_rest(struct reader *r, enum inspect_what what, struct totals *n, FILE *out,
		     struct err *e)
{
	struct record rec;

	for (;;) {
		if (reader_record(r, &rec, e))
			return -1;
		n->records++;
		switch (rec.type) {
		case RECORD_PAGES:
			if (inspect_pages(r, &rec, what == INSPECT_PAGES, n, out, e))
				return -1;
			break;
		case RECORD_STATES:
			if (print_states(r, &rec, what == INSPECT_STATES ? out : NULL, e))
				return -1;
			break;
		case RECORD_END:
			return reader_ended(r, &rec, e);
		default:
			return err_set(e, "%s: an unexpected %s record at byte %" PRIu64,
				       r->channel->name, record_name(rec.type), rec.offset);
		}
	}
}

int inspect_stream(struct channel *ch, enum inspect_what what, FILE *out, struct err *e)
{
	struct reader r = { .channel = ch };
	struct totals n = { 0 };
	struct hello hello;
	struct tree t;
	int rc;

	if (hello_take(&r, &hello, e) || hello_take_machine(&r, &hello, &t, e)) {
		reader_free(&r);
		return -1;
	}
	if (tree_u32(&t, "/cpus", "count", &r.n_vcpus, NULL))
		r.n_vcpus = 0;
	if (what == INSPECT_TREE)
		tree_print(&t, out);
	rc = read_rest(&r, what, &n, out, e);
	if (!rc && what == INSPECT_SUMMARY)
		print_summary(&hello, &t, &n, r.bytes, out);
	tree_free(&t);
	reader_free(&r);
	return rc;
}
