/*
 * Before a file is replaced: see target.h. The migration's thread. A rename asks nobody: a lock on
 * an image does not keep its name, and a VM goes on in the old file, which goes with it. So all
 * that could be of worth to somebody is refused here.
 */
#include "migrate/channel/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migrate/stream/hello.h"
#include "vmm/base/err.h"
#include "vmm/base/io.h"

/* Descriptors are given lowest first, so all of this process's are far below. */
#define FDS_MAX 65536

/* Not by /proc/self/fd, which a process that has changed its user may not list. */
static bool is_open_here(const struct stat *target)
{
	long n = sysconf(_SC_OPEN_MAX), fd;
	struct stat st;

	if (n < 0 || n > FDS_MAX)
		n = FDS_MAX;
	for (fd = 0; fd < n; fd++)
		if (fstat((int)fd, &st) == 0 && st.st_dev == target->st_dev &&
		    st.st_ino == target->st_ino)
			return true;
	return false;
}

static bool is_locked(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static bool is_saved_machine(int fd)
{
	uint8_t first[RECORD_HEAD_BYTES + HELLO_V1_BYTES];

	return io_read_full(fd, first, sizeof(first)) == (ssize_t)sizeof(first) &&
	       hello_begins_stream(first);
}

static const char *kind_of(mode_t mode)
{
	return S_ISDIR(mode)	? "a directory"
	       : S_ISBLK(mode)	? "a block device"
	       : S_ISCHR(mode)	? "a character device"
	       : S_ISFIFO(mode) ? "a FIFO"
				: "a socket";
}

int target_check(int dir_fd, const char *name, const char *path, struct err *e)
{
	struct stat st;
	int fd, rc = 0;

	if (fstatat(dir_fd, name, &st, 0))
		return errno == ENOENT ? 0 : err_errno(e, errno, "%s: cannot look at it", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, "%s: is %s, not a regular file; give the name of a file", path,
			       kind_of(st.st_mode));
	if (is_open_here(&st))
		return err_set(e,
			       "%s: this VM uses this file itself (as a disk, its kernel or its "
			       "console); give another name",
			       path);
	if (st.st_size == 0)
		return 0;
	fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return err_errno(e, errno,
				 "%s: exists and cannot be read, so it may be no saved machine; "
				 "remove it, or give another name",
				 path);
	if (is_locked(fd))
		rc = err_set(e, "%s: is in use by another process (locked); give another name",
			     path);
	else if (!is_saved_machine(fd))
		rc = err_set(e,
			     "%s: exists and is no saved machine, so it is not replaced; remove "
			     "it, or give another name",
			     path);
	close(fd);
	return rc;
}
