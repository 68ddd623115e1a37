/*
 * Fuzzing a migration policy's text. Promise: it is refused with a sentence, or is a policy that
 * ends, whose text is read as the same policy again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/policy/policy_json.h"
#include "migrate/policy/schedule.h"
#include "vmm/base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* Rounds of a second that gain nothing: it gives up, or goes over to post-copy. */
static void check_ends(const struct policy *p)
{
	uint64_t limit = 300000, round;
	struct schedule_step step;
	struct schedule s;

	schedule_init(&s, p, &limit);
	for (round = 1; round < 2 * POLICY_STALLING_MAX; round++)
		if (schedule_round(&s, round, STALL_ROUND_US, 1000, limit, &step)) {
			if (step.downtime_us < limit)
				abort();
			limit = step.downtime_us;
			if (step.action != POLICY_SET_DOWNTIME)
				return;
		}
	abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct err e = { "" };
	struct policy p, q;
	char *text;

	if (policy_parse((const char *)bytes, len, NULL, &p, &e)) {
		if (!e.text[0])
			abort();
		return 0;
	}
	check_ends(&p);
	text = policy_to_text(&p);
	if (!text || policy_from_text(text, &q, &e) || memcmp(&p, &q, sizeof(p)))
		abort();
	free(text);
	return 0;
}
