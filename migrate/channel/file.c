/*
 * A stream in a file: see channel.h. While it is written the file has no name (O_TMPFILE), or,
 * where the file system cannot do that, a temporary one beside the final one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/log.h"

struct file_channel {
	struct channel ch;	      /* first */
	int fd, dir_fd;		      /* dir_fd: writing only */
	uint64_t position;	      /* reading: for messages */
	char name[NAME_MAX + 1];      /* in dir_fd */
	char temporary[NAME_MAX + 1]; /* in dir_fd; "" while it has no name */
};

static int file_write(struct channel *ch, struct iovec *iov, int n, struct err *e)
{
	struct file_channel *f = (struct file_channel *)ch;

	while (n > 0) {
		ssize_t done = writev(f->fd, iov, n < IOV_MAX ? n : IOV_MAX);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return err_errno(e, errno, "cannot write");
		ch->bytes += (uint64_t)done;
		while (n > 0 && (size_t)done >= iov->iov_len) {
			done -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n > 0) {
			iov->iov_base = (char *)iov->iov_base + done;
			iov->iov_len -= (size_t)done;
		}
	}
	return 0;
}

static int file_read(struct channel *ch, void *buf, size_t len, struct err *e)
{
	struct file_channel *f = (struct file_channel *)ch;
	ssize_t n = io_read_full(f->fd, buf, len);

	if (n < 0)
		return err_errno(e, errno, "cannot read");
	if ((size_t)n < len)
		return err_set(e, "the file ends early, at byte %" PRIu64 ": it is truncated",
			       f->position + (uint64_t)n);
	f->position += len;
	return 0;
}

static int file_at_end(struct channel *ch, struct err *e)
{
	struct file_channel *f = (struct file_channel *)ch;
	uint8_t byte;
	ssize_t n = io_read_full(f->fd, &byte, 1);

	return n < 0 ? err_errno(e, errno, "cannot read") : n == 0;
}

static int file_finish(struct channel *ch, struct err *e)
{
	struct file_channel *f = (struct file_channel *)ch;
	char proc[64];

	if (fsync(f->fd))
		return err_errno(e, errno, "cannot sync");
	if (!f->temporary[0]) {
		/* Names of unnamed files are given with linkat, which never replaces a file. */
		snprintf(f->temporary, sizeof(f->temporary), ".godwit-%d-%d", (int)getpid(), f->fd);
		snprintf(proc, sizeof(proc), "/proc/self/fd/%d", f->fd);
		if (linkat(AT_FDCWD, proc, f->dir_fd, f->temporary, AT_SYMLINK_FOLLOW)) {
			f->temporary[0] = 0;
			return err_errno(e, errno, "cannot name the file");
		}
	}
	if (renameat(f->dir_fd, f->temporary, f->dir_fd, f->name))
		return err_errno(e, errno, "cannot rename to '%s'", f->name);
	f->temporary[0] = 0;
	/* It has its name now: a failure from here on would say that the old file is still there.
	 */
	if (fsync(f->dir_fd))
		log_warn("%s: its directory cannot be synced: %s", ch->name, strerror(errno));
	return 0;
}

static void file_close(struct channel *ch)
{
	struct file_channel *f = (struct file_channel *)ch;

	if (f->temporary[0])
		unlinkat(f->dir_fd, f->temporary, 0);
	if (f->fd >= 0)
		close(f->fd);
	if (f->dir_fd >= 0)
		close(f->dir_fd);
	free(f);
}

static const struct channel_ops file_ops = {
	.write = file_write,
	.read = file_read,
	.at_end = file_at_end,
	.finish = file_finish,
	.close = file_close,
};

static struct file_channel *new_file(const char *path)
{
	struct file_channel *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->ch.ops = &file_ops;
	f->ch.page_aligned = true;
	f->fd = f->dir_fd = -1;
	snprintf(f->ch.name, sizeof(f->ch.name), "%s", path);
	return f;
}

/* Opens the directory of `path` and keeps the last part as the name. */
static int open_directory(struct file_channel *f, const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	char directory[PATH_MAX];
	struct stat st;

	if (!*name || strlen(name) > NAME_MAX || strlen(path) >= PATH_MAX)
		return err_set(e, "%s: not a name for a file", path);
	snprintf(f->name, sizeof(f->name), "%s", name);
	snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - path) + 1 : 1,
		 slash ? path : ".");
	f->dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->dir_fd < 0)
		return err_errno(e, errno, "%s: cannot open its directory", path);
	if (fstatat(f->dir_fd, name, &st, 0) == 0 && !S_ISREG(st.st_mode))
		return err_set(e, "%s: exists and is not a regular file", path);
	return 0;
}

int file_channel_create(struct channel **out, const char *path, struct err *e)
{
	struct file_channel *f = new_file(path);

	if (!f)
		return err_set(e, "out of memory");
	if (open_directory(f, path, e))
		goto fail;
	/* An unnamed file gets its name through /proc, which a process that has changed its user
	 * may not use. */
	if (access("/proc/self/fd", X_OK) == 0)
		f->fd = openat(f->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	else
		errno = EOPNOTSUPP;
	if (f->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
		snprintf(f->temporary, sizeof(f->temporary), ".godwit-%d-save", (int)getpid());
		f->fd = openat(f->dir_fd, f->temporary, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC,
			       0600);
		if (f->fd < 0)
			f->temporary[0] = 0;
	}
	if (f->fd < 0) {
		err_errno(e, errno, "%s: cannot create the file", path);
		goto fail;
	}
	*out = &f->ch;
	return 0;
fail:
	file_close(&f->ch);
	return -1;
}

int file_channel_open(struct channel **out, const char *path, struct err *e)
{
	struct file_channel *f = new_file(path);
	struct stat st;

	if (!f)
		return err_set(e, "out of memory");
	f->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a FIFO must not hold us */
	if (f->fd < 0) {
		err_errno(e, errno, "%s: cannot open the file", path);
		goto fail;
	}
	if (fstat(f->fd, &st) || !S_ISREG(st.st_mode)) {
		err_set(e, S_ISDIR(st.st_mode) ? "%s: is a directory" : "%s: is not a regular file",
			path);
		goto fail;
	}
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	*out = &f->ch;
	return 0;
fail:
	file_close(&f->ch);
	return -1;
}

bool file_channel_is_own(const struct channel *ch, struct err *why)
{
	const struct file_channel *f = (const struct file_channel *)ch;
	struct stat st;

	/* Of the open file: a name may lead elsewhere by now. */
	if (fstat(f->fd, &st)) {
		err_errno(why, errno, "%s: cannot look at it", ch->name);
		return false;
	}
	if (st.st_uid != 0 && st.st_uid != geteuid()) {
		err_set(why, "%s belongs to another user (id %u)", ch->name,
			(unsigned int)st.st_uid);
		return false;
	}
	if (st.st_mode & 022) {
		err_set(why, "%s can be written by other users (mode %04o)", ch->name,
			(unsigned int)(st.st_mode & 07777));
		return false;
	}
	return true;
}
