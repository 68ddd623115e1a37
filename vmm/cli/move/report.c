/*
 * Invariant: the HTML is well-formed XML too, needs no other file and runs no script.
 */
#include "vmm/cli/move/report.h"

#include <inttypes.h>

#include "vmm/cli/move/summary.h"
#include "vmm/control/dispatch.h"
#include "vmm/version.h"

static json_t *number(uint64_t n)
{
	return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

static json_t *sample_json(const struct history_sample *s)
{
	json_t *o = json_object();

	json_object_set_new(o, "time", number(s->ms));
	json_object_set_new(o, "round", number(s->round));
	json_object_set_new(o, "remaining", number(s->left_bytes));
	json_object_set_new(o, "transferred", number(s->sent_bytes));
	json_object_set_new(o, "rate", number(s->rate));
	json_object_set_new(o, "dirty-rate", number(s->dirty_rate));
	json_object_set_new(o, "throttle", number(s->throttle_pct));
	json_object_set_new(o, "vcpu-dirty-limit", number(s->vcpu_limit));
	json_object_set_new(o, "downtime-limit", number(s->limit_ms));
	json_object_set_new(o, "expected-downtime", number(s->expected_ms));
	json_object_set_new(o, "max-bandwidth", number(s->bandwidth));
	return o;
}

static json_t *note_json(const struct history_note *n)
{
	json_t *o = json_object();

	json_object_set_new(o, "time", number(n->ms));
	if (n->kind == HISTORY_ROUND) {
		json_object_set_new(o, "round", number(n->round));
	} else if (n->kind == HISTORY_DECISION) {
		json_object_set_new(o, "action", dispatch_text(n->what));
		json_object_set_new(o, "reason", dispatch_text(n->why));
	} else {
		json_object_set_new(o, "status", dispatch_text(n->what));
	}
	return o;
}

json_t *report_json(const struct report *r)
{
	static const char *const lists[] = { [HISTORY_ROUND] = "rounds",
					     [HISTORY_DECISION] = "decisions",
					     [HISTORY_STATUS] = "statuses" };
	const struct history *h = r->history;
	json_t *o = json_object(), *samples = json_array(), *notes[3];
	unsigned int i;

	json_object_set_new(o, "vm", dispatch_text(r->vm));
	json_object_set_new(o, "uri", dispatch_text(r->uri));
	json_object_set_new(o, "result", dispatch_text(r->result));
	json_object_set_new(o, "samples", samples);
	for (i = 0; i < h->n_samples; i++)
		json_array_append_new(samples, sample_json(&h->samples[i]));
	for (i = 0; i < 3; i++)
		json_object_set_new(o, lists[i], notes[i] = json_array());
	for (i = 0; i < h->n_notes; i++)
		json_array_append_new(notes[h->notes[i].kind], note_json(&h->notes[i]));
	if (r->answer)
		json_object_set(o, "query-migrate", r->answer);
	return o;
}

void report_escape(const char *text, FILE *to)
{
	json_t *valid = dispatch_text(text); /* UTF-8 */
	const char *s = json_string_value(valid);

	for (; s && *s; s++) {
		switch (*s) {
		case '&':
			fputs("&amp;", to);
			break;
		case '<':
			fputs("&lt;", to);
			break;
		case '>':
			fputs("&gt;", to);
			break;
		case '"':
			fputs("&quot;", to);
			break;
		case '\'':
			fputs("&#39;", to);
			break;
		default: /* XML has no control characters */
			fputc((unsigned char)*s < 0x20 && *s != '\n' ? '?' : *s, to);
		}
	}
	json_decref(valid);
}

static void happened(const struct history *h, FILE *to)
{
	unsigned int i, number_of_decision = 0;

	fputs("<h2>What happened</h2>\n<table>\n"
	      "<tr><th>at</th><th></th><th>what</th><th>why</th></tr>\n",
	      to);
	for (i = 0; i < h->n_notes; i++) {
		const struct history_note *n = &h->notes[i];

		fprintf(to, "<tr><td class=\"n\">%" PRIu64 ".%03" PRIu64 " s</td><td>",
			n->ms / 1000, n->ms % 1000);
		if (n->kind == HISTORY_DECISION)
			fprintf(to, "%u", ++number_of_decision);
		fputs("</td><td>", to);
		if (n->kind == HISTORY_ROUND)
			fprintf(to, "round %" PRIu64 " begins", n->round);
		else if (n->kind == HISTORY_STATUS)
			fputs("status: ", to);
		report_escape(n->what, to);
		fputs("</td><td>", to);
		report_escape(n->why, to);
		fputs("</td></tr>\n", to);
	}
	fputs("</table>\n", to);
	if (h->notes_lost)
		fprintf(to, "<p>%" PRIu64 " more are not listed.</p>\n", h->notes_lost);
}

void report_html(const struct report *r, FILE *to)
{
	char summary[SUMMARY_BYTES];

	fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<title>",
	      to);
	fputs("Migration of ", to);
	report_escape(r->vm, to);
	fputs("</title>\n<style>\n"
	      "body { font: 15px sans-serif; margin: 2em auto; max-width: 980px; color: #222; }\n"
	      "table { border-collapse: collapse; }\n"
	      "th, td { text-align: left; padding: 2px 12px 2px 0; vertical-align: top; }\n"
	      ".n { text-align: right; white-space: nowrap; }\n"
	      "pre { background: #f4f4f2; padding: 12px; }\n"
	      "svg text { font: 11px sans-serif; fill: #444; }\n"
	      "</style>\n</head>\n<body>\n<h1>",
	      to);
	report_escape(r->vm, to);
	fputs(" to ", to);
	report_escape(r->uri, to);
	fputs(": ", to);
	report_escape(r->result, to);
	fputs("</h1>\n", to);
	if (r->history->final.error[0]) {
		fputs("<p>", to);
		report_escape(r->history->final.error, to);
		fputs("</p>\n", to);
	}
	report_picture(r->history, to);
	fputs("<h2>Summary</h2>\n<pre>", to);
	summary_write(&r->history->final, summary);
	report_escape(summary, to);
	fputs("</pre>\n", to);
	happened(r->history, to);
	fprintf(to, "<p>godwit ");
	report_escape(godwit_version(), to);
	fputs("</p>\n</body>\n</html>\n", to);
}
