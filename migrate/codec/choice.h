/*
 * Whether a codec gains: it is used only where a page takes less time with it than without, the
 * link's time and the processor's together, and is tried again now and then where it did not. Pure.
 */
#ifndef GODWIT_MIGRATE_CODEC_CHOICE_H
#define GODWIT_MIGRATE_CODEC_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

/* So many pages, 4 MiB, say enough. */
#define CHOICE_PAGES 1024u

/* Where it does not gain, it is left out for so many pages; twice as many each time, up to the
 * maximum. */
#define CHOICE_SKIP_MIN 16384u
#define CHOICE_SKIP_MAX 262144u

struct choice {
	bool off;
	uint64_t skip, skipped; /* while off: for how many pages, and how many so far */
	/* Of the pages since the last judgement. */
	uint64_t pages, bytes, ns;
	/* Of a page at the last judgement: what it became, and how long it took in all with and
	 * without the codec. */
	uint64_t page_bytes, with_ns, without_ns;
};

/* Whether the next `pages` pages are to go through the codec: it is on, or to be tried again. */
bool choice_wants(struct choice *c, uint64_t pages);

enum choice_change { CHOICE_AS_BEFORE, CHOICE_SWITCHED_OFF, CHOICE_SWITCHED_ON };

/*
 * `pages` pages went through it, became `bytes` and took `ns` of a processor; pages of which it
 * could say nothing (not in the cache) do not count. `byte_ps`: picoseconds that the link takes for
 * a byte; 0: not known yet.
 */
enum choice_change choice_add(struct choice *c, uint64_t pages, uint64_t bytes, uint64_t ns,
			      uint64_t byte_ps);

#endif
