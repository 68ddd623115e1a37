/* Auto-converge: see converge.h. */
#include "migrate/policy/converge.h"

#include <inttypes.h>
#include <stdio.h>

#include "migrate/policy/rate.h"
#include "vmm/base/math.h"

/* A measurement in which less was sent tells nothing. */
#define WINDOW_BYTES (2u << 20)

/* What is dirtied again, in percent of what is sent meanwhile. From STALLED_PCT on a round gains
 * nothing. From SATURATED_PCT on the guest dirties more than the log can tell. */
#define STALLED_PCT   95u
#define SATURATED_PCT 80u

/* The part of fit_bytes to aim at: the estimate may be wrong. */
#define FIT_PCT 70u

/* The aim is never below this share of the send rate, even if the rest cannot fit. */
#define LINK_PCT 15u

/* The throttle is eased after EASE_US, but the guest gets at most EASE_PCT of what was too much. */
#define EASE_US	 2000000u
#define EASE_PCT 70u

/* Each time that easing was wrong the next takes four times as long; after this many times there is
 * none. */
#define EASE_TRIES 2u

/* All of the guest's time, in millionths. */
#define WHOLE 1000000u

static uint64_t max_of(const struct converge *c)
{
	unsigned int max = c->bounds.max;

	return max && max < CONVERGE_MAX_PERMILLE ? max : CONVERGE_MAX_PERMILLE;
}

static unsigned int clamp_permille(const struct converge *c, uint64_t keep)
{
	uint64_t permille = keep < WHOLE ? (WHOLE - keep) / 1000 : 0;

	return (unsigned int)(permille < max_of(c) ? permille : max_of(c));
}

static bool is_slowed(const struct converge *c)
{
	return c->permille || c->limit_bytes;
}

/* The aim: with how many bytes dirtied in a second the rest fits into the pause at the end of the
 * round. */
static uint64_t allowed_bytes(const struct converge_sample *s)
{
	uint64_t fit = s->fit_bytes / 100 * FIT_PCT;
	uint64_t least = s->rate_bytes / 100 * LINK_PCT, allowed = 0;
	/* At the end of a round: for the next one. */
	uint64_t left = s->pending_bytes ? s->left_bytes : 0;
	uint64_t pending = s->pending_bytes ? s->pending_bytes : s->left_bytes + 1;

	if (fit > left)
		allowed = mul_div(fit - left, s->rate_bytes, pending);
	/* With more than half of the send rate rounds hardly shrink. Less than LINK_PCT of it would
	 * slow the guest for nothing if another round is needed anyway. */
	return clamp_u64(allowed, least, s->rate_bytes / 2);
}

static struct converge_mark mark(const struct converge_sample *s)
{
	return (struct converge_mark){ s->now_us, s->sent_bytes, s->again_bytes };
}

/* Bytes that became dirty again since then, a second. */
static uint64_t dirtied(const struct converge_mark *from, const struct converge_sample *s)
{
	return rate_per_second(s->again_bytes - from->again, s->now_us - from->us);
}

/* Too much is dirtied: what the guest keeps from now on, computed from what it did with `keep`. */
static uint64_t tighten(struct converge *c, uint64_t keep, uint64_t allowed)
{
	uint64_t seen = c->dirty_bytes;

	/* A limit at the user's floor cannot be lowered, so what it lets through is not too much.
	 */
	if ((!c->too_much || keep < c->too_much) && !(c->by_limit && keep <= c->bounds.least_bytes))
		c->too_much = keep;
	c->eased_wrongly += c->eased;
	c->eased = false;
	if (!c->by_limit && !c->permille && c->bounds.initial)
		return WHOLE - c->bounds.initial * 1000ull;
	/* The rate that is seen is a lower bound, so go further than it says. */
	if (c->saturated && !c->by_limit)
		seen *= 2;
	return mul_div(keep, allowed, seen + 1);
}

/* Little was dirtied for long: the guest keeps more, but stays below what was too much before. */
static uint64_t ease(struct converge *c, uint64_t keep)
{
	uint64_t more = keep + keep / 2 + 1000,
		 most = c->too_much ? c->too_much / 100 * EASE_PCT : UINT64_MAX;

	more = more < most ? more : most;
	if (more <= keep)
		return keep;
	c->eased = true;
	return more;
}

static uint64_t next_keep(struct converge *c, const struct converge_sample *s)
{
	uint64_t keep = WHOLE - c->permille * 1000ull, allowed = allowed_bytes(s);

	if (c->by_limit && !c->limit_bytes)
		return allowed;
	if (c->by_limit)
		keep = c->limit_bytes;
	if (c->dirty_bytes > allowed + allowed / 4)
		return tighten(c, keep, allowed);
	if (c->eased_wrongly <= EASE_TRIES &&
	    s->now_us - c->change.us >= EASE_US << 2 * c->eased_wrongly &&
	    dirtied(&c->change, s) < allowed / 3)
		return ease(c, keep);
	return keep;
}

/*
 * True if the measurement that began at *from is complete. Then its result is in c, *stalled says
 * whether the round gained nothing in it, and the next one has begun.
 */
static bool end_window(struct converge *c, struct converge_mark *from,
		       const struct converge_sample *s, bool *stalled)
{
	uint64_t sent = s->sent_bytes - from->sent, again = s->again_bytes - from->again;
	uint64_t least_us = is_slowed(c) ? CONVERGE_WINDOW_US : CONVERGE_CERTAIN_US;

	if (s->now_us - from->us < least_us || sent < WINDOW_BYTES)
		return false;
	c->dirty_bytes = dirtied(from, s);
	c->saturated = again >= sent / 100 * SATURATED_PCT;
	*stalled = again >= sent / 100 * STALLED_PCT &&
		   s->left_bytes + s->pending_bytes > s->fit_bytes;
	*from = mark(s);
	return true;
}

static void explain(const struct converge *c, const struct converge_sample *s, char *reason,
		    size_t size)
{
	char what[80];

	if (c->by_limit)
		snprintf(what, sizeof(what), "the vCPUs may dirty %" PRIu64 " KiB/s: they dirty ",
			 c->limit_bytes >> 10);
	else
		snprintf(what, sizeof(what), "%u.%u %% taken from the vCPUs: they dirty ",
			 c->permille / 10, c->permille % 10);
	snprintf(reason, size,
		 "%s%s%" PRIu64 " MiB/s, %" PRIu64 " MiB/s are sent, %" PRIu64
		 " MiB are left and %" PRIu64 " MiB fit in the pause",
		 what, c->saturated ? "at least " : "", c->dirty_bytes >> 20, s->rate_bytes >> 20,
		 (s->left_bytes + s->pending_bytes) >> 20, s->fit_bytes >> 20);
}

/* Lets the guest keep that much, within the bounds. True if that is a change. */
static bool slow(struct converge *c, uint64_t keep)
{
	unsigned int permille = c->by_limit ? 0 : clamp_permille(c, keep);
	uint64_t limit = keep > c->bounds.least_bytes ? keep : c->bounds.least_bytes;

	if (c->permille && c->bounds.increment && permille > c->permille + c->bounds.increment)
		permille = c->permille + c->bounds.increment;
	if (!c->by_limit)
		limit = 0;
	if (permille == c->permille && limit == c->limit_bytes)
		return false;
	c->permille = permille;
	c->limit_bytes = limit;
	return true;
}

bool converge_add(struct converge *c, const struct converge_sample *s, char *reason, size_t size)
{
	bool stalled = false, round_stalled = false;

	if (!c->window.us || s->again_bytes < c->window.again || s->sent_bytes < c->window.sent) {
		c->window = c->round = c->change = mark(s);
		return false;
	}
	if (!end_window(c, &c->window, s, &stalled) && is_slowed(c))
		return false;
	/* If the guest writes in step with the rounds, only whole rounds show how much. */
	if (!is_slowed(c) && !stalled &&
	    (s->pending_bytes || !end_window(c, &c->round, s, &round_stalled) || !round_stalled))
		return false;
	if (!slow(c, next_keep(c, s)))
		return false;
	c->change = mark(s);
	explain(c, s, reason, size);
	return true;
}
