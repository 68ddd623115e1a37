/*
 * A client of a VM's control socket: connects by name or path, negotiates, executes commands and
 * takes events. The VM is not trusted: the length of lines and the time of waits are bounded. One
 * thread; its calls block, with time limits.
 */
#ifndef GODWIT_CLI_CLIENT_H
#define GODWIT_CLI_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "vmm/control/runtime.h"

struct err;

#define CLIENT_TIMEOUT_MS 10000
#define CLIENT_EVENTS_MAX 256

struct client {
	int fd; /* -1: not connected */
	int pidfd;
	pid_t pid;		      /* of the VM's process; 0: not known */
	int timeout_ms;		      /* for one answer */
	int interrupt_fd;	      /* readable: stop waiting for events; -1: none */
	bool closed;		      /* the VM has closed the connection */
	enum unix_socket_found found; /* what was at the path */
	char path[RUNTIME_PATH_MAX];
	char name[80];	/* what messages call the VM */
	json_t *events; /* an array: those that came before an answer */
	char *buf;	/* [start, len) was received and not yet read */
	size_t start, len, capacity;
};

/*
 * Connects and negotiates. -1 with a sentence; c->found says what was at the path.
 * Call client_close() in either case.
 */
int client_open(struct client *c, const char *vm, int timeout_ms, struct err *e);
void client_close(struct client *c);

/*
 * Executes a command; takes the reference of `arguments` (may be NULL). *result (may be NULL) is a
 * new reference. -1 with the VM's sentence, or why there is no answer; c->closed: the VM has ended.
 */
int client_execute(struct client *c, const char *command, json_t *arguments, json_t **result,
		   struct err *e);

enum client_wait {
	CLIENT_FAILED = -1,
	CLIENT_NOTHING,
	CLIENT_EVENT,
	CLIENT_CLOSED,
	CLIENT_STOPPED
};

/*
 * Waits for the next event, at most timeout_ms (-1: for ever). CLIENT_EVENT: *event is a new
 * reference. CLIENT_STOPPED: interrupt_fd is readable. CLIENT_FAILED: a sentence.
 */
enum client_wait client_event(struct client *c, int timeout_ms, json_t **event, struct err *e);

/*
 * If there was an interrupt: takes it (verb_take_interrupt) and asks for the end of the migration,
 * save or check. -1 if the VM does not take that.
 */
int client_cancel_if_interrupted(struct client *c, struct err *e);

/* The name of an event; "" for one without. */
const char *client_event_name(const json_t *event);

/* Waits until the VM's process is gone, at most timeout_ms (-1: for ever); -1 with a sentence. */
int client_wait_end(struct client *c, int timeout_ms, struct err *e);

/* The status that query-status tells, into `status`; -1 with a sentence. */
int client_status(struct client *c, char status[32], bool *running, struct err *e);

#endif
