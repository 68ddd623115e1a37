/*
 * godwit resize VM ID [SIZE]: returns when the guest has been told. Main thread of a short-lived
 * process.
 */
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/options.h"
#include "vmm/cli/client.h"
#include "vmm/cli/verb.h"

struct resize_words {
	const char *vm, *id, *size;
	bool help;
};

static int parse_words(struct resize_words *w, int argc, char **argv, struct err *e)
{
	static const struct option_spec table[] = { { "help", false, 1, false },
						    { NULL, false, 0, false } };
	struct options o = { .argc = argc, .argv = argv, .group = 1, .table = table };
	const char **const to[] = { &w->vm, &w->id, &w->size }, *value;
	unsigned int n = 0;

	for (;;) {
		switch (option_next(&o, &value, e)) {
		case OPTION_END:
			if (n < 2)
				return err_set(e, "%s is missing (see godwit resize --help)",
					       n ? "the disk's id" : "the VM's name");
			return 0;
		case OPTION_OPERAND:
			if (n == 3)
				return err_set(e, "unexpected '%s' (see godwit resize --help)",
					       value);
			*to[n++] = value;
			break;
		case OPTION_ERROR:
			return -1;
		default:
			w->help = true;
			return 0;
		}
	}
}

static int resize_disk(struct client *c, const struct resize_words *w, uint64_t bytes,
		       struct err *e)
{
	json_t *arguments;

	if (client_open(c, w->vm, CLIENT_TIMEOUT_MS, e))
		return -1;
	arguments = json_pack("{s:s}", "device", w->id);
	if (w->size)
		json_object_set_new(arguments, "size", json_integer((json_int_t)bytes));
	return client_execute(c, "block_resize", arguments, NULL, e);
}

int verb_resize(int argc, char **argv)
{
	struct resize_words w = { 0 };
	uint64_t bytes = 0;
	struct client c;
	struct err e;
	int rc;

	if (parse_words(&w, argc, argv, &e) || (w.size && parse_size(w.size, &bytes, &e))) {
		err_context(&e, "resize");
		return verb_fail(&e, VERB_USAGE);
	}
	if (w.help)
		return help_print("resize");
	rc = resize_disk(&c, &w, bytes, &e);
	client_close(&c);
	return rc ? verb_fail(&e, VERB_FAILED) : VERB_DONE;
}
