/* What a PVH loader hands over (the Xen project's published hvm_start_info, version 1) */
#ifndef PVH_H
#define PVH_H

#include "bare.h"

#define START_INFO_MAGIC 0x336ec578
#define MEMORY_RAM	 1

struct start_info {
	u32 magic;
	u32 version;
	u32 flags;
	u32 modules;
	u64 module_list;
	u64 cmdline;
	u64 rsdp;
	u64 memory_map; /* from here on: version 1 */
	u32 memory_entries;
	u32 reserved;
};

struct memory_entry {
	u64 address;
	u64 size;
	u32 type;
	u32 reserved;
};

#endif
