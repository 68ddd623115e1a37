/*
 * The teller: see teller.h. Its thread lives as long as there is something to tell. It calls
 * `decisions` without the lock, so whoever waits for the thread must not be who `decisions` waits
 * for.
 */
#include "migrate/agent/teller.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/guest.h"
#include "vmm/base/clock.h"
#include "vmm/base/wake.h"

/* How often the agent is asked whether the hook has ended. */
#define ASK_MS 50

int teller_init(struct teller *t, struct err *e)
{
	*t = (struct teller){ .answer_ms = TELLER_ANSWER_MS,
			      .hook_ms = TELLER_HOOK_MS,
			      .retry_ms = TELLER_RETRY_MS,
			      .wanted = GUEST_AFTER_MIGRATION,
			      .settled = GUEST_AFTER_MIGRATION };
	if (wake_init(&t->halt_fd, e))
		return -1;
	if (wake_init(&t->idle_fd, e)) {
		wake_free(&t->halt_fd);
		return -1;
	}
	wake_signal(t->idle_fd);
	pthread_mutex_init(&t->lock, NULL);
	return 0;
}

static void join(struct teller *t)
{
	if (t->joinable)
		pthread_join(t->thread, NULL);
	t->joinable = false;
}

void teller_free(struct teller *t)
{
	teller_halt(t, "the VM is ended");
	wake_free(&t->halt_fd);
	wake_free(&t->idle_fd);
	pthread_mutex_destroy(&t->lock);
}

/* -- one conversation; the thread -- */

/* When what is waited for must be there. */
struct limits {
	uint64_t answer_us, hook_us, ask_us; /* UINT64_MAX: none */
};

/* Small, and sent only when the one before was answered: it always fits in the socket. */
static int ask(const struct teller *t, struct agent *a, int fd, struct limits *l)
{
	uint8_t request[AGENT_REQUEST_BYTES];
	enum agent_step step = a->step;
	size_t n = agent_request(a, request);
	uint64_t now = clock_us();

	l->answer_us = now + (uint64_t)t->answer_ms * 1000;
	if (step == AGENT_EXEC)
		l->hook_us = now + (uint64_t)t->hook_ms * 1000;
	l->ask_us = UINT64_MAX;
	if (send(fd, request, n, MSG_NOSIGNAL) == (ssize_t)n)
		return 0;
	return err_set(&a->said, "the channel " AGENT_CHANNEL " was closed");
}

/* What it says next: the same results as agent_take. */
static enum agent_next hear(struct agent *a, int fd)
{
	uint8_t bytes[4096];
	ssize_t n = recv(fd, bytes, sizeof(bytes), 0);

	if (n > 0)
		return agent_take(a, bytes, (size_t)n);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return AGENT_LISTEN;
	err_set(&a->said, "the channel " AGENT_CHANNEL " was closed");
	return AGENT_OVER;
}

static void too_late(const struct teller *t, struct agent *a, bool answer)
{
	if (answer)
		err_set(&a->said, "the guest's agent has not answered within %g s",
			t->answer_ms / 1000.0);
	else
		err_set(&a->said, AGENT_HOOK " has not ended within %g s, and is left alone",
			t->hook_ms / 1000.0);
}

static int halted(struct teller *t, struct agent *a)
{
	pthread_mutex_lock(&t->lock);
	err_set(&a->said, "given up: %s", t->halted);
	pthread_mutex_unlock(&t->lock);
	return -1;
}

enum wake { WAKE_OVER = -1, WAKE_NOTHING, WAKE_AGENT, WAKE_ASK };

/* Sleeps until the agent says something, it is time to ask again, or it is over. */
static enum wake wait_for(struct teller *t, struct agent *a, int fd, const struct limits *l)
{
	struct pollfd fds[] = { { fd, POLLIN, 0 }, { t->halt_fd, POLLIN, 0 } };
	uint64_t now = clock_us(), until = l->hook_us;
	int rc;

	until = l->answer_us < until ? l->answer_us : until;
	until = l->ask_us < until ? l->ask_us : until;
	rc = poll(fds, 2, now < until ? (int)((until - now) / 1000) + 1 : 0);
	if (fds[1].revents)
		return halted(t, a);
	if (rc > 0)
		return WAKE_AGENT;
	now = clock_us();
	if (now >= l->answer_us || now >= l->hook_us) {
		too_late(t, a, now < l->hook_us);
		return WAKE_OVER;
	}
	return now >= l->ask_us ? WAKE_ASK : WAKE_NOTHING;
}

static void converse(struct teller *t, struct agent *a, int fd)
{
	struct limits l = { .hook_us = UINT64_MAX };
	enum agent_next next = AGENT_ASK;
	enum wake wake;

	while (next != AGENT_OVER) {
		if (next == AGENT_ASK && ask(t, a, fd, &l))
			return;
		if (next == AGENT_ASK_LATER) {
			l.answer_us = UINT64_MAX;
			l.ask_us = clock_us() + ASK_MS * 1000;
		}
		wake = wait_for(t, a, fd, &l);
		if (wake == WAKE_OVER)
			return;
		next = wake == WAKE_AGENT ? hear(a, fd)
		       : wake == WAKE_ASK ? AGENT_ASK
					  : AGENT_LISTEN;
	}
}

/* Whether the hook was started; a failure is not spoken of if `quiet`. */
static bool tell(struct teller *t, enum guest_event event, bool quiet)
{
	uint32_t id = (uint32_t)clock_us();
	struct agent a;
	int fd;

	(void)!getrandom(&id, sizeof(id), 0);
	agent_begin(&a, event, id);
	fd = t->guest->ops->agent_open(t->guest, &a.said);
	if (fd >= 0) {
		converse(t, &a, fd);
		close(fd);
	}
	if (a.started || !quiet)
		decision_tell(&t->decisions, DECISION_GUEST_EVENT, "%s: %s",
			      guest_event_name(event), a.said.text);
	agent_free(&a);
	return a.started;
}

/* The next thing to tell; false: nothing, and the thread ends. */
static bool next_event(struct teller *t, enum guest_event *event)
{
	bool more;

	pthread_mutex_lock(&t->lock);
	more = !t->halted && !t->gave_up && t->wanted != t->settled;
	if (more)
		*event = t->wanted;
	t->running = more;
	if (!more)
		wake_signal(t->idle_fd);
	pthread_mutex_unlock(&t->lock);
	return more;
}

static bool is_still_wanted(struct teller *t, enum guest_event event)
{
	bool wanted;

	pthread_mutex_lock(&t->lock);
	wanted = !t->halted && t->wanted == event;
	pthread_mutex_unlock(&t->lock);
	return wanted;
}

/* A guest that was told of the beginning waits for the end: it is not forgotten for one failure. */
static bool tell_end(struct teller *t)
{
	for (int i = 1; !tell(t, GUEST_AFTER_MIGRATION, i > 1 && i < TELLER_TRIES); i++)
		if (i == TELLER_TRIES || wake_nap(t->halt_fd, (uint64_t)t->retry_ms * 1000, NULL) ||
		    !is_still_wanted(t, GUEST_AFTER_MIGRATION))
			return false;
	return true;
}

static void *teller_thread(void *arg)
{
	struct teller *t = arg;
	enum guest_event event;
	bool started;

	while (next_event(t, &event)) {
		/* Who was not told of the beginning is not told of the end. */
		bool none = event == GUEST_AFTER_MIGRATION && !t->told;

		started = !none &&
			  (event == GUEST_BEFORE_MIGRATION ? tell(t, event, false) : tell_end(t));
		pthread_mutex_lock(&t->lock);
		if (started || none || (!t->halted && event == GUEST_BEFORE_MIGRATION)) {
			t->settled = event;
			t->told = started && event == GUEST_BEFORE_MIGRATION;
		} else if (!t->halted && t->wanted == event) {
			t->gave_up = true; /* told stays: the next to end a migration tells it */
		}
		pthread_mutex_unlock(&t->lock);
	}
	return NULL;
}

/* -- who calls -- */

void teller_want(struct teller *t, enum guest_event event)
{
	bool start;

	pthread_mutex_lock(&t->lock);
	t->wanted = event;
	t->gave_up = false;
	start = !t->running && t->wanted != t->settled;
	pthread_mutex_unlock(&t->lock);
	if (!start)
		return;
	join(t);
	wake_drain(t->halt_fd);
	wake_drain(t->idle_fd);
	t->halted = NULL;
	t->running = true;
	if (pthread_create(&t->thread, NULL, teller_thread, t) == 0) {
		t->joinable = true;
		pthread_setname_np(t->thread, "agent");
		return;
	}
	t->running = false;
	wake_signal(t->idle_fd);
	decision_tell(&t->decisions, DECISION_GUEST_EVENT,
		      "the guest is told nothing: cannot start a thread");
}

bool teller_busy(struct teller *t)
{
	bool busy;

	pthread_mutex_lock(&t->lock);
	busy = t->running;
	pthread_mutex_unlock(&t->lock);
	return busy;
}

void teller_halt(struct teller *t, const char *why)
{
	pthread_mutex_lock(&t->lock);
	if (t->running)
		t->halted = why;
	pthread_mutex_unlock(&t->lock);
	wake_signal(t->halt_fd);
	join(t);
}

bool teller_told(struct teller *t)
{
	bool told;

	pthread_mutex_lock(&t->lock);
	told = t->told;
	pthread_mutex_unlock(&t->lock);
	return told;
}

void teller_set_told(struct teller *t)
{
	t->wanted = t->settled = GUEST_BEFORE_MIGRATION;
	t->told = true;
}
