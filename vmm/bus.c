/*
 * Address ranges and who answers there: see bus.h. Written while the machine is built, then only
 * read, so it needs no lock. Ranges never overlap and are sorted.
 */
#include "vmm/bus.h"

#include <inttypes.h>
#include <string.h>

#include "vmm/base/err.h"

int bus_add(struct bus *b, uint64_t base, uint64_t size, bus_fn *fn, void *dev, struct err *e)
{
	unsigned int i;

	if (size == 0 || base + size - 1 < base)
		return err_set(e, "a range of %" PRIu64 " bytes at 0x%" PRIx64 " cannot be", size,
			       base);
	if (b->n_ranges == BUS_RANGES_MAX)
		return err_set(e, "more than %d address ranges", BUS_RANGES_MAX);
	for (i = 0; i < b->n_ranges; i++) {
		const struct bus_range *r = &b->ranges[i];

		if (base <= r->base + (r->size - 1) && r->base <= base + (size - 1))
			return err_set(e, "0x%" PRIx64 " to 0x%" PRIx64 " is taken already", base,
				       base + size - 1);
	}
	for (i = b->n_ranges++; i && b->ranges[i - 1].base > base; i--)
		b->ranges[i] = b->ranges[i - 1];
	b->ranges[i] = (struct bus_range){ base, size, fn, dev };
	return 0;
}

void bus_access(const struct bus *b, uint64_t addr, void *value, unsigned int len, bool is_write)
{
	unsigned int low = 0, high = b->n_ranges;

	if (!is_write)
		memset(value, 0xff, len);
	while (low < high) {
		unsigned int middle = (low + high) / 2;
		const struct bus_range *r = &b->ranges[middle];

		if (addr < r->base) {
			high = middle;
		} else if (addr - r->base >= r->size) {
			low = middle + 1;
		} else {
			if (len <= r->size - (addr - r->base))
				r->fn(r->dev, addr - r->base, value, len, is_write);
			return;
		}
	}
}
