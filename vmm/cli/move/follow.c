/*
 * Main thread of a short-lived process. Invariant: whatever the VM sends, each turn of the loop
 * looks at the interrupts and the clock.
 */
#include "vmm/cli/move/follow.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/print.h"
#include "vmm/base/words.h"
#include "vmm/cli/client.h"
#include "vmm/cli/verb.h"

/* How often to ask; more often at first if there is a report, so that a short migration has a
 * picture. */
#define LOOK_MS	      200
#define LOOK_FINE_MS  25
#define LOOK_FINE_FOR 2000

/* At the beginning of a round it is asked again, unless it was asked less than this ago. */
#define LOOK_AGAIN_MS 20

static uint64_t now_ms(void)
{
	return clock_us() / 1000;
}

/* -- showing -- */

/* Draws over the last line, padded with spaces so that nothing of it is left. */
static void draw(struct follow *f)
{
	struct winsize w = { 0 };
	char line[512];
	size_t len, columns = 79;

	if (f->show != FOLLOW_LINE)
		return;
	progress_line(&f->progress, line, sizeof(line));
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1)
		columns = w.ws_col - 1u;
	len = strlen(line);
	if (len > columns)
		len = columns;
	if (f->drawn > columns)
		f->drawn = columns;
	fprintf(stderr, "\r%.*s%*s", (int)len, line, (int)(f->drawn > len ? f->drawn - len : 0),
		"");
	fflush(stderr);
	if (len > f->drawn)
		f->drawn = len;
}

static void print_round(struct follow *f, uint64_t round)
{
	char line[512];

	if (f->show != FOLLOW_ROUNDS)
		return;
	f->progress.now.round = round;
	progress_line(&f->progress, line, sizeof(line));
	print_line(stdout, "%s", line);
	fflush(stdout);
}

/* On a terminal it goes above the progress line. */
static void print_decision(struct follow *f, const char *action, const char *reason)
{
	char line[512], text[512];

	if (f->show == FOLLOW_QUIET)
		return;
	snprintf(text, sizeof(text), "%.40s: %.440s", action, reason);
	word_printable(line, sizeof(line), text);
	if (f->show == FOLLOW_ROUNDS) {
		print_line(stdout, "%s", line);
		fflush(stdout);
		return;
	}
	fprintf(stderr, "\r%-*s\n", (int)f->drawn, line);
	f->drawn = 0;
	draw(f);
}

/* -- looking -- */

static int look(struct follow *f, struct err *e)
{
	json_t *answer;

	if (client_execute(f->client, "query-migrate", NULL, &answer, e))
		return -1;
	json_decref(f->answer);
	f->answer = answer;
	figures_read(&f->figures, answer);
	if (!strcmp(f->figures.status, "none"))
		return err_set(e, "'%s' has lost its migration", f->client->name);
	f->looked_ms = now_ms();
	progress_add(&f->progress, &f->figures, f->looked_ms);
	if (f->history)
		history_sample(f->history, &f->figures, f->progress.rate);
	draw(f);
	return 0;
}

static uint64_t look_again_at(const struct follow *f)
{
	return f->looked_ms +
	       (f->history && f->figures.total_ms < LOOK_FINE_FOR ? LOOK_FINE_MS : LOOK_MS);
}

/* -- hearing -- */

static const char *text(const json_t *data, const char *name)
{
	const char *s = json_string_value(json_object_get(data, name));

	return s ? s : "";
}

/* The time of an event since the beginning, by the VM's clock. */
static uint64_t event_ms(struct follow *f, const json_t *event)
{
	const json_t *t = json_object_get(event, "timestamp");
	json_int_t s = json_integer_value(json_object_get(t, "seconds"));
	json_int_t us = json_integer_value(json_object_get(t, "microseconds"));
	uint64_t at;

	if (s <= 0 || s > UINT32_MAX || us < 0 || us >= 1000000)
		return f->figures.total_ms;
	at = (uint64_t)s * 1000000 + (uint64_t)us;
	if (!f->began_us)
		f->began_us = at;
	return at > f->began_us ? (at - f->began_us) / 1000 : 0;
}

static void note(struct follow *f, enum history_kind kind, uint64_t ms, uint64_t round,
		 const char *what, const char *why)
{
	if (f->history)
		history_note(f->history, kind, ms, round, what, why);
}

/* True: ask query-migrate now. */
static bool hear(struct follow *f, const json_t *event)
{
	const char *name = client_event_name(event);
	const json_t *data = json_object_get(event, "data");
	uint64_t ms = event_ms(f, event), round;

	if (!strcmp(name, "MIGRATION")) {
		word_printable(f->status, sizeof(f->status), text(data, "status"));
		note(f, HISTORY_STATUS, ms, 0, f->status, "");
		return true;
	}
	if (!strcmp(name, "MIGRATION_PASS")) {
		json_int_t n = json_integer_value(json_object_get(data, "pass"));
		struct err e;

		round = n > 0 ? (uint64_t)n : 0;
		note(f, HISTORY_ROUND, ms, round, "", "");
		if (f->show == FOLLOW_ROUNDS && now_ms() >= f->looked_ms + LOOK_AGAIN_MS)
			look(f, &e); /* the next one will fail, too */
		print_round(f, round);
	} else if (!strcmp(name, "GODWIT_DECISION")) {
		note(f, HISTORY_DECISION, ms, 0, text(data, "action"), text(data, "reason"));
		print_decision(f, text(data, "action"), text(data, "reason"));
	} else if (!strcmp(name, "SHUTDOWN")) {
		word_printable(f->ended, sizeof(f->ended), text(data, "reason"));
	}
	return false;
}

/* The events that came before the last answer. */
static void hear_the_rest(struct follow *f)
{
	json_t *event;
	struct err e;

	for (int i = 0; i < CLIENT_EVENTS_MAX; i++) {
		if (client_event(f->client, 0, &event, &e) != CLIENT_EVENT)
			break;
		hear(f, event);
		json_decref(event);
	}
}

/* The VM has ended: its last events say why. */
static int closed(struct follow *f, struct err *e)
{
	struct client *c = f->client;

	hear_the_rest(f);
	if (!strcmp(f->status, "completed")) {
		/* The other figures are those of the last answer. */
		memcpy(f->figures.status, f->status, sizeof(f->figures.status));
		f->figures.end = FIGURES_MOVED;
		return 0;
	}
	if (f->status[0])
		memcpy(f->figures.status, f->status, sizeof(f->figures.status));
	return err_set(e, "'%s' has ended while its guest was being moved%s%s%s", c->name,
		       f->ended[0] ? " (" : "", f->ended, f->ended[0] ? ")" : "");
}

/* One turn: takes an event, or asks if it is time. 1: the migration goes on. */
static int turn(struct follow *f, struct err *e)
{
	uint64_t now = now_ms(), at = look_again_at(f);
	bool due = now >= at;
	struct err unwanted;
	json_t *event;

	client_cancel_if_interrupted(f->client, &unwanted);
	if (!due) {
		switch (client_event(f->client, (int)(at - now), &event, e)) {
		case CLIENT_EVENT:
			due = hear(f, event);
			json_decref(event);
			break;
		case CLIENT_CLOSED:
			return closed(f, e);
		case CLIENT_FAILED:
			return -1;
		case CLIENT_NOTHING:
		case CLIENT_STOPPED:
			break;
		}
	}
	if (due && look(f, e))
		return f->client->closed ? closed(f, e) : -1;
	return f->figures.end == FIGURES_GOES_ON ? 1 : 0;
}

int follow_run(struct follow *f, enum figures_end *end, struct err *e)
{
	int rc;

	do {
		rc = turn(f, e);
	} while (rc > 0);
	if (rc == 0)
		hear_the_rest(f);
	if (f->drawn)
		fputc('\n', stderr);
	*end = f->figures.end;
	return rc;
}
