/*
 * A guest's agent at the other end of a pair of sockets, on a thread of its own: answers as
 * qemu-guest-agent does, or as a broken or a hostile one. It writes down what happens, and others
 * do so with it: "before_migration ended park start ...".
 */
#ifndef GODWIT_TESTS_FAKE_AGENT_H
#define GODWIT_TESTS_FAKE_AGENT_H

#include <pthread.h>
#include <stdbool.h>

#include "migrate/decisions.h"

struct err;

enum fake_agent_kind {
	FAKE_AGENT_WORKS,
	FAKE_AGENT_SILENT,	/* takes everything, says nothing */
	FAKE_AGENT_NO_HOOK,	/* an error for guest-exec */
	FAKE_AGENT_NO_WORD,	/* starts the hook, and says nothing of it */
	FAKE_AGENT_LEAVES,	/* closes at the first request */
	FAKE_AGENT_FLOODS,	/* never stops talking */
	FAKE_AGENT_IS_ELSEWHERE /* its channel is in use */
};

struct fake_agent {
	/* Before it is opened. */
	enum fake_agent_kind kind;
	bool hook_waits; /* until fake_agent_end_hook */
	void (*on_exec)(void *arg);
	void *arg;

	bool hook_ended; /* atomic */
	pthread_mutex_t lock;
	char story[512];      /* under lock: words */
	char decisions[2048]; /* under lock: lines */
	pthread_t thread[16]; /* by who opens it */
	unsigned int opened;  /* atomic */
};

void fake_agent_init(struct fake_agent *a, enum fake_agent_kind kind);
/* Waits for its ends: when the others are closed. */
void fake_agent_free(struct fake_agent *a);

/* The op agent_open of a guest. */
int fake_agent_open(struct fake_agent *a, struct err *e);

void fake_agent_end_hook(struct fake_agent *a);
void fake_agent_note(struct fake_agent *a, const char *word);
/* Whether a word was written down. */
bool fake_agent_noted(struct fake_agent *a, const char *word);

/* Of a teller's `decisions`; `arg` is the agent. */
void fake_agent_decision(void *arg, enum decision d, const char *reason);

#endif
