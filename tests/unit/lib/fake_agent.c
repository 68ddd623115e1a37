/*
 * The fake agent: see fake_agent.h. One thread for each connection.
 */
#include "tests/unit/lib/fake_agent.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/base/err.h"

struct talk {
	struct fake_agent *agent;
	int fd;
};

static void append(struct fake_agent *a, char *to, size_t size, const char *what, char end)
{
	size_t len;

	pthread_mutex_lock(&a->lock);
	len = strlen(to);
	ck_assert_uint_lt(len + strlen(what) + 2, size);
	snprintf(to + len, size - len, "%s%c", what, end);
	pthread_mutex_unlock(&a->lock);
}

void fake_agent_note(struct fake_agent *a, const char *word)
{
	append(a, a->story, sizeof(a->story), word, ' ');
}

bool fake_agent_noted(struct fake_agent *a, const char *word)
{
	bool yes;

	pthread_mutex_lock(&a->lock);
	yes = strstr(a->story, word) != NULL;
	pthread_mutex_unlock(&a->lock);
	return yes;
}

void fake_agent_decision(void *arg, enum decision d, const char *reason)
{
	struct fake_agent *a = arg;

	ck_assert_int_eq(d, DECISION_GUEST_EVENT);
	append(a, a->decisions, sizeof(a->decisions), reason, '\n');
}

static void say(int fd, const char *text)
{
	send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static void flood(int fd)
{
	while (send(fd, "{\"x\":[[]]}\n", 11, MSG_NOSIGNAL) > 0)
		;
}

static void exec(struct talk *t, const char *line)
{
	const char *event = strstr(line, "before_migration") ? "before_migration"
							     : "after_migration";

	if (t->agent->kind == FAKE_AGENT_NO_HOOK) {
		say(t->fd,
		    "{\"error\":{\"class\":\"GenericError\",\"desc\":"
		    "\"Failed to execute child process (No such file\\u001b or \\u00fc)\"}}\n");
		return;
	}
	fake_agent_note(t->agent, event);
	if (t->agent->on_exec)
		t->agent->on_exec(t->agent->arg);
	say(t->fd, "{\"return\": {\"pid\": 4711}}\n");
}

static void status(struct talk *t)
{
	struct fake_agent *a = t->agent;

	if (a->kind == FAKE_AGENT_NO_WORD)
		return;
	if (a->hook_waits && !__atomic_load_n(&a->hook_ended, __ATOMIC_ACQUIRE)) {
		say(t->fd, "{\"return\": {\"exited\": false}}\n");
		return;
	}
	fake_agent_note(a, "ended");
	say(t->fd, "{\"return\": {\"exitcode\": 0, \"exited\": true}}\n");
}

/* One request; false: it has had enough. */
static bool answer(struct talk *t, const char *line)
{
	char text[80];
	const char *id;

	if (t->agent->kind == FAKE_AGENT_LEAVES)
		return false;
	if (t->agent->kind == FAKE_AGENT_FLOODS)
		flood(t->fd);
	if (t->agent->kind == FAKE_AGENT_SILENT)
		return true;
	if (strstr(line, "guest-sync-delimited") && (id = strstr(line, "\"id\":"))) {
		/* As of one whose host has gone away in the middle. */
		say(t->fd, "{\"return\": {\"pid\"\n{\"return\": {}}\n{\"error\": {\"desc\":");
		snprintf(text, sizeof(text), "\xff{\"return\": %lu}\n", strtoul(id + 5, NULL, 10));
		say(t->fd, text);
	} else if (strstr(line, "\"guest-exec\"")) {
		exec(t, line);
	} else if (strstr(line, "\"guest-exec-status\"") && strstr(line, "\"pid\":4711")) {
		status(t);
	} else {
		fake_agent_note(t->agent, "nonsense");
	}
	return true;
}

static void *serve(void *arg)
{
	struct talk *t = arg;
	char line[512];
	FILE *in = fdopen(t->fd, "r");

	while (in && fgets(line, sizeof(line), in) && answer(t, line))
		;
	fclose(in);
	free(t);
	return NULL;
}

int fake_agent_open(struct fake_agent *a, struct err *e)
{
	struct talk *t;
	int fds[2];

	if (a->kind == FAKE_AGENT_IS_ELSEWHERE)
		return err_set(e, "somebody else has it");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	t = malloc(sizeof(*t));
	*t = (struct talk){ a, fds[1] };
	ck_assert_uint_lt(a->opened, sizeof(a->thread) / sizeof(a->thread[0]));
	ck_assert_int_eq(pthread_create(&a->thread[a->opened], NULL, serve, t), 0);
	__atomic_add_fetch(&a->opened, 1, __ATOMIC_RELEASE);
	return fds[0];
}

void fake_agent_end_hook(struct fake_agent *a)
{
	__atomic_store_n(&a->hook_ended, true, __ATOMIC_RELEASE);
}

void fake_agent_init(struct fake_agent *a, enum fake_agent_kind kind)
{
	*a = (struct fake_agent){ .kind = kind };
	pthread_mutex_init(&a->lock, NULL);
}

void fake_agent_free(struct fake_agent *a)
{
	unsigned int i;

	for (i = 0; i < a->opened; i++)
		pthread_join(a->thread[i], NULL);
	pthread_mutex_destroy(&a->lock);
}
