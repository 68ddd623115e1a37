/*
 * The work, and what is measured of it.
 *
 * Every CPU goes round a loop: a turn (read the TSC, note the distance to the turn before), then
 * one step of its work: a page, or a block of computing, or nothing. CPU 0 looks besides, at
 * intervals, whether there is a command on the serial port or a progress line due.
 *
 * Holding: to compare memory with what it must hold, CPU 0 makes every writer stop between two
 * pages. hold_request is odd while they must; a writer copies it into its `held` and waits until it
 * changes. After that the position and version of each writer say exactly what each page holds.
 */
#include "bare.h"

#define SPARSE_STEP   16  /* pages between two turns: they take well under a microsecond each */
#define COMPUTE_BLOCK 256 /* multiplications, each waiting for the one before */
#define CATCH_UP_MS   50  /* how far a paced writer that was stopped makes up for it */

static struct plan plan;
static u64 poll_ticks, poll_due, progress_ticks, progress_due, catch_up_ticks, rest_ticks;
static u64 clock_last, clock_back;
static u32 hold_request;
static bool writing;

#define get(x)	  __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define put(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELEASE)

void work_turn(struct cpu *c)
{
	u64 now = rdtsc();
	u64 gap = now - c->last;

	c->last = now;
	if (gap <= get(c->gap))
		return;
	if ((int64_t)gap < 0)
		put(c->back, c->back + 1);
	else
		put(c->gap, gap);
}

static void write_page(struct cpu *c)
{
	if (plan.options->sparse)
		page_touch(c->first_page + c->position, c->version);
	else
		page_fill(c->first_page + c->position, c->version);
	if (++c->position == c->pages) {
		c->position = 0;
		c->version++;
	}
}

static void write_step(struct cpu *c)
{
	u64 pages = plan.options->sparse && !c->interval ? SPARSE_STEP : 1;
	u64 before = c->work;

	if ((c->interval || c->burst) && c->last < c->due)
		return;
	if (c->interval) {
		if (c->last - c->due > catch_up_ticks)
			c->due = c->last - catch_up_ticks;
		c->due += c->interval;
	}
	for (u64 i = 0; i < pages; i++)
		write_page(c);
	put(c->work, before + pages);
	if (c->burst && c->work / c->burst != before / c->burst)
		c->due = c->last + rest_ticks;
}

static void compute_step(struct cpu *c)
{
	u64 x = c->last | 1;
	u64 n = COMPUTE_BLOCK;

	__asm__ volatile("1: imul %0, %0\n\tdec %1\n\tjnz 1b" : "+r"(x), "+r"(n) : : "cc");
	put(c->work, c->work + 1);
}

static void hold(void)
{
	put(hold_request, hold_request + 1);
	for (u32 i = 1; i < cpu_count; i++)
		while (cpus[i]->role == ROLE_WRITE && get(cpus[i]->held) != hold_request)
			work_turn(cpus[0]);
}

static void release(void)
{
	put(hold_request, hold_request + 1);
}

static void obey_hold(struct cpu *c)
{
	u32 request = get(hold_request);

	if (!(request & 1))
		return;
	put(c->held, request);
	while (get(hold_request) == request)
		work_turn(c);
}

static u64 version_of(u64 page_no)
{
	for (u32 i = 0; i < cpu_count; i++) {
		const struct cpu *c = cpus[i];

		if (c->role == ROLE_WRITE && page_no - c->first_page < c->pages)
			return page_no - c->first_page < c->position ? c->version : c->version - 1;
	}
	return 0;
}

static void check(void)
{
	u64 start = rdtsc();
	u64 bad = 0, version = 0;
	struct mismatch first = { 0 }, m;

	hold();
	for (u64 i = 0; i < plan.fill_pages + plan.zero_pages; i++) {
		u64 wrong = i < plan.fill_pages
				    ? page_check(i, version_of(i), plan.options->sparse, &m)
				    : page_check_zero(i, &m);

		if (wrong && !bad++) {
			first = m;
			version = i < plan.fill_pages ? version_of(i) : 0;
		}
		work_turn(cpus[0]);
	}
	release();

	say(bad ? "check bad" : "check ok");
	say_number(" pages=", plan.fill_pages);
	say_number(" zero=", plan.zero_pages);
	say_number(" us=", (rdtsc() - start) * 1000 / plan.tsc_khz);
	if (bad) {
		say_number(" bad=", bad);
		say_number(" page=", first.page_no);
		say_hex(" address=", (u64)memory_work_page(first.page_no));
		say_number(" version=", version);
		say_number(" word=", first.word);
		say_hex(" expected=", first.expected);
		say_hex(" got=", first.got);
	}
	say_end();
}

/*
 * Put one written page back to the version before, as a machine that loses a write would: so that a
 * test can see that the check sees it. The writer mends it when it comes round again.
 */
static void make_stale(void)
{
	const struct cpu *c = cpus[0];
	u64 version;

	hold();
	version = c->role == ROLE_WRITE ? version_of(c->first_page) : 0;
	if (version && (!plan.options->sparse || version == 1))
		page_fill(c->first_page, version - 1);
	else if (version)
		page_touch(c->first_page, version - 1);
	release();
	if (version) {
		say_number("stale page=", c->first_page);
		say_number(" version=", version - 1);
	} else {
		say("error no page is written yet");
	}
	say_end();
}

static u64 clock_turn(void)
{
	u64 now = clock_exists() ? clock_ns() : 0;

	if (now < clock_last)
		clock_back++;
	clock_last = now;
	return now;
}

static void say_list(const char *label, u64 (*value)(const struct cpu *c))
{
	for (u32 i = 0; i < cpu_count; i++)
		say_number(i ? "," : label, value(cpus[i]));
}

static u64 work_of(const struct cpu *c)
{
	return get(c->work);
}

static u64 gap_of(const struct cpu *c)
{
	return c->gap_taken;
}

static u64 gap_max_of(const struct cpu *c)
{
	return c->gap_max;
}

static void take_gaps(void)
{
	for (u32 i = 0; i < cpu_count; i++) {
		struct cpu *c = cpus[i];

		c->gap_taken = __atomic_exchange_n(&c->gap, 0, __ATOMIC_ACQ_REL);
		if (c->gap_taken > c->gap_max)
			c->gap_max = c->gap_taken;
	}
}

static void say_progress(void)
{
	u64 back = clock_back;

	take_gaps();
	for (u32 i = 0; i < cpu_count; i++)
		back += get(cpus[i]->back);
	say_number("progress tsc=", rdtsc());
	say_number(" clock=", clock_turn());
	say_number(" writing=", writing);
	say_list(" work=", work_of);
	say_list(" gap=", gap_of);
	say_list(" max=", gap_max_of);
	say_number(" back=", back);
	say_end();
}

static void set_writing(bool on)
{
	put(writing, on && plan.options->write_mib);
	hold(); /* so that "off" is said when it is true */
	release();
	say(writing ? "writing on" : "writing off");
	say_end();
}

static void command(int byte)
{
	switch (byte) {
	case 'c':
		check();
		break;
	case 'p':
		say_progress();
		break;
	case 'w':
		set_writing(false);
		break;
	case 'W':
		set_writing(true);
		break;
	case 'x':
		make_stale();
		break;
	case 'q':
		say("power off");
		say_end();
		if (!acpi_power_off(plan.rsdp)) {
			say("error no acpi sleep register");
			say_end();
		}
		break;
	case 'r':
		say("reset");
		say_end();
		acpi_reset(plan.rsdp);
	case 'd':
		disk_size();
		break;
	case 'D':
		disk_write();
		break;
	case 'k':
		keyboard_reset();
		break;
	case '\r':
	case '\n':
		break;
	default:
		say_hex("error unknown command ", (u64)byte);
		say_end();
	}
}

static void commands(void)
{
	int byte;

	while ((byte = serial_read()) >= 0)
		command(byte);
}

/* CPU 0, now and then */
static void attend(struct cpu *c)
{
	if (c->last >= poll_due) {
		commands();
		disk_look();
		poll_due = c->last + poll_ticks;
	}
	if (c->last >= progress_due) {
		progress_due += progress_ticks;
		if (progress_due < c->last)
			progress_due = c->last + progress_ticks;
		say_progress();
	}
}

void work_setup(const struct plan *p)
{
	const struct options *o = p->options;
	u64 pages = o->write_mib * MIB_PAGES;

	plan = *p;
	poll_ticks = o->poll_ms * plan.tsc_khz;
	progress_ticks = o->progress_ms * plan.tsc_khz;
	catch_up_ticks = CATCH_UP_MS * plan.tsc_khz;
	rest_ticks = o->rest_ms * plan.tsc_khz;
	hold_request = 1;
	writing = pages != 0;
	for (u32 i = 0; i < cpu_count; i++) {
		struct cpu *c = cpus[i];

		c->role = o->idle ? ROLE_IDLE : ROLE_COMPUTE;
		if (!pages || i >= o->cpus)
			continue;
		c->role = ROLE_WRITE;
		c->first_page = pages * i / o->cpus;
		c->pages = pages * (i + 1) / o->cpus - c->first_page;
		c->version = 1;
		if (o->rate_mib)
			c->interval = plan.tsc_khz * 1000 * o->cpus / (o->rate_mib * MIB_PAGES);
		c->burst = o->burst_mib * MIB_PAGES / o->cpus;
	}
}

/* No turns and no wake-ups: the gaps of an idle CPU mean nothing but what its answers take */
static __attribute__((noreturn)) void work_idle(struct cpu *c)
{
	if (c->index == 0)
		cpu_idle_setup();
	for (;;) {
		if (c->index == 0) {
			commands();
			serial_interrupt(true);
		}
		cpu_idle();
		c->last = rdtsc();
		if (c->index == 0)
			serial_interrupt(false);
	}
}

static void forget_gaps(void)
{
	cpus[0]->last = rdtsc();
	take_gaps();
	for (u32 i = 0; i < cpu_count; i++)
		cpus[i]->gap_max = 0;
}

void work(struct cpu *c)
{
	if (c->index == 0)
		forget_gaps(); /* what was before does not count */
	if (c->role == ROLE_IDLE)
		work_idle(c);
	if (c->index == 0) {
		poll_due = poll_ticks ? c->last : UINT64_MAX;
		progress_due = progress_ticks ? c->last + progress_ticks : UINT64_MAX;
		release();
	} else {
		obey_hold(c);
	}
	c->due = rdtsc();
	for (;;) {
		work_turn(c);
		if (c->index == 0)
			attend(c);
		else
			obey_hold(c);
		if (c->role == ROLE_COMPUTE)
			compute_step(c);
		else if (get(writing))
			write_step(c);
	}
}
