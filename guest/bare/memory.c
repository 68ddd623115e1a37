/*
 * RAM: the memory map, page tables for what the image's own do not reach, a pool of pages, and the
 * workload's pages, numbered from 0 over all RAM from FILL_BASE on. CPU 0 only, before others
 * start; afterwards nothing changes.
 *
 * The tables are user-writable, so they are extended from here and not at CPL 0. A directory is
 * complete before it is linked, and nothing that was present changes: no TLB needs to know.
 */
#include "bare.h"
#include "pvh.h"

#define GIB	    0x40000000ul
#define LARGE_PAGE  0x200000ul
#define MAX_REGIONS 32

struct region {
	u64 start, end;
};

static struct region ram[MAX_REGIONS];
static u32 ram_count;
static struct region room[MAX_REGIONS]; /* the part of it that is the workload's */
static u32 room_count;
static u64 room_pages;
static u64 pool_next, pool_end;

void *memset(void *to, int byte, size_t n)
{
	void *start = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
	return start;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *start = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return start;
}

void *memory_page(void)
{
	if (pool_next == pool_end)
		return NULL;
	pool_next += PAGE_SIZE;
	return memset((void *)(pool_next - PAGE_SIZE), 0, PAGE_SIZE);
}

static bool is_ram(u64 start, u64 end)
{
	for (u32 i = 0; i < ram_count; i++)
		if (start < ram[i].end && end > ram[i].start)
			return true;
	return false;
}

bool memory_map(u64 address)
{
	u64 gib = address / GIB;
	u64 *directory;

	if (address >= MEMORY_LIMIT)
		return false;
	if (!page_directories[gib]) {
		directory = memory_page();
		if (!directory)
			return false;
		for (u64 i = 0; i < 512; i++) {
			u64 start = gib * GIB + i * LARGE_PAGE;

			directory[i] = start | PAGE_USER | PAGE_LARGE;
			if (!is_ram(start, start + LARGE_PAGE))
				directory[i] |= PAGE_UNCACHED;
		}
		__asm__ volatile("" : : : "memory");
		((volatile u64 *)page_directories)[gib] = (u64)directory | PAGE_USER;
	}
	return true;
}

static void take_region(u64 start, u64 end)
{
	if (end > MEMORY_LIMIT)
		end = MEMORY_LIMIT;
	start = (start + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	end &= ~(PAGE_SIZE - 1);
	if (start >= end || ram_count == MAX_REGIONS)
		return;
	ram[ram_count++] = (struct region){ start, end };
	if (start <= POOL_BASE && end > POOL_BASE) {
		pool_next = POOL_BASE;
		pool_end = end < FILL_BASE ? end : FILL_BASE;
	}
	if (start < FILL_BASE)
		start = FILL_BASE;
	if (start < end) {
		room[room_count++] = (struct region){ start, end };
		room_pages += (end - start) / PAGE_SIZE;
	}
}

bool memory_init(const struct start_info *si)
{
	const struct memory_entry *entry = (const void *)si->memory_map;

	for (u32 i = 0; i < si->memory_entries; i++)
		if (entry[i].type == MEMORY_RAM)
			take_region(entry[i].address, entry[i].address + entry[i].size);
	if (!pool_next)
		return false;
	for (u32 i = 0; i < ram_count; i++)
		for (u64 at = ram[i].start & ~(GIB - 1); at < ram[i].end; at += GIB)
			if (!memory_map(at))
				return false;
	return memory_map(IOAPIC_BASE);
}

u64 memory_ram_pages(void)
{
	u64 pages = 0;

	for (u32 i = 0; i < ram_count; i++)
		pages += (ram[i].end - ram[i].start) / PAGE_SIZE;
	return pages;
}

u64 memory_room_pages(void)
{
	return room_pages;
}

void memory_begin(u64 address)
{
	room_pages = 0;
	for (u32 i = 0; i < room_count; i++) {
		if (room[i].start < address)
			room[i].start = address < room[i].end ? address : room[i].end;
		room_pages += (room[i].end - room[i].start) / PAGE_SIZE;
	}
}

u64 *memory_work_page(u64 page_no)
{
	u64 offset = page_no * PAGE_SIZE;
	u32 i = 0;

	while (offset >= room[i].end - room[i].start) {
		offset -= room[i].end - room[i].start;
		i++;
	}
	return (u64 *)(room[i].start + offset);
}
