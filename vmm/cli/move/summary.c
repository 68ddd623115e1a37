/*
 * Pure. Invariant: the parts of the downtime and "the rest" add up to the total.
 */
#include "vmm/cli/move/summary.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct lines {
	char *to;
	size_t len;
};

static void line(struct lines *l, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void line(struct lines *l, const char *name, const char *fmt, ...)
{
	char value[64];
	va_list args;
	int n;

	va_start(args, fmt);
	vsnprintf(value, sizeof(value), fmt, args);
	va_end(args);
	n = snprintf(l->to + l->len, SUMMARY_BYTES - l->len, "%-21s%s\n", name, value);
	if (n > 0 && (size_t)n < SUMMARY_BYTES - l->len)
		l->len += (size_t)n;
}

static const char *outcome(enum figures_end end)
{
	switch (end) {
	case FIGURES_MOVED:
		return "Completed";
	case FIGURES_FAILED:
		return "Failed";
	case FIGURES_CANCELLED:
		return "Cancelled";
	case FIGURES_UNDECIDED:
		return "Undecided";
	case FIGURES_GOES_ON:
		break;
	}
	return "Unbounded"; /* virsh's word for a job whose end is not known */
}

static void downtime(struct lines *l, const struct figures *f)
{
	uint64_t parts = f->park_us + f->pages_us + f->sync_us + f->states_us + f->load_us +
			 f->start_us;
	char text[FIGURES_TEXT];

	line(l, "Total downtime:", "%s", figures_us(text, f->pause_us));
	line(l, "  park the guest:", "%s", figures_us(text, f->park_us));
	line(l, "  last pages:", "%s", figures_us(text, f->pages_us));
	line(l, "  disks synced:", "%s", figures_us(text, f->sync_us));
	line(l, "  states:", "%s", figures_us(text, f->states_us));
	line(l, "  load there:", "%s", figures_us(text, f->load_us));
	line(l, "  start there:", "%s", figures_us(text, f->start_us));
	if (f->pause_us > parts)
		line(l, "  the rest:", "%s", figures_us(text, f->pause_us - parts));
}

void summary_write(const struct figures *f, char to[SUMMARY_BYTES])
{
	struct lines l = { .to = to };
	uint64_t ms = f->total_ms > f->setup_ms ? f->total_ms - f->setup_ms : 1;
	char text[FIGURES_TEXT];

	to[0] = '\0';
	line(&l, "Job type:", "%s", outcome(f->end));
	line(&l, "Time elapsed:", "%" PRIu64 " ms", f->total_ms);
	line(&l, "Data processed:", "%s", figures_bytes(text, f->sent_bytes));
	line(&l, "Memory remaining:", "%s", figures_bytes(text, f->left_bytes));
	line(&l, "Memory total:", "%s", figures_bytes(text, f->total_bytes));
	line(&l, "Memory bandwidth:", "%s/s", figures_bytes(text, figures_rate(f->sent_bytes, ms)));
	line(&l, "Dirty rate:", "%" PRIu64 " pages/s", f->dirty_pages_rate);
	line(&l, "Page size:", "%" PRIu64 " bytes", f->page_bytes);
	line(&l, "Iteration:", "%" PRIu64, f->round);
	line(&l, "Constant pages:", "%" PRIu64, f->zero_pages);
	line(&l, "Normal pages:", "%" PRIu64, f->normal_pages);
	line(&l, "Normal data:", "%s", figures_bytes(text, f->normal_bytes));
	line(&l, "Expected downtime:", "%" PRIu64 " ms", f->expected_ms);
	line(&l, "Setup time:", "%" PRIu64 " ms", f->setup_ms);
	if (f->pause_us)
		downtime(&l, f);
}
