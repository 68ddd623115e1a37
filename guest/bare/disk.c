/*
 * The machine's first virtio disk (virtio 1.2, by MMIO): how large it is, and writes of one sector,
 * one at a time. No interrupts: CPU 0 looks now and then. Set up by the first command that needs
 * it.
 */
#include "bare.h"

#define WINDOWS	     0xd0000000ul
#define WINDOW_COUNT 24
#define WINDOW_BYTES 0x1000
#define MAGIC	     0x74726976
#define DISK_ID	     2

#define REG_DEVICE_ID	    0x008
#define REG_DRIVER_FEATURES 0x020
#define REG_DRIVER_SEL	    0x024
#define REG_QUEUE_SEL	    0x030
#define REG_QUEUE_NUM	    0x038
#define REG_QUEUE_READY	    0x044
#define REG_NOTIFY	    0x050
#define REG_STATUS	    0x070
#define REG_DESC	    0x080
#define REG_DRIVER	    0x090
#define REG_DEVICE	    0x0a0
#define REG_GENERATION	    0x0fc
#define REG_CAPACITY	    0x100

#define FEATURE_FLUSH	  (1u << 9)
#define FEATURE_VERSION_1 (1u << 0) /* of the upper half */
#define STATUS_SET_UP	  0x3
#define STATUS_FEATURES	  0xb
#define STATUS_RUNS	  0xf

#define QUEUE_SIZE 4
#define DESC_NEXT  1
#define DESC_WRITE 2

struct rings {
	struct {
		u64 address;
		u32 length;
		u16 flags, next;
	} desc[QUEUE_SIZE];
	u16 avail_flags, avail_idx, avail[QUEUE_SIZE];
	u8 gap[64];
	volatile u16 used_flags, used_idx;
	struct {
		u32 head, written;
	} used[QUEUE_SIZE];
};

static struct rings rings __attribute__((aligned(4096)));
static struct {
	u32 type, reserved;
	u64 sector;
} header;
static u8 data[512];
static volatile u8 answer;
static u64 window;
static bool pending;
static u64 next_sector;

static u64 find(void)
{
	for (u64 at = WINDOWS; at < WINDOWS + WINDOW_COUNT * WINDOW_BYTES; at += WINDOW_BYTES)
		if (mmio_read(at) == MAGIC && mmio_read(at + REG_DEVICE_ID) == DISK_ID)
			return at;
	return 0;
}

static void set_address(u64 reg, const volatile void *address)
{
	mmio_write(window + reg, (u32)(u64)address);
	mmio_write(window + reg + 4, 0);
}

static bool set_up(void)
{
	if (window)
		return true;
	window = find();
	if (!window)
		return false;
	mmio_write(window + REG_STATUS, 0);
	mmio_write(window + REG_STATUS, STATUS_SET_UP);
	mmio_write(window + REG_DRIVER_SEL, 0);
	mmio_write(window + REG_DRIVER_FEATURES, FEATURE_FLUSH);
	mmio_write(window + REG_DRIVER_SEL, 1);
	mmio_write(window + REG_DRIVER_FEATURES, FEATURE_VERSION_1);
	mmio_write(window + REG_STATUS, STATUS_FEATURES);
	mmio_write(window + REG_QUEUE_SEL, 0);
	mmio_write(window + REG_QUEUE_NUM, QUEUE_SIZE);
	set_address(REG_DESC, rings.desc);
	set_address(REG_DRIVER, &rings.avail_flags);
	set_address(REG_DEVICE, &rings.used_flags);
	mmio_write(window + REG_QUEUE_READY, 1);
	mmio_write(window + REG_STATUS, STATUS_RUNS);
	return true;
}

static bool ready(void)
{
	if (set_up())
		return true;
	say("error no disk");
	say_end();
	return false;
}

void disk_size(void)
{
	u32 generation;
	u64 sectors;

	if (!ready())
		return;
	do {
		generation = mmio_read(window + REG_GENERATION);
		sectors = mmio_read(window + REG_CAPACITY) |
			  (u64)mmio_read(window + REG_CAPACITY + 4) << 32;
	} while (mmio_read(window + REG_GENERATION) != generation);
	say_number("disk sectors=", sectors);
	say_end();
}

void disk_write(void)
{
	if (!ready())
		return;
	if (pending) {
		say("error a write is under way");
		say_end();
		return;
	}
	header.type = 1;
	header.sector = next_sector++;
	memset(data, (int)(0x40 + header.sector), sizeof(data));
	answer = 0xff;
	rings.desc[0].address = (u64)&header;
	rings.desc[0].length = sizeof(header);
	rings.desc[0].flags = DESC_NEXT;
	rings.desc[0].next = 1;
	rings.desc[1].address = (u64)data;
	rings.desc[1].length = sizeof(data);
	rings.desc[1].flags = DESC_NEXT;
	rings.desc[1].next = 2;
	rings.desc[2].address = (u64)&answer;
	rings.desc[2].length = 1;
	rings.desc[2].flags = DESC_WRITE;
	rings.avail[rings.avail_idx % QUEUE_SIZE] = 0;
	pending = true;
	__atomic_store_n(&rings.avail_idx, (u16)(rings.avail_idx + 1), __ATOMIC_RELEASE);
	mmio_write(window + REG_NOTIFY, 0);
}

void disk_look(void)
{
	if (!pending || rings.used_idx != rings.avail_idx)
		return;
	pending = false;
	say_number("written sector=", header.sector);
	say_number(" status=", answer);
	say_end();
}
