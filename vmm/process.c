/*
 * Descriptors, signals and stderr of a process that runs a VM: see process.h. Main thread, but for
 * tell_backlogged(). Nothing here ends the process or waits.
 */
#include "vmm/process.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/log.h"

/* ---- descriptors ---- */

void process_fill_descriptors(void)
{
	int fd, opened;

	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		opened = open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY);
		/* No /dev here: a descriptor that can neither be read nor written. */
		if (opened < 0)
			opened = open("/", O_PATH);
		if (opened > fd)
			close(opened);
	}
}

/* ---- signals ---- */

/* SIGQUIT too: a core would hold the guest's memory. Whoever wants one has SIGABRT. */
static const int ending_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU, SIGPWR };

/*
 * A reader that is gone and a file that may not grow are errors of the write, no more. The others
 * are strays: timers that the process does not have, questions of programs that ask by signal.
 */
static const int ignored_signals[] = { SIGPIPE, SIGXFSZ,   SIGUSR1, SIGUSR2,  SIGALRM,
				       SIGPROF, SIGVTALRM, SIGPOLL, SIGSTKFLT };

int process_take_signals(sigset_t *ending, struct err *e)
{
	size_t i;
	int n;

	for (i = 0; i < sizeof(ignored_signals) / sizeof(ignored_signals[0]); i++)
		signal(ignored_signals[i], SIG_IGN);
	for (n = SIGRTMIN; n <= SIGRTMAX; n++)
		signal(n, SIG_IGN);
	sigemptyset(ending);
	for (i = 0; i < sizeof(ending_signals) / sizeof(ending_signals[0]); i++)
		sigaddset(ending, ending_signals[i]);
	if (sigprocmask(SIG_BLOCK, ending, NULL))
		return err_errno(e, errno, "cannot block signals");
	return 0;
}

/* ---- the log's backlog ---- */

static void log_writable(void *arg, uint32_t events)
{
	struct process_log *l = arg;

	(void)events;
	if (log_flush())
		loop_remove(l->loop, &l->watch);
}

static void watch_log(void *arg)
{
	struct process_log *l = arg;

	/* What cannot be watched is written with the next line. */
	if (!log_flush())
		(void)loop_add(l->loop, &l->watch, EPOLLOUT, NULL);
}

/* Any thread. */
static void tell_backlogged(void *arg)
{
	struct process_log *l = arg;

	(void)loop_post(l->loop, watch_log, l);
}

void process_log_begin(struct process_log *l, struct loop *loop)
{
	*l = (struct process_log){ .loop = loop };
	l->watch = (struct loop_watch){ .fd = log_fd(), .fn = log_writable, .arg = l };
	log_set_backlogged(tell_backlogged, l);
	/* There may be a backlog from before. */
	if (log_fd() >= 0)
		watch_log(l);
}

void process_log_end(struct process_log *l)
{
	if (!l->loop)
		return;
	log_set_backlogged(NULL, NULL);
	loop_remove(l->loop, &l->watch);
}
