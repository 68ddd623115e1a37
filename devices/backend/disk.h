/*
 * The host's side of a disk: a raw image file or a block device, opened by its absolute path.
 * Any thread, one at a time; the fd stays the same from disk_open to disk_close.
 *
 * Opening and locking are apart, because a migration opens at the destination while the source
 * still holds the lock.
 */
#ifndef GODWIT_DEVICES_BACKEND_DISK_H
#define GODWIT_DEVICES_BACKEND_DISK_H

#include <stdbool.h>
#include <stdint.h>

struct err;

#define DISK_SECTOR 512u

struct disk {
	int fd;
	char name[64];	/* what messages call it: "disk0" */
	char path[512]; /* absolute */
	bool readonly;
	uint64_t sectors;     /* of DISK_SECTOR bytes */
	uint32_t block_bytes; /* the smallest write that does not read first: 512 or 4096 */
};

/*
 * Opens it; refuses what is no disk (a directory, an empty file, a size that is no multiple of
 * 512). On -1 there is nothing to close.
 */
int disk_open(struct disk *d, const char *name, const char *path, bool readonly, struct err *e);
void disk_close(struct disk *d);

/*
 * One writer or many readers, among all programs that take locks on the file (QEMU does). A file
 * system without locks is warned of and used. disk_close gives the lock up as well.
 */
int disk_lock(struct disk *d, struct err *e);
void disk_unlock(struct disk *d);

#endif
