/* Looks, what they say, and the shares of the vCPUs. */
#include "migrate/source/throttle.h"

#include "migrate/decisions.h"
#include "migrate/guest.h"
#include "migrate/parameters.h"
#include "migrate/source/dirty.h"
#include "migrate/source/dirty_rate.h"
#include "migrate/source/link.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/math.h"
#include "vmm/memory.h"

/* Looks are CONVERGE_LOOK_US apart. If a look costs over 1/LOOK_SHARE of that, they get rarer, up
 * to LOOK_MAX_US; beyond it only to stay below 1/LOOK_LARGE_SHARE. */
#define LOOK_SHARE	 20u
#define LOOK_MAX_US	 200000u
#define LOOK_LARGE_SHARE 5u

/* A vCPU that dirties less than 1/SPARED_PART of a fair share is spared. */
#define SPARED_PART 8u

/* Less time says little about which vCPU dirties how much. */
#define VCPUS_US 50000u

/* -- shares of the vCPUs -- */

static unsigned int n_vcpus(const struct throttle *t)
{
	return (unsigned int)min_u64(t->uses.guest->n_vcpus, STATS_VCPUS_MAX);
}

static uint64_t limit_of_each(const struct throttle *t)
{
	return max_u64(t->limit_bytes / (t->writers ? t->writers : 1),
		       parameters_least_dirty_bytes(t->uses.parameters));
}

static void apply(struct throttle *t)
{
	struct guest *g = t->uses.guest;
	uint64_t each = t->limit_bytes ? limit_of_each(t) : 0;
	unsigned int i;

	for (i = 0; i < n_vcpus(t); i++)
		g->ops->throttle(g, i, t->spared[i] ? 0 : t->permille);
	stats_set(&t->uses.stats->throttle_permille, t->permille);
	if (!g->vcpu_dirty_known)
		return;
	/* Cannot fail if there are dirty rings. */
	g->ops->dirty_limit(g, each, NULL);
	stats_set(&t->uses.stats->vcpu_limit_bytes, each);
}

static void set(struct throttle *t, unsigned int permille, uint64_t limit_bytes)
{
	t->permille = permille;
	t->limit_bytes = limit_bytes;
	apply(t);
}

/* Sees which vCPU dirties how much, for the stats too; shares out anew if that has changed. */
static void look_at_vcpus(struct throttle *t)
{
	struct guest *g = t->uses.guest;
	uint64_t now = clock_us(), us = now - t->vcpus_us, rate[STATS_VCPUS_MAX], all = 0, pages;
	unsigned int i, n = n_vcpus(t), writers = 0;
	bool changed = false, spared;

	if (!g->vcpu_dirty_known || us < VCPUS_US)
		return;
	for (i = 0; i < n; i++) {
		pages = g->ops->vcpu_dirty_pages(g, i);
		rate[i] = (pages - t->vcpu_pages[i]) * PAGE_SIZE * 1000000 / us;
		t->vcpu_pages[i] = pages;
		all += rate[i];
	}
	for (i = 0; i < n; i++) {
		spared = rate[i] < all / n / SPARED_PART;
		changed |= t->vcpus_us && spared != t->spared[i];
		t->spared[i] = spared;
		writers += !spared;
		stats_set(&t->uses.stats->vcpu_dirty_bytes[i], t->vcpus_us ? rate[i] : 0);
	}
	changed |= writers != t->writers;
	t->writers = writers;
	t->vcpus_us = now;
	if (changed && (t->permille || t->limit_bytes))
		apply(t);
}

void throttle_release(struct throttle *t)
{
	unsigned int i;

	if (!t->uses.guest)
		return;
	if (t->permille || t->limit_bytes)
		set(t, 0, 0);
	for (i = 0; i < n_vcpus(t); i++)
		stats_set(&t->uses.stats->vcpu_dirty_bytes[i], 0);
}

/* -- how much -- */

void throttle_rest(struct throttle *t)
{
	const struct migration_parameters *p = t->uses.parameters;

	throttle_release(t);
	t->converge = (struct converge){ .bounds = parameters_throttle_bounds(p),
					 .by_limit = p->dirty_limit };
	dirty_rate_restart(t->uses.dirty_rate);
}

void throttle_init(struct throttle *t, const struct throttle_uses *uses)
{
	*t = (struct throttle){ .uses = *uses };
	throttle_rest(t);
}

static uint64_t pages_sent(const struct throttle *t)
{
	return stats_data_pages(t->uses.stats) + stats_get(&t->uses.stats->zero_pages);
}

/* The first round says nothing about the next ones: nobody knows yet what is dirty. */
static bool is_first_round(const struct throttle *t)
{
	return stats_get(&t->uses.stats->round) <= 1;
}

static uint64_t downtime_us(const struct throttle *t)
{
	return __atomic_load_n(t->uses.downtime_us, __ATOMIC_RELAXED);
}

void throttle_round_begin(struct throttle *t)
{
	t->seen = (struct throttle_seen){ .us = clock_us(), .rest_us = UINT64_MAX };
	t->round_limit_us = downtime_us(t);
}

/* Measures by what was seen, and slows the guest if that is too much. */
static void measure(struct throttle *t, const struct throttle_seen *seen, uint64_t fixed_us)
{
	uint64_t limit = downtime_us(t);
	struct converge_sample sample = {
		.now_us = seen->us,
		.sent_bytes = (pages_sent(t) - t->first_pages) * PAGE_SIZE,
		.again_bytes = (t->again_before + seen->left_pages) * PAGE_SIZE,
		.left_bytes = seen->left_pages * PAGE_SIZE,
		.pending_bytes = seen->pending_pages * PAGE_SIZE,
		.rate_bytes = link_round_page_rate(t->uses.link, seen->us),
	};
	/* As the pause is estimated: pages that were found zero say nothing about the link. */
	uint64_t rate = link_round_data_rate(t->uses.link, seen->us);
	char reason[256];

	if (!parameters_may_slow(t->uses.parameters) || is_first_round(t))
		return;
	if (limit > fixed_us)
		sample.fit_bytes = mul_div(limit - fixed_us, rate, 1000000);
	t->converge.bounds.least_bytes = parameters_least_dirty_bytes(t->uses.parameters) *
					 (t->writers ? t->writers : 1);
	if (!converge_add(&t->converge, &sample, reason, sizeof(reason)))
		return;
	set(t, t->converge.permille, t->converge.limit_bytes);
	decision_tell(t->uses.decisions,
		      t->converge.by_limit ? DECISION_DIRTY_LIMIT : DECISION_THROTTLE, "%s",
		      reason);
}

static uint64_t look_every(uint64_t took)
{
	uint64_t us = max_u64(min_u64(took * LOOK_SHARE, LOOK_MAX_US), took * LOOK_LARGE_SHARE);

	return max_u64(us, CONVERGE_LOOK_US);
}

int throttle_look(struct throttle *t, struct dirty *d, struct err *e)
{
	uint64_t start = clock_us(), now;
	struct throttle_seen *seen = &t->seen;

	look_at_vcpus(t);
	if (start - seen->us < t->every_us)
		return 0;
	if (dirty_look(d, e))
		return -1;
	seen->left_pages = is_first_round(t) ? 0 : dirty_left(d);
	seen->pending_pages = stats_get(&t->uses.stats->remaining_pages);
	seen->us = start;
	now = clock_us();
	t->every_us = look_every(now - start);
	if (is_first_round(t))
		return 1;
	dirty_rate_look(t->uses.dirty_rate, t->again_before + seen->left_pages, start);
	seen->rest_us = link_us(t->uses.link, (seen->left_pages + seen->pending_pages) * PAGE_SIZE,
				now);
	return 1;
}

void throttle_adjust(struct throttle *t, uint64_t fixed_us)
{
	measure(t, &t->seen, fixed_us);
}

void throttle_round_end(struct throttle *t, uint64_t dirty_pages, uint64_t fixed_us)
{
	struct throttle_seen end = { .us = clock_us(), .left_pages = dirty_pages };

	measure(t, &end, fixed_us);
	if (is_first_round(t))
		t->first_pages = pages_sent(t);
	else
		t->again_before += dirty_pages;
}
