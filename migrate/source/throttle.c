/* How the guest is slowed: see throttle.h. */
#include "migrate/source/throttle.h"

#include "migrate/source/source.h"
#include "vmm/base/clock.h"
#include "vmm/memory.h"

/* Who dirties less than this part (1 / n) of a fair share is no writer. */
#define SPARED_PART 8u

/* A shorter time says little about who dirties how much. */
#define LOOK_US 50000u

static unsigned int n_vcpus(const struct source *s)
{
	return s->guest->n_vcpus < STATS_VCPUS_MAX ? s->guest->n_vcpus : STATS_VCPUS_MAX;
}

static uint64_t limit_of_each(const struct source *s)
{
	uint64_t each = s->brake.limit_bytes / (s->brake.writers ? s->brake.writers : 1);
	uint64_t least = parameters_least_dirty_bytes(&s->parameters);

	return each > least ? each : least;
}

static void apply(struct source *s)
{
	struct brake *b = &s->brake;
	unsigned int i;

	for (i = 0; i < n_vcpus(s); i++)
		s->guest->ops->throttle(s->guest, i, b->spared[i] ? 0 : b->permille);
	stats_set(&s->stats->throttle_permille, b->permille);
	if (!s->guest->vcpu_dirty_known)
		return;
	/* Cannot fail where there are rings. */
	s->guest->ops->dirty_limit(s->guest, b->limit_bytes ? limit_of_each(s) : 0, NULL);
	stats_set(&s->stats->vcpu_limit_bytes, b->limit_bytes ? limit_of_each(s) : 0);
}

void brake_look(struct source *s)
{
	struct brake *b = &s->brake;
	uint64_t now = clock_us(), us = now - b->at_us, rate[STATS_VCPUS_MAX], all = 0, pages;
	unsigned int i, n = n_vcpus(s), writers = 0;
	bool changed = false, spared;

	if (!s->guest->vcpu_dirty_known || us < LOOK_US)
		return;
	for (i = 0; i < n; i++) {
		pages = s->guest->ops->vcpu_dirty_pages(s->guest, i);
		rate[i] = (pages - b->pages[i]) * PAGE_SIZE * 1000000 / us;
		b->pages[i] = pages;
		all += rate[i];
	}
	for (i = 0; i < n; i++) {
		spared = rate[i] < all / n / SPARED_PART;
		changed |= b->at_us && spared != b->spared[i];
		b->spared[i] = spared;
		writers += !spared;
		stats_set(&s->stats->vcpu_dirty_bytes[i], b->at_us ? rate[i] : 0);
	}
	changed |= writers != b->writers;
	b->writers = writers;
	b->at_us = now;
	if (changed && (b->permille || b->limit_bytes))
		apply(s);
}

void brake_set(struct source *s, unsigned int permille, uint64_t limit_bytes)
{
	s->brake.permille = permille;
	s->brake.limit_bytes = limit_bytes;
	apply(s);
}

void brake_release(struct source *s)
{
	unsigned int i;

	if (s->brake.permille || s->brake.limit_bytes)
		brake_set(s, 0, 0);
	for (i = 0; i < n_vcpus(s); i++)
		stats_set(&s->stats->vcpu_dirty_bytes[i], 0);
}
