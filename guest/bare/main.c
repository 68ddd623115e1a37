/*
 * The boot CPU's way from entry to work: greet, read what the loader handed over, find memory, fill
 * it, start the other CPUs. Also where the faults of any CPU end.
 */
#include "bare.h"
#include "pvh.h"

#define DEFAULT_KHZ 2000000
#define FIRST_GIB   0x40000000ul

static struct options options;
static struct start_info start_info; /* copies: the fill may go over the originals */
static char cmdline[2048];

static void say_line(const char *text)
{
	say(text);
	say_end();
}

/* Something is wrong that has been said; only commands are answered from now on */
static __attribute__((noreturn)) void stop(void)
{
	static const struct options nothing = { .idle = true };
	struct plan plan = { .options = &nothing, .tsc_khz = DEFAULT_KHZ };

	say_line("stopped");
	if (!cpu_count)
		for (;;)
			__builtin_ia32_pause();
	plan.rsdp = start_info.rsdp;
	work_setup(&plan);
	work(cpus[0]);
}

void fault(const u64 *frame)
{
	static u32 faults;

	if (__atomic_fetch_add(&faults, 1, __ATOMIC_ACQ_REL))
		for (;;) /* another CPU's, or one made by saying so */
			__builtin_ia32_pause();
	say_end(); /* whatever was being said, or an empty line */
	say_number("error fault vector=", frame[3]);
	say_hex(" code=", frame[4]);
	say_hex(" rip=", frame[5]);
	say_hex(" rsp=", frame[8]);
	say_hex(" address=", frame[0]);
	say_end();
	for (;;)
		__builtin_ia32_pause();
}

static bool read_start_info(void)
{
	const struct start_info *si = (const void *)(u64)boot_start_info;
	size_t length = 0;

	if (boot_start_info >= FIRST_GIB || si->magic != START_INFO_MAGIC || si->version < 1 ||
	    si->memory_map >= FIRST_GIB || si->cmdline >= FIRST_GIB) {
		say_line("error hvm_start_info is missing, of version 0, or points above 1 GiB");
		return false;
	}
	if (si->cmdline) {
		const char *from = (const char *)si->cmdline;

		while (length < sizeof(cmdline) - 1 && from[length]) {
			cmdline[length] = from[length];
			length++;
		}
		if (from[length]) {
			say_line("error the command line is longer than 2047 bytes");
			return false;
		}
	}
	start_info = *si;
	return true;
}

static const char *find_tsc_khz(u64 *khz)
{
	if (options.tsc_khz) {
		*khz = options.tsc_khz;
		return "word";
	}
	*khz = clock_tsc_khz();
	if (*khz)
		return "kvmclock";
	*khz = DEFAULT_KHZ;
	return "default";
}

static bool fill(struct plan *plan)
{
	u64 room = memory_room_pages() / MIB_PAGES;
	u64 mib = options.fill_all && options.zero_mib < room ? room - options.zero_mib
							      : options.fill_mib;

	if (mib + options.zero_mib > room || options.write_mib > mib) {
		say("error not enough memory:");
		say_number(" fill=", mib);
		say_number(" zero=", options.zero_mib);
		say_number(" write=", options.write_mib);
		say_number(" room-mib=", room);
		say_end();
		return false;
	}
	plan->fill_pages = mib * MIB_PAGES;
	plan->zero_pages = options.zero_mib * MIB_PAGES;
	for (u64 i = 0; i < plan->fill_pages; i++)
		page_fill(i, 0);
	for (u64 i = 0; i < plan->zero_pages; i++)
		page_zero(plan->fill_pages + i);
	if (options.corrupt_given && options.corrupt < plan->fill_pages + plan->zero_pages)
		memory_work_page(options.corrupt)[options.corrupt * 7 % PAGE_WORDS] ^= 1ul << 17;
	return true;
}

static void other_cpu(struct cpu *c)
{
	c->last = rdtsc();
	__atomic_store_n(&c->alive, 1, __ATOMIC_RELEASE);
	work(c);
}

void main(void)
{
	u64 start = rdtsc();
	struct plan plan = { .options = &options };
	const char *khz_from;
	u64 fill_ticks;
	bool good;

	memset(bss_start, 0, (size_t)(bss_end - bss_start)); /* a reset does not clear it */
	serial_init();
	say_line("are 1"); /* start32 has said the b */

	if (!read_start_info())
		stop();
	if (!memory_init(&start_info)) {
		say_line("error the memory map has no RAM at 2 MiB, or more than the pool can map");
		stop();
	}
	good = cmdline_parse(&options, cmdline);
	if (!cpus_create(good ? (u32)(options.cpus + options.compute) : 1)) {
		say_line("error no memory for the CPUs' pages");
		stop();
	}
	if (!good)
		stop();
	memory_begin(options.from_mib * MIB_PAGES * PAGE_SIZE);

	plan.rsdp = start_info.rsdp;
	khz_from = find_tsc_khz(&plan.tsc_khz);
	say_number("guest cpus=", cpu_count);
	say_number(" ram-mib=", memory_ram_pages() / MIB_PAGES);
	say_number(" room-mib=", memory_room_pages() / MIB_PAGES);
	say_number(" khz=", plan.tsc_khz);
	say(" khz-from=");
	say(khz_from);
	say_number(" start=", start);
	say_end();

	fill_ticks = rdtsc();
	if (!fill(&plan))
		stop();
	fill_ticks = rdtsc() - fill_ticks;

	work_setup(&plan);
	for (u32 i = 1; i < cpu_count; i++) {
		if (cpu_start(cpus[i], plan.tsc_khz, other_cpu))
			continue;
		say_number("error cpu ", i);
		say_line(" did not start");
		stop();
	}
	say_number("ready tsc=", rdtsc());
	say_number(" pages=", plan.fill_pages);
	say_number(" zero=", plan.zero_pages);
	say_number(" fill-us=", fill_ticks * 1000 / plan.tsc_khz);
	say_end();
	work(cpus[0]);
}
