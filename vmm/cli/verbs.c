/*
 * What the verbs share: their table, their options, and how they print. Main thread of a
 * short-lived process.
 */
#include "vmm/cli/verb.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/options.h"
#include "vmm/base/print.h"
#include "vmm/cli/client.h"

const struct verb cli_verbs[] = {
	{ "list", verb_list },	       { "status", verb_status },
	{ "pause", verb_pause },       { "resume", verb_resume },
	{ "reset", verb_reset },       { "resize", verb_resize },
	{ "shutdown", verb_shutdown }, { "quit", verb_quit },
	{ "save", verb_save },	       { "migrate", verb_migrate },
	{ "cancel", verb_cancel },     { "set", verb_set },
	{ "doctor", verb_doctor },     { NULL, NULL },
};

const struct verb *verb_find(const char *name)
{
	for (const struct verb *v = cli_verbs; v->name; v++)
		if (!strcmp(v->name, name))
			return v;
	return NULL;
}

int verb_fail(const struct err *e, int code)
{
	print_line(stderr, "godwit: %s", e->text);
	return code;
}

void verb_print_json(const json_t *o)
{
	if (o)
		json_dumpf(o, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
}

/* Says it once; nothing is tried again at exit. `why`: errno, 0 if it is not known any more. */
static void tell_output_lost(const char *verb, int why)
{
	struct err e;

	__fpurge(stdout);
	clearerr(stdout);
	err_set(&e, "%s: output was lost, stdout cannot be written to", verb);
	if (why)
		err_errno(&e, why, "%s: output was lost, cannot write to stdout", verb);
	verb_fail(&e, VERB_FAILED);
}

bool verb_output_lost(const char *verb)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return false;
	tell_output_lost(verb, errno);
	return true;
}

int verb_print_text(const char *verb, const char *text)
{
	if (fputs(text, stdout) >= 0 && fflush(stdout) == 0)
		return VERB_DONE;
	tell_output_lost(verb, errno);
	return VERB_FAILED;
}

int verb_absolute_path(const char *file, char *path, size_t size, struct err *e)
{
	size_t n = 0;

	if (!*file)
		return err_set(e, "the file's name is empty");
	if (file[0] != '/') {
		if (!getcwd(path, size - 1))
			return err_errno(e, errno, "cannot tell the current directory");
		n = strlen(path);
		path[n++] = '/';
	}
	if (n + strlen(file) >= size)
		return err_set(e, "the file's name has %zu characters (at most %zu)",
			       n + strlen(file), size - 1);
	memcpy(path + n, file, strlen(file) + 1);
	return 0;
}

int verb_watch_interrupts(struct err *e)
{
	sigset_t signals;
	int fd;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &signals, NULL) ||
	    (fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
		return err_errno(e, errno, "cannot watch for Ctrl-C");
	verb_print_patiently(fd);
	return fd;
}

bool verb_take_interrupt(int *fd)
{
	struct signalfd_siginfo taken;

	if (*fd < 0 || read(*fd, &taken, sizeof(taken)) < 0)
		return false;
	/* Pending again, so that the descriptors of verb_print_patiently are readable, too. */
	raise(SIGINT);
	*fd = -1;
	return true;
}

enum { ARG_HELP, ARG_JSON, ARG_FORCE, ARG_TIMEOUT };

#define VERB_ALL (1u << 31)

static const struct option_spec verb_options[] = {
	[ARG_HELP] = { "help", false, VERB_ALL },
	[ARG_JSON] = { "json", false, VERB_JSON },
	[ARG_FORCE] = { "force", false, VERB_FORCE },
	[ARG_TIMEOUT] = { "timeout", true, VERB_TIMEOUT },
	{ NULL, false, 0 },
};

static int take_operand(const char *verb, unsigned int n, unsigned int wanted, const char *word,
			struct verb_args *args, struct err *e)
{
	if (n >= wanted)
		return err_set(e, "%s: unexpected '%s' (see godwit %s --help)", verb, word, verb);
	*(n == 0 ? &args->vm : &args->file) = word;
	return 0;
}

int verb_parse(const char *verb, unsigned int groups, unsigned int operands, int argc, char **argv,
	       struct verb_args *args)
{
	struct options o = {
		.argc = argc, .argv = argv, .group = groups | VERB_ALL, .table = verb_options
	};
	unsigned int n = 0;
	const char *value;
	struct err e;

	for (;;) {
		switch (option_next(&o, &value, &e)) {
		case OPTION_END:
			if (n == operands)
				return -1;
			err_set(&e, "%s: %s is missing (see godwit %s --help)", verb,
				n == 0 ? "the VM's name" : "the file's name", verb);
			return verb_fail(&e, VERB_USAGE);
		case OPTION_OPERAND:
			if (take_operand(verb, n, operands, value, args, &e))
				return verb_fail(&e, VERB_USAGE);
			n++;
			break;
		case ARG_HELP:
			return help_print(verb);
		case ARG_JSON:
			args->json = true;
			break;
		case ARG_FORCE:
			args->force = true;
			break;
		case ARG_TIMEOUT:
			if (parse_number(value, 0, 86400, &args->timeout_s, &e)) {
				err_context(&e, "--timeout");
				return verb_fail(&e, VERB_USAGE);
			}
			break;
		default:
			err_context(&e, "%s", verb);
			return verb_fail(&e, VERB_USAGE);
		}
	}
}

int verb_ask(const char *verb, unsigned int groups, int argc, char **argv, struct verb_args *args,
	     int (*ask)(struct client *c, const struct verb_args *args, struct err *e))
{
	int rc = verb_parse(verb, groups, 1, argc, argv, args);
	struct client c;
	struct err e;

	if (rc >= 0)
		return rc;
	rc = client_open(&c, args->vm, CLIENT_TIMEOUT_MS, &e) || ask(&c, args, &e);
	client_close(&c);
	return rc ? verb_fail(&e, VERB_FAILED) : VERB_DONE;
}
