/*
 * What the workload's pages hold. A page is a function of its number and its version, and of
 * nothing else, so that it can be verified at any time:
 *
 *   version 0           512 words from four generators seeded by the number and 0
 *   page mode, v > 0    the same, seeded by the number and v: every byte of it is new
 *   sparse mode, v > 0  as version 0, but for one word, number % 512, which is mix(number, v)
 *
 * No codec finds anything to gain in such a page. Four independent generators, each a
 * multiplication and an addition a word, keep ahead of the memory's speed.
 */
#include "bare.h"

#define LANES	 4
#define MULTIPLY 0xd1342543de82ef95ul /* a full-period multiplier modulo 2^64 */

static inline u64 mix(u64 x)
{
	x += 0x9e3779b97f4a7c15ul;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ul;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebul;
	return x ^ (x >> 31);
}

static inline u64 mix2(u64 page_no, u64 version)
{
	return mix(page_no ^ mix(version));
}

static inline void seed(u64 lane[LANES], u64 page_no, u64 version)
{
	u64 s = mix2(page_no, version);

	for (u32 i = 0; i < LANES; i++)
		lane[i] = mix(s + i);
}

static inline u64 next(u64 *lane)
{
	*lane = *lane * MULTIPLY + 1;
	return *lane ^ (*lane >> 32);
}

void page_fill(u64 page_no, u64 version)
{
	u64 *page = memory_work_page(page_no);
	u64 lane[LANES];

	seed(lane, page_no, version);
	for (u32 i = 0; i < PAGE_WORDS; i += LANES) {
		page[i] = next(&lane[0]);
		page[i + 1] = next(&lane[1]);
		page[i + 2] = next(&lane[2]);
		page[i + 3] = next(&lane[3]);
	}
}

/* Sparse mode's write: 8 bytes */
void page_touch(u64 page_no, u64 version)
{
	u64 *page = memory_work_page(page_no);

	page[page_no % PAGE_WORDS] = mix2(page_no, version);
}

void page_zero(u64 page_no)
{
	memset(memory_work_page(page_no), 0, PAGE_SIZE);
}

static void note(struct mismatch *m, u64 page_no, u64 word, u64 expected, u64 got)
{
	*m = (struct mismatch){ page_no, word, expected, got };
}

u64 page_check(u64 page_no, u64 version, bool sparse, struct mismatch *m)
{
	const u64 *page = memory_work_page(page_no);
	u64 special = sparse && version ? page_no % PAGE_WORDS : PAGE_WORDS;
	u64 lane[LANES];
	u64 wrong = 0;

	seed(lane, page_no, sparse ? 0 : version);
	for (u32 i = 0; i < PAGE_WORDS; i++) {
		u64 expected = next(&lane[i % LANES]);

		if (i == special)
			expected = mix2(page_no, version);
		if (page[i] != expected && !wrong++)
			note(m, page_no, i, expected, page[i]);
	}
	return wrong;
}

u64 page_check_zero(u64 page_no, struct mismatch *m)
{
	const u64 *page = memory_work_page(page_no);
	u64 wrong = 0;

	for (u32 i = 0; i < PAGE_WORDS; i++)
		if (page[i] && !wrong++)
			note(m, page_no, i, 0, page[i]);
	return wrong;
}
