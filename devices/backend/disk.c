/*
 * Raw images and block devices: see disk.h. The invariant: locks are "open file description" locks,
 * so they belong to this one open() and not to the process: two disks of one VM on one image
 * collide as well, and closing another fd of the file does not drop one. `held` is what the kernel
 * has granted; a half is taken and given up by one call for its whole range, never in pieces.
 */
#include "devices/backend/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/log.h"

#define BLOCK_BYTES_MAX 4096u

static int block_device_size(const struct disk *d, uint64_t *bytes, uint32_t *block_bytes,
			     struct err *e)
{
	int block = 0;

	if (ioctl(d->fd, BLKGETSIZE64, bytes) < 0 || ioctl(d->fd, BLKSSZGET, &block) < 0)
		return err_errno(e, errno, "%s: cannot ask the size of %s", d->name, d->path);
	if (block < (int)DISK_SECTOR || block > (int)BLOCK_BYTES_MAX || (block & (block - 1)))
		return err_set(e, "%s: %s has blocks of %d bytes (expected 512 to %u)", d->name,
			       d->path, block, BLOCK_BYTES_MAX);
	*block_bytes = (uint32_t)block;
	return 0;
}

/* What was opened, and how large it is now. */
static int inspect(const struct disk *d, uint64_t *sectors, uint32_t *block_bytes, struct err *e)
{
	struct stat st;
	uint64_t bytes;

	if (fstat(d->fd, &st) < 0)
		return err_errno(e, errno, "%s: cannot look at %s", d->name, d->path);
	if (S_ISDIR(st.st_mode))
		return err_set(e, "%s: %s is a directory (expected a raw image or a block device)",
			       d->name, d->path);
	if (S_ISREG(st.st_mode)) {
		bytes = (uint64_t)st.st_size;
		*block_bytes = DISK_SECTOR;
	} else if (!S_ISBLK(st.st_mode)) {
		return err_set(e,
			       "%s: %s is neither a file nor a block device (expected a raw image "
			       "or a block device)",
			       d->name, d->path);
	} else if (block_device_size(d, &bytes, block_bytes, e) < 0) {
		return -1;
	}
	if (!bytes)
		return err_set(e, "%s: %s is empty (a disk needs at least 512 bytes)", d->name,
			       d->path);
	if (bytes % DISK_SECTOR)
		return err_set(e,
			       "%s: %s has %" PRIu64 " bytes, which is no multiple of 512 "
			       "(is it a raw image?)",
			       d->name, d->path, bytes);
	*sectors = bytes / DISK_SECTOR;
	return 0;
}

static int open_image(struct disk *d, const char *name, const char *path, bool readonly,
		      bool without_links, struct err *e)
{
	/* NONBLOCK so that a FIFO without a writer does not hold us here; taken off again. */
	int flags = (readonly ? O_RDONLY : O_RDWR) | O_NOCTTY | O_NONBLOCK;

	*d = (struct disk){ .fd = -1, .readonly = readonly, .ops = &disk_file_ops };
	if ((size_t)snprintf(d->name, sizeof(d->name), "%s", name) >= sizeof(d->name))
		return err_set(e, "%s: the id is longer than %zu characters", name,
			       sizeof(d->name) - 1);
	if ((size_t)snprintf(d->path, sizeof(d->path), "%s", path) >= sizeof(d->path))
		return err_set(e, "%s: the path is longer than %zu bytes", name,
			       sizeof(d->path) - 1);
	if (path[0] != '/')
		return err_set(e, "%s: '%s' is not an absolute path", name, path);
	d->fd = io_open(path, flags, 0, without_links);
	if (d->fd < 0 && errno == EISDIR)
		return err_set(e, "%s: %s is a directory (expected a raw image or a block device)",
			       name, path);
	if (d->fd < 0)
		return err_errno(e, errno, "%s: cannot open %s for %s", name, path,
				 readonly ? "reading" : "reading and writing");
	if (inspect(d, &d->sectors, &d->block_bytes, e) < 0) {
		disk_close(d);
		return -1;
	}
	/* io_uring would give EAGAIN where it should wait. */
	if (fcntl(d->fd, F_SETFL, 0) < 0) {
		err_errno(e, errno, "%s: cannot set up %s", name, path);
		disk_close(d);
		return -1;
	}
	return 0;
}

int disk_open(struct disk *d, const char *name, const char *path, bool readonly, struct err *e)
{
	return open_image(d, name, path, readonly, false, e);
}

int disk_open_without_links(struct disk *d, const char *name, const char *path, bool readonly,
			    struct err *e)
{
	return open_image(d, name, path, readonly, true, e);
}

int disk_size(const struct disk *d, uint64_t *sectors, struct err *e)
{
	uint32_t block_bytes;

	return inspect(d, sectors, &block_bytes, e);
}

int disk_grow(const struct disk *d, uint64_t sectors, struct err *e)
{
	struct stat st;

	if (fstat(d->fd, &st) < 0)
		return err_errno(e, errno, "%s: cannot look at %s", d->name, d->path);
	if (!S_ISREG(st.st_mode))
		return err_set(
			e,
			"%s: %s is a block device: grow it with its own tools (lvextend, for "
			"one), then say resize without a size",
			d->name, d->path);
	if (d->readonly)
		return err_set(e,
			       "%s: %s is open for reading only: grow it yourself (truncate), then "
			       "say resize without a size",
			       d->name, d->path);
	if (ftruncate(d->fd, (off_t)(sectors * DISK_SECTOR)) < 0)
		return err_errno(e, errno, "%s: cannot grow %s to %" PRIu64 " bytes", d->name,
				 d->path, sectors * DISK_SECTOR);
	return 0;
}

void disk_close(struct disk *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

/* Whether this process has the file open a second time: then it is another disk of this VM. */
static bool is_open_twice(const struct disk *d)
{
	DIR *dir = opendir("/proc/self/fd");
	struct stat mine, other;
	struct dirent *entry;
	bool twice = false;

	if (!dir)
		return false;
	if (fstat(d->fd, &mine) == 0) {
		while (!twice && (entry = readdir(dir))) {
			int fd = atoi(entry->d_name);

			twice = entry->d_name[0] != '.' && fd != d->fd && fstat(fd, &other) == 0 &&
				other.st_dev == mine.st_dev && other.st_ino == mine.st_ino;
		}
	}
	closedir(dir);
	return twice;
}

/* The two halves; the second one has no end. */
#define RESERVE_FROM 200

static int set_lock(struct disk *d, short type, enum disk_held what)
{
	struct flock lock = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = what == DISK_RESERVE ? RESERVE_FROM : 0,
		.l_len = what == DISK_KEEP ? RESERVE_FROM : 0,
	};

	return fcntl(d->fd, F_OFD_SETLK, &lock);
}

/* Whether it was granted; true as well where there are no locks. */
static bool take(struct disk *d, enum disk_held what)
{
	if (!d->lockless && set_lock(d, d->readonly ? F_RDLCK : F_WRLCK, what) < 0) {
		if (errno == EAGAIN || errno == EACCES)
			return false;
		d->lockless = errno;
	}
	d->held = what;
	return true;
}

static void warn_if_lockless(struct disk *d)
{
	if (!d->lockless || d->lockless_told)
		return;
	log_warn("%s: %s cannot be locked (%s): take care that nobody else writes it", d->name,
		 d->path, strerror(d->lockless));
	d->lockless_told = true;
}

/* Whether those who hold locks only read: then one more reader may come. */
static bool others_only_read(const struct disk *d)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };

	return fcntl(d->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

static int refuse(const struct disk *d, struct err *e)
{
	if (is_open_twice(d))
		return err_set(e,
			       "%s: %s is already another disk of this VM (locked); give each disk "
			       "an image of its own, or open all with readonly",
			       d->name, d->path);
	if (d->readonly)
		return err_set(e,
			       "%s: %s is being written by another process (locked); stop that VM",
			       d->name, d->path);
	return err_set(e, "%s: %s is in use by another process (locked); stop that VM%s", d->name,
		       d->path, others_only_read(d) ? ", or open it with readonly" : "");
}

int disk_lock(struct disk *d, struct err *e)
{
	if (d->held != DISK_ALL && !take(d, DISK_ALL))
		return refuse(d, e);
	warn_if_lockless(d);
	return 0;
}

int disk_reserve(struct disk *d, struct err *e)
{
	return take(d, d->readonly ? DISK_ALL : DISK_RESERVE) ? 0 : refuse(d, e);
}

/*
 * Whether all who write it go through this host's cache, so that it is never stale; and dropping it
 * would cost a pause of 60 ms a GiB. True of files where no other host can mount the file system.
 */
static bool is_local(const struct disk *d)
{
	struct statfs fs;
	struct stat st;

	if (fstat(d->fd, &st) < 0 || !S_ISREG(st.st_mode) || fstatfs(d->fd, &fs) < 0)
		return false;
	return fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC ||
	       fs.f_type == BTRFS_SUPER_MAGIC || fs.f_type == TMPFS_MAGIC;
}

bool disk_may_be_shared(const struct disk *d)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = RESERVE_FROM };

	if (d->lockless || d->readonly || !is_local(d))
		return true;
	return fcntl(d->fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

void disk_share(struct disk *d)
{
	if (d->held != DISK_ALL || d->readonly)
		return;
	if (!d->lockless)
		set_lock(d, F_UNLCK, DISK_RESERVE);
	d->held = DISK_KEEP;
}

void disk_release(struct disk *d)
{
	if (d->held != DISK_KEEP || !take(d, DISK_ALL))
		disk_unlock(d);
}

int disk_retake(struct disk *d, struct err *e)
{
	if (d->held != DISK_ALL && !take(d, DISK_ALL) && d->held != DISK_KEEP &&
	    !take(d, DISK_KEEP))
		return refuse(d, e);
	warn_if_lockless(d);
	return 0;
}

void disk_unlock(struct disk *d)
{
	if (!d->lockless)
		set_lock(d, F_UNLCK, DISK_ALL);
	d->held = DISK_NOTHING;
}

void disk_forget(struct disk *d)
{
	if (is_local(d))
		return;
	/* Only clean pages go: a VM that leaves its host syncs first. */
	posix_fadvise(d->fd, 0, 0, POSIX_FADV_DONTNEED);
	/* Only root may, and only a block device has more: its buffers. Files say ENOTTY. */
	(void)!ioctl(d->fd, BLKFLSBUF, 0);
}
