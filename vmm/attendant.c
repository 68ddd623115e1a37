/*
 * The attending process: see attendant.h. It has one thread only, so that it may fork.
 */
#include "vmm/attendant.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/backend/terminal.h"
#include "migrate/channel/uri.h"
#include "migrate/slots.h"
#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/log.h"
#include "vmm/cli/verb.h"
#include "vmm/control/runtime.h"
#include "vmm/vm.h"

static void remove_leftovers(int notes_fd)
{
	char paths[(CONFIG_DEVICES_MAX + 2) * RUNTIME_PATH_MAX], *path, *end, dir[RUNTIME_PATH_MAX];
	ssize_t n = io_read_full(notes_fd, paths, sizeof(paths));

	for (path = paths; n > 0; n -= end + 1 - path, path = end + 1) {
		end = memchr(path, '\0', (size_t)n);
		if (!end)
			break;
		unix_socket_remove_stale(path);
	}
	if (!runtime_dir(dir, false, NULL))
		slots_remove_unused(dir);
}

/* Passes on what has come; true when the child may have ended. All but SIGCHLD end the VM. */
static bool pass_signals_on(struct start *s, int signal_fd, pid_t child)
{
	struct signalfd_siginfo taken;
	bool look = false;

	while (read(signal_fd, &taken, sizeof(taken)) == sizeof(taken))
		if (taken.ssi_signo == SIGCHLD)
			look = true;
		else if (kill(child, (int)taken.ssi_signo) == 0)
			s->ended = true;
	return look;
}

/* Until the child has ended: its status. */
static int look_after(struct start *s, pid_t child, int signal_fd, int ask_fd)
{
	struct pollfd fds[2] = { { signal_fd, POLLIN, 0 }, { ask_fd, POLLIN, 0 } };
	int status;
	char byte;

	for (;;) {
		poll(fds, 2, -1);
		/* First: who asks is told when all that came before was passed on. */
		if (pass_signals_on(s, signal_fd, child) &&
		    waitpid(child, &status, WNOHANG) == child)
			return status;
		if (fds[1].revents && recv(ask_fd, &byte, 1, MSG_DONTWAIT) == 1)
			(void)!send(ask_fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		else if (fds[1].revents & (POLLHUP | POLLERR))
			fds[1].fd = -1;
	}
}

/* In the child this returns with the VM's exit code, and s->is_child. */
static int fork_vm(struct start *s, int signal_fd, int notes[2], int ask[2])
{
	struct terminal terminal;
	pid_t self, child;
	int status;

	terminal_keep(&terminal, STDIN_FILENO);
	self = getpid();
	child = fork();
	if (child == 0) {
		close(signal_fd);
		close(notes[0]);
		close(ask[0]);
		s->attendant = self;
		s->attendant_fd = ask[1];
		s->notes_fd = notes[1];
		s->is_child = true;
		return vm_run(s);
	}
	close(notes[1]);
	close(ask[1]);
	if (child < 0) {
		log_warn("cannot start a process: %s", strerror(errno));
		status = VERB_FAILED << 8;
	} else {
		status = look_after(s, child, signal_fd, ask[0]);
		remove_leftovers(notes[0]);
	}
	close(notes[0]);
	close(ask[0]);
	close(signal_fd);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	/* The guest's console may have been there. */
	terminal_close(&terminal);
	log_warn("the VM was ended by signal %d (%s)", WTERMSIG(status),
		 strsignal(WTERMSIG(status)));
	log_close();
	return VERB_FAILED;
}

int attendant_run(struct start *s)
{
	int notes[2], ask[2], signal_fd;
	struct err e;
	sigset_t set;

	log_open();
	if (process_take_signals(&set, &e)) {
		log_warn("%s", e.text);
		return VERB_FAILED;
	}
	/* Ignored, as it may have been by who started this, it would not come at all. */
	signal(SIGCHLD, SIG_DFL);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signal_fd < 0 || pipe2(notes, O_CLOEXEC) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ask)) {
		log_warn("cannot make what a child is looked after with: %s", strerror(errno));
		return VERB_FAILED;
	}
	return fork_vm(s, signal_fd, notes, ask);
}

static int open_receiver(struct receiver *r, const struct config *c, struct err *e)
{
	struct uri listen;

	r->shared = mmap(NULL, sizeof(*r->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (r->shared == MAP_FAILED)
		return err_errno(e, errno, "cannot make shared memory");
	if (door_make_passage(r->passed_on, e) == 0) {
		if (uri_parse(c->listen, &listen, e) == 0 &&
		    listeners_open(&r->listeners, &listen, r->name, sizeof(r->name), e) == 0)
			return 0;
		close(r->passed_on[0]);
		close(r->passed_on[1]);
	}
	munmap(r->shared, sizeof(*r->shared));
	return -1;
}

static void close_receiver(struct receiver *r)
{
	listeners_close(&r->listeners);
	close(r->passed_on[0]);
	close(r->passed_on[1]);
	munmap(r->shared, sizeof(*r->shared));
}

int attendant_receive(struct start *s)
{
	bool attended = geteuid() == 0 && (s->config->user || !s->config->once), crashed;
	struct receiver r = { 0 };
	struct err e;
	int code;

	if (open_receiver(&r, s->config, &e))
		return verb_fail(&e, VERB_FAILED);
	s->receiver = &r;
	do {
		code = attended ? attendant_run(s) : vm_run(s);
		/* By what a stranger has sent, most likely; nothing is lost with it. */
		crashed = attended && r.shared->arriving && !s->config->once;
		r.shared->arriving = false;
	} while (!s->is_child && !s->ended && (code == VM_EXIT_AGAIN || crashed));
	/* The one that was ended may not have seen that any more. */
	if (!s->is_child && code == VM_EXIT_AGAIN)
		code = VERB_DONE;
	if (!s->is_child)
		close_receiver(&r);
	return code;
}
