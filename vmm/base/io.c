/*
 * Whole reads and writes, numbers from text: see io.h.
 */
#include "vmm/base/io.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/base/err.h"

int io_open(const char *path, int flags, mode_t mode, bool follow_no_link)
{
	struct open_how how = { .flags = (uint64_t)(unsigned int)(flags | O_CLOEXEC),
				.mode = flags & O_CREAT ? mode : 0,
				.resolve = RESOLVE_NO_SYMLINKS };

	if (!follow_no_link)
		return open(path, flags | O_CLOEXEC, mode);
	return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

ssize_t io_read_full(int fd, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t io_pread_full(int fd, void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int io_write_full(int fd, const void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, (const char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

/* The power of two that a unit stands for: "", "B", "m", "Mi", "MB", "MiB"...; -1: it is none. */
static int unit_shift(const char *unit)
{
	static const char units[] = "kmgt";
	bool small = islower((unsigned char)unit[0]);
	const char *known = unit[0] ? strchr(units, tolower((unsigned char)unit[0])) : NULL;
	int shift = 0;

	if (known) {
		shift = 10 * (int)(known - units + 1);
		unit++;
		if (*unit == 'i')
			unit++;
	}
	/* "100Mb" means bits to many: with a large letter it is refused. */
	if (*unit == 'B' || (*unit == 'b' && known && small))
		unit++;
	return *unit ? -1 : shift;
}

int parse_size(const char *text, uint64_t *out, struct err *e)
{
	unsigned long long n;
	char *end;
	int shift;

	errno = 0;
	n = strtoull(text, &end, 10);
	shift = unit_shift(end);
	if (!isdigit((unsigned char)text[0]) || shift < 0)
		return err_set(e,
			       "'%.64s' is not a size in bytes (expected a number, then K, M, G or "
			       "T: 512M, also written 512m, 512MB or 512MiB, is 512 * 1024 * 1024)",
			       text);
	if (errno == ERANGE || (shift && n >> (64 - shift)))
		return err_set(e, "'%.64s' is too large for a size", text);
	*out = (uint64_t)n << shift;
	return 0;
}

int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct err *e)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end || errno == ERANGE || n < min || n > max)
		return err_set(e, "'%s' is not a number from %" PRIu64 " to %" PRIu64, text, min,
			       max);
	*out = n;
	return 0;
}
