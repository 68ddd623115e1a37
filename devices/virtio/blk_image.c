/*
 * What the virtio block device has of its image: the node's configuration, which the driver reads,
 * and the image behind it; and the image's own lock (disk.h), and who has it. The I/O thread, or
 * before it runs.
 *
 * The invariant: what the driver is told of the disk comes from the node alone, and the image is
 * what the node says, or the device is not made.
 */
#include "devices/virtio/blk.h"

#include <endian.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/tree.h"

/* How often a half of the lock is asked for that another process has still. */
#define RETAKE_MS 100

/* As the driver sees it: up to the fields of the features above. */
#define CONFIG_BYTES (offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 4)

/* -- the lock -- */

void blk_stop_retaking(struct blk *b)
{
	if (b->retake.fd < 0)
		return;
	loop_remove(b->v.dev.env->io, &b->retake);
	close(b->retake.fd);
	b->retake.fd = -1;
}

/*
 * Whoever had the image reserved may need a moment to end. KEEP alone keeps all others out, so the
 * guest does not wait for that; where there is no timer, the next migration's end asks again.
 */
static void retake_later(struct blk *b)
{
	const struct itimerspec every = { { 0, RETAKE_MS * 1000000 }, { 0, RETAKE_MS * 1000000 } };

	if (b->retake.fd >= 0)
		return;
	b->retake.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (b->retake.fd < 0)
		return;
	timerfd_settime(b->retake.fd, 0, &every, NULL);
	if (loop_add(b->v.dev.env->io, &b->retake, EPOLLIN, NULL) < 0)
		blk_stop_retaking(b);
}

static int retake(struct blk *b, struct err *e)
{
	if (disk_retake(&b->disk, e) < 0)
		return -1;
	if (b->disk.held != DISK_ALL)
		retake_later(b);
	else
		blk_stop_retaking(b);
	return 0;
}

void blk_retake_again(void *arg, uint32_t events)
{
	struct blk *b = arg;
	uint64_t n;

	(void)events;
	if (read(b->retake.fd, &n, sizeof(n)) == sizeof(n))
		retake(b, NULL);
}

int blk_acquire(struct device *dev, struct err *e)
{
	struct blk *b = (struct blk *)dev;

	if (b->owner)
		return b->disk.held == DISK_NOTHING ? retake(b, e) : 0;
	if (disk_lock(&b->disk, e) < 0)
		return -1;
	b->owner = true;
	disk_forget(&b->disk);
	return 0;
}

void blk_share(struct device *dev, bool on)
{
	struct blk *b = (struct blk *)dev;

	if (on) {
		blk_stop_retaking(b);
		disk_share(&b->disk);
	} else if (b->owner && b->disk.held != DISK_NOTHING) {
		retake(b, NULL);
	}
}

void blk_release(struct device *dev)
{
	struct blk *b = (struct blk *)dev;

	blk_stop_retaking(b);
	disk_release(&b->disk);
}

/* -- the node and the image -- */

static bool is_readonly(const struct tree *t, const char *path)
{
	const void *value;
	uint32_t flag;
	size_t len;

	/* Either a number or a property that is there or not. */
	if (!tree_has(t, path, "readonly"))
		return false;
	if (tree_u32(t, path, "readonly", &flag, NULL) == 0)
		return flag != 0;
	return tree_bytes(t, path, "readonly", &value, &len, NULL) == 0;
}

static int open_disk(struct disk *d, const struct tree *t, const char *id, bool readonly,
		     struct err *e)
{
	char host[TREE_PATH_MAX];
	const char *image;

	snprintf(host, sizeof(host), "/host/%.63s", id);
	if (tree_str(t, host, "path", &image, e) < 0)
		return err_context(e, "%s: no image is given", id);
	return (tree_is_without_links(t, host, "path") ? disk_open_without_links
						       : disk_open)(d, id, image, readonly, e);
}

int blk_probe(struct tree *t, const char *path, struct err *e)
{
	bool readonly = is_readonly(t, path);
	struct disk d;
	const char *id;
	int rc;

	if (tree_str(t, path, "id", &id, e) < 0 || open_disk(&d, t, id, readonly, e) < 0)
		return -1;
	rc = tree_set_u64(t, path, "features",
			  BLK_COMMON | (readonly ? BLK_READONLY : BLK_WRITABLE), e);
	if (rc == 0)
		rc = tree_set_u64(t, path, "capacity", d.sectors, e);
	if (rc == 0)
		rc = tree_set_u32(t, path, "block-size", d.block_bytes, e);
	disk_close(&d);
	return rc;
}

/* What the driver reads, from the node alone: the same on every host. */
int blk_fill_config(struct blk *b, const struct tree *t, const char *path, struct err *e)
{
	struct virtio_blk_config *c = &b->config;
	const char *serial = "", *on_error;
	uint32_t block_bytes;
	uint64_t sectors;

	if (tree_u64(t, path, "capacity", &sectors, e) < 0 ||
	    tree_u32(t, path, "block-size", &block_bytes, e) < 0)
		return -1;
	if (block_bytes < DISK_SECTOR || block_bytes > 4096 || (block_bytes & (block_bytes - 1)))
		return err_set(e, "%s: blocks of %" PRIu32 " bytes (expected 512 to 4096)", path,
			       block_bytes);
	if (tree_has(t, path, "on-error") && (tree_str(t, path, "on-error", &on_error, e) < 0 ||
					      blk_on_error_parse(b, on_error, e) < 0))
		return err_context(e, "%s", path);
	if (tree_has(t, path, "serial") && tree_str(t, path, "serial", &serial, e) < 0)
		return -1;
	if (strlen(serial) > sizeof(b->id))
		return err_set(e, "%s: the serial number '%s' is longer than %zu characters",
			       b->v.dev.id, serial, sizeof(b->id));
	memcpy(b->id, serial, strlen(serial)); /* no zero at the end of a full one (5.2.6) */
	c->capacity = htole64(sectors);
	c->seg_max = htole32(QUEUE_BUFFERS_MAX - 2); /* the header and the status are buffers too */
	c->size_max = htole32(BLK_SEGMENT_BYTES);
	c->blk_size = htole32(block_bytes);
	c->max_discard_sectors = htole32(BLK_RANGE_SECTORS);
	c->max_discard_seg = htole32(1);
	c->discard_sector_alignment = htole32(block_bytes / DISK_SECTOR);
	c->max_write_zeroes_sectors = htole32(BLK_ZERO_SECTORS);
	c->max_write_zeroes_seg = htole32(1);
	c->write_zeroes_may_unmap = 1;
	b->v.config = c;
	b->v.config_size = CONFIG_BYTES;
	return 0;
}

/* A copy that nobody has asked for: what the guest has written since it was made would be lost. */
static int refuse_copy(const struct blk *b, const struct tree *t, struct err *e)
{
	const struct disk *d = &b->disk;
	char host[TREE_PATH_MAX];

	device_host_path(&b->v.dev, host);
	if (tree_has(t, host, "copy") || disk_may_be_shared(d))
		return 0;
	return err_set(e,
		       "%s: %s is not the image that the guest has open (nobody holds its lock), "
		       "but a copy: what the guest has written since is not in it. Give the image "
		       "itself; or, if the guest could not write since, --disk %s=PATH,copy",
		       d->name, d->path, d->name);
}

int blk_open_host(struct blk *b, const struct tree *t, struct err *e)
{
	bool readonly = b->v.features & BLK_READONLY;
	uint64_t sectors = le64toh(b->config.capacity);
	const struct disk *d = &b->disk;

	if (open_disk(&b->disk, t, b->v.dev.id, readonly, e) < 0)
		return -1;
	if (d->sectors != sectors)
		return err_set(e,
			       "%s: %s has %" PRIu64 " sectors, the machine has %" PRIu64
			       " (is it the right image? One that shall grow does so with godwit "
			       "resize, while its VM runs)",
			       d->name, d->path, d->sectors, sectors);
	b->owner = !b->v.dev.env->incoming;
	if ((b->owner ? disk_lock(&b->disk, e) : disk_reserve(&b->disk, e)) < 0)
		return -1;
	if (!b->owner && refuse_copy(b, t, e))
		return -1;
	/* Again at a hand-over; but more takes longer then, and less is permitted. */
	disk_forget(&b->disk);
	return 0;
}

/* -- its size while the machine lives -- */

int blk_check_host(struct device *dev, struct err *e)
{
	const struct disk *d = &((struct blk *)dev)->disk;
	uint64_t sectors;

	if (disk_size(d, &sectors, e) < 0)
		return -1;
	if (sectors == d->sectors)
		return 0;
	if (sectors > d->sectors)
		return err_set(
			e,
			"%s: %s has grown from %" PRIu64 " to %" PRIu64
			" bytes and the guest does not know: tell it first (godwit resize VM "
			"%s)",
			d->name, d->path, d->sectors * DISK_SECTOR, sectors * DISK_SECTOR, d->name);
	return err_set(e,
		       "%s: %s has shrunk from %" PRIu64 " to %" PRIu64
		       " bytes: make it as large again (truncate -s %" PRIu64 ")",
		       d->name, d->path, d->sectors * DISK_SECTOR, sectors * DISK_SECTOR,
		       d->sectors * DISK_SECTOR);
}

/* How many sectors the image shall have, which it then has; under the lock. */
static int new_size(struct blk *b, uint64_t bytes, uint64_t *sectors, struct err *e)
{
	const struct disk *d = &b->disk;
	uint64_t now, wanted = bytes / DISK_SECTOR;

	if (bytes % d->block_bytes || bytes > INT64_MAX)
		return err_set(
			e, "%s: a size of %" PRIu64 " bytes (expected a multiple of %u below 2^63)",
			d->name, bytes, d->block_bytes);
	if (disk_size(d, &now, e) < 0)
		return -1;
	*sectors = bytes ? wanted : now;
	if (*sectors < d->sectors)
		return err_set(e,
			       "%s: the guest knows of %" PRIu64
			       " bytes; a disk never shrinks, not to %" PRIu64,
			       d->name, d->sectors * DISK_SECTOR, *sectors * DISK_SECTOR);
	if (*sectors < now)
		return err_set(e,
			       "%s: %s has %" PRIu64
			       " bytes already, and an image is never cut: say that, or no size",
			       d->name, d->path, now * DISK_SECTOR);
	return *sectors > now ? disk_grow(d, *sectors, e) : 0;
}

int blk_resize(struct device *dev, struct tree *t, uint64_t bytes, struct err *e)
{
	struct blk *b = (struct blk *)dev;
	uint64_t sectors = 0;
	int rc;

	pthread_mutex_lock(&b->v.lock);
	rc = new_size(b, bytes, &sectors, e);
	if (rc == 0 && sectors != b->disk.sectors) {
		rc = tree_set_u64(t, dev->path, "capacity", sectors, e);
		if (rc == 0) {
			b->disk.sectors = sectors;
			b->config.capacity = htole64(sectors);
			virtio_config_changed(&b->v);
		}
	}
	pthread_mutex_unlock(&b->v.lock);
	return rc;
}
