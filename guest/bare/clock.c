/*
 * kvmclock, as the boot CPU sees it: start.S has given KVM this page, if there is a KVM.
 *
 * It tells the TSC's frequency, and the machine's time; the latter only so that a progress line
 * shows whether it goes on as it should. CPU 0 only.
 */
#include "bare.h"

struct clock_page { /* KVM's pvclock_vcpu_time_info */
	u32 version;
	u32 pad;
	u64 tsc_then;
	u64 ns_then;
	u32 multiply;
	int8_t shift;
	u8 flags;
	u8 pad2[2];
};

/* Not in .bss: that is cleared after KVM has been told */
struct clock_page clock_page __attribute__((aligned(64), section(".data")));

static volatile struct clock_page *const page = &clock_page;

bool clock_exists(void)
{
	return page->multiply != 0;
}

u64 clock_ns(void)
{
	u32 version;
	u64 ns;

	do {
		version = page->version & ~1u;
		u64 ticks = rdtsc() - page->tsc_then;

		ticks = page->shift < 0 ? ticks >> -page->shift : ticks << page->shift;
		ns = page->ns_then + (u64)((unsigned __int128)ticks * page->multiply >> 32);
	} while (page->version != version);
	return ns;
}

u64 clock_tsc_khz(void)
{
	u64 khz;

	if (!clock_exists())
		return 0;
	khz = (1000000ul << 32) / page->multiply;
	return page->shift < 0 ? khz << -page->shift : khz >> page->shift;
}
