/*
 * godwit inspect FILE [--tree|--states|--pages]: what a saved machine holds. Main thread of a
 * short-lived process. It changes nothing.
 */
#include <stdio.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "migrate/inspect.h"
#include "vmm/base/err.h"
#include "vmm/base/options.h"
#include "vmm/cli/inspect.h"
#include "vmm/cli/verb.h"

static const struct option_spec options[] = {
	[INSPECT_SUMMARY] = { "help", false, 1 },
	[INSPECT_TREE] = { "tree", false, 1 },
	[INSPECT_STATES] = { "states", false, 1 },
	[INSPECT_PAGES] = { "pages", false, 1 },
	{ NULL, false, 0 },
};

int verb_inspect(int argc, char **argv)
{
	struct options o = { .argc = argc, .argv = argv, .group = 1, .table = options };
	enum inspect_what what = INSPECT_SUMMARY;
	const char *value, *file = NULL;
	struct channel *ch;
	struct err e;
	int option, rc;

	while ((option = option_next(&o, &value, &e)) != OPTION_END) {
		if (option == OPTION_ERROR) {
			err_context(&e, "inspect");
			return verb_fail(&e, VERB_USAGE);
		}
		if (option == OPTION_OPERAND && !file)
			file = value;
		else if (option == OPTION_OPERAND) {
			err_set(&e, "inspect: unexpected '%s' (see godwit inspect --help)", value);
			return verb_fail(&e, VERB_USAGE);
		} else if (option == INSPECT_SUMMARY)
			return help_print("inspect");
		else
			what = (enum inspect_what)option;
	}
	if (!file) {
		err_set(&e, "inspect: the file's name is missing (see godwit inspect --help)");
		return verb_fail(&e, VERB_USAGE);
	}
	if (file_channel_open(&ch, file, &e))
		return verb_fail(&e, VERB_FAILED);
	rc = inspect_stream(ch, what, stdout, &e);
	channel_close(ch);
	return rc ? verb_fail(&e, VERB_FAILED) : VERB_DONE;
}
