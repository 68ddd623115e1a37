/*
 * The picture of a migration as SVG: panels one below the other with the same time axis, and a
 * vertical line for each round and each decision. Pure. No text from elsewhere is used: all
 * coordinates are computed here.
 */
#include <inttypes.h>
#include <stddef.h>

#include "vmm/cli/move/report.h"

#define WIDTH	     960
#define LEFT	     90
#define RIGHT	     20
#define TOP	     24 /* of a panel: its title */
#define PANEL_HEIGHT 150
#define PANEL_BELOW  26
#define LEGEND	     150
#define NUMBER	     16 /* room for a decision's number */
#define NUMBER_ROWS  6
#define TICKS	     4 /* of a value axis */
#define ROUNDS_MAX   200

#define DASHES " stroke-dasharray=\"5 4\""

enum unit { UNIT_BYTES, UNIT_RATE, UNIT_MS, UNIT_PERCENT };

struct curve {
	const char *name, *colour;
	size_t offset; /* into a sample; 0 (the time) ends the list */
	bool dashed;
};

struct panel {
	const char *title;
	enum unit unit;
	bool optional; /* left out if all values are 0 */
	struct curve curves[4];
};

#define SAMPLE(member) offsetof(struct history_sample, member)

static const struct panel panels[] = {
	{ "Memory that is left",
	  UNIT_BYTES,
	  false,
	  { { "remaining", "#2b6cb0", SAMPLE(left_bytes), false } } },
	{ "Rates",
	  UNIT_RATE,
	  false,
	  { { "sent", "#2b6cb0", SAMPLE(rate), false },
	    { "dirtied", "#c05621", SAMPLE(dirty_rate), false },
	    { "limit", "#888", SAMPLE(bandwidth), true } } },
	{ "Downtime",
	  UNIT_MS,
	  false,
	  { { "expected", "#2b6cb0", SAMPLE(expected_ms), false },
	    { "limit", "#888", SAMPLE(limit_ms), true } } },
	{ "Throttle",
	  UNIT_PERCENT,
	  true,
	  { { "of each CPU's time", "#c05621", SAMPLE(throttle_pct), false } } },
	{ "Dirty limit",
	  UNIT_RATE,
	  true,
	  { { "of each vCPU", "#c05621", SAMPLE(vcpu_limit), false } } },
};

static uint64_t value(const struct history_sample *s, size_t offset)
{
	return *(const uint64_t *)((const char *)s + offset);
}

/* The upper end of an axis: a round number, at least `max`. */
static double axis_end(enum unit u, double max)
{
	static const double steps[] = { 1, 2, 5 };
	double base = 1;
	unsigned int i;

	if (u == UNIT_PERCENT)
		return 100;
	if (u != UNIT_MS) {
		for (base = 4096; base < max; base *= 2)
			;
		return base;
	}
	for (;; base *= 10)
		for (i = 0; i < 3; i++)
			if (base * steps[i] >= max)
				return base * steps[i];
}

static void label(enum unit u, double v, FILE *to)
{
	char text[FIGURES_TEXT];

	switch (u) {
	case UNIT_BYTES:
	case UNIT_RATE:
		fprintf(to, "%s%s", figures_bytes(text, v < 1e19 ? (uint64_t)v : UINT64_MAX),
			u == UNIT_RATE ? "/s" : "");
		break;
	case UNIT_MS:
		fprintf(to, "%g ms", v);
		break;
	case UNIT_PERCENT:
		fprintf(to, "%g %%", v);
		break;
	}
}

struct drawing {
	const struct history *history;
	FILE *to;
	uint64_t end_ms; /* of the time axis */
	double y;	 /* upper edge of the panel's field */
	double max;	 /* of its axis */
};

static double x_at(const struct drawing *d, uint64_t ms)
{
	return LEFT + (double)(WIDTH - LEFT - RIGHT) * (double)ms / (double)d->end_ms;
}

static double y_at(const struct drawing *d, double v)
{
	return d->y + PANEL_HEIGHT * (1 - (v > d->max ? d->max : v) / d->max);
}

static double largest(const struct history *h, const struct panel *p)
{
	double max = 0;

	for (const struct curve *c = p->curves; c->offset; c++)
		for (unsigned int i = 0; i < h->n_samples; i++)
			if ((double)value(&h->samples[i], c->offset) > max)
				max = (double)value(&h->samples[i], c->offset);
	return max;
}

static void draw_axes(const struct drawing *d, const struct panel *p)
{
	uint64_t step, ms;

	for (unsigned int i = 0; i <= TICKS; i++) {
		double v = d->max * i / TICKS, y = y_at(d, v);

		fprintf(d->to,
			"<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>"
			"<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">",
			LEFT, WIDTH - RIGHT, y, y, LEFT - 6, y + 4);
		label(p->unit, v, d->to);
		fputs("</text>\n", d->to);
	}
	/* At most ten labels. */
	for (step = 1; step * 10 < d->end_ms && step <= UINT64_MAX / 100; step *= 10)
		;
	step = step * 2 >= d->end_ms   ? (step + 4) / 5
	       : step * 5 >= d->end_ms ? (step + 1) / 2
				       : step;
	for (ms = 0; ms <= d->end_ms; ms += step)
		fprintf(d->to, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%g s</text>\n",
			x_at(d, ms), d->y + PANEL_HEIGHT + 14, (double)ms / 1000);
}

/*
 * A value of 0 at the beginning is not known yet, and not drawn; nor is a limit of 0, which is
 * none. A limit is drawn as steps, all else as lines from sample to sample.
 */
static void draw_curve(const struct drawing *d, const struct curve *c)
{
	const struct history *h = d->history;
	unsigned int i;
	bool open = false;

	for (i = 0; i < h->n_samples; i++) {
		const struct history_sample *s = &h->samples[i];
		uint64_t v = value(s, c->offset);

		if (!v && c->dashed && open)
			fputs("\"/>\n", d->to);
		open = open && (v || !c->dashed);
		if (!v && !open)
			continue;
		if (!open)
			fprintf(d->to,
				"<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.6\"%s "
				"points=\"",
				c->colour, c->dashed ? DASHES : "");
		else if (c->dashed)
			fprintf(d->to, "%.1f,%.1f ", x_at(d, s->ms),
				y_at(d, (double)value(s - 1, c->offset)));
		fprintf(d->to, "%.1f,%.1f ", x_at(d, s->ms), y_at(d, (double)v));
		open = true;
	}
	if (open)
		fputs("\"/>\n", d->to);
}

#define ROUND_STROKE	"stroke=\"#bbb\" stroke-dasharray=\"1 3\""
#define DECISION_STROKE "stroke=\"#b83280\""

static void draw_notes(const struct drawing *d, bool numbers)
{
	unsigned int i, rounds = 0, decisions = 0, row = 0;
	double last = -NUMBER;

	for (i = 0; i < d->history->n_notes; i++) {
		const struct history_note *n = &d->history->notes[i];
		double x = x_at(d, n->ms < d->end_ms ? n->ms : d->end_ms);

		if (n->kind == HISTORY_STATUS ||
		    (n->kind == HISTORY_ROUND && rounds++ > ROUNDS_MAX))
			continue;
		fprintf(d->to, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" %s/>\n", x, x,
			d->y, d->y + PANEL_HEIGHT,
			n->kind == HISTORY_ROUND ? ROUND_STROKE : DECISION_STROKE);
		if (n->kind == HISTORY_ROUND)
			continue;
		decisions++;
		if (!numbers)
			continue;
		/* If there is no room beside the last number, it goes below it. */
		row = x - last < NUMBER ? (row + 1) % NUMBER_ROWS : 0;
		last = x;
		fprintf(d->to, "<text x=\"%.1f\" y=\"%.1f\">%u</text>\n", x + 3,
			d->y + 11 + 12 * row, decisions);
	}
}

static void draw_key(const struct drawing *d, double x, const char *stroke, const char *name)
{
	fprintf(d->to,
		"<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" %s/>"
		"<text x=\"%.1f\" y=\"%.1f\">%s</text>\n",
		x, x, d->y - 19, d->y - 4, stroke, x + 6, d->y - 7, name);
}

static void draw_panel(struct drawing *d, const struct panel *p)
{
	int x = WIDTH - RIGHT;

	for (const struct curve *c = p->curves; c->offset; c++)
		x -= LEGEND;

	fprintf(d->to, "<text x=\"%d\" y=\"%.1f\" style=\"font-weight: bold\">%s</text>\n", LEFT,
		d->y - 7, p->title);
	d->max = axis_end(p->unit, largest(d->history, p));
	draw_axes(d, p);
	draw_notes(d, p == panels);
	if (p == panels) {
		draw_key(d, LEFT + LEGEND, ROUND_STROKE, "a round begins");
		draw_key(d, LEFT + 2 * LEGEND, DECISION_STROKE, "a decision, by its number below");
	}
	for (const struct curve *c = p->curves; c->offset; c++) {
		draw_curve(d, c);
		fprintf(d->to,
			"<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
			"stroke-width=\"2\"%s/><text x=\"%d\" y=\"%.1f\">%s</text>\n",
			x, x + 18, d->y - 11, d->y - 11, c->colour, c->dashed ? DASHES : "", x + 23,
			d->y - 7, c->name);
		x += LEGEND;
	}
}

void report_picture(const struct history *h, FILE *to)
{
	struct drawing d = { .history = h, .to = to, .end_ms = 1, .y = TOP };
	unsigned int n = 0, i;

	if (h->n_samples && h->samples[h->n_samples - 1].ms)
		d.end_ms = h->samples[h->n_samples - 1].ms;
	for (i = 0; i < sizeof(panels) / sizeof(panels[0]); i++)
		n += !panels[i].optional || largest(h, &panels[i]) > 0;
	fprintf(to,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %u\" width=\"%d\" "
		"height=\"%u\">\n",
		WIDTH, n * (TOP + PANEL_HEIGHT + PANEL_BELOW), WIDTH,
		n * (TOP + PANEL_HEIGHT + PANEL_BELOW));
	for (i = 0; i < sizeof(panels) / sizeof(panels[0]); i++) {
		if (panels[i].optional && largest(h, &panels[i]) <= 0)
			continue;
		draw_panel(&d, &panels[i]);
		d.y += TOP + PANEL_HEIGHT + PANEL_BELOW;
	}
	fputs("</svg>\n", to);
}
