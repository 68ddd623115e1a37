/*
 * A bus: address ranges and who answers there. One for ports, one for MMIO. Ranges are added
 * while the machine is built; afterwards it is only read, by all vCPU threads.
 * A device sees offsets from the start of its range, never addresses.
 */
#ifndef GODWIT_BUS_H
#define GODWIT_BUS_H

#include <stdbool.h>
#include <stdint.h>

struct err;

#define BUS_RANGES_MAX 64

/*
 * One access of `len` bytes (1, 2, 4 or 8), wholly inside the range. A read fills `value`
 * (little endian, len bytes, preset to all ones). Runs on the vCPU's thread.
 */
typedef void bus_fn(void *dev, uint64_t offset, void *value, unsigned int len, bool is_write);

struct bus_range {
	uint64_t base, size;
	bus_fn *fn;
	void *dev;
};

struct bus {
	struct bus_range ranges[BUS_RANGES_MAX]; /* sorted by base */
	unsigned int n_ranges;
};

/* -1 when it overlaps another range or the bus is full. */
int bus_add(struct bus *b, uint64_t base, uint64_t size, bus_fn *fn, void *dev, struct err *e);

/* A read that nobody answers gives all ones, a write that nobody takes is lost, as on a PC. */
void bus_access(const struct bus *b, uint64_t addr, void *value, unsigned int len, bool is_write);

/* Little endian values of 1, 2, 4, 8 bytes, for the devices. */
static inline uint64_t bus_value(const void *value, unsigned int len)
{
	uint64_t v = 0;

	__builtin_memcpy(&v, value, len <= 8 ? len : 8);
	return v;
}

static inline void bus_answer(void *value, unsigned int len, uint64_t v)
{
	__builtin_memcpy(value, &v, len <= 8 ? len : 8);
}

#endif
