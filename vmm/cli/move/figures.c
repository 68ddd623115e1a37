/*
 * Pure. Invariant: whatever the VM answers, no number is negative and no text has a control
 * character.
 */
#include "vmm/cli/move/figures.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/words.h"

static uint64_t number(const json_t *o, const char *name)
{
	const json_t *v = json_object_get(o, name);

	return json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v)
							       : 0;
}

static void text(char *to, size_t size, const json_t *o, const char *name, const char *otherwise)
{
	const char *s = json_string_value(json_object_get(o, name));

	word_printable(to, size, s ? s : otherwise);
}

static enum figures_end end_of(const char *status)
{
	if (!strcmp(status, "completed"))
		return FIGURES_MOVED;
	if (!strcmp(status, "failed"))
		return FIGURES_FAILED;
	if (!strcmp(status, "cancelled"))
		return FIGURES_CANCELLED;
	return FIGURES_GOES_ON;
}

static void read_ram(struct figures *f, const json_t *ram)
{
	f->sent_bytes = number(ram, "transferred");
	f->left_bytes = number(ram, "remaining");
	f->total_bytes = number(ram, "total");
	f->round = number(ram, "dirty-sync-count");
	f->zero_pages = number(ram, "duplicate");
	f->normal_pages = number(ram, "normal");
	f->normal_bytes = number(ram, "normal-bytes");
	f->page_bytes = number(ram, "page-size");
	f->dirty_pages_rate = number(ram, "dirty-pages-rate");
}

static void read_pause(struct figures *f, const json_t *parts)
{
	f->park_us = number(parts, "park-us");
	f->pages_us = number(parts, "pages-us");
	f->sync_us = number(parts, "sync-us");
	f->states_us = number(parts, "states-us");
	f->load_us = number(parts, "load-us");
	f->start_us = number(parts, "start-us");
	f->pause_us = number(parts, "total-us");
}

void figures_read(struct figures *f, const json_t *answer)
{
	memset(f, 0, sizeof(*f));
	text(f->status, sizeof(f->status), answer, "status", "none");
	text(f->error, sizeof(f->error), answer, "error-desc", "");
	text(f->uri, sizeof(f->uri), answer, "x-godwit-uri", "");
	text(f->waiting, sizeof(f->waiting), answer, "x-godwit-waiting", "");
	f->incoming = json_is_true(json_object_get(answer, "x-godwit-incoming"));
	f->end = end_of(f->status);
	if (json_is_true(json_object_get(answer, "x-godwit-undecided")))
		f->end = FIGURES_UNDECIDED;
	f->total_ms = number(answer, "total-time");
	f->setup_ms = number(answer, "setup-time");
	f->downtime_ms = number(answer, "downtime");
	f->expected_ms = number(answer, "expected-downtime");
	f->limit_ms = number(answer, "x-godwit-downtime-limit");
	f->bandwidth = number(answer, "x-godwit-max-bandwidth");
	f->throttle_pct = number(answer, "cpu-throttle-percentage");
	f->vcpu_limit = number(answer, "x-godwit-vcpu-dirty-limit");
	read_ram(f, json_object_get(answer, "ram"));
	read_pause(f, json_object_get(answer, "x-godwit-downtime"));
}

uint64_t figures_dirty_bytes(const struct figures *f)
{
	uint64_t bytes;

	return __builtin_mul_overflow(f->dirty_pages_rate, f->page_bytes, &bytes) ? UINT64_MAX
										  : bytes;
}

uint64_t figures_rate(uint64_t bytes, uint64_t ms)
{
	double rate = ms ? (double)bytes * 1000 / (double)ms : 0;

	return rate < 1e18 ? (uint64_t)rate : (uint64_t)1e18;
}

unsigned int figures_percent(const struct figures *f)
{
	unsigned int percent;

	if (f->end == FIGURES_MOVED)
		return 100;
	if (!f->total_bytes || f->left_bytes >= f->total_bytes)
		return 0;
	percent = (unsigned int)(100.0 * (double)(f->total_bytes - f->left_bytes) /
				 (double)f->total_bytes);
	return percent > 99 ? 99 : percent;
}

const char *figures_bytes(char to[FIGURES_TEXT], uint64_t bytes)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double n = (double)bytes / 1024;
	size_t i = 0;

	if (bytes < 1024) {
		snprintf(to, FIGURES_TEXT, "%" PRIu64 " B", bytes);
		return to;
	}
	/* 1023.95 would be printed as 1024.0, so it becomes 1.0 of the next unit. */
	for (; n >= 1023.95 && i + 1 < sizeof(units) / sizeof(units[0]); i++)
		n /= 1024;
	snprintf(to, FIGURES_TEXT, "%.1f %s", n, units[i]);
	return to;
}

const char *figures_seconds(char to[FIGURES_TEXT], uint64_t s)
{
	if (s < 60)
		snprintf(to, FIGURES_TEXT, "%" PRIu64 " s", s);
	else if (s < 3600)
		snprintf(to, FIGURES_TEXT, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
	else
		snprintf(to, FIGURES_TEXT, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
	return to;
}

const char *figures_us(char to[FIGURES_TEXT], uint64_t us)
{
	snprintf(to, FIGURES_TEXT, "%" PRIu64 ".%" PRIu64 " ms", us / 1000, us % 1000 / 100);
	return to;
}
