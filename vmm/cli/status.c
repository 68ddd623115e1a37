/*
 * godwit status VM [--json]: what a VM is, and how far its migration is. Main thread of a
 * short-lived process.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/print.h"
#include "vmm/base/words.h"
#include "vmm/cli/client.h"
#include "vmm/cli/move/figures.h"
#include "vmm/cli/verb.h"

struct vm_status {
	char name[80], status[32];
	bool running;
	size_t n_cpus;
	struct figures migration;
	json_t *answer; /* to query-migrate */
};

/* A VM that is still starting has no such command yet. */
static int ask_migration(struct client *c, struct vm_status *s, struct err *e)
{
	if (client_execute(c, "query-migrate", NULL, &s->answer, e) && c->closed)
		return -1;
	figures_read(&s->migration, s->answer);
	return 0;
}

static int ask(struct client *c, const char *vm, struct vm_status *s, struct err *e)
{
	json_t *result;
	const char *name;

	if (client_open(c, vm, CLIENT_TIMEOUT_MS, e) ||
	    client_status(c, s->status, &s->running, e) ||
	    client_execute(c, "query-name", NULL, &result, e))
		return -1;
	name = json_string_value(json_object_get(result, "name"));
	word_printable(s->name, sizeof(s->name), name ? name : "");
	json_decref(result);
	if (client_execute(c, "query-cpus-fast", NULL, &result, e))
		return -1;
	s->n_cpus = json_array_size(result);
	json_decref(result);
	return ask_migration(c, s, e);
}

static void print_json(const struct client *c, const struct vm_status *s)
{
	json_t *o = json_pack("{s:s,s:s,s:b,s:i,s:I,s:s*}", "name", s->name, "status", s->status,
			      "running", s->running, "pid", (int)c->pid, "cpus",
			      (json_int_t)s->n_cpus, "control", c->path);

	if (json_object_size(s->answer) > 0)
		json_object_set(o, "migration", s->answer);

	if (o)
		verb_print_json(o);
	json_decref(o);
}

static void say_migration(const struct figures *f, FILE *out)
{
	char sent[FIGURES_TEXT], left[FIGURES_TEXT], rate[FIGURES_TEXT], elapsed[FIGURES_TEXT];

	fprintf(out, "migration: %s", f->end == FIGURES_UNDECIDED ? "undecided" : f->status);
	if (f->uri[0])
		fprintf(out, ", to %s", f->uri);
	else if (f->incoming)
		fprintf(out, ", coming in");
	if (f->end == FIGURES_GOES_ON && f->round) {
		fprintf(out, ", %u %%, %s %s, %s left, %s/s", figures_percent(f),
			figures_bytes(sent, f->sent_bytes), f->incoming ? "received" : "sent",
			figures_bytes(left, f->left_bytes),
			figures_bytes(rate,
				      figures_rate(f->sent_bytes, f->total_ms - f->setup_ms)));
		if (f->round > 1 && !f->incoming)
			fprintf(out, ", guest writes %s/s",
				figures_bytes(rate, figures_dirty_bytes(f)));
		fprintf(out, ", round %" PRIu64 ", since %s", f->round,
			figures_seconds(elapsed, f->total_ms / 1000));
	}
	if (f->waiting[0])
		fprintf(out, ", waits: %s", f->waiting);
	if (f->error[0])
		fprintf(out, ": %s", f->error);
}

static void print_migration(const struct figures *f)
{
	char *text = NULL;
	size_t len;
	FILE *out;

	if (!strcmp(f->status, "none"))
		return;
	out = open_memstream(&text, &len);
	if (!out)
		return;
	say_migration(f, out);
	if (fclose(out) == 0)
		print_line(stdout, "%s", text);
	free(text);
}

static void print_text(const struct client *c, const struct vm_status *s)
{
	print_line(stdout, "name:    %s", s->name);
	print_line(stdout, "status:  %s", s->status);
	print_line(stdout, "cpus:    %zu", s->n_cpus);
	print_line(stdout, "pid:     %d", (int)c->pid);
	print_line(stdout, "control: %s", c->path);
	print_migration(&s->migration);
}

int verb_status(int argc, char **argv)
{
	struct verb_args args = { 0 };
	int rc = verb_parse("status", VERB_JSON, 1, argc, argv, &args);
	struct vm_status s = { 0 };
	struct client c;
	struct err e;

	if (rc >= 0)
		return rc;
	rc = ask(&c, args.vm, &s, &e);
	if (rc == 0 && args.json)
		print_json(&c, &s);
	else if (rc == 0)
		print_text(&c, &s);
	json_decref(s.answer);
	client_close(&c);
	return rc ? verb_fail(&e, VERB_FAILED) : VERB_DONE;
}
