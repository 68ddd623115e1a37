/*
 * Main thread of a short-lived process. Invariant: 0 is returned only if the VM has said that its
 * guest can be moved.
 */
#include "vmm/cli/move/check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/print.h"
#include "vmm/base/words.h"
#include "vmm/cli/client.h"
#include "vmm/cli/move/figures.h"
#include "vmm/cli/verb.h"

/*
 * How good predictions were in scripts/bench converge, with a check before each migration. If the
 * curve of dirtied memory had flattened within the sample, the real time was 0.87 to 0.99 of the
 * predicted one (twelve runs); else it was in the predicted range (six runs).
 */
#define PAST_PCT 15

/* How often to ask. */
#define LOOK_MS 100

/* -- printing -- */

static uint64_t number(const json_t *o, const char *name)
{
	json_int_t n = json_integer_value(json_object_get(o, name));

	return n > 0 ? (uint64_t)n : 0;
}

static const char *text(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s ? s : "";
}

static void line(FILE *out, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void line(FILE *out, const char *name, const char *fmt, ...)
{
	char value[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(value, sizeof(value), fmt, args);
	va_end(args);
	print_line(out, "%-21s%s", name, value);
}

static double seconds(const json_t *o, const char *name)
{
	return (double)number(o, name) / 1000;
}

static void print_course(const json_t *p, uint64_t limit_ms, FILE *out)
{
	double least = seconds(p, "total-time-least"), most = seconds(p, "total-time");
	char bytes[FIGURES_TEXT];

	if (most - least > most / 20)
		line(out, "Total time:",
		     "%.1f to %.1f s: the longer the guest writes, the more memory it dirties",
		     least, most);
	else
		line(out, "Total time:", "%.1f s", most);
	line(out, "Pause:", "%" PRIu64 " ms (%" PRIu64 " ms are allowed)", number(p, "downtime"),
	     limit_ms);
	line(out, "Rounds:", "%" PRIu64, number(p, "rounds"));
	line(out, "Data:", "%s", figures_bytes(bytes, number(p, "transferred")));
	if (number(p, "cpu-throttle-percentage"))
		line(out, "Throttle:", "%" PRIu64 " %%, %.1f s of the guest's work lost",
		     number(p, "cpu-throttle-percentage"), seconds(p, "lost-time"));
	else if (number(p, "lost-time"))
		line(out, "Dirty limit:", "%.1f s of the guest's work lost",
		     seconds(p, "lost-time"));
}

static void print_sample(const json_t *s, FILE *out)
{
	const json_t *looks = json_object_get(s, "dirty");
	char bytes[FIGURES_TEXT], other[FIGURES_TEXT];
	size_t n = json_array_size(looks);

	line(out, "Link:", "%s/s, a round trip of %s", figures_bytes(bytes, number(s, "rate")),
	     figures_us(other, number(s, "round-trip-us")));
	line(out, "Memory in use:", "%s, of which about %s are zero",
	     figures_bytes(bytes, number(s, "touched-bytes")),
	     figures_bytes(other, number(s, "zero-bytes")));
	for (size_t i = 0; i < n; i++) {
		const json_t *l = json_array_get(looks, i);

		if (i % 2 == 0 || i + 1 == n) /* every second one is enough */
			line(out, i ? "" : "Written to:", "%s in %.2f s",
			     figures_bytes(bytes, number(l, "bytes")),
			     (double)number(l, "us") / 1e6);
	}
}

void check_print(const json_t *answer, FILE *out)
{
	const json_t *p = json_object_get(answer, "prediction");

	if (json_is_true(json_object_get(p, "moves")))
		print_course(p, number(answer, "downtime-limit"), out);
	print_sample(json_object_get(answer, "sample"), out);
	if (json_is_true(json_object_get(answer, "compression-left-out")))
		line(out,
		     "Compression:", "ignored here; a migration uses it only if it saves time");
	if (json_is_true(json_object_get(p, "moves")))
		line(out, "Past predictions:",
		     "in scripts/bench converge within %d %% of the time, or it was in the range",
		     PAST_PCT);
}

/* -- following -- */

/* Waits for an event, or until it is time to ask. */
static int wait_a_little(struct client *c, struct err *e)
{
	json_t *event;

	switch (client_event(c, LOOK_MS, &event, e)) {
	case CLIENT_EVENT:
		json_decref(event);
		return 0;
	case CLIENT_STOPPED:
		return client_cancel_if_interrupted(c, e);
	case CLIENT_CLOSED:
		return err_set(e, "'%s' has ended while it was checked", c->name);
	case CLIENT_FAILED:
		return -1;
	case CLIENT_NOTHING:
		break;
	}
	return 0;
}

/* The answer once the check is over; NULL with a sentence. */
static json_t *await_end(struct client *c, struct err *e)
{
	json_t *answer;

	for (;;) {
		if (client_execute(c, "x-godwit-query-check", NULL, &answer, e))
			return NULL;
		if (strcmp(text(answer, "status"), "active"))
			return answer;
		json_decref(answer);
		if (wait_a_little(c, e))
			return NULL;
	}
}

static int conclude(struct client *c, const char *uri, const json_t *answer, struct err *e)
{
	const json_t *p = json_object_get(answer, "prediction");
	const char *status = text(answer, "status");
	char said[512];

	if (!strcmp(status, "cancelled")) {
		err_set(e, "the check of '%s' was cancelled", c->name);
		return VERB_CANCELLED;
	}
	if (strcmp(status, "completed")) {
		word_printable(said, sizeof(said), text(answer, "error-desc"));
		err_set(e, "'%s' cannot be checked: %.400s", c->name,
			said[0] ? said : "its check is gone");
		return VERB_FAILED;
	}
	word_printable(said, sizeof(said), text(p, "sentence"));
	if (!json_is_true(json_object_get(p, "moves"))) {
		err_set(e,
			strcmp(text(p, "answer"), "unknown")
				? "'%s' would not be moved to %.60s: %.400s"
				: "it is not known whether '%s' can be moved to %.60s: %.400s",
			c->name, uri, said);
		return VERB_FAILED;
	}
	return VERB_DONE;
}

int check_follow(struct client *c, const char *uri, bool json, struct err *e)
{
	int interrupt_fd = c->interrupt_fd, code;
	json_t *answer = await_end(c, e);

	c->interrupt_fd = interrupt_fd;
	if (!answer)
		return VERB_FAILED;
	code = conclude(c, uri, answer, e);
	if (json) {
		verb_print_json(answer);
	} else if (!strcmp(text(answer, "status"), "completed")) {
		if (code == VERB_DONE) {
			print_line(stdout, "'%s' can be moved to %s: %s", c->name, uri,
				   text(json_object_get(answer, "prediction"), "sentence"));
		}
		check_print(answer, stdout);
	}
	fflush(stdout);
	json_decref(answer);
	return code;
}
