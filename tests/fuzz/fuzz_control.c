/*
 * Fuzzing the control socket's input: bytes through framing into dispatch, as from a client. The
 * first byte says in which pieces they come. Promise: whatever comes, each answer is JSON, nothing
 * is overrun, and memory stays bounded.
 */
#include <stdint.h>
#include <stdlib.h>

#include "vmm/base/err.h"
#include "vmm/control/dispatch.h"
#include "vmm/control/table.h"
#include "vmm/control/framing.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const struct control_argument arguments[] = {
	{ .name = "s", .type = CONTROL_STRING, .required = true },
	{ .name = "n", .type = CONTROL_INTEGER, .min = -5, .max = 5 },
	{ .name = "b", .type = CONTROL_BOOLEAN },
	{ .name = "a", .type = CONTROL_ARRAY },
	{ .name = "o", .type = CONTROL_OBJECT },
	{ .name = NULL },
};

/* Relies on what dispatch promises of the arguments. */
static int echo(void *context, json_t *given, json_t **result, struct err *e)
{
	json_t *n = json_object_get(given, "n");

	(void)context;
	if (!json_string_value(json_object_get(given, "s")) || json_integer_value(n) < -5 ||
	    json_integer_value(n) > 5)
		abort();
	if (json_is_true(json_object_get(given, "b")))
		return err_set(e, "%s", json_string_value(json_object_get(given, "s")));
	*result = json_incref(given);
	return 0;
}

static const struct control_command commands[] = {
	{ .name = "echo", .arguments = arguments, .run = echo },
	{ .name = NULL },
};

static void answered(json_t *answer)
{
	char *text = json_dumps(answer, 0);

	if (!text)
		abort();
	free(text);
	json_decref(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	const struct control_table tables[] = { { commands, NULL }, { NULL, NULL } };
	struct framing f = { 0 };
	bool negotiated;
	json_t *request;
	struct err e;
	size_t step;
	int rc;

	if (len < 1)
		return 0;
	negotiated = bytes[0] & 0x80;
	step = (bytes[0] & 0x7f) + 1u;
	for (size_t at = 1; at < len; at += step) {
		if (framing_feed(&f, bytes + at, len - at < step ? len - at : step))
			abort();
		while ((rc = framing_next(&f, &request, &e))) {
			answered(rc > 0 ? dispatch(tables, &negotiated, request)
					: dispatch_malformed(&e));
			json_decref(request);
		}
		if (f.start > f.in.len || f.in.len > f.in.capacity ||
		    f.text.len > FRAMING_REQUEST_MAX || (f.depth > FRAMING_DEPTH_MAX && !f.dropped))
			abort();
	}
	framing_free(&f);
	return 0;
}
