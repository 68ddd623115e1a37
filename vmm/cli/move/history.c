/*
 * Pure except for memory. Invariant: samples and notes are in the order of their times.
 */
#include "vmm/cli/move/history.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/base/words.h"

void history_free(struct history *h)
{
	free(h->samples);
	free(h->notes);
	*h = (struct history){ 0 };
}

/* Drops every second sample; from now on half as many are kept. */
static void thin_out(struct history *h)
{
	unsigned int i;

	for (i = 0; 2 * i < h->n_samples; i++)
		h->samples[i] = h->samples[2 * i];
	h->n_samples = i;
	h->apart_ms = h->apart_ms ? 2 * h->apart_ms
				  : 2 * h->samples[h->n_samples - 1].ms / HISTORY_SAMPLES + 1;
}

void history_sample(struct history *h, const struct figures *f, uint64_t rate)
{
	uint64_t last = h->n_samples ? h->samples[h->n_samples - 1].ms : 0;

	h->final = *f;
	if (!h->samples && !(h->samples = calloc(HISTORY_SAMPLES, sizeof(h->samples[0]))))
		return;
	if (!f->total_bytes && f->end == FIGURES_GOES_ON)
		return; /* nothing is known yet */
	/* The last sample is always kept. A time that goes back is an error of the VM. */
	if (f->total_ms < last ||
	    (f->end == FIGURES_GOES_ON && h->n_samples && f->total_ms - last < h->apart_ms))
		return;
	if (h->n_samples == HISTORY_SAMPLES)
		thin_out(h);
	h->samples[h->n_samples++] = (struct history_sample){
		.ms = f->total_ms,
		.round = f->round,
		.left_bytes = f->left_bytes,
		.sent_bytes = f->sent_bytes,
		.rate = rate,
		.dirty_rate = figures_dirty_bytes(f),
		.throttle_pct = f->throttle_pct,
		.vcpu_limit = f->vcpu_limit,
		.limit_ms = f->limit_ms,
		.expected_ms = f->expected_ms,
		.bandwidth = f->bandwidth,
	};
}

void history_note(struct history *h, enum history_kind kind, uint64_t ms, uint64_t round,
		  const char *what, const char *why)
{
	struct history_note *n;

	if (!h->notes)
		h->notes = calloc(HISTORY_NOTES, sizeof(h->notes[0]));
	if (!h->notes || h->n_notes == HISTORY_NOTES) {
		h->notes_lost++;
		return;
	}
	if (h->n_notes && ms < h->notes[h->n_notes - 1].ms)
		ms = h->notes[h->n_notes - 1].ms;
	n = &h->notes[h->n_notes++];
	*n = (struct history_note){ .kind = kind, .ms = ms, .round = round };
	word_printable(n->what, sizeof(n->what), what);
	word_printable(n->why, sizeof(n->why), why);
}
