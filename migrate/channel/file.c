/*
 * A stream in a file: see channel.h. While it is written the file has no name (O_TMPFILE), or,
 * where the file system cannot do that, a temporary one beside the final one. It is locked until it
 * is closed: a temporary file that is not is a leftover of a process that was killed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "migrate/channel/target.h"
#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/log.h"

/* Of temporary files; 16 hexadecimal digits follow. */
#define TEMPORARY ".godwit-save-"
#define TRIES	  8 /* each with another random name */

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

/* -- temporary names -- */

static int new_name(struct file_channel *f)
{
	uint64_t n;

	if (getrandom(&n, sizeof(n), 0) != (ssize_t)sizeof(n))
		return -1;
	snprintf(f->temporary, sizeof(f->temporary), TEMPORARY "%016" PRIx64, n);
	return 0;
}

/* Whether it was granted; nobody waits. */
static bool lock(int fd)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return fcntl(fd, F_OFD_SETLK, &all) == 0;
}

/* Whether the name is still that of the open file. */
static bool is_named(int dir_fd, const char *name, int fd)
{
	struct stat st, named;

	return fstat(fd, &st) == 0 && fstatat(dir_fd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISREG(st.st_mode) && st.st_dev == named.st_dev && st.st_ino == named.st_ino;
}

/* A new file with a temporary name: its descriptor, or -1 with errno. */
static int create_named(struct file_channel *f)
{
	for (int i = 0; i < TRIES; i++) {
		int fd = new_name(f) ? -1
				     : openat(f->dir_fd, f->temporary,
					      O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

		if (fd < 0 && errno == EEXIST)
			continue;
		if (fd < 0)
			break;
		/* Whoever cleans up may have come before the lock, or hold it just now; if there
		 * are no locks here, nobody cleans up. */
		if (lock(fd) ? is_named(f->dir_fd, f->temporary, fd)
			     : errno != EAGAIN && errno != EACCES)
			return fd;
		close(fd);
		errno = EEXIST;
	}
	f->temporary[0] = 0;
	return -1;
}

/* Names of unnamed files are given with linkat, which never replaces a file. */
static int name_unnamed(struct file_channel *f)
{
	char proc[64];

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", f->fd);
	lock(f->fd);
	for (int i = 0; i < TRIES && new_name(f) == 0; i++)
		if (linkat(AT_FDCWD, proc, f->dir_fd, f->temporary, AT_SYMLINK_FOLLOW) == 0)
			return 0;
		else if (errno != EEXIST)
			break;
	f->temporary[0] = 0;
	return -1;
}

static bool is_temporary(const char *name)
{
	size_t n = strlen(TEMPORARY);

	return !strncmp(name, TEMPORARY, n) && strlen(name) == n + 16 &&
	       strspn(name + n, "0123456789abcdef") == 16;
}

/* Takes away what processes of this user that were killed have left in the directory. */
static void remove_leftovers(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat st;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(dir))) {
		if (!is_temporary(entry->d_name))
			continue;
		fd = openat(dir_fd, entry->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd < 0)
			continue;
		if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && lock(fd) &&
		    is_named(dir_fd, entry->d_name, fd))
			unlinkat(dir_fd, entry->d_name, 0);
		close(fd);
	}
	closedir(dir);
}

static int file_finish(struct channel *ch, struct err *e)
{
	struct file_channel *f = (struct file_channel *)ch;

	if (fsync(f->fd))
		return err_errno(e, errno, "cannot sync");
	/* Again: writing may have taken long. */
	if (target_check(f->dir_fd, f->name, f->name, e))
		return -1;
	if (!f->temporary[0] && name_unnamed(f))
		return err_errno(e, errno, "cannot name the file");
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

	if (!*name || strlen(name) > NAME_MAX || strlen(path) >= PATH_MAX)
		return err_set(e, "%s: not a name for a file", path);
	snprintf(f->name, sizeof(f->name), "%s", name);
	snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - path) + 1 : 1,
		 slash ? path : ".");
	f->dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->dir_fd < 0)
		return err_errno(e, errno, "%s: cannot open its directory", path);
	return target_check(f->dir_fd, name, path, e);
}

int file_channel_create(struct channel **out, const char *path, struct err *e)
{
	struct file_channel *f = new_file(path);

	if (!f)
		return err_set(e, "out of memory");
	if (open_directory(f, path, e))
		goto fail;
	remove_leftovers(f->dir_fd);
	/* An unnamed file gets its name through /proc, which a process that has changed its user
	 * may not use. */
	if (access("/proc/self/fd", X_OK) == 0)
		f->fd = openat(f->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	else
		errno = EOPNOTSUPP;
	if (f->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT))
		f->fd = create_named(f);
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
