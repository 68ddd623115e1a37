/*
 * godwit migrate VM URI: moves a running guest, and returns when that is over. It is a client like
 * any other: it sets parameters, executes `migrate`, follows (follow.c) and prints (summary.c,
 * report.c). Main thread of a short-lived process. Invariant: the exit codes 1 and 3 mean that the
 * guest did not leave.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migrate/channel/uri.h"
#include "migrate/parameters.h"
#include "vmm/base/err.h"
#include "vmm/base/options.h"
#include "vmm/base/print.h"
#include "vmm/cli/move/check.h"
#include "vmm/cli/client.h"
#include "vmm/cli/move/follow.h"
#include "vmm/cli/move/settings.h"
#include "vmm/cli/move/report.h"
#include "vmm/cli/move/summary.h"
#include "vmm/cli/verb.h"

/* How long a VM whose guest has moved may take to end. */
#define END_TIMEOUT_MS 30000

struct migrate {
	/* From the command line. */
	const char *vm, *report;
	char uri[sizeof(((struct uri *)0)->text)];
	struct settings settings;
	bool detach, json, help, check;

	struct client client;
	struct follow follow;
	struct history history;
	FILE *report_file;
	bool report_is_new;
};

/* -- the command line -- */

/* Those that are no parameters. */
enum {
	ARG_DETACH,
	ARG_REPORT,
	ARG_JSON,
	ARG_CHECK,
	ARG_HELP,
	ARG_POST_COPY,
	ARG_STORAGE,
	ARG_PARAMETERS /* the first parameter */
};

static const struct option_spec own_options[ARG_PARAMETERS] = {
	[ARG_DETACH] = { "detach", false, 1 },
	[ARG_REPORT] = { "report", true, 1 },
	[ARG_JSON] = { "json", false, 1 },
	[ARG_CHECK] = { "check", false, 1 },
	[ARG_HELP] = { "help", false, 1 },
	/* Not implemented: refused by name. */
	[ARG_POST_COPY] = { "post-copy", false, 1 },
	[ARG_STORAGE] = { "storage", false, 1 },
};

#define OPTIONS_MAX (ARG_PARAMETERS + PARAMETERS_MAX)

/* The options of its own, then the parameters that are options (parameters.h). */
static void list_options(struct option_spec options[OPTIONS_MAX])
{
	size_t n = ARG_PARAMETERS;

	memcpy(options, own_options, sizeof(own_options));
	for (const struct parameter *r = parameter_table; r->qmp; r++)
		if (r->option)
			options[n++] = (struct option_spec){ r->name, r->kind != PARAMETER_SWITCH,
							     1 };
	options[n] = (struct option_spec){ NULL, false, 0 };
}

/* Whether the report is to be HTML; -1 with a sentence if the name ends in neither. */
static int is_html(const char *file, struct err *e)
{
	const char *dot = strrchr(file, '.');

	if (dot && !strcmp(dot, ".html"))
		return 1;
	if (dot && !strcmp(dot, ".json"))
		return 0;
	return err_set(e, "--report: the name '%s' ends neither in .html nor in .json", file);
}

/* A path becomes absolute: the VM has another directory. */
static int take_uri(struct migrate *m, const char *text, struct err *e)
{
	char path[PATH_MAX];
	struct uri u;
	int n;

	if ((!strncmp(text, "file:", 5) || !strncmp(text, "unix:", 5)) && text[5]) {
		if (verb_absolute_path(text + 5, path, sizeof(path), e))
			return -1;
		n = snprintf(m->uri, sizeof(m->uri), "%.5s%s", text, path);
	} else {
		n = snprintf(m->uri, sizeof(m->uri), "%s", text);
	}
	if (n < 0 || (size_t)n >= sizeof(m->uri))
		return err_set(e, "the URI is longer than %zu characters", sizeof(m->uri) - 1);
	return uri_parse(m->uri, &u, e);
}

static int take_option(struct migrate *m, int option, const char *name, const char *value,
		       struct err *e)
{
	switch (option) {
	case ARG_DETACH:
		m->detach = true;
		return 0;
	case ARG_REPORT:
		m->report = value;
		return is_html(value, e) < 0 ? -1 : 0;
	case ARG_JSON:
		m->json = true;
		return 0;
	case ARG_CHECK:
		m->check = true;
		return 0;
	case ARG_HELP:
		m->help = true;
		return 0;
	case ARG_POST_COPY:
	case ARG_STORAGE:
		return err_set(e, "--%s is not implemented", name);
	default:
		/* One without a value is a switch. */
		if (settings_add(&m->settings, name, value ? value : "on", e))
			return err_context(e, "--%s", name);
		return 0;
	}
}

/* Refuses what --check does not go together with. */
static int check_words(const struct migrate *m, struct err *e)
{
	if (m->detach || m->report)
		return err_set(e, "--check moves nothing, so it does not go with --%s",
			       m->detach ? "detach" : "report");
	if (!strncmp(m->uri, "file:", 5) || !strncmp(m->uri, "fd:", 3))
		return err_set(e,
			       "--check needs a destination that answers, at tcp:HOST:PORT or "
			       "unix:PATH, not %.100s",
			       m->uri);
	return 0;
}

static int take_operand(struct migrate *m, const char *word, struct err *e)
{
	if (!m->vm) {
		m->vm = word;
		return 0;
	}
	if (!m->uri[0])
		return take_uri(m, word, e);
	return err_set(e, "migrate: unexpected '%s' (see godwit migrate --help)", word);
}

static int parse(struct migrate *m, int argc, char **argv, struct err *e)
{
	struct option_spec table[OPTIONS_MAX];
	struct options o = { .argc = argc, .argv = argv, .group = 1, .table = table };
	const char *value;
	int option, rc;

	list_options(table);
	while ((option = option_next(&o, &value, e)) != OPTION_END) {
		if (option == OPTION_ERROR)
			return err_context(e, "migrate");
		rc = option == OPTION_OPERAND
			     ? take_operand(m, value, e)
			     : take_option(m, option, table[option].name, value, e);
		if (rc || m->help)
			return rc;
	}
	if (!m->vm || !m->uri[0])
		return err_set(e, "migrate: the %s is missing (see godwit migrate --help)",
			       m->vm ? "destination's URI" : "VM's name");
	if (m->detach && m->report)
		return err_set(e,
			       "--report is written at the end, so it does not go with --detach");
	return m->check ? check_words(m, e) : 0;
}

/* -- printing -- */

static void print_json(const struct migrate *m, const char *result)
{
	json_t *o = json_is_object(m->follow.answer) ? json_deep_copy(m->follow.answer)
						     : json_object();

	json_object_set_new(o, "result", json_string(result));
	verb_print_json(o);
	json_decref(o);
}

static void print_summary(const struct migrate *m)
{
	char summary[SUMMARY_BYTES];

	summary_write(&m->follow.figures, summary);
	fputs(summary, stdout);
}

static int write_report(struct migrate *m, const char *result, struct err *e)
{
	struct report r = { .vm = m->client.name,
			    .uri = m->uri,
			    .result = result,
			    .history = &m->history,
			    .answer = m->follow.answer };
	json_t *o;
	int rc;

	if (is_html(m->report, NULL)) {
		report_html(&r, m->report_file);
	} else {
		o = report_json(&r);
		json_dumpf(o, m->report_file, JSON_INDENT(1));
		fputc('\n', m->report_file);
		json_decref(o);
	}
	rc = fflush(m->report_file) || ferror(m->report_file) ||
	     ftruncate(fileno(m->report_file), ftell(m->report_file));
	return rc ? err_errno(e, errno, "cannot write the report %s", m->report) : 0;
}

/* Does not truncate: an older report stays until the new one is written. */
static int open_report(struct migrate *m, struct err *e)
{
	const int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY |
			  O_NONBLOCK; /* do not wait for the reader of a FIFO */
	struct stat st;
	int fd;

	if (!m->report)
		return 0;
	fd = open(m->report, flags | O_CREAT | O_EXCL, 0600);
	m->report_is_new = fd >= 0;
	if (fd < 0 && errno == EEXIST) {
		fd = open(m->report, flags);
		if (fd < 0 ? errno == ENXIO : fstat(fd, &st) || !S_ISREG(st.st_mode)) {
			if (fd >= 0)
				close(fd);
			return err_set(e, "--report: %s exists and is not a regular file",
				       m->report);
		}
	}
	if (fd >= 0 && !(m->report_file = fdopen(fd, "w")))
		close(fd);
	return m->report_file ? 0 : err_errno(e, errno, "cannot write the report %s", m->report);
}

/* Appends where the guest is, if it was not moved. */
static void say_where(struct migrate *m, struct err *e)
{
	size_t n = strlen(e->text);
	char status[32];
	struct err other;
	bool running;

	if (client_status(&m->client, status, &running, &other))
		snprintf(e->text + n, sizeof(e->text) - n, "; the guest is still here");
	else if (running)
		snprintf(e->text + n, sizeof(e->text) - n, "; the guest runs on here");
	else
		snprintf(e->text + n, sizeof(e->text) - n,
			 "; the guest is still here, its status is %s", status);
}

static void print_moved(const struct migrate *m)
{
	const struct figures *f = &m->follow.figures;
	char pause[FIGURES_TEXT];

	print_line(stdout,
		   "'%s' has moved to %s in %" PRIu64 ".%02" PRIu64 " s, with a pause of %s",
		   m->client.name, m->uri, f->total_ms / 1000, f->total_ms % 1000 / 10,
		   figures_us(pause, f->pause_us));
}

/* -- the migration -- */

/* The VM stays for a while to answer questions. There are none. */
static int end_moved(struct migrate *m)
{
	struct err e;

	client_execute(&m->client, "quit", NULL, NULL, &e);
	if (client_wait_end(&m->client, END_TIMEOUT_MS, &e))
		verb_fail(&e, VERB_DONE);
	if (!m->json) {
		print_moved(m);
		print_summary(m);
	}
	return VERB_DONE;
}

/* The guest did not leave; `e` gets the sentence. */
static int end_here(struct migrate *m, enum figures_end end, struct err *e)
{
	const struct figures *f = &m->follow.figures;
	bool cancelled = end == FIGURES_CANCELLED;

	/* Leave room for where the guest is. */
	err_set(e, "'%s' was not moved: %.380s", m->client.name,
		cancelled     ? "cancelled"
		: f->error[0] ? f->error
			      : "the migration failed");
	say_where(m, e);
	settings_put_back(&m->settings, &m->client);
	if (f->round && !m->json)
		print_summary(m);
	return cancelled ? VERB_CANCELLED : VERB_FAILED;
}

/* After GO, without RUNNING. */
static int end_undecided(struct migrate *m, struct err *e)
{
	const char *vm = m->client.name;

	err_set(e,
		"it is undecided where the guest of '%s' runs: %.150s. Look at the destination: "
		"if it runs there, godwit quit %s; only if it does not, godwit resume %s --force",
		vm,
		m->follow.figures.error[0] ? m->follow.figures.error
					   : "the destination did not answer",
		vm, vm);
	return VERB_UNDECIDED;
}

/* The VM has ended or does not answer: `e` says which. */
static int end_lost(struct migrate *m, struct err *e)
{
	const char *status = m->follow.figures.status;
	struct err why = *e;

	/* Before the status was "device" the guest cannot have started anywhere else. */
	if (m->client.closed && strcmp(status, "device"))
		return VERB_FAILED;
	err_set(e,
		"%.300s: it is not known where its guest runs; look at the destination, and at "
		"godwit status %s",
		why.text, m->client.name);
	return VERB_UNDECIDED;
}

static int finish(struct migrate *m, enum figures_end end, bool lost, struct err *e)
{
	static const char *const results[] = { [VERB_DONE] = "moved",
					       [VERB_FAILED] = "failed",
					       [VERB_CANCELLED] = "cancelled",
					       [VERB_UNDECIDED] = "undecided" };
	struct err report;
	int code;

	if (lost)
		code = end_lost(m, e);
	else if (end == FIGURES_MOVED)
		code = end_moved(m);
	else if (end == FIGURES_UNDECIDED)
		code = end_undecided(m, e);
	else
		code = end_here(m, end, e);
	if (m->json)
		print_json(m, results[code]);
	if (m->report_file && write_report(m, results[code], &report))
		verb_fail(&report, code);
	return code;
}

/* While a migration is under way nothing is set. */
static int check_idle(struct migrate *m, struct err *e)
{
	struct figures f;
	json_t *answer;

	if (client_execute(&m->client, "query-migrate", NULL, &answer, e))
		return -1;
	figures_read(&f, answer);
	json_decref(answer);
	if (f.end == FIGURES_GOES_ON && strcmp(f.status, "none"))
		return err_set(e, "a migration of '%s' is under way already (to %s)",
			       m->client.name, f.uri);
	return 0;
}

static int begin(struct migrate *m, struct err *e)
{
	struct client *c = &m->client;

	if (client_open(c, m->vm, CLIENT_TIMEOUT_MS, e) || check_idle(m, e) || open_report(m, e) ||
	    settings_remember(&m->settings, c, e))
		return -1;
	/* With --detach Ctrl-C does not cancel. */
	if (!m->detach && (c->interrupt_fd = verb_watch_interrupts(e)) < 0)
		return -1;
	if (settings_apply(&m->settings, c, e) ||
	    client_execute(c, m->check ? "x-godwit-check" : "migrate",
			   json_pack("{s:s}", "uri", m->uri), NULL, e)) {
		settings_put_back(&m->settings, c);
		return -1;
	}
	return 0;
}

static int move(struct migrate *m, struct err *e)
{
	struct follow *f = &m->follow;
	enum figures_end end;
	bool lost;
	int code;

	f->client = &m->client;
	if (begin(m, e)) {
		if (m->report_is_new)
			unlink(m->report);
		return VERB_FAILED;
	}
	if (m->check) {
		code = check_follow(&m->client, m->uri, m->json, e);
		settings_put_back(&m->settings, &m->client);
		return code;
	}
	if (m->detach) {
		if (m->json)
			print_json(m, "started");
		else
			print_line(stdout, "'%s' is being moved to %s (see godwit status %s)",
				   m->client.name, m->uri, m->client.name);
		return VERB_DONE;
	}
	f->show = isatty(STDERR_FILENO) ? FOLLOW_LINE : m->json ? FOLLOW_QUIET : FOLLOW_ROUNDS;
	f->history = m->report ? &m->history : NULL;
	lost = follow_run(f, &end, e) != 0;
	return finish(m, end, lost, e);
}

int verb_migrate(int argc, char **argv)
{
	struct migrate m = { .client = { .fd = -1, .pidfd = -1, .interrupt_fd = -1 } };
	struct err e = { "" };
	int code = VERB_USAGE;

	settings_init(&m.settings);
	if (!parse(&m, argc, argv, &e))
		code = m.help ? help_print("migrate") : move(&m, &e);
	if (code && !m.help)
		verb_fail(&e, code);
	else if (!m.help && !m.check)
		verb_output_lost("migrate");
	if (m.client.interrupt_fd >= 0)
		close(m.client.interrupt_fd);
	client_close(&m.client);
	if (m.report_file)
		fclose(m.report_file);
	json_decref(m.follow.answer);
	history_free(&m.history);
	settings_free(&m.settings);
	return code;
}
