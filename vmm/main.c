/*
 * A verb is found and called; for those that make a VM (run, restore, receive) the command line is
 * parsed, and vm.h or attendant.h takes over. Main thread. The only place, with vmm/cli/, that may
 * print and choose an exit code.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "migrate/channel/uri.h"
#include "vmm/attendant.h"
#include "vmm/base/err.h"
#include "vmm/cli/inspect.h"
#include "vmm/cli/verb.h"
#include "vmm/config.h"
#include "vmm/process.h"
#include "vmm/version.h"
#include "vmm/vm.h"

/* What vmm/config.c cannot know: URIs are of migrate/. */
static int check_listen(const struct config *c, struct err *e)
{
	struct uri u;

	if (!c->listen || c->help)
		return 0;
	return uri_parse(c->listen, &u, e) || uri_check_listen(&u, e) ? err_context(e, "--listen")
								      : 0;
}

static int make_vm(enum config_verb verb, int argc, char **argv)
{
	struct config c;
	struct start s = { .verb = verb, .config = &c, .attendant_fd = -1, .notes_fd = -1 };
	struct err e;
	int code;

	inherited_find(&s.inherited);
	if (config_parse(&c, verb, argc, argv, &e) || check_listen(&c, &e) ||
	    config_check_allowed(&c, &e))
		code = verb_fail(&e, VERB_USAGE);
	else if (c.help)
		code = help_print(verb == CONFIG_RUN	   ? "run"
				  : verb == CONFIG_RESTORE ? "restore"
							   : "receive");
	else if (verb == CONFIG_RECEIVE)
		code = attendant_receive(&s);
	else
		code = c.user && geteuid() == 0 ? attendant_run(&s) : vm_run(&s);
	config_free(&c);
	return code;
}

static int run_verb(int argc, char **argv)
{
	const struct verb *verb;

	if (!strcmp(argv[1], "--version")) {
		printf("godwit %s\n", godwit_version());
		return VERB_DONE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
		return help_print(argc > 2 ? argv[2] : NULL);
	if (!strcmp(argv[1], "run"))
		return make_vm(CONFIG_RUN, argc - 2, argv + 2);
	if (!strcmp(argv[1], "restore"))
		return make_vm(CONFIG_RESTORE, argc - 2, argv + 2);
	if (!strcmp(argv[1], "receive"))
		return make_vm(CONFIG_RECEIVE, argc - 2, argv + 2);
	if (!strcmp(argv[1], "inspect"))
		return verb_inspect(argc - 2, argv + 2);
	verb = verb_find(argv[1]);
	return verb ? verb->run(argc - 2, argv + 2) : help_print(argv[1]);
}

int main(int argc, char **argv)
{
	int code;

	process_fill_descriptors();
	if (argc < 2) {
		help_print(NULL);
		return VERB_USAGE;
	}
	code = run_verb(argc, argv);
	return verb_output_lost(argv[1]) && code == VERB_DONE ? VERB_FAILED : code;
}
