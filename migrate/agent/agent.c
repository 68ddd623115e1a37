/*
 * The guest's agent: see agent.h. Whoever owns the struct runs this.
 *
 * The agent answers in order, so after the sync the next answer is that of the last request, and
 * what came before a request was sent answers nothing: it is dropped.
 */
#include "migrate/agent/agent.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/words.h"

/* Sets the agent's parser back, and ours: it is no part of any UTF-8 text. */
#define DELIMITER 0xff

/* Of what the agent gives as a reason, so much is passed on. */
#define REASON_BYTES 200u

const char *guest_event_name(enum guest_event event)
{
	return event == GUEST_BEFORE_MIGRATION ? "before_migration" : "after_migration";
}

void agent_begin(struct agent *a, enum guest_event event, uint32_t id)
{
	*a = (struct agent){ .event = event, .id = id };
}

void agent_free(struct agent *a)
{
	framing_free(&a->framing);
}

size_t agent_request(struct agent *a, uint8_t out[AGENT_REQUEST_BYTES])
{
	char *text = (char *)out;
	int n = 0;

	switch (a->step) {
	case AGENT_SYNC:
		out[0] = DELIMITER;
		n = 1 + snprintf(text + 1, AGENT_REQUEST_BYTES - 1,
				 "{\"execute\":\"guest-sync-delimited\","
				 "\"arguments\":{\"id\":%" PRIu32 "}}\n",
				 a->id);
		break;
	case AGENT_EXEC:
		a->started = true;
		n = snprintf(text, AGENT_REQUEST_BYTES,
			     "{\"execute\":\"guest-exec\","
			     "\"arguments\":{\"path\":\"" AGENT_HOOK "\",\"arg\":[\"%s\"]}}\n",
			     guest_event_name(a->event));
		break;
	case AGENT_STATUS:
		n = snprintf(text, AGENT_REQUEST_BYTES,
			     "{\"execute\":\"guest-exec-status\","
			     "\"arguments\":{\"pid\":%" PRId64 "}}\n",
			     a->pid);
		break;
	}
	return (size_t)n;
}

/* The reason in an error, without what would upset a terminal; false: it is none. */
static bool reason(const json_t *answer, char out[REASON_BYTES])
{
	const json_t *error = json_object_get(answer, "error");
	const char *text = json_string_value(json_object_get(error, "desc"));

	if (!error)
		return false;
	word_printable(out, REASON_BYTES, text ? text : "it does not say why");
	return true;
}

static enum agent_next take_sync(struct agent *a, const json_t *answer)
{
	const json_t *id = json_object_get(answer, "return");

	if (!a->delimited || !json_is_integer(id) || json_integer_value(id) != (json_int_t)a->id)
		return AGENT_LISTEN;
	a->step = AGENT_EXEC;
	return AGENT_ASK;
}

static enum agent_next take_exec(struct agent *a, const json_t *answer)
{
	const json_t *pid = json_object_get(json_object_get(answer, "return"), "pid");
	char why[REASON_BYTES];

	if (reason(answer, why)) {
		a->started = false;
		err_set(&a->said, "the guest's agent does not run " AGENT_HOOK ": %s", why);
		return AGENT_OVER;
	}
	if (!json_is_integer(pid)) {
		err_set(&a->said, "the guest's agent does not say whether it runs " AGENT_HOOK);
		return AGENT_OVER;
	}
	a->pid = json_integer_value(pid);
	a->step = AGENT_STATUS;
	return AGENT_ASK_LATER;
}

static enum agent_next take_status(struct agent *a, const json_t *answer)
{
	const json_t *status = json_object_get(answer, "return");
	const json_t *exited = json_object_get(status, "exited");
	const json_t *code = json_object_get(status, "exitcode");
	const json_t *signal = json_object_get(status, "signal");
	char why[REASON_BYTES];

	if (json_is_false(exited))
		return AGENT_ASK_LATER;
	if (json_is_true(exited) && json_is_integer(code))
		err_set(&a->said, AGENT_HOOK " has run in the guest, and ended with %lld",
			(long long)json_integer_value(code));
	else if (json_is_true(exited) && json_is_integer(signal))
		err_set(&a->said, AGENT_HOOK " was ended in the guest by signal %lld",
			(long long)json_integer_value(signal));
	else if (json_is_true(exited))
		err_set(&a->said, AGENT_HOOK " has run in the guest");
	else if (reason(answer, why))
		err_set(&a->said,
			"the guest's agent does not tell of the end of " AGENT_HOOK ": %s", why);
	else
		err_set(&a->said,
			"the guest's agent does not say whether " AGENT_HOOK " has ended");
	return AGENT_OVER;
}

/* All objects that are there, up to the one that is the answer. */
static enum agent_next take_objects(struct agent *a)
{
	enum agent_next next = AGENT_LISTEN;
	json_t *answer;
	int rc;

	while (next == AGENT_LISTEN && (rc = framing_next(&a->framing, &answer, NULL)) != 0) {
		if (rc < 0)
			continue; /* no JSON: passed over */
		next = a->step == AGENT_SYNC   ? take_sync(a, answer)
		       : a->step == AGENT_EXEC ? take_exec(a, answer)
					       : take_status(a, answer);
		json_decref(answer);
	}
	return next;
}

enum agent_next agent_take(struct agent *a, const uint8_t *bytes, size_t len)
{
	enum agent_next next = AGENT_LISTEN;

	a->bytes += len;
	if (a->bytes > AGENT_BYTES_MAX) {
		err_set(&a->said, "the guest's agent says more than %u KiB, and is not listened to",
			AGENT_BYTES_MAX >> 10);
		return AGENT_OVER;
	}
	while (len && next == AGENT_LISTEN) {
		const uint8_t *end = memchr(bytes, DELIMITER, len);
		size_t n = end ? (size_t)(end - bytes) : len;

		if (framing_feed(&a->framing, bytes, n)) {
			err_set(&a->said, "out of memory");
			return AGENT_OVER;
		}
		next = take_objects(a);
		if (end && next == AGENT_LISTEN) {
			framing_free(&a->framing);
			a->delimited = true;
			n++;
		}
		bytes += n;
		len -= n;
	}
	if (next != AGENT_LISTEN)
		framing_free(&a->framing);
	return next;
}
