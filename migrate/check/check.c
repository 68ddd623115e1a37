/*
 * The check: see check.h. The link comes first: a destination that is not there costs the guest
 * nothing. Then the log is cleared once and looked at several times, so that what is seen is how
 * the set of pages that the guest writes to grows with time.
 */
#include "migrate/check/check.h"

#include <stdlib.h>
#include <string.h>

#include "migrate/codec/zero.h"
#include "migrate/policy/expect.h"
#include "migrate/guest_log.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/wake.h"
#include "vmm/memory.h"

/* When to look, since the log was clear: what is hot shows at once, the rest with time. */
static const uint64_t looks_us[] = { 25000, 50000, 100000, 200000, 400000, 800000, 1600000 };

#define N_LOOKS (sizeof(looks_us) / sizeof(looks_us[0]))

/* Where nothing more has come from here on, the last look would see nothing new. */
#define ENOUGH_US 800000u

/* Of what was touched so many pages are read, to see how many are zero. */
#define ZERO_SAMPLES 1024u

struct sample {
	struct check *c;
	struct guest *guest;
	uint64_t *bits[GUEST_BLOCKS_MAX];
};

/* -- how the guest writes -- */

/* Waits until then; -1 when stopped. */
static int wait_until(const struct check *c, uint64_t us, struct err *e)
{
	uint64_t now = clock_us();

	do {
		if (wake_nap(c->stop_fd, us > now ? us - now : 0, e))
			return -1;
		now = clock_us();
	} while (now < us);
	return 0;
}

static void forget(struct sample *s, int byte)
{
	for (unsigned int i = 0; i < s->guest->n_blocks; i++)
		memset(s->bits[i], byte,
		       BITMAP_WORDS(s->guest->blocks[i].pages) * sizeof(uint64_t));
}

/* Clears in the log what is set here, of which nothing is known then. */
static int clear(struct sample *s, struct err *e)
{
	for (unsigned int i = 0; i < s->guest->n_blocks; i++)
		if (guest_log_clear(s->guest, i, s->bits[i], s->c->stop_fd, e))
			return -1;
	forget(s, 0);
	return 0;
}

static uint64_t count_bytes(const struct sample *s)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < s->guest->n_blocks; i++)
		pages += bitmap_count(s->bits[i], s->guest->blocks[i].pages);
	return pages * PAGE_SIZE;
}

/* The log says of every page that it is dirty, and by the time that it is clear again of some. */
static int watch_writes(struct sample *s, struct err *e)
{
	struct predict_input *in = &s->c->in;
	uint64_t start, bytes;

	forget(s, 0xff);
	if (clear(s, e) || guest_log_fetch(s->guest, s->bits, e) || clear(s, e))
		return -1;
	start = clock_us();
	for (in->n_looks = 0; in->n_looks < N_LOOKS; in->n_looks++) {
		struct predict_look *look = &in->look[in->n_looks];

		if (wait_until(s->c, start + looks_us[in->n_looks], e) ||
		    guest_log_fetch(s->guest, s->bits, e))
			return -1;
		bytes = count_bytes(s);
		*look = (struct predict_look){ clock_us() - start, bytes };
		if (in->n_looks && looks_us[in->n_looks] >= ENOUGH_US && bytes == look[-1].bytes) {
			in->n_looks++;
			break;
		}
	}
	return 0;
}

/* -- what is to be sent -- */

/* Pages that are found zero go without data. */
static uint64_t estimate_zero(const struct sample *s, uint64_t touched)
{
	uint64_t step = touched / ZERO_SAMPLES + 1, n = 0, read = 0, zero = 0;

	for (unsigned int i = 0; i < s->guest->n_blocks; i++) {
		const struct guest_block *b = &s->guest->blocks[i];
		uint64_t at = bitmap_next_set(s->bits[i], b->pages, 0);

		for (; at < b->pages; at = bitmap_next_set(s->bits[i], b->pages, at + 1)) {
			if (n++ % step)
				continue;
			read++;
			zero += zero_page(b->host + at * PAGE_SIZE);
		}
	}
	return read ? touched * zero / read : 0;
}

static int look_at_memory(struct sample *s, struct err *e)
{
	struct check *c = s->c;

	forget(s, 0);
	for (unsigned int i = 0; i < s->guest->n_blocks; i++)
		if (s->guest->ops->touched(s->guest, i, 0, s->guest->blocks[i].pages, s->bits[i],
					   e))
			return -1;
	c->touched_bytes = count_bytes(s);
	c->zero_bytes = estimate_zero(s, c->touched_bytes / PAGE_SIZE) * PAGE_SIZE;
	c->in.send_bytes = c->touched_bytes - c->zero_bytes;
	return 0;
}

static int look_at_guest(struct check *c, struct err *e)
{
	struct sample s = { .c = c, .guest = c->guest };
	unsigned int i;
	int rc = 0;

	c->in.ram_bytes = 0;
	for (i = 0; i < c->guest->n_blocks && !rc; i++) {
		c->in.ram_bytes += c->guest->blocks[i].pages * PAGE_SIZE;
		s.bits[i] = malloc(BITMAP_WORDS(c->guest->blocks[i].pages) * sizeof(uint64_t));
		if (!s.bits[i])
			rc = err_set(e, "out of memory");
	}
	rc = rc || c->guest->ops->log_start(c->guest, e);
	if (!rc) {
		rc = watch_writes(&s, e);
		c->guest->ops->log_stop(c->guest);
		rc = rc || look_at_memory(&s, e);
	}
	for (i = 0; i < c->guest->n_blocks; i++)
		free(s.bits[i]);
	return rc ? -1 : 0;
}

/* What loading costs over there is not known before a machine is made: as much as collecting. */
static void rehearse(struct check *c)
{
	struct expect x = { 0 };
	struct guest_costs here;

	if (c->guest->ops->rehearse(c->guest, &here, NULL))
		return;
	expect_rehearsed(&x, &here);
	c->in.fixed_us = expect_fixed_us(&x, c->link.rate_bytes);
}

int check_run(struct check *c, struct err *e)
{
	if (probe_measure(c->channel, c->bandwidth, c->stop_fd, &c->link, e) || look_at_guest(c, e))
		return -1;
	rehearse(c);
	c->in.rate_bytes = c->link.rate_bytes;
	c->in.round_trip_us = c->link.round_trip_us;
	predict_make(&c->in, &c->prediction);
	return 0;
}
