/*
 * Pure. Invariant: the percentage never falls, even if the guest writes faster than the link
 * carries, so that more and more is left.
 */
#include "vmm/cli/move/progress.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void put(char *to, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Appends as much as there is room for. */
static void put(char *to, size_t size, const char *fmt, ...)
{
	size_t n = strlen(to);
	va_list args;

	va_start(args, fmt);
	vsnprintf(to + n, size - n, fmt, args);
	va_end(args);
}

static void drop_oldest(struct progress *p)
{
	memmove(p->window, p->window + 1, (PROGRESS_WINDOW - 1) * sizeof(p->window[0]));
	p->n--;
}

/*
 * Whether the guest writes at least 95 % as fast as the link carries: then a round is stalled, by
 * oVirt's measure.
 */
static bool keeps_up(const struct progress *p)
{
	return figures_dirty_bytes(&p->now) >= p->rate - p->rate / 20;
}

/* The guest keeps up with the link, and what is left does not fit into the allowed pause. */
static bool outruns(const struct progress *p)
{
	return p->now.round > 1 && p->rate && keeps_up(p) && p->now.expected_ms > p->now.limit_ms;
}

void progress_add(struct progress *p, const struct figures *f, uint64_t ms)
{
	unsigned int percent = figures_percent(f);

	/* It is another migration, or until now there was nothing to send. */
	if (f->sent_bytes < p->now.sent_bytes || !p->now.round)
		p->n = 0;
	p->now = *f;
	if (percent > p->percent)
		p->percent = percent;
	while (p->n > 1 && ms - p->window[1].ms >= PROGRESS_WINDOW_MS)
		drop_oldest(p);
	if (p->n == PROGRESS_WINDOW)
		drop_oldest(p);
	p->window[p->n].ms = ms;
	p->window[p->n++].bytes = f->sent_bytes;
	if (ms > p->window[0].ms)
		p->rate = figures_rate(f->sent_bytes - p->window[0].bytes, ms - p->window[0].ms);
	if (!outruns(p))
		p->outrun_since_ms = 0;
	else if (!p->outrun_since_ms)
		p->outrun_since_ms = ms;
}

/* Each round leaves less than the one before it; the time is that of all of them. */
static void put_time_left(const struct progress *p, char *to, size_t size)
{
	uint64_t dirty = figures_dirty_bytes(&p->now);
	char a[FIGURES_TEXT], b[FIGURES_TEXT];
	double seconds;

	if (!p->rate || !p->now.round ||
	    p->window[p->n - 1].ms - p->window[0].ms < PROGRESS_SURE_MS)
		return;
	if (!keeps_up(p)) {
		seconds = (double)p->now.left_bytes / (double)(p->rate - dirty);
		if (seconds < 1e9)
			put(to, size, ", %s left", figures_seconds(a, (uint64_t)(seconds + 0.999)));
	} else if (p->outrun_since_ms &&
		   p->window[p->n - 1].ms - p->outrun_since_ms >= PROGRESS_HOPELESS_MS) {
		put(to, size,
		    ", will not converge: the guest writes %s/s, the link takes %s/s, downtime "
		    "limit %" PRIu64 " ms",
		    figures_bytes(a, dirty), figures_bytes(b, p->rate), p->now.limit_ms);
	}
}

void progress_line(const struct progress *p, char *to, size_t size)
{
	const struct figures *f = &p->now;
	char sent[FIGURES_TEXT], left[FIGURES_TEXT], text[FIGURES_TEXT];

	to[0] = '\0';
	put(to, size, "%u %%, %s sent, %s left", p->percent, figures_bytes(sent, f->sent_bytes),
	    figures_bytes(left, f->left_bytes));
	put(to, size, ", %s/s", figures_bytes(text, p->rate));
	if (f->round > 1)
		put(to, size, ", guest writes %s/s", figures_bytes(text, figures_dirty_bytes(f)));
	if (f->round)
		put(to, size, ", round %" PRIu64, f->round);
	if (f->throttle_pct)
		put(to, size, ", throttle %" PRIu64 " %%", f->throttle_pct);
	if (f->vcpu_limit)
		put(to, size, ", each vCPU may write %s/s", figures_bytes(text, f->vcpu_limit));
	if (!strcmp(f->status, "setup"))
		put(to, size, ", setting up");
	else if (!strcmp(f->status, "cancelling"))
		put(to, size, ", cancelling");
	else if (!strcmp(f->status, "device"))
		put(to, size, ", handing over");
	else
		put_time_left(p, to, size);
}
