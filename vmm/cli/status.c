/*
 * godwit status VM [--json]. Main thread of a short-lived process.
 */
#include <stdio.h>

#include "vmm/base/err.h"
#include "vmm/base/words.h"
#include "vmm/cli/client.h"
#include "vmm/cli/verb.h"

struct vm_status {
	char name[80], status[32];
	bool running;
	size_t n_cpus;
};

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
	return 0;
}

static void print_json(const struct client *c, const struct vm_status *s)
{
	json_t *o = json_pack("{s:s,s:s,s:b,s:i,s:I,s:s*}", "name", s->name, "status", s->status,
			      "running", s->running, "pid", (int)c->pid, "cpus",
			      (json_int_t)s->n_cpus, "control", c->path);

	if (o)
		json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
}

int verb_status(int argc, char **argv)
{
	struct verb_args args = { 0 };
	int rc = verb_parse("status", VERB_JSON, 1, argc, argv, &args);
	struct vm_status s;
	struct client c;
	struct err e;

	if (rc >= 0)
		return rc;
	rc = ask(&c, args.vm, &s, &e);
	if (rc == 0 && args.json)
		print_json(&c, &s);
	else if (rc == 0)
		printf("name:    %s\nstatus:  %s\ncpus:    %zu\npid:     %d\ncontrol: %s\n", s.name,
		       s.status, s.n_cpus, (int)c.pid, c.path);
	client_close(&c);
	return rc ? verb_fail(&e, VERB_FAILED) : VERB_DONE;
}
