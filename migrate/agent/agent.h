/*
 * One conversation with the guest's agent (qemu-guest-agent), by which it runs a hook of the
 * guest's own: pure, no time and no I/O (teller.c has those).
 *
 *     godwit                                              agent
 *     FF {"execute": "guest-sync-delimited", id} ------>
 *         what it said to others, cut off or whole <----
 *     <------------------------------------ FF {"return": id}
 *     {"execute": "guest-exec", path, [event]} -------->      starts the hook
 *     <------------------------------ {"return": {"pid"}} or {"error"}: there is none
 *     {"execute": "guest-exec-status", pid} ----------->      until it has exited
 *     <------------- {"return": {"exited", "exitcode"}}
 *
 * The agent is the guest: what it says is bounded in bytes and nesting, and nothing in it is
 * believed.
 */
#ifndef GODWIT_MIGRATE_AGENT_H
#define GODWIT_MIGRATE_AGENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/err.h"
#include "vmm/control/framing.h"

#define AGENT_CHANNEL "org.qemu.guest_agent.0"
#define AGENT_HOOK    "/etc/qemu/migration-hook"

/* A conversation is a few hundred bytes; one in which the agent says more is given up. */
#define AGENT_BYTES_MAX (64u << 10)

#define AGENT_REQUEST_BYTES 256u

enum guest_event { GUEST_BEFORE_MIGRATION, GUEST_AFTER_MIGRATION };

/* The hook's argument: "before_migration", "after_migration". */
const char *guest_event_name(enum guest_event event);

enum agent_step { AGENT_SYNC, AGENT_EXEC, AGENT_STATUS };

/* What is to be done next. */
enum agent_next {
	AGENT_LISTEN,	 /* the answer is not there yet */
	AGENT_ASK,	 /* send the request of this step */
	AGENT_ASK_LATER, /* the same, after a while: the hook has not ended */
	AGENT_OVER,	 /* see `said` */
};

struct agent {
	enum guest_event event;
	enum agent_step step;
	uint32_t id; /* of this conversation: an answer to another is none */
	int64_t pid;
	bool delimited; /* there was a delimiter: what follows may answer the sync */
	bool started;	/* the hook was started, or may have been */
	size_t bytes;	/* heard so far */
	struct framing framing;
	struct err said; /* how it ended: for people, in plain ASCII */
};

/* `id` is random. The first request is then to be sent. */
void agent_begin(struct agent *a, enum guest_event event, uint32_t id);
void agent_free(struct agent *a);

/* The request of this step, to be sent now; its length. */
size_t agent_request(struct agent *a, uint8_t out[AGENT_REQUEST_BYTES]);

/* Takes in what the agent has said. */
enum agent_next agent_take(struct agent *a, const uint8_t *bytes, size_t len);

#endif
