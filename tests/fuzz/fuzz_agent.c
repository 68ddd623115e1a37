/*
 * Fuzzing what a guest's agent says. Promise: it is taken in whatever it is, every conversation
 * that is over has a sentence for people, and one that goes on and on is over.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/agent/agent.h"
#include "vmm/base/words.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* There is one, and nothing in it would upset a terminal. */
static void check_sentence(const struct agent *a)
{
	char printable[sizeof(a->said.text)];

	word_printable(printable, sizeof(printable), a->said.text);
	if (!a->said.text[0] || strcmp(printable, a->said.text))
		abort();
}

/* The first byte is how much comes at once. The answer to the sync is given, so that more of it is
 * seen. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	static const uint8_t synced[] = "\xff{\"return\":1}\n";
	size_t at_once = len ? bytes[0] + 1u : 1, at, n;
	enum agent_next next = AGENT_ASK;
	uint8_t request[AGENT_REQUEST_BYTES];
	struct agent a;

	agent_begin(&a, GUEST_BEFORE_MIGRATION, 1);
	agent_request(&a, request);
	if (len && bytes[0] % 2)
		next = agent_take(&a, synced, sizeof(synced) - 1);
	for (at = 1; at < len && next != AGENT_OVER; at += n) {
		if (next != AGENT_LISTEN && agent_request(&a, request) >= sizeof(request))
			abort();
		n = len - at < at_once ? len - at : at_once;
		next = agent_take(&a, bytes + at, n);
	}
	if (next == AGENT_OVER)
		check_sentence(&a);
	agent_free(&a);
	return 0;
}
